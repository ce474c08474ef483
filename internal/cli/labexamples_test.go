package cli

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/policies"
)

func block(name string, groups ...string) *policies.Interface {
	return &policies.Interface{Name: name, Groups: groups}
}

func TestExampleNamesOfWildcards(t *testing.T) {
	for _, tt := range []struct {
		about  string
		blocks []string
		want   []string
	}{
		{"exact names are their own", []string{"eth0", "wg-0.1"}, []string{"eth0", "wg-0.1"}},
		{"a wildcard has a number", []string{"eth*", "wg*"}, []string{"eth0", "wg0"}},
		{"a name of a block of its own is left to that", []string{"eth*", "eth0", "eth1"}, []string{"eth2", "eth0", "eth1"}},
		{"a longer wildcard takes its names", []string{"*", "eth*", "eth1*"}, []string{"ens5", "eth0", "eth10"}},
		{"all names", []string{"*"}, []string{"eth0"}},
		{"the longest stem", []string{"abcdefghijklmn*"}, []string{"abcdefghijklmn0"}},
		{"no room for a number", []string{"abcdefghijklmno*"}, []string{"abcdefghijklmno"}},
	} {
		p := &policies.Policy{}
		for _, name := range tt.blocks {
			p.Interfaces = append(p.Interfaces, block(name))
		}
		for i, b := range p.Interfaces {
			if got := exampleName(p, b); got != tt.want[i] {
				t.Errorf("%s: %s has the example %q, want %q", tt.about, b.Name, got, tt.want[i])
			}
		}
	}
}

func TestHostsTakeAddressesOfTheirGroups(t *testing.T) {
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	for _, tt := range []struct {
		about        string
		members      []netip.Prefix
		self         bool
		inline       []netip.Prefix
		want4, want6 string
	}{
		{"no members", nil, false, nil, "192.0.2.10", "2001:db8::10"},
		{"one of each family", prefixes("10.0.0.5/32", "2001:db8:9::1/128"), false, nil, "10.0.0.5", "2001:db8:9::1"},
		{"networks are nobody's address", prefixes("10.0.0.0/24", "2001:db8:9::/64"), false, nil, "192.0.2.10", "2001:db8::10"},
		{"the only peer is not the host", prefixes("10.0.0.5/32"), true, nil, "192.0.2.10", "2001:db8::10"},
		{"of two peers one is", prefixes("10.0.0.5/32", "10.0.0.6/32"), true, nil, "10.0.0.5", "2001:db8::10"},
		{"the default may be a peer", nil, false, prefixes("192.0.2.10/32", "192.0.2.11/32"), "192.0.2.12", "2001:db8::10"},
		{"multicast and loopback are no host's", prefixes("127.0.0.1/32", "224.0.0.5/32", "ff02::1/128"), false, nil, "192.0.2.10", "2001:db8::10"},
	} {
		r := &policies.Rule{Group: "g", ID: "r", Protocol: flow.TCP, Ports: []flow.PortRange{{First: 22, Last: 22}}, Prefixes: tt.inline}
		if tt.self {
			r.Groups = []string{"g"}
		}
		p := &policies.Policy{
			Groups:     []*policies.Group{{Name: "g", Members: tt.members, Rules: []*policies.Rule{r}}},
			Interfaces: []*policies.Interface{block("eth0", "g")},
		}
		got, err := labInterfaces(p)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := got[0].host[flow.IPv4].String(), got[0].host[flow.IPv6].String(); a != tt.want4 || b != tt.want6 {
			t.Errorf("%s: got %s and %s, want %s and %s", tt.about, a, b, tt.want4, tt.want6)
		}
	}
}

// The laws of the examples hold for every policy: their packets are different
// flows between the host and others, answers follow what they answer, and
// every rule that can let a packet through is shown doing so.
func TestExamplesOfRandomPolicies(t *testing.T) {
	first := rand.Uint64N(1 << 32)
	t.Logf("seed %d", first)
	rulesSeen := 0
	for seed := first; seed < first+120; seed++ {
		p := corpus.Policy(corpus.Seeded(seed), corpus.Options{ACLs: seed%2 == 0, AlwaysTrack: true})
		interfaces, err := labInterfaces(p)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		g := newGallery(p, interfaces, func(*flow.Packet) error { return nil })
		judge := policies.NewJudge(p)
		flows, place := map[flow.Packet]bool{}, map[*example]int{}
		for i, e := range g.examples {
			place[e] = i
			packet := e.packet
			packet.State = 0
			if flows[packet] {
				t.Fatalf("seed %d: %s stands there twice", seed, &e.packet)
			}
			flows[packet] = true
			if g.own[e.packet.Peer()] || !g.own[e.packet.Local()] {
				t.Fatalf("seed %d: %s is not between the host and another", seed, &e.packet)
			}
			if d := judge.Decide(&e.packet); d.Allow != e.meaning.Allow || d.Class != e.meaning.Class {
				t.Fatalf("seed %d: %s: got %v, want %v", seed, &e.packet, e.meaning, d)
			}
		}
		for _, e := range g.examples {
			if e.answers != nil {
				if _, ok := place[e.answers]; !ok || !e.answers.meaning.Allow || e.answers.packet.Interface != e.packet.Interface || e.answers.packet.Direction == e.packet.Direction {
					t.Fatalf("seed %d: %s does not answer %s", seed, &e.packet, &e.answers.packet)
				}
			}
		}
		for _, i := range interfaces {
			if i.block.ACL != "" {
				continue
			}
			for _, d := range flow.Directions {
				for _, r := range rulesOf(p, i.block, d) {
					if len(g.peerExamples(i, r)) == 0 {
						continue
					}
					rulesSeen++
					if !slices.ContainsFunc(g.examples, func(e *example) bool { return e.packet.Interface == i.name && allows(p, r, &e.packet) }) {
						t.Fatalf("seed %d: nothing on %s shows %s", seed, i.name, r.Address())
					}
				}
			}
		}
		few := choose(g.examples)
		if len(few) > maxLabLines+1 || len(few) < min(maxLabLines, len(g.examples))/8 {
			t.Fatalf("seed %d: %d of %d examples are chosen", seed, len(few), len(g.examples))
		}
		for n, e := range few {
			if e.answers != nil && !slices.Contains(few, e.answers) {
				t.Fatalf("seed %d: %s answers what is not there", seed, &e.packet)
			}
			if n > 0 && place[few[n-1]] > place[e] {
				t.Fatalf("seed %d: the order is lost", seed)
			}
		}
	}
	if rulesSeen < 500 {
		t.Errorf("only %d rules were looked for", rulesSeen)
	}
}

// allows reports whether a policy of this rule alone lets the packet through.
func allows(p *policies.Policy, r *policies.Rule, packet *flow.Packet) bool {
	groups := slices.Clone(p.Groups)
	for i, g := range groups {
		c := &policies.Group{Name: g.Name, Members: g.Members}
		if g.Name == r.Group {
			c.Rules = []*policies.Rule{r}
		}
		groups[i] = c
	}
	alone := &policies.Policy{Groups: groups, Lists: p.Lists, Interfaces: []*policies.Interface{block(packet.Interface, r.Group)}}
	q := *packet
	q.State = flow.New
	d := policies.NewJudge(alone).Decide(&q)
	return d.Allow && d.Rule != nil && d.Rule.Address() == r.Address()
}
