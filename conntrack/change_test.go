package conntrack

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

// TestWhatAChangeDoesToAFlow tries every line with every kind of flow, once by
// its entry and, where it is the host's, once by its socket, wherever conntrack
// may or may not be needed.
func TestWhatAChangeDoesToAFlow(t *testing.T) {
	s := newStand(t)
	for _, l := range lines() {
		t.Run(l.name, func(t *testing.T) {
			for _, k := range kindsOfFlows() {
				for _, env := range environments {
					c := s.change(k, l, env, env)
					var out Changed
					for range 2 { // the result of the one before leaves nothing
						if err := c.Entry(k.entry(), &out); err != nil {
							t.Fatal(err)
						}
						checkChanged(t, fmt.Sprintf("%s, %s, by its entry", k, env.name), k, l, &out)
						if want := l.want == Cut || l.want != Elsewhere && env.keepsOut(k, l.new); out.Delete != want {
							t.Errorf("%s, %s: the entry is deleted: %t, want %t", k, env.name, out.Delete, want)
						}
						if want := l.want != Elsewhere && env.keepsOut(k, l.old); out.KeptOut != want {
							t.Errorf("%s, %s: was kept out of conntrack: %t, want %t", k, env.name, out.KeptOut, want)
						}
						if out.Seed {
							t.Errorf("%s, %s: an entry is made for an entry", k, env.name)
						}
					}
					if k.place != "host" {
						continue
					}
					if err := c.Socket(k.socket(), &out); err != nil {
						t.Fatal(err)
					}
					checkChanged(t, fmt.Sprintf("%s, %s, by its socket", k, env.name), k, l, &out)
					untrackedBefore := l.old == nil || env.keepsOut(k, l.old) || len(l.old(rules{k}).Interfaces) == 0
					if want := l.want != Cut && l.want != Elsewhere && untrackedBefore && !env.keepsOut(k, l.new); out.Seed != want {
						t.Errorf("%s, %s: an entry is made for the socket: %t, want %t", k, env.name, out.Seed, want)
					}
					if out.Delete {
						t.Errorf("%s, %s: a socket is deleted", k, env.name)
					}
				}
			}
		})
	}
}

func checkChanged(t *testing.T, what string, k kind, l line, out *Changed) {
	t.Helper()
	if out.Fate != l.want || out.Reason != l.reason {
		t.Errorf("%s: %s (%s), want %s (%s)", what, out.Fate, out.Reason, l.want, l.reason)
	}
	if l.want == Elsewhere {
		if len(out.Legs) != 0 || out.Leg() != nil {
			t.Errorf("%s: %d legs", what, len(out.Legs))
		}
		return
	}
	host, inside, peer := ends(k.family)
	local := host
	if k.place == "routed" {
		local = inside
	}
	p := flow.Packet{
		Interface: "eth0", Direction: k.opened, Protocol: k.protocol, Source: peer, SourcePort: clientPort, Dest: local, DestPort: servicePort,
		HopLimit: hopLimit, Forwarded: k.place != "host",
	}
	if k.opened == flow.Egress {
		p.Source, p.Dest = local, peer
	}
	if k.protocol == flow.TCP {
		p.TCPFlags = flow.SYN
	}
	if len(out.Legs) != 1 || out.Leg() != &out.Legs[0] || out.Legs[0].Packet != p || out.Opened != k.opened {
		t.Fatalf("%s: %d legs, opened %s, %s; want one of %s", what, len(out.Legs), out.Opened, &out.Legs[0].Packet, &p)
	}
	leg := &out.Legs[0]
	if l.want != Stays && l.old != nil {
		rule := ""
		for _, r := range []*policies.Rule{leg.Old.Rule} {
			if r != nil {
				rule = r.ID
			}
		}
		if (rule != "") != (leg.Old.Class == policies.Tracked || leg.Old.Class == policies.Untracked) || rule == "back" || rule == "other" {
			t.Errorf("%s: was %s by rule %q", what, leg.Old.Class, rule)
		}
	}
	var held []policies.Held
	if l.want == Cut && k.protocol == flow.UDP {
		h := policies.Held{
			Interface: "eth0", Opened: k.opened, Local: local, LocalPort: p.LocalPort(),
			Peers: flow.Range{First: peer, Last: peer}, PeerPorts: flow.PortRange{First: p.PeerPort(), Last: p.PeerPort()},
			Comment: fmt.Sprintf("%s udp %s → %s", map[flow.Direction]string{flow.Ingress: "in", flow.Egress: "out"}[k.opened],
				netip.AddrPortFrom(p.Source, p.SourcePort), netip.AddrPortFrom(p.Dest, p.DestPort)),
		}
		if k.place == "nat" && k.opened == flow.Ingress {
			h.Local, h.LocalPort = inside, hiddenPort
		}
		held = append(held, h)
	}
	if !slices.Equal(out.Held, held) {
		t.Errorf("%s: held is\n%v\nwant\n%v", what, out.Held, held)
	}
}

// An ACL is told apart by the direction that it denies.
func TestWhatAnACLDenies(t *testing.T) {
	s := newStand(t)
	for _, k := range kindsOfFlows() {
		for _, tc := range []struct {
			new         func(rules) *policies.Policy
			forth, back bool
		}{{tracked, false, false}, {aclForth, true, false}, {aclBack, false, true}} {
			c := s.change(k, line{old: tracked, new: tc.new}, environment{}, environment{})
			var out Changed
			if err := c.Entry(k.entry(), &out); err != nil {
				t.Fatal(err)
			}
			if l := out.Leg(); l.New.Denied != tc.forth || c.DeniedBack(l) != tc.back {
				t.Errorf("%s: denied forth %t, back %t; want %t, %t", k, l.New.Denied, c.DeniedBack(l), tc.forth, tc.back)
			}
		}
	}
}

// What needs conntrack may come and go while a flow stays open.
func TestWhenConntrackBecomesNeeded(t *testing.T) {
	s := newStand(t)
	for _, k := range kindsOfFlows() {
		if k.place != "host" {
			continue
		}
		for _, before := range environments {
			for _, after := range environments {
				c := s.change(k, line{old: open, new: open}, before, after)
				what := fmt.Sprintf("%s: from %s to %s", k, before.name, after.name)
				var out Changed
				if err := c.Entry(k.entry(), &out); err != nil {
					t.Fatal(err)
				}
				if out.Fate != Stays || out.Delete != after.keepsOut(k, open) || out.KeptOut != before.keepsOut(k, open) {
					t.Errorf("%s: %s, deleted %t, was kept out %t", what, out.Fate, out.Delete, out.KeptOut)
				}
				if err := c.Socket(k.socket(), &out); err != nil {
					t.Fatal(err)
				}
				if out.Fate != Stays || out.Seed != (before.keepsOut(k, open) && !after.keepsOut(k, open)) {
					t.Errorf("%s: %s, an entry is made: %t", what, out.Fate, out.Seed)
				}
			}
		}
	}
}

// Once somebody has flushed the rules, nobody knows which sockets have entries.
func TestRulesThatWereLost(t *testing.T) {
	s := newStand(t)
	for _, k := range kindsOfFlows() {
		if k.place != "host" {
			continue
		}
		for _, tc := range []struct {
			old, new func(rules) *policies.Policy
			want     Fate
			seed     bool
		}{{tracked, tracked, Stays, true}, {open, open, Stays, false}, {open, narrowed, BecomesTracked, true}, {open, gone, Cut, false}, {tracked, nothing, Lingers, true}} {
			c := NewChange(ChangeOptions{
				Old: environments[0].in(k, tc.old), New: environments[0].in(k, tc.new), Lost: true, Routes: s.routes, Openers: s.openers,
			})
			var out Changed
			if err := c.Socket(k.socket(), &out); err != nil {
				t.Fatal(err)
			}
			if out.Fate != tc.want || out.Seed != tc.seed || out.KeptOut || !out.Unsure {
				t.Errorf("%s: %s, an entry is made %t, was kept out %t; want %s, %t", k, out.Fate, out.Seed, out.KeptOut, tc.want, tc.seed)
			}
			if err := c.Entry(k.entry(), &out); err != nil {
				t.Fatal(err)
			}
			if out.Fate != tc.want || out.KeptOut {
				t.Errorf("%s: the entry %s, was kept out %t; want %s", k, out.Fate, out.KeptOut, tc.want)
			}
		}
	}
}

// A routed flow crosses two interfaces, and is cut if one of them cuts it.
func TestFlowsOfTwoLegs(t *testing.T) {
	s := newStand(t)
	both := func(outside, inside *policies.Policy) *Enforced {
		p := *outside
		p.Groups = append(slices.Clone(p.Groups), groupOf("b", inside.Groups[0].Rules...))
		p.Interfaces = append(slices.Clone(p.Interfaces), &policies.Interface{Name: "br0", Groups: []string{"b"}})
		return &Enforced{Policy: &p}
	}
	k := kind{flow.UDP, flow.IPv4, flow.Ingress, "nat"}
	// On br0 the flow goes out, to the port behind NAT.
	hidden := []flow.PortRange{{First: hiddenPort, Last: hiddenPort}}
	r := rules{k}
	openInside := func() *policies.Policy {
		return only(r.rule("in", flow.Egress, hidden, k.family.Any()), r.rule("back", flow.Ingress, []flow.PortRange{flow.AllPorts}, k.family.Any()))
	}
	trackedInside := func() *policies.Policy {
		return only(r.rule("in", flow.Egress, hidden, netip.MustParsePrefix("172.17.0.0/16")))
	}
	for _, tc := range []struct {
		name     string
		old, new *Enforced
		flush    FlushMode
		want     Fate
		legs     string
		held     []string
	}{
		{"both legs stay", both(open(r), openInside()), both(open(r), openInside()), FlushCloud, Stays, "eth0 stays, br0 stays", nil},
		{"the outer leg is cut", both(open(r), openInside()), both(gone(r), openInside()), FlushCloud, Cut, "eth0 cut, br0 stays",
			[]string{"eth0 ingress 172.17.0.2:8443"}},
		{"the inner leg is cut", both(open(r), openInside()), both(open(r), only()), FlushCloud, Cut, "eth0 stays, br0 cut",
			[]string{"br0 egress 198.51.100.7:40000"}},
		{"both legs are cut", both(open(r), openInside()), both(gone(r), only()), FlushCloud, Cut, "eth0 cut, br0 cut",
			[]string{"eth0 ingress 172.17.0.2:8443", "br0 ingress 172.17.0.2:8443", "br0 egress 198.51.100.7:40000"}},
		{"one is cut, one lingers", both(open(r), trackedInside()), both(gone(r), only()), FlushCloud, Cut, "eth0 cut, br0 lingers",
			[]string{"eth0 ingress 172.17.0.2:8443", "br0 ingress 172.17.0.2:8443"}},
		{"one becomes tracked, one lingers", both(open(r), trackedInside()), both(narrowed(r), only()), FlushCloud, Lingers, "eth0 becomes tracked, br0 lingers", nil},
		{"one becomes open, one becomes tracked", both(tracked(r), openInside()), both(open(r), trackedInside()), FlushCloud, BecomesTracked, "eth0 becomes open, br0 becomes tracked", nil},
		{"one leg is let go, the other stays", both(open(r), openInside()), &Enforced{Policy: &policies.Policy{
			Groups: []*policies.Group{groupOf("b", openInside().Groups[0].Rules...)}, Interfaces: []*policies.Interface{{Name: "br0", Groups: []string{"b"}}},
		}}, FlushCloud, Stays, "br0 stays", nil},
		{"both are revoked", both(tracked(r), trackedInside()), both(only(), only()), FlushRevoked, Cut, "eth0 cut, br0 cut",
			[]string{"eth0 ingress 172.17.0.2:8443", "br0 ingress 172.17.0.2:8443", "br0 egress 198.51.100.7:40000", "eth0 egress 198.51.100.7:40000"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := NewChange(ChangeOptions{Old: tc.old, New: tc.new, Flush: tc.flush, Routes: s.routes, Openers: s.openers})
			var out Changed
			if err := c.Entry(k.entry(), &out); err != nil {
				t.Fatal(err)
			}
			var legs, held []string
			for _, l := range out.Legs {
				legs = append(legs, fmt.Sprintf("%s %s", l.Packet.Interface, l.Fate))
			}
			for _, h := range out.Held {
				held = append(held, fmt.Sprintf("%s %s %s", h.Interface, h.Opened, netip.AddrPortFrom(h.Local, h.LocalPort)))
			}
			if out.Fate != tc.want || strings.Join(legs, ", ") != tc.legs || !slices.Equal(held, tc.held) || out.Delete != (tc.want == Cut) {
				t.Errorf("%s: %s; held %v; deleted %t\nwant %s: %s; held %v", out.Fate, strings.Join(legs, ", "), held, out.Delete, tc.want, tc.legs, tc.held)
			}
			if l := out.Leg(); l == nil || l.Fate != tc.want || l.Reason != out.Reason {
				t.Errorf("the leg that decides is %+v", l)
			}
		})
	}
}
