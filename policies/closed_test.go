package policies_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/policies"
)

const (
	any4, any6 = "0.0.0.0/0", "::/0"
)

func udp(d flow.Direction, id string, on []flow.PortRange, peers ...string) *policies.Rule {
	return rule(d, id, flow.UDP, on, peers...)
}

// spaceText writes boxes as "local < peer ports: peers".
func spaceText(boxes []policies.ClosedSpace) string {
	var lines []string
	for _, b := range boxes {
		var peers []string
		for _, r := range b.Peers {
			for _, p := range r.Prefixes() {
				peers = append(peers, p.String())
			}
		}
		lines = append(lines, fmt.Sprintf("%s %s: %s", b.LocalPorts, b.PeerPorts, strings.Join(peers, " ")))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestClosedSpace(t *testing.T) {
	dns := ports(port(53))
	open := attached(group("a", udp(flow.Ingress, "dns", dns, any4), everything(flow.Egress, "out", any4)))
	everybody := attached(group("a", everything(flow.Ingress, "in", any4), everything(flow.Egress, "out", any4)))
	// The cloud's services are exempt, so they are never closed: these cut the
	// address space of IPv4 into pieces, which the rows leave out.
	pieces := func(text string) string {
		var out []string
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			head, peers, _ := strings.Cut(line, ": ")
			if strings.HasPrefix(peers, "0.0.0.0/1 ") && strings.Contains(peers, "169.254.169.252/32") {
				peers = "everybody"
			}
			out = append(out, head+": "+peers)
		}
		return strings.Join(out, "\n")
	}
	for _, tc := range []struct {
		name     string
		old, new *policies.Policy
		opened   flow.Direction
		want     string
	}{
		{"the rule is gone", open, attached(group("a", everything(flow.Egress, "out", any4))), flow.Ingress, "53 0-65535: everybody"},
		{"nothing is gone", open, open, flow.Ingress, ""},
		{"the other direction's rule is gone: tracked now", open, attached(group("a", udp(flow.Ingress, "dns", dns, any4))), flow.Ingress, ""},
		{"nothing was open that way", open, attached(group("a")), flow.Egress, ""},
		{"the interface's block is gone", open, &policies.Policy{}, flow.Ingress, ""},
		{"there was no block", &policies.Policy{}, open, flow.Ingress, ""},
		{"narrowed to a half", open, attached(group("a", udp(flow.Ingress, "dns", dns, "0.0.0.0/1", "128.0.0.0/2"), everything(flow.Egress, "out", any4))),
			flow.Ingress, "53 0-65535: 192.0.0.0/2"},
		{"narrowed by a list and a reference", open, withList(attached(group("a", listed(udp(flow.Ingress, "dns", dns), "low"), referring(udp(flow.Ingress, "more", dns), "a"))), "128.0.0.0/1"),
			flow.Ingress, "53 0-65535: 64.0.0.0/2"},
		{"all was open, a port stays", everybody, attached(group("a", udp(flow.Ingress, "dns", dns, "0.0.0.0/1", "128.0.0.0/2"), everything(flow.Egress, "out", any4))), flow.Ingress,
			"0-52 0-65535: everybody\n53 0-65535: 192.0.0.0/2\n54-67 0-65535: everybody\n68 0-66: everybody\n68 68-65535: everybody\n69-65535 0-65535: everybody"},
		{"all was open outwards, some ports stay", everybody, attached(group("a", everything(flow.Ingress, "in", any4), udp(flow.Egress, "dns", ports(port(53), flow.PortRange{First: 60, Last: 65535}), any4))), flow.Egress,
			"0-65535 0-52: everybody\n0-65535 54-59: everybody"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := policies.NewClosing(policies.NewJudge(tc.old), policies.NewJudge(tc.new))
			if got := pieces(spaceText(c.Space("eth0", tc.opened, flow.IPv4))); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			if got := c.Space("eth0", tc.opened, flow.IPv6); len(got) != 0 {
				t.Errorf("IPv6: %s", spaceText(got))
			}
		})
	}
}

func listed(r *policies.Rule, name string) *policies.Rule {
	r.Lists = append(r.Lists, name)
	return r
}

func referring(r *policies.Rule, name string) *policies.Rule {
	r.Groups = append(r.Groups, name)
	return r
}

// withList adds the list "low" of the lowest quarter, and members to the first group.
func withList(p *policies.Policy, members string) *policies.Policy {
	p.Lists = append(p.Lists, &policies.PrefixList{Name: "low", Entries: prefixes("0.0.0.0/2")})
	p.Groups[0].Members = prefixes(members)
	return p
}

// A resolver stays reachable, and so does a DHCP server.
func TestExemptPeersAreNotClosed(t *testing.T) {
	old := attached(group("a", everything(flow.Ingress, "in", any6), everything(flow.Egress, "out", any6)))
	new := attached(group("a", everything(flow.Egress, "out", "::/1", "8000::/2", "e000::/3")))
	new.Host = policies.Host{DNSResolvers: prefixes("c000::/4"), Exempt: prefixes("d000::/5")}
	c := policies.NewClosing(policies.NewJudge(old), policies.NewJudge(new))
	const want = `0-545 54-65535: c000::/4 d800::/5
0-65535 0-52: c000::/4 d800::/5
0-65535 53: d800::/5
546 54-546: c000::/4 d800::/5
546 548-65535: c000::/4 d800::/5
547-65535 54-65535: c000::/4 d800::/5`
	got := spaceText(c.Space("eth0", flow.Egress, flow.IPv6))
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAlwaysTrackedPeersWereNotOpen(t *testing.T) {
	old := attached(group("a", udp(flow.Ingress, "dns", ports(port(53)), any6), everything(flow.Egress, "out", any6)))
	old.Interfaces[0].AlwaysTrack = []*policies.AlwaysTrack{{ID: "1", Prefixes: prefixes("8000::/1")}, {ID: "2", Prefixes: prefixes("4000::/2", "4000::/3")}}
	c := policies.NewClosing(policies.NewJudge(old), policies.NewJudge(attached(group("a", udp(flow.Ingress, "dns", ports(port(53)), "::/3")))))
	if got := spaceText(c.Space("eth0", flow.Ingress, flow.IPv6)); got != "53 0-65535: 2000::/3" {
		t.Error(got)
	}
}

// A packet is in the closed space if, and only if, the old policy left its flow
// open, by a rule of the packet's direction, and the new one does not allow it.
func TestClosedSpaceIsWhatTheJudgesSay(t *testing.T) {
	asked, closed := 0, 0
	for seed := range uint64(400) {
		r := corpus.Seeded(seed)
		// The same names, so that most of both policies meets.
		names := corpus.Options{Interfaces: []string{"e*", "eth0"}, AlwaysTrack: true}
		old, new := corpus.Policy(r, names), corpus.Policy(r, names)
		then, now := policies.NewJudge(old), policies.NewJudge(new)
		c := policies.NewClosing(then, now)
		type key struct {
			name   string
			opened flow.Direction
			family flow.Family
		}
		spaces := map[key][]policies.ClosedSpace{}
		for _, packets := range []*corpus.Packets{corpus.NewPackets(r, old), corpus.NewPackets(r, new)} {
			for range 300 {
				p := packets.Next()
				p.Protocol, p.Quoted, p.ICMPType, p.ICMPCode = flow.UDP, nil, 0, 0
				k := key{p.Interface, p.Direction, p.Family()}
				boxes, known := spaces[k]
				if !known {
					boxes = c.Space(k.name, k.opened, k.family)
					spaces[k] = boxes
				}
				n := 0
				for _, b := range boxes {
					if b.LocalPorts.Contains(p.LocalPort()) && b.PeerPorts.Contains(p.PeerPort()) &&
						slices.ContainsFunc(b.Peers, func(r flow.Range) bool { return r.Contains(p.Peer()) }) {
						n++
					}
				}
				asked++
				want := 0
				if policies.OpenedBy(then, &p) && now.Standing(&p).Class == policies.None {
					want = 1
					closed++
				}
				if n != want {
					t.Fatalf("seed %d: %s is in %d boxes, want %d, of\n%s", seed, &p, n, want, spaceText(boxes))
				}
			}
		}
	}
	if closed < asked/200 {
		t.Errorf("of %d packets, only %d were closed", asked, closed)
	}
	t.Logf("%d of %d", closed, asked)
}

func heldText(list []policies.Held) []string {
	var out []string
	for _, h := range list {
		local := fmt.Sprint(h.LocalPort)
		if h.Exact() {
			local = netip.AddrPortFrom(h.Local, h.LocalPort).String()
		}
		var peers []string
		for _, p := range h.Peers.Prefixes() {
			peers = append(peers, p.String())
		}
		out = append(out, fmt.Sprintf("%s opened %s %s, %s %s", h.Interface, h.Opened, local, strings.Join(peers, " "), h.PeerPorts))
	}
	slices.Sort(out)
	return out
}

func TestHoldsOfBoundPorts(t *testing.T) {
	open := attached(group("a", everything(flow.Ingress, "in", any4), everything(flow.Egress, "out", any4)))
	server := policies.BoundPort{Interface: "eth0", Family: flow.IPv4, Port: 5353}
	client := policies.BoundPort{Interface: "eth0", Family: flow.IPv4, Port: 40000, Ephemeral: true}
	for _, tc := range []struct {
		name     string
		old, new *policies.Policy
		bound    []policies.BoundPort
		want     []string
	}{
		{"a server's port that nobody reaches now", open, attached(group("a", everything(flow.Egress, "out", any4))), []policies.BoundPort{server},
			[]string{"eth0 opened ingress 5353, 0.0.0.0/0 0-65535"}},
		{"once, however many sockets share it", open, attached(group("a", everything(flow.Egress, "out", any4))), []policies.BoundPort{server, server},
			[]string{"eth0 opened ingress 5353, 0.0.0.0/0 0-65535"}},
		{"a client's port, too, since any port was open", open, attached(group("a", everything(flow.Egress, "out", any4))), []policies.BoundPort{client},
			[]string{"eth0 opened ingress 40000, 0.0.0.0/0 0-65535"}},
		{"another interface", open, attached(group("a", everything(flow.Egress, "out", any4))), []policies.BoundPort{{Interface: "eth1", Family: flow.IPv4, Port: 5353}}, nil},
		{"another family", open, attached(group("a", everything(flow.Egress, "out", any4))), []policies.BoundPort{{Interface: "eth0", Family: flow.IPv6, Port: 5353}}, nil},
		{"a server's port that some reach now", open, attached(group("a", udp(flow.Ingress, "some", ports(port(5353)), "0.0.0.0/1"), everything(flow.Egress, "out", any4))), []policies.BoundPort{server},
			[]string{"eth0 opened ingress 5353, 128.0.0.0/1 0-65535"}},
		{"a server's port while others close", open, attached(group("a", udp(flow.Ingress, "all", ports(port(5353)), any4), everything(flow.Egress, "out", any4))), []policies.BoundPort{server}, nil},
		{"a client's port, where nothing goes out any more", open, attached(group("a", everything(flow.Ingress, "in", any4))), []policies.BoundPort{client},
			[]string{"eth0 opened egress 40000, 0.0.0.0/0 0-65535"}},
		{"and a server's port there", open, attached(group("a", everything(flow.Ingress, "in", any4))), []policies.BoundPort{server}, nil},
		{"a client's port, where some goes out", open, attached(group("a", everything(flow.Ingress, "in", any4), udp(flow.Egress, "dns", ports(port(53)), "0.0.0.0/1"))), []policies.BoundPort{client},
			[]string{"eth0 opened egress 40000, 0.0.0.0/0 0-52", "eth0 opened egress 40000, 0.0.0.0/0 54-65535", "eth0 opened egress 40000, 128.0.0.0/1 53"}},
		{"a port of that range with a rule of its own is a server's", open,
			attached(group("a", everything(flow.Ingress, "in", any4), udp(flow.Ingress, "vpn", ports(port(40000)), "0.0.0.0/1"))), []policies.BoundPort{client}, nil},
		{"two servers, one of which closes for some", open,
			attached(group("a", udp(flow.Ingress, "some", ports(port(5353)), "0.0.0.0/1"), everything(flow.Egress, "out", any4))),
			[]policies.BoundPort{server, {Interface: "eth0", Family: flow.IPv4, Port: 53}, {Interface: "eth0", Family: flow.IPv4, Port: 54}},
			[]string{"eth0 opened ingress 53, 0.0.0.0/0 0-65535", "eth0 opened ingress 5353, 128.0.0.0/1 0-65535", "eth0 opened ingress 54, 0.0.0.0/0 0-65535"}},
		{"two clients", open, attached(group("a", everything(flow.Ingress, "in", any4))),
			[]policies.BoundPort{client, {Interface: "eth0", Family: flow.IPv4, Port: 40001, Ephemeral: true}},
			[]string{"eth0 opened egress 40000, 0.0.0.0/0 0-65535", "eth0 opened egress 40001, 0.0.0.0/0 0-65535"}},
		{"nothing closes", open, open, []policies.BoundPort{client, server}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := policies.NewClosing(policies.NewJudge(tc.old), policies.NewJudge(tc.new))
			if got := heldText(c.Holds(tc.bound)); !slices.Equal(got, tc.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

// Policies that say that they leave the same open do, packet by packet.
func TestOpensAs(t *testing.T) {
	same, differ, opens := 0, 0, 0
	for seed := range uint64(400) {
		r := corpus.Seeded(seed)
		options := corpus.Options{Interfaces: []string{"e*", "eth0", "eth1"}, AlwaysTrack: true}
		old, new := corpus.Policy(r, options), corpus.Policy(corpus.Seeded(seed), options)
		switch r.IntN(3) {
		case 0: // as it is
		case 1: // without a rule
			g := new.Groups[r.IntN(len(new.Groups))]
			if len(g.Rules) > 0 {
				n := r.IntN(len(g.Rules))
				g.Rules = slices.Delete(g.Rules, n, n+1)
			}
		case 2: // with other peers that are always tracked, and other groups
			i, j := new.Interfaces[0], new.Interfaces[len(new.Interfaces)-1]
			i.AlwaysTrack, j.AlwaysTrack, i.Groups = j.AlwaysTrack, i.AlwaysTrack, j.Groups
		}
		then, now := policies.NewJudge(old), policies.NewJudge(new)
		packets := corpus.NewPackets(r, old)
		for range 200 {
			p := packets.Next()
			name, f := p.Interface, p.Family()
			if then.OpensAs(now, name, f) != now.OpensAs(then, name, f) {
				t.Fatalf("seed %d: %s opens as the other, and the other not as it", seed, name)
			}
			if then.Open(&p) {
				opens++
				if !then.Opens(name, f) {
					t.Fatalf("seed %d: %s is open, and nothing is on %s", seed, &p, name)
				}
			}
			switch {
			case !then.OpensAs(now, name, f):
				differ++
			case then.Open(&p) != now.Open(&p):
				t.Fatalf("seed %d: %s is open in one of them, and they open the same", seed, &p)
			case then.Open(&p):
				same++
			}
		}
	}
	if same < 500 || differ < 500 {
		t.Errorf("%d open packets of equal policies, %d of others", same, differ)
	}
	t.Log(same, differ, opens)
}
