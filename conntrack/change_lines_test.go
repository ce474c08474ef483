package conntrack

import (
	"fmt"
	"net/netip"
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
