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

// kind is one of the flows that every line of the contract's table is tried
// with: a flow between the host, or somebody behind it, and a peer behind eth0.
type kind struct {
	protocol flow.Protocol
	family   flow.Family
	opened   flow.Direction
	// place is "host" for the host's own flows, "routed" for those of somebody
	// behind br0, "nat" where NAT changes their addresses.
	place string
}

func (k kind) String() string {
	return fmt.Sprintf("%s, %s, %s, %s", k.protocol, k.family, k.opened, k.place)
}

func kindsOfFlows() []kind {
	var all []kind
	for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
		for _, family := range flow.Families {
			for _, opened := range flow.Directions {
				for _, place := range []string{"host", "routed", "nat"} {
					all = append(all, kind{protocol, family, opened, place})
				}
			}
		}
	}
	return all
}

// The port by which flows are allowed, as the wire of eth0 sees it, the port of
// who opened them, and the port behind NAT.
const (
	servicePort = 443
	clientPort  = 40000
	hiddenPort  = 8443
)

// ends are the addresses of the host on eth0, of somebody behind br0, and of the
// peer.
func ends(f flow.Family) (host, inside, peer netip.Addr) {
	if f == flow.IPv4 {
		return netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("172.17.0.2"), netip.MustParseAddr("198.51.100.7")
	}
	return netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("fd00:17::2"), netip.MustParseAddr("2001:db8:1::7")
}

// entry is the flow's entry.
func (k kind) entry() *Entry {
	host, inside, peer := ends(k.family)
	local, hidden := host, host
	if k.place != "host" {
		local, hidden = inside, inside
	}
	port := uint16(servicePort)
	if k.place == "nat" {
		local, port = host, hiddenPort
	}
	e := &Entry{Status: SeenReply | Assured | Confirmed}
	if k.protocol == flow.TCP {
		e.TCPState = TCPEstablished
	}
	if k.opened == flow.Ingress {
		// Who answers is hidden behind local.
		e.Original = Tuple{Protocol: k.protocol, Source: peer, SourcePort: clientPort, Dest: local, DestPort: servicePort}
		e.Reply = Tuple{Protocol: k.protocol, Source: hidden, SourcePort: port, Dest: peer, DestPort: clientPort}
		return e
	}
	e.Original = Tuple{Protocol: k.protocol, Source: hidden, SourcePort: clientPort, Dest: peer, DestPort: servicePort}
	e.Reply = Tuple{Protocol: k.protocol, Source: peer, SourcePort: servicePort, Dest: local, DestPort: clientPort}
	return e
}

// socket is the host's socket of the flow.
func (k kind) socket() *Socket {
	host, _, peer := ends(k.family)
	s := &Socket{Protocol: k.protocol, State: Established, Local: netip.AddrPortFrom(host, servicePort), Remote: netip.AddrPortFrom(peer, clientPort)}
	if k.protocol == flow.UDP {
		s.State = Connected
	}
	if k.opened == flow.Egress {
		s.Local, s.Remote = netip.AddrPortFrom(host, clientPort), netip.AddrPortFrom(peer, servicePort)
	}
	return s
}

// stand is where the flows of these tests are.
type stand struct {
	routes  *Routes
	openers *Openers
}

func newStand(t *testing.T) stand {
	t.Helper()
	table := openTable(t, hostNamespace(t))
	routes, err := table.Routes()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := routes.Close(); err != nil {
			t.Error(err)
		}
	})
	openers := &Openers{waiting: map[waitingPort][]Socket{}, ephemeral: flow.PortRange{First: 32768, Last: 60999}}
	for _, s := range []Socket{
		{Protocol: flow.TCP, State: Listening, Local: netip.MustParseAddrPort("[::]:443"), DualStack: true},
		{Protocol: flow.UDP, State: Unconnected, Local: netip.MustParseAddrPort("[::]:443"), DualStack: true},
	} {
		openers.add(&s)
	}
	return stand{routes, openers}
}

// rules are what a group has to have to allow flows of a kind.
type rules struct{ kind }

func (k rules) rule(id string, d flow.Direction, ports []flow.PortRange, peers ...netip.Prefix) *policies.Rule {
	return &policies.Rule{ID: id, Direction: d, Protocol: k.protocol, Ports: ports, Prefixes: peers}
}

var service = []flow.PortRange{{First: servicePort, Last: servicePort}}

// everybody lets the flow open, with anybody.
func (k rules) everybody() *policies.Rule { return k.rule("any", k.opened, service, k.family.Any()) }

// peerAlone lets it open with its own peer.
func (k rules) peerAlone() *policies.Rule {
	_, _, peer := ends(k.family)
	return k.rule("peer", k.opened, service, netip.PrefixFrom(peer, peer.BitLen()))
}

// back lets everything with everybody go the other way.
func (k rules) back() *policies.Rule {
	return k.rule("back", k.opened.Opposite(), []flow.PortRange{flow.AllPorts}, k.family.Any())
}

// other lets something open that the flow is none of.
func (k rules) other() *policies.Rule {
	return k.rule("other", k.opened, []flow.PortRange{{First: 22, Last: 22}}, k.family.Any())
}

// only is a policy of one group at eth0 with these rules.
func only(list ...*policies.Rule) *policies.Policy {
	return &policies.Policy{Groups: []*policies.Group{groupOf("a", list...)}, Interfaces: []*policies.Interface{{Name: "eth0", Groups: []string{"a"}}}}
}

func groupOf(name string, list ...*policies.Rule) *policies.Group {
	for _, r := range list {
		r.Group = name
	}
	return &policies.Group{Name: name, Rules: list}
}

// deny is the policy with an ACL that denies everything in one direction.
func deny(p *policies.Policy, d flow.Direction) *policies.Policy {
	q := *p
	acl := &policies.ACL{Name: "deny"}
	for _, f := range flow.Families {
		acl.Entries = append(acl.Entries, &policies.ACLEntry{ACL: "deny", Direction: d.Opposite(), Number: 1 + len(acl.Entries), Allow: true, AllProtocols: true, Prefix: f.Any()})
	}
	i := *p.Interfaces[0]
	i.ACL = "deny"
	q.ACLs, q.Interfaces = []*policies.ACL{acl}, []*policies.Interface{&i}
	return &q
}

// line is a line of the contract's table, and what the change is.
type line struct {
	name     string
	old, new func(rules) *policies.Policy
	flush    FlushMode
	want     Fate
	reason   Reason
}

func gone(k rules) *policies.Policy     { return only(k.back(), k.other()) }
func open(k rules) *policies.Policy     { return only(k.everybody(), k.back()) }
func narrowed(k rules) *policies.Policy { return only(k.peerAlone(), k.back()) }
func oneWay(k rules) *policies.Policy   { return only(k.everybody()) }
func tracked(k rules) *policies.Policy  { return only(k.peerAlone()) }
func nothing(rules) *policies.Policy    { return only() }
func detached(k rules) *policies.Policy {
	p := tracked(k)
	p.Interfaces[0].Groups = nil
	return p
}
func deleted(rules) *policies.Policy {
	return &policies.Policy{Interfaces: []*policies.Interface{{Name: "eth0"}}}
}
func unmanaged(rules) *policies.Policy { return &policies.Policy{} }
func exempt(k rules) *policies.Policy {
	_, _, peer := ends(k.family)
	p := only()
	p.Host.Exempt = []netip.Prefix{netip.PrefixFrom(peer, peer.BitLen())}
	return p
}
func aclForth(k rules) *policies.Policy { return deny(tracked(k), k.opened) }
func aclBack(k rules) *policies.Policy  { return deny(tracked(k), k.opened.Opposite()) }

func lines() []line {
	return []line{
		{"tracked, and its rule is gone: it goes on", tracked, nothing, FlushCloud, Lingers, WasTracked},
		{"tracked, its rule is gone, and the other direction is open: it goes on", tracked, gone, FlushCloud, Lingers, WasTracked},
		{"tracked, and its rule is gone, with --flush revoked: it is cut", tracked, nothing, FlushRevoked, Cut, WasRevoked},
		{"tracked, and its rule is gone, with --flush none: it goes on", tracked, nothing, FlushNone, Lingers, WasTracked},
		{"tracked, and its group is detached: it goes on", tracked, detached, FlushCloud, Lingers, WasTracked},
		{"tracked, and its group is deleted: it is cut", tracked, deleted, FlushCloud, Cut, GroupDeleted},
		{"tracked, and its group is deleted, with --flush none: it goes on", tracked, deleted, FlushNone, Lingers, WasTracked},
		{"tracked, and still allowed: it stays", tracked, narrowed, FlushCloud, Stays, NoReason},
		{"tracked, and untracked now: it goes on as an open one", tracked, open, FlushCloud, BecomesOpen, NoReason},
		{"tracked without a rule, and its rule is back: it stays", nothing, tracked, FlushRevoked, Stays, NoReason},
		{"tracked without a rule, and nothing changes: it goes on", nothing, nothing, FlushCloud, Lingers, WasTracked},
		{"tracked without a rule, nothing changes, and --flush revoked: it is cut", nothing, nothing, FlushRevoked, Cut, WasRevoked},
		{"tracked without a rule, and it is open now: it goes on as an open one", nothing, open, FlushCloud, BecomesOpen, NoReason},
		{"untracked, and allowed as untracked: it stays", open, open, FlushCloud, Stays, NoReason},
		{"untracked, and narrowed to the peer's own address: tracked", open, narrowed, FlushCloud, BecomesTracked, NoReason},
		{"untracked, and the other direction's open rule is gone: tracked", open, oneWay, FlushCloud, BecomesTracked, NoReason},
		{"untracked, and no rule allows it, the other direction is open: it is cut", open, gone, FlushCloud, Cut, WasOpen},
		{"untracked, and no rule allows anything: it is cut", open, nothing, FlushCloud, Cut, WasOpen},
		{"untracked, and no rule allows it, with --flush revoked: it is cut", open, gone, FlushRevoked, Cut, WasOpen},
		{"untracked, and no rule allows it, with --flush none: it goes on", open, gone, FlushNone, Lingers, NotFlushed},
		{"untracked, and its group is deleted: it is cut", open, deleted, FlushCloud, Cut, WasOpen},
		{"tracked, and an ACL denies its direction: it stays", tracked, aclForth, FlushCloud, Stays, NoReason},
		{"tracked, and an ACL denies its answers: it stays", tracked, aclBack, FlushRevoked, Stays, NoReason},
		{"the interface is let go: nothing judges the flow any more", open, unmanaged, FlushRevoked, Elsewhere, NoReason},
		{"the interface is taken in, and a rule allows the flow: it stays", unmanaged, tracked, FlushCloud, Stays, NoReason},
		{"the interface is taken in, and the flow is open: it stays", unmanaged, open, FlushCloud, Stays, NoReason},
		{"the interface is taken in, and no rule allows the flow: it is adopted", unmanaged, gone, FlushRevoked, Lingers, Adopted},
		{"it was exempt, and no rule allows it: it goes on", exempt, gone, FlushCloud, Lingers, WasTracked},
		{"it was open, and is exempt now: it stays", open, exempt, FlushRevoked, Stays, NoReason},
		{"the first apply, and a rule allows the flow: it stays", nil, tracked, FlushCloud, Stays, NoReason},
		{"the first apply, and the flow is open: it stays", nil, open, FlushRevoked, Stays, NoReason},
		{"the first apply, and no rule allows the flow: it is adopted", nil, gone, FlushRevoked, Lingers, Adopted},
	}
}

// environment is what keeps open flows in conntrack, or does not.
type environment struct {
	name       string
	conntrack  bool
	notrackOff bool
}

var environments = []environment{{"nothing needs conntrack", false, false}, {"another table needs conntrack", true, false}, {`notrack = "off"`, false, true}}

// in returns the policy as it is enforced in the environment.
func (e environment) in(k kind, make func(rules) *policies.Policy) *Enforced {
	if make == nil {
		return nil
	}
	p := make(rules{k})
	for _, i := range p.Interfaces {
		i.NotrackOff = e.notrackOff
	}
	out := &Enforced{Policy: p}
	if e.conntrack {
		out.Conntrack = map[flow.Family]string{k.family: "table inet nat does NAT"}
	}
	return out
}

// keepsOut says whether the kernel keeps the flow out of conntrack under what
// make makes: only the host's own flows, and only open ones.
func (e environment) keepsOut(k kind, make func(rules) *policies.Policy) bool {
	if make == nil || k.place != "host" || e.conntrack || e.notrackOff {
		return false
	}
	// The only policy of these tests that opens anything.
	return fmt.Sprintf("%p", make) == fmt.Sprintf("%p", open)
}

func (s stand) change(k kind, l line, before, after environment) *Change {
	return NewChange(ChangeOptions{
		Old: before.in(k, l.old), New: after.in(k, l.new), Flush: l.flush, Routes: s.routes, Openers: s.openers,
	})
}

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
			if out.Fate != tc.want || out.Seed != tc.seed || out.KeptOut {
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
			[]string{"eth0 ingress 172.17.0.2:8443", "br0 egress 198.51.100.7:40000"}},
		{"one is cut, one lingers", both(open(r), trackedInside()), both(gone(r), only()), FlushCloud, Cut, "eth0 cut, br0 lingers",
			[]string{"eth0 ingress 172.17.0.2:8443"}},
		{"one becomes tracked, one lingers", both(open(r), trackedInside()), both(narrowed(r), only()), FlushCloud, Lingers, "eth0 becomes tracked, br0 lingers", nil},
		{"one becomes open, one becomes tracked", both(tracked(r), openInside()), both(open(r), trackedInside()), FlushCloud, BecomesTracked, "eth0 becomes open, br0 becomes tracked", nil},
		{"one leg is let go, the other stays", both(open(r), openInside()), &Enforced{Policy: &policies.Policy{
			Groups: []*policies.Group{groupOf("b", openInside().Groups[0].Rules...)}, Interfaces: []*policies.Interface{{Name: "br0", Groups: []string{"b"}}},
		}}, FlushCloud, Stays, "br0 stays", nil},
		{"both are revoked", both(tracked(r), trackedInside()), both(only(), only()), FlushRevoked, Cut, "eth0 cut, br0 cut",
			[]string{"eth0 ingress 172.17.0.2:8443", "br0 egress 198.51.100.7:40000"}},
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
