package policies_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/policies"
)

// policyOn makes a policy of groups and the interfaces that they are attached to.
func policyOn(interfaces []*policies.Interface, groups ...*policies.Group) *policies.Policy {
	return &policies.Policy{Groups: groups, Interfaces: interfaces}
}

func block(name string, groups ...string) *policies.Interface {
	return &policies.Interface{Name: name, Groups: groups}
}

func blocks(list ...*policies.Interface) []*policies.Interface { return list }

func ssh(peers ...string) *policies.Rule {
	return rule(flow.Ingress, "ssh", flow.TCP, ports(port(22)), peers...)
}

// session is the packet that opened a session with port 22 on an interface.
func session(name, peer string) flow.Packet {
	p := in(flow.TCP, peer, 40000, 22)
	p.Interface = name
	return p
}

// TestOnlyDeletedGroups goes through a history of policies, the last change of
// which is asked about. Every policy but the first is written as it was before.
func TestOnlyDeletedGroups(t *testing.T) {
	const peer = "203.0.113.1"
	all := "203.0.113.0/24"
	for _, tc := range []struct {
		name string
		on   string
		past []*policies.Policy // applied one after the other, the last one new
		want bool
	}{
		{"the only group that allowed it is deleted", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "a")), group("a", ssh(all))),
			policyOn(blocks(block("eth0"))),
		}, true},
		{"the group is only detached", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "a")), group("a", ssh(all))),
			policyOn(blocks(block("eth0")), group("a", ssh(all))),
		}, false},
		{"its rule is removed, the group stays", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "a")), group("a", ssh(all))),
			policyOn(blocks(block("eth0", "a")), group("a")),
		}, false},
		{"detached first, deleted later", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "a")), group("a", ssh(all))),
			policyOn(blocks(block("eth0")), group("a", ssh(all))),
			policyOn(blocks(block("eth0"))),
		}, true},
		{"narrowed first, deleted later", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "a")), group("a", ssh(all))),
			policyOn(blocks(block("eth0", "a")), group("a", ssh("203.0.113.128/25"))),
			policyOn(blocks(block("eth0"))),
		}, true},
		{"another group still there allowed it, too", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "a", "b")), group("a", ssh(all)), group("b", ssh(peer))),
			policyOn(blocks(block("eth0", "b")), group("b")),
		}, false},
		{"another group still there allowed it long ago", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "b")), group("a", ssh(all)), group("b", ssh(peer))),
			policyOn(blocks(block("eth0", "a")), group("a", ssh(all)), group("b", ssh(peer))),
			policyOn(blocks(block("eth0")), group("b", ssh(peer))),
		}, false},
		{"both groups that allowed it are deleted", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "a", "b")), group("a", ssh(all)), group("b", ssh(peer))),
			policyOn(blocks(block("eth0"))),
		}, true},
		{"both are deleted, one after the other, the first carried out", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "a", "b")), group("a", ssh(all)), group("b", ssh(peer))),
			policyOn(blocks(block("eth0", "b")), group("b", ssh(peer))),
			policyOn(blocks(block("eth0"))),
		}, true},
		{"the deleted group allowed others", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "a")), group("a", ssh("198.51.100.0/24"))),
			policyOn(blocks(block("eth0"))),
		}, false},
		{"the deleted group allowed another port", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "a")), group("a", rule(flow.Ingress, "web", flow.TCP, ports(port(80)), all))),
			policyOn(blocks(block("eth0"))),
		}, false},
		{"the deleted group allowed the other direction", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "a")), group("a", rule(flow.Egress, "ssh", flow.TCP, ports(port(22)), all))),
			policyOn(blocks(block("eth0"))),
		}, false},
		{"the deleted group was on another interface", "eth1", []*policies.Policy{
			policyOn(blocks(block("eth0", "a"), block("eth1")), group("a", ssh(all))),
			policyOn(blocks(block("eth0"), block("eth1"))),
		}, false},
		{"it was allowed under a wildcard that gave way to a name", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth*", "a")), group("a", ssh(all))),
			policyOn(blocks(block("eth0")), group("a", ssh(all))),
			policyOn(blocks(block("eth0"))),
		}, true},
		{"a name stood before the wildcard of the deleted group", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth*", "a"), block("eth0", "b")), group("a", ssh(all)), group("b", ssh(all))),
			policyOn(blocks(block("eth*"), block("eth0", "b")), group("a", ssh(all)), group("b")),
			policyOn(blocks(block("eth*"), block("eth0", "b")), group("b")),
		}, false},
		{"the same, and the group of the name is deleted while that of the wildcard stays", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth*", "a"), block("eth0", "b")), group("a", ssh(all)), group("b", ssh(all))),
			policyOn(blocks(block("eth*"), block("eth0")), group("a", ssh(all))),
		}, true},
		{"a group that comes back under the name of a deleted one is another", "eth0", []*policies.Policy{
			policyOn(blocks(block("eth0", "a", "b")), group("a", ssh(all)), group("b", ssh(peer))),
			policyOn(blocks(block("eth0", "b")), group("b", ssh(peer))),
			policyOn(blocks(block("eth0", "b")), group("a"), group("b", ssh(peer))),
			policyOn(blocks(block("eth0")), group("a")),
		}, true},
		{"its list shrank before its group went", "eth0", []*policies.Policy{
			listPolicy("203.0.113.0/24", "198.51.100.0/24"), listPolicy("198.51.100.0/24"),
			policyOn(blocks(block("eth0"))),
		}, true},
		{"its list shrank, and that is all", "eth0", []*policies.Policy{
			listPolicy("203.0.113.0/24", "198.51.100.0/24"), listPolicy("198.51.100.0/24"),
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var past *policies.Past
			n := len(tc.past) - 1
			for i := range n {
				if i > 0 {
					past = past.Add(tc.past[i-1], tc.past[i], day(i)).Forget(tc.past[i])
				}
			}
			p := session(tc.on, peer)
			for range 2 { // the second time from what was written down
				judge := policies.NewPastJudge(past, policies.NewJudge(tc.past[n-1]), tc.past[n])
				if got := judge.OnlyDeleted(&p); got != tc.want {
					t.Errorf("only deleted groups allowed it: %t, want %t, after %s", got, tc.want, asText(t, past))
				}
				past = throughJSON(t, past)
			}
		})
	}
}

// listPolicy lets a list of prefixes in to port 22.
func listPolicy(entries ...string) *policies.Policy {
	r := ssh()
	r.Lists = []string{"partners"}
	p := policyOn(blocks(block("eth0", "a")), group("a", r))
	p.Lists = []*policies.PrefixList{{Name: "partners", Entries: prefixes(entries...)}}
	return p
}

func asText(t *testing.T, past *policies.Past) string {
	t.Helper()
	text, err := json.Marshal(past)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func throughJSON(t *testing.T, past *policies.Past) *policies.Past {
	t.Helper()
	var again *policies.Past
	if err := json.Unmarshal([]byte(asText(t, past)), &again); err != nil {
		t.Fatal(err)
	}
	return again
}

// day is the midnight with which a day begins, counted from some day on.
func day(n int) time.Time { return time.Date(2027, 1, 1+n, 0, 0, 0, 0, time.UTC) }

// Each peer has the time of the change that took it away last, and rules are told
// apart by their names.
func TestThePastKnowsWhen(t *testing.T) {
	at := policies.Pos{File: "web.hcl", Line: 7, Column: 3}
	named := func(id string, peers ...string) *policies.Rule {
		r := ssh(peers...)
		r.ID, r.Pos = id, at
		return r
	}
	with := func(rules ...*policies.Rule) *policies.Policy {
		return policyOn(blocks(block("eth0", "a")), group("a", rules...))
	}
	const whole, low, high = "203.0.113.0/24", "203.0.113.0/25", "203.0.113.128/25"
	for _, tc := range []struct {
		name string
		past []*policies.Policy // applied one a day
		want []string
	}{
		{"gone", []*policies.Policy{with(named("ssh", whole)), with()}, []string{"ssh 1 203.0.113.0/24"}},
		{"later changes leave the time as it is", []*policies.Policy{with(named("ssh", whole)), with(), with(named("x", "192.0.2.1")), with()},
			[]string{"ssh 1 203.0.113.0/24", "x 3 192.0.2.1/32"}},
		{"it came back and went again", []*policies.Policy{with(named("ssh", whole)), with(), with(named("ssh", whole)), with()},
			[]string{"ssh 3 203.0.113.0/24"}},
		{"half of it came back and went again", []*policies.Policy{with(named("ssh", whole)), with(), with(named("ssh", low)), with()},
			[]string{"ssh 1 203.0.113.128/25", "ssh 3 203.0.113.0/25"}},
		{"narrowed, and then gone", []*policies.Policy{with(named("ssh", whole)), with(named("ssh", high)), with()},
			[]string{"ssh 1 203.0.113.0/25", "ssh 2 203.0.113.128/25"}},
		{"back under another name, and gone", []*policies.Policy{with(named("ssh", whole)), with(), with(named("again", whole)), with()},
			[]string{"again 3 203.0.113.0/24", "ssh 1 203.0.113.0/24"}},
		{"another name for the same is no change", []*policies.Policy{with(named("ssh", whole)), with(named("again", whole))}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var past *policies.Past
			for i := 1; i < len(tc.past); i++ {
				past = throughJSON(t, past.Add(tc.past[i-1], tc.past[i], day(i)))
				if again := past.Add(tc.past[i-1], tc.past[i], day(i)); !reflect.DeepEqual(again, past) {
					t.Errorf("the same change again makes %s of %s", asText(t, again), asText(t, past))
				}
			}
			var got []string
			for _, r := range past.Rules {
				if r.Pos != at || r.Address() != "security_group.a.ingress."+r.ID {
					t.Errorf("%s stood at %s", r.Address(), r.Pos)
				}
				for _, peers := range r.Peers {
					got = append(got, fmt.Sprintf("%s %d %s", r.ID, int(r.Gone.Sub(day(0)).Hours()/24), peers.Prefixes()[0]))
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// What older versions wrote has neither names nor times. It stays so.
func TestThePastOfOlderVersions(t *testing.T) {
	const old = `{"rules":[{"interface":"eth0","group":"a","direction":0,"protocol":6,"ports":[{"First":22,"Last":22}],"peers":0}],"peers":[["203.0.113.0/24"]]}`
	past := new(policies.Past)
	if err := json.Unmarshal([]byte(old), past); err != nil {
		t.Fatal(err)
	}
	if got := asText(t, past); got != old {
		t.Errorf("it is written as %s", got)
	}
	before := policyOn(blocks(block("eth0", "a")), group("a", rule(flow.Ingress, "web", flow.TCP, ports(port(80)), "0.0.0.0/0")))
	past = past.Add(before, policyOn(blocks(block("eth0", "a")), group("a")), day(1))
	if len(past.Rules) != 2 || !past.Rules[0].Gone.IsZero() || past.Rules[0].Address() != "security_group.a" || !past.Rules[1].Gone.Equal(day(1)) {
		t.Errorf("after a change it is %s", asText(t, past))
	}
}

// A policy that goes back and forth leaves what each change leaves once.
func TestFlippingLeavesNoLitter(t *testing.T) {
	a, b := listPolicy("203.0.113.0/24", "2001:db8:7::/48"), listPolicy("198.51.100.0/24", "2001:db8:7::/48")
	var past *policies.Past
	for i := range 1000 {
		old, new := a, b
		if i%2 == 1 {
			old, new = b, a
		}
		past = past.Add(old, new, day(i))
	}
	const want = `{"rules":[` +
		`{"interface":"eth0","group":"a","direction":0,"id":"ssh","gone":"2029-09-25T00:00:00Z","protocol":6,"ports":[{"First":22,"Last":22}],"peers":0},` +
		`{"interface":"eth0","group":"a","direction":0,"id":"ssh","gone":"2029-09-26T00:00:00Z","protocol":6,"ports":[{"First":22,"Last":22}],"peers":1}],` +
		`"peers":[["203.0.113.0/24"],["198.51.100.0/24"]]}`
	if got := asText(t, past); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if again := throughJSON(t, past); !reflect.DeepEqual(past, again) {
		t.Errorf("JSON loses something:\n%s", cmp.Diff(past, again, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })))
	}
}

func TestAddIsTheChangeItself(t *testing.T) {
	for _, tc := range []struct {
		name     string
		old, new *policies.Policy
		want     string
	}{
		{"the first apply has no past", nil, listPolicy("203.0.113.0/24"), `{}`},
		{"nothing changed", listPolicy("203.0.113.0/24"), listPolicy("203.0.113.0/24"), `{}`},
		{"an entry more", listPolicy("203.0.113.0/24"), listPolicy("203.0.113.0/24", "198.51.100.0/24"), `{}`},
		{"one range in the place of two", listPolicy("203.0.112.0/24", "203.0.113.0/24"), listPolicy("203.0.112.0/23"), `{}`},
		{"an entry less", listPolicy("203.0.112.0/24", "203.0.113.0/24"), listPolicy("203.0.112.0/24"), `[203.0.113.0/24]`},
		{"a hole", listPolicy("203.0.112.0/23"), listPolicy("203.0.112.0/24", "203.0.113.128/25"), `[203.0.113.0/25]`},
		{"a wider rule in its place", policyOn(blocks(block("eth0", "a")), group("a", ssh("203.0.113.0/24"))),
			policyOn(blocks(block("eth0", "a")), group("a", everything(flow.Ingress, "all", "203.0.0.0/16"))), `{}`},
		{"the same rule, from another group", policyOn(blocks(block("eth0", "a")), group("a", ssh("203.0.113.0/24"))),
			policyOn(blocks(block("eth0", "b")), group("a"), group("b", ssh("203.0.113.0/24"))), `[203.0.113.0/24]`},
		{"a wildcard takes the place of a name", policyOn(blocks(block("eth0", "a")), group("a", ssh("203.0.113.0/24"))),
			policyOn(blocks(block("e*", "a")), group("a", ssh("203.0.113.0/24"))), `{}`},
		{"a name takes the place of a wildcard", policyOn(blocks(block("eth*", "a")), group("a", ssh("203.0.113.0/24"))),
			policyOn(blocks(block("eth0", "a")), group("a", ssh("203.0.113.0/24"))), `[203.0.113.0/24]`},
		{"a name takes something from a wildcard", policyOn(blocks(block("eth*", "a")), group("a", ssh("203.0.113.0/24"))),
			policyOn(blocks(block("eth*", "a"), block("eth0")), group("a", ssh("203.0.113.0/24"))), `[203.0.113.0/24]`},
		{"a name that takes nothing more", policyOn(blocks(block("eth*", "a"), block("eth0")), group("a", ssh("203.0.113.0/24"))),
			policyOn(blocks(block("eth*", "a"), block("eth0")), group("a", ssh("203.0.113.0/24"))), `{}`},
		{"the block is gone", policyOn(blocks(block("eth0", "a")), group("a", ssh("203.0.113.0/24"))),
			policyOn(nil, group("a", ssh("203.0.113.0/24"))), `[203.0.113.0/24]`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var none *policies.Past
			past := none.Add(tc.old, tc.new, time.Time{})
			got := `{}`
			for _, r := range past.Rules {
				var peers []netip.Prefix
				for _, x := range r.Peers {
					peers = append(peers, x.Prefixes()...)
				}
				got = fmt.Sprint(peers)
			}
			if got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

// Whatever groups let through under one policy and not under the next is in the
// past between them, group by group.
func TestThePastHoldsWhatWasAllowed(t *testing.T) {
	asked, gone := 0, 0
	for seed := range uint64(300) {
		r := corpus.Seeded(seed)
		old, new := corpus.Policy(r, corpus.Options{}), corpus.Policy(r, corpus.Options{})
		var none *policies.Past
		past := none.Add(old, new, time.Time{})
		if again := past.Add(old, new, time.Time{}); asText(t, again) != asText(t, past) {
			t.Fatalf("seed %d: the same change again adds something", seed)
		}
		past = throughJSON(t, past)
		exempt := policies.NewJudge(old)
		type judges struct {
			then, now *policies.Judge
			past      *policies.PastJudge
		}
		of := map[string]judges{}
		for _, g := range old.Groups {
			of[g.Name] = judges{policies.NewJudge(alone(old, g.Name)), policies.NewJudge(alone(new, g.Name)), pastOf(past, g.Name)}
		}
		packets := corpus.NewPackets(r, old)
		for range 300 {
			p := packets.Next()
			if exempt.Standing(&p).Class == policies.Exempt {
				continue // no group is asked
			}
			for name, judge := range of {
				asked++
				then, now := judge.then.Standing(&p).Rule != nil, judge.now.Standing(&p).Rule != nil
				was := judge.past.OnlyDeleted(&p)
				if then && !now {
					gone++
					if !was {
						t.Fatalf("seed %d: %s of %s is forgotten, of %s", seed, &p, name, asText(t, past))
					}
				}
				if was && !then {
					t.Fatalf("seed %d: %s never allowed %s, and %s says so", seed, name, &p, asText(t, past))
				}
			}
		}
	}
	if gone < asked/200 {
		t.Errorf("of %d packets, only %d lost their rule", asked, gone)
	}
	t.Logf("%d of %d", gone, asked)
}

// alone is the policy as if it had one group.
func alone(p *policies.Policy, name string) *policies.Policy {
	q := *p
	q.Host, q.Interfaces = policies.Host{}, nil
	for _, i := range p.Interfaces {
		c := *i
		c.Groups = nil
		if slices.Contains(i.Groups, name) {
			c.Groups = []string{name}
		}
		q.Interfaces = append(q.Interfaces, &c)
	}
	return &q
}

// pastOf is the judge of the past of a group, which is deleted: what only
// deleted groups allowed, it did.
func pastOf(past *policies.Past, name string) *policies.PastJudge {
	var of policies.Past
	for _, r := range past.Rules {
		if r.Group == name {
			of.Rules = append(of.Rules, r)
		}
	}
	return policies.NewPastJudge(&of, nil, &policies.Policy{})
}

func TestPrunersKeepWhatLiveFlowsNeed(t *testing.T) {
	old := policyOn(blocks(block("eth0", "a", "b")), group("a", ssh("203.0.113.0/24"), rule(flow.Ingress, "web", flow.TCP, ports(port(80)), "0.0.0.0/0")), group("b", ssh("203.0.113.1")))
	var none *policies.Past
	past := none.Add(old, policyOn(blocks(block("eth0")), group("a"), group("b")), time.Time{})
	if len(past.Rules) != 3 {
		t.Fatal(asText(t, past))
	}
	for _, tc := range []struct {
		name string
		live []flow.Packet
		want int
	}{
		{"no flow is left", nil, 0},
		{"a flow that nothing allowed", []flow.Packet{session("eth0", "192.0.2.9")}, 0},
		{"a flow that two groups allowed", []flow.Packet{session("eth0", "203.0.113.1")}, 2},
		{"a flow that one group allowed", []flow.Packet{session("eth0", "203.0.113.2"), session("eth0", "203.0.113.2")}, 1},
		{"a flow on another interface", []flow.Packet{session("eth1", "203.0.113.1")}, 0},
		{"all", []flow.Packet{in(flow.TCP, "192.0.2.1", 1, 80), session("eth0", "203.0.113.1")}, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := past.Pruner()
			for i := range tc.live {
				x.See(&tc.live[i])
			}
			if got := x.Past(); len(got.Rules) != tc.want {
				t.Errorf("%d rules are left, want %d: %s", len(got.Rules), tc.want, asText(t, got))
			}
		})
	}
	if x := none.Pruner(); !x.Past().IsEmpty() {
		t.Error("nothing has a past")
	}
}

// Rules that name one long list share it, and a list that loses an entry a day
// leaves an entry a day.
func TestLongListsAreShared(t *testing.T) {
	var entries []netip.Prefix
	for i := range 20000 {
		entries = append(entries, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 25))
	}
	policy := func(entries []netip.Prefix) *policies.Policy {
		var rules []*policies.Rule
		for i := range 50 {
			r := rule(flow.Ingress, fmt.Sprint(i), flow.TCP, ports(port(uint16(1000+2*i))))
			r.Lists = []string{"long"}
			rules = append(rules, r)
		}
		p := policyOn(blocks(block("eth0", "a")), group("a", rules...))
		p.Lists = []*policies.PrefixList{{Name: "long", Entries: entries}}
		return p
	}
	var none *policies.Past
	past := none.Add(policy(entries), policyOn(blocks(block("eth0")), group("a")), time.Time{})
	if len(past.Rules) != 50 {
		t.Fatal(len(past.Rules))
	}
	for _, r := range past.Rules {
		if len(r.Peers) != len(entries) || &r.Peers[0] != &past.Rules[0].Peers[0] {
			t.Fatal("a list of its own")
		}
	}
	past = nil
	for n := range 10 {
		past = past.Add(policy(entries[n:]), policy(entries[n+1:]), day(n))
	}
	if len(past.Rules) != 500 {
		t.Errorf("%d rules are past, want one a day and rule", len(past.Rules))
	}
	lists := map[*flow.Range]bool{}
	for n, r := range past.Rules {
		lists[&r.Peers[0]] = true
		if len(r.Peers) != 1 || !r.Gone.Equal(day(n%10)) {
			t.Fatalf("%d entries of rule %d are gone since %s", len(r.Peers), n, r.Gone)
		}
	}
	if len(lists) != 10 {
		t.Errorf("%d lists, want one a day", len(lists))
	}
}
