package policies_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

// The policies of these tests are made by hand, so that the meaning is tested
// without the language.

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		if !strings.Contains(s, "/") {
			a := netip.MustParseAddr(s)
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		out = append(out, netip.MustParsePrefix(s))
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

func ports(list ...flow.PortRange) []flow.PortRange { return list }

func port(n uint16) flow.PortRange { return flow.PortRange{First: n, Last: n} }

// rule makes a TCP or UDP rule.
func rule(d flow.Direction, id string, protocol flow.Protocol, on []flow.PortRange, peers ...string) *policies.Rule {
	return &policies.Rule{Direction: d, ID: id, Protocol: protocol, Ports: on, Prefixes: prefixes(peers...)}
}

// everything makes a rule of protocol "-1".
func everything(d flow.Direction, id string, peers ...string) *policies.Rule {
	return &policies.Rule{Direction: d, ID: id, AllProtocols: true, Prefixes: prefixes(peers...)}
}

// ping makes a rule for an ICMP type and code.
func ping(d flow.Direction, id string, protocol flow.Protocol, icmpType, icmpCode int, peers ...string) *policies.Rule {
	return &policies.Rule{Direction: d, ID: id, Protocol: protocol, ICMPType: icmpType, ICMPCode: icmpCode, Prefixes: prefixes(peers...)}
}

func group(name string, rules ...*policies.Rule) *policies.Group {
	for _, r := range rules {
		r.Group = name
	}
	return &policies.Group{Name: name, Rules: rules}
}

// attached makes a policy with the groups on eth0.
func attached(groups ...*policies.Group) *policies.Policy {
	i := &policies.Interface{Name: "eth0"}
	for _, g := range groups {
		i.Groups = append(i.Groups, g.Name)
	}
	return &policies.Policy{Groups: groups, Interfaces: []*policies.Interface{i}}
}

// documentation is the example of the cloud's documentation.
func documentation() *policies.Policy {
	return attached(group("web",
		rule(flow.Ingress, "ssh", flow.TCP, ports(port(22)), "203.0.113.1/32"),
		rule(flow.Ingress, "http", flow.TCP, ports(port(80)), "0.0.0.0/0", "::/0"),
		ping(flow.Ingress, "ping", flow.ICMP, -1, -1, "0.0.0.0/0"),
		everything(flow.Egress, "any4", "0.0.0.0/0"),
		everything(flow.Egress, "any6", "::/0"),
	))
}

const (
	host4, host6 = "192.0.2.10", "2001:db8::10"
)

// in and out make packets of eth0 between the host and a peer.
func in(protocol flow.Protocol, peer string, peerPort, hostPort uint16) flow.Packet {
	p := flow.Packet{
		Interface: "eth0", Direction: flow.Ingress, Protocol: protocol, HopLimit: 64,
		Source: netip.MustParseAddr(peer), Dest: netip.MustParseAddr(host4), SourcePort: peerPort, DestPort: hostPort,
	}
	if p.Source.Is6() {
		p.Dest = netip.MustParseAddr(host6)
	}
	if protocol == flow.TCP {
		p.TCPFlags = flow.SYN
	}
	return p
}

func out(protocol flow.Protocol, peer string, peerPort, hostPort uint16) flow.Packet {
	p := in(protocol, peer, peerPort, hostPort)
	return p.Reply()
}

func icmp(d flow.Direction, peer string, icmpType, icmpCode uint8) flow.Packet {
	a := netip.MustParseAddr(peer)
	p := in(flow.ICMPOf(flow.FamilyOf(a)), peer, 0, 0)
	if d == flow.Egress {
		p = p.Reply()
	}
	p.ICMPType, p.ICMPCode = icmpType, icmpCode
	return p
}

func segment(flags uint8, p flow.Packet) flow.Packet {
	p.TCPFlags = flags
	return p
}

func state(s flow.State, p flow.Packet) flow.Packet {
	p.State = s
	return p
}

func quoting(q, p flow.Packet) flow.Packet {
	q.Interface, q.Direction = "", 0
	p.Quoted = &q
	return p
}

func hops(n uint8, p flow.Packet) flow.Packet {
	p.HopLimit = n
	return p
}

func on(name string, p flow.Packet) flow.Packet {
	p.Interface = name
	return p
}

// decision is what a row expects. An empty rule, returning or entry asks that
// there is none.
type decision struct {
	sentence        string
	packet          flow.Packet
	class           policies.Class // None: dropped
	rule, returning string
	entry           string
}

func testDecisions(t *testing.T, p *policies.Policy, rows []decision) {
	t.Helper()
	judge := policies.NewJudge(p)
	for _, row := range rows {
		t.Run(row.sentence, func(t *testing.T) {
			got := judge.Decide(&row.packet)
			if got.Allow != (row.class != policies.None) || got.Class != row.class {
				t.Errorf("%s: allow %t, %s (%s); want %s", &row.packet, got.Allow, got.Class, got.Reason, row.class)
			}
			if got.Reason == "" {
				t.Errorf("%s: no reason", &row.packet)
			}
			if id := ruleID(got.Rule); id != row.rule {
				t.Errorf("%s: rule %q, want %q", &row.packet, id, row.rule)
			}
			if id := ruleID(got.Returning); id != row.returning {
				t.Errorf("%s: returning rule %q, want %q", &row.packet, id, row.returning)
			}
			entry := ""
			if got.ACLEntry != nil {
				entry = got.ACLEntry.Address()
			}
			if entry != row.entry {
				t.Errorf("%s: ACL entry %q, want %q", &row.packet, entry, row.entry)
			}
			if open := judge.Open(&row.packet); row.class != policies.None && row.class != policies.Exempt && open != (row.class == policies.Untracked) {
				t.Errorf("%s: open %t, class %s", &row.packet, open, row.class)
			}
		})
	}
}

func ruleID(r *policies.Rule) string {
	if r == nil {
		return ""
	}
	return r.ID
}

func TestTheCloudDocumentationsExample(t *testing.T) {
	client4, client6 := "198.51.100.7", "2001:db8:7::7"
	testDecisions(t, documentation(), []decision{
		{"SSH from the one /32 is tracked", in(flow.TCP, "203.0.113.1", 40000, 22), policies.Tracked, "ssh", "", ""},
		{"SSH from the next address is dropped", in(flow.TCP, "203.0.113.2", 40000, 22), policies.None, "", "", ""},
		{"the reply of SSH passes", state(flow.Established, out(flow.TCP, "203.0.113.1", 40000, 22)), policies.Tracked, "", "", ""},
		{"HTTP is untracked over IPv4", in(flow.TCP, client4, 40000, 80), policies.Untracked, "http", "any4", ""},
		{"HTTP is untracked over IPv6", in(flow.TCP, client6, 40000, 80), policies.Untracked, "http", "any6", ""},
		{"its reply is judged by the egress rule", out(flow.TCP, client4, 40000, 80), policies.Untracked, "any4", "http", ""},
		{"HTTP is untracked whatever conntrack says", state(flow.Established, in(flow.TCP, client4, 40000, 80)), policies.Untracked, "http", "any4", ""},
		{"also where conntrack calls it invalid", state(flow.Invalid, in(flow.TCP, client4, 40000, 80)), policies.Untracked, "http", "any4", ""},
		{"UDP to port 80 is dropped", in(flow.UDP, client4, 40000, 80), policies.None, "", "", ""},
		{"ping is tracked", icmp(flow.Ingress, client4, 8, 0), policies.Tracked, "ping", "", ""},
		{"ping over IPv6 has no rule", icmp(flow.Ingress, client6, 128, 0), policies.None, "", "", ""},
		{"what the host opens is tracked", out(flow.TCP, client4, 443, 40000), policies.Tracked, "any4", "", ""},
		{"what the host opens from port 80 is untracked", out(flow.TCP, client4, 443, 80), policies.Untracked, "any4", "http", ""},
		{"a packet of no flow is dropped", state(flow.Invalid, out(flow.TCP, client4, 443, 40000)), policies.None, "", "", ""},
		{"a segment without an entry opens no tracked flow", segment(flow.ACK, in(flow.TCP, "203.0.113.1", 40000, 22)), policies.None, "", "", ""},
		{"nor does one of the host", segment(flow.ACK|flow.PSH, out(flow.TCP, client4, 443, 40000)), policies.None, "", "", ""},
		{"nor an answer to nothing", segment(flow.SYN|flow.ACK, out(flow.TCP, client6, 443, 40000)), policies.None, "", "", ""},
		{"of a flow that is known it passes", state(flow.Established, segment(flow.ACK, in(flow.TCP, "203.0.113.1", 40000, 22))), policies.Tracked, "", "", ""},
		{"of an untracked flow it is judged by the rules", segment(flow.ACK, in(flow.TCP, client4, 40000, 80)), policies.Untracked, "http", "any4", ""},
		{"in both directions", segment(flow.ACK, out(flow.TCP, client6, 40000, 80)), policies.Untracked, "any6", "http", ""},
		{"UDP has no flags", segment(flow.ACK, out(flow.UDP, client4, 53, 40000)), policies.Tracked, "any4", "", ""},
		{"the host's other protocols are tracked", out(47, client4, 0, 0), policies.Tracked, "any4", "", ""},
		{"their answers pass for 600 seconds", state(flow.Established, in(47, client4, 0, 0)), policies.Tracked, "", "", ""},
		{"and are dropped without", in(47, client4, 0, 0), policies.None, "", "", ""},
	})

	without := documentation()
	without.Groups[0].Rules = slices.DeleteFunc(without.Groups[0].Rules, func(r *policies.Rule) bool { return r.ID == "any4" })
	testDecisions(t, without, []decision{
		{"without the IPv4 egress rule HTTP is tracked over IPv4", in(flow.TCP, client4, 40000, 80), policies.Tracked, "http", "", ""},
		{"and untracked over IPv6 as before", in(flow.TCP, client6, 40000, 80), policies.Untracked, "http", "any6", ""},
		{"the IPv4 reply passes as a reply", state(flow.Established, out(flow.TCP, client4, 40000, 80)), policies.Tracked, "", "", ""},
		{"and not otherwise", out(flow.TCP, client4, 40000, 80), policies.None, "", "", ""},
	})
}

func TestReasonsForPeople(t *testing.T) {
	p := documentation()
	p.Interfaces[0].AlwaysTrack = []*policies.AlwaysTrack{{ID: "balancers", Prefixes: prefixes("198.51.100.0/24")}}
	judge := policies.NewJudge(p)
	for _, row := range []struct {
		packet flow.Packet
		want   string
	}{
		{in(flow.TCP, "203.0.113.1", 1, 22), "no ingress rule allows tcp 22 from the literal 0.0.0.0/0"},
		{in(flow.TCP, "203.0.113.1", 1, 80), "security_group.web.ingress.http is open to 0.0.0.0/0, and security_group.web.egress.any4 to 0.0.0.0/0 with all ports"},
		{out(flow.TCP, "203.0.113.1", 1, 80), "security_group.web.ingress.http is open to 0.0.0.0/0, and security_group.web.egress.any4 to 0.0.0.0/0 with all ports"},
		{in(flow.TCP, "198.51.100.7", 1, 80), `198.51.100.7 is in always_track "balancers"`},
		{out(flow.TCP, "203.0.113.1", 443, 40000), "no ingress rule allows tcp with all ports from the literal 0.0.0.0/0"},
		{icmp(flow.Ingress, "203.0.113.1", 8, 0), "ICMP is always tracked"},
		{icmp(flow.Ingress, "203.0.113.1", 5, 0), "ICMP type 5 belongs to no flow: each packet is judged by the rules"},
		{out(47, "203.0.113.1", 0, 0), "protocol gre is always tracked, by address and protocol"},
		{in(flow.TCP, "203.0.113.1", 1, 23), "no ingress rule of the groups of interface.eth0 allows it"},
		{in(flow.TCP, "169.254.169.254", 80, 40000), "169.254.169.254 is the cloud's metadata service"},
		{segment(flow.ACK, in(flow.TCP, "203.0.113.1", 1, 22)), "a connection begins with a SYN; this segment belongs to no known one"},
		{on("eth1", in(flow.TCP, "203.0.113.1", 1, 23)), "no interface block names eth1"},
	} {
		if got := judge.Decide(&row.packet).Reason; got != row.want {
			t.Errorf("%s\n got %s\nwant %s", &row.packet, got, row.want)
		}
	}
}

func TestInterfaces(t *testing.T) {
	p := attached(group("web", rule(flow.Ingress, "http", flow.TCP, ports(port(80)), "0.0.0.0/0")))
	p.Groups = append(p.Groups,
		group("short", rule(flow.Ingress, "short", flow.TCP, ports(port(81)), "0.0.0.0/0")),
		group("long", rule(flow.Ingress, "long", flow.TCP, ports(port(82)), "0.0.0.0/0")))
	p.Interfaces = append(p.Interfaces,
		&policies.Interface{Name: "et*", Groups: []string{"short"}},
		&policies.Interface{Name: "eth*", Groups: []string{"long"}},
		&policies.Interface{Name: "bare"})
	packet := func(name string, port uint16) flow.Packet { return on(name, in(flow.TCP, "198.51.100.7", 40000, port)) }
	testDecisions(t, p, []decision{
		{"the block of exactly that name is chosen", packet("eth0", 80), policies.Tracked, "http", "", ""},
		{"and no other adds to it", packet("eth0", 82), policies.None, "", "", ""},
		{"the longest wildcard is chosen", packet("eth1", 82), policies.Tracked, "long", "", ""},
		{"and no shorter one adds to it", packet("eth1", 81), policies.None, "", "", ""},
		{"a wildcard matches an empty rest", packet("eth", 82), policies.Tracked, "long", "", ""},
		{"the shorter wildcard has the rest", packet("et1", 81), policies.Tracked, "short", "", ""},
		{"an interface that no block names is not touched", packet("wlan0", 9), policies.Unmanaged, "", "", ""},
		{"nor is the loopback", packet("lo", 9), policies.Unmanaged, "", "", ""},
		{"a block without groups drops", packet("bare", 80), policies.None, "", "", ""},
	})
	p.Interfaces = append(p.Interfaces, &policies.Interface{Name: "*"})
	testDecisions(t, p, []decision{
		{"a bare wildcard governs all that is left", packet("wlan0", 9), policies.None, "", "", ""},
		{"but never the loopback", packet("lo", 9), policies.Unmanaged, "", "", ""},
	})
}

func TestRulesMatch(t *testing.T) {
	list := &policies.PrefixList{Name: "partners", Entries: prefixes("198.51.100.0/24", "2001:db8:7::/48")}
	app := group("app")
	app.Members = prefixes("192.0.2.20", "2001:db8::20")
	db := rule(flow.Ingress, "db", flow.UDP, ports(port(5432)))
	db.Lists, db.Groups = []string{"partners"}, []string{"app"}
	web := group("web", db,
		rule(flow.Ingress, "range", flow.TCP, ports(flow.PortRange{First: 8000, Last: 8099}, port(9000)), "10.0.0.0/8", "2001:db8:1::/48"),
		rule(flow.Ingress, "last", flow.TCP, ports(port(65535)), "10.0.0.0/8"),
		rule(flow.Egress, "first", flow.TCP, ports(port(0)), "10.0.0.0/8"),
		ping(flow.Ingress, "echo", flow.ICMP, 8, -1, "10.0.0.0/8"),
		ping(flow.Ingress, "frag", flow.ICMP, 5, 1, "10.0.0.0/8"),
		ping(flow.Ingress, "echo6", flow.ICMPv6, 128, 0, "::/0"),
		&policies.Rule{Direction: flow.Ingress, ID: "gre", Protocol: 47, Prefixes: prefixes("10.1.0.0/16")},
		everything(flow.Ingress, "all", "10.9.0.0/16", "2001:db8:9::/48"),
	)
	p := attached(web, app)
	p.Lists = []*policies.PrefixList{list}
	testDecisions(t, p, []decision{
		{"before the first port", in(flow.TCP, "10.0.0.0", 1, 7999), policies.None, "", "", ""},
		{"the first port", in(flow.TCP, "10.0.0.0", 1, 8000), policies.Tracked, "range", "", ""},
		{"the last port", in(flow.TCP, "10.255.255.255", 1, 8099), policies.Tracked, "range", "", ""},
		{"after the last port", in(flow.TCP, "10.0.0.0", 1, 8100), policies.None, "", "", ""},
		{"a second range", in(flow.TCP, "10.0.0.0", 1, 9000), policies.Tracked, "range", "", ""},
		{"port 65535", in(flow.TCP, "10.0.0.0", 1, 65535), policies.Tracked, "last", "", ""},
		{"port 0", out(flow.TCP, "10.0.0.0", 0, 1), policies.Tracked, "first", "", ""},
		{"the destination port counts, not the source port", in(flow.TCP, "10.0.0.0", 8000, 1), policies.None, "", "", ""},
		{"another protocol", in(flow.UDP, "10.0.0.0", 1, 8000), policies.None, "", "", ""},
		{"another direction", out(flow.TCP, "10.0.0.0", 8000, 1), policies.None, "", "", ""},
		{"before the first address", in(flow.TCP, "9.255.255.255", 1, 8000), policies.None, "", "", ""},
		{"after the last address", in(flow.TCP, "11.0.0.0", 1, 8000), policies.None, "", "", ""},
		{"an IPv6 source", in(flow.TCP, "2001:db8:1::", 1, 8000), policies.Tracked, "range", "", ""},
		{"after the last IPv6 address", in(flow.TCP, "2001:db8:2::", 1, 8000), policies.None, "", "", ""},
		{"a prefix list", in(flow.UDP, "198.51.100.255", 1, 5432), policies.Tracked, "db", "", ""},
		{"a prefix list in IPv6", in(flow.UDP, "2001:db8:7:ffff::", 1, 5432), policies.Tracked, "db", "", ""},
		{"a member of a referenced group", in(flow.UDP, "192.0.2.20", 1, 5432), policies.Tracked, "db", "", ""},
		{"no member of it", in(flow.UDP, "192.0.2.21", 1, 5432), policies.None, "", "", ""},
		{"an ICMP type with any code", icmp(flow.Ingress, "10.0.0.1", 8, 77), policies.Tracked, "echo", "", ""},
		{"another ICMP type", icmp(flow.Ingress, "10.0.0.1", 9, 0), policies.None, "", "", ""},
		{"a type that opens no flow passes as itself", icmp(flow.Ingress, "10.0.0.1", 5, 1), policies.Stateless, "frag", "", ""},
		{"also where conntrack calls it related", state(flow.Related, icmp(flow.Ingress, "10.0.0.1", 5, 1)), policies.Stateless, "frag", "", ""},
		{"or invalid", state(flow.Invalid, icmp(flow.Ingress, "10.0.0.1", 5, 1)), policies.Stateless, "frag", "", ""},
		{"another ICMP code", icmp(flow.Ingress, "10.0.0.1", 5, 0), policies.None, "", "", ""},
		{"an ICMPv6 type and code", icmp(flow.Ingress, "2001:db8:5::1", 128, 0), policies.Tracked, "echo6", "", ""},
		{"an established ICMP packet has no need of a rule", state(flow.Established, icmp(flow.Egress, "10.0.0.1", 0, 0)), policies.Tracked, "", "", ""},
		{"a protocol by number", in(47, "10.1.0.1", 0, 0), policies.Tracked, "gre", "", ""},
		{"another number", in(50, "10.1.0.1", 0, 0), policies.None, "", "", ""},
		{"protocol -1 for TCP", in(flow.TCP, "10.9.0.1", 1, 1), policies.Tracked, "all", "", ""},
		{"protocol -1 for ICMP", icmp(flow.Ingress, "10.9.0.1", 8, 0), policies.Tracked, "echo", "", ""},
		{"protocol -1 for other protocols", in(132, "10.9.0.1", 0, 0), policies.Tracked, "all", "", ""},
		{"ICMPv6 inside IPv4 is another protocol", in(flow.ICMPv6, "10.9.0.1", 0, 0), policies.Tracked, "all", "", ""},
		{"that a rule for icmpv6 does not mean", in(flow.ICMPv6, "10.0.0.1", 0, 0), policies.None, "", "", ""},
		{"ICMP inside IPv6 is another protocol", in(flow.ICMP, "2001:db8:9::1", 0, 0), policies.Tracked, "all", "", ""},
		{"that a rule for icmp does not mean", in(flow.ICMP, "2001:db8:5::1", 0, 0), policies.None, "", "", ""},
		{"a reply passes whatever the rules say", state(flow.Established, out(flow.TCP, "203.0.113.9", 77, 78)), policies.Tracked, "", "", ""},
		{"related TCP gets no extra trust", state(flow.Related, in(flow.TCP, "203.0.113.9", 77, 78)), policies.None, "", "", ""},
		{"related UDP that a rule allows passes", state(flow.Related, in(flow.UDP, "192.0.2.20", 77, 5432)), policies.Tracked, "db", "", ""},
		{"invalid TCP is dropped, whatever the rules say", state(flow.Invalid, in(flow.TCP, "10.9.0.1", 1, 1)), policies.None, "", "", ""},
		{"an invalid packet of another protocol is judged by the rules", state(flow.Invalid, in(47, "10.1.0.1", 0, 0)), policies.Tracked, "gre", "", ""},
	})
}

func TestTheDecidingRuleIsTheMostSpecific(t *testing.T) {
	first := group("a",
		everything(flow.Ingress, "all", "10.1.1.1/32"),
		rule(flow.Ingress, "wide", flow.TCP, ports(flow.PortRange{First: 0, Last: 1000}), "10.0.0.0/8"),
		rule(flow.Ingress, "near", flow.TCP, ports(port(22)), "10.1.0.0/16"),
	)
	second := group("b",
		rule(flow.Ingress, "far", flow.TCP, ports(port(22)), "10.0.0.0/8"),
		rule(flow.Ingress, "far2", flow.TCP, ports(port(22)), "10.0.0.0/8"),
	)
	testDecisions(t, attached(first, second), []decision{
		{"the named protocol before all, few ports before many, the longest prefix", in(flow.TCP, "10.1.1.1", 1, 22), policies.Tracked, "near", "", ""},
		{"else the first in order", in(flow.TCP, "10.2.1.1", 1, 22), policies.Tracked, "far", "", ""},
		{"else the wide one", in(flow.TCP, "10.1.1.1", 1, 23), policies.Tracked, "wide", "", ""},
		{"else the one of all protocols", in(flow.UDP, "10.1.1.1", 1, 23), policies.Tracked, "all", "", ""},
	})
}
