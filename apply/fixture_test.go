package apply

import (
	"net/netip"
	"time"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// webTable is a small table with one of everything that compiled policies
// hold.
func webTable() *ruleset.Table {
	accept, drop := ruleset.Verdict{Kind: ruleset.Accept}, ruleset.Verdict{Kind: ruleset.Drop}
	jump := func(chain string) *ruleset.Verdict { return &ruleset.Verdict{Kind: ruleset.Goto, Chain: chain} }
	prefix := func(field ruleset.Field, p string) ruleset.Statement {
		return ruleset.MatchPrefix{Field: field, Prefix: netip.MustParsePrefix(p)}
	}
	rule := func(comment string, s ...ruleset.Statement) ruleset.Rule {
		return ruleset.Rule{Statements: s, Comment: comment}
	}
	return &ruleset.Table{
		Name:    "sgc",
		Comment: "made by sgc",
		Sets: []*ruleset.Set{
			{Name: "exempt.ipv4", Comment: "host.exempt", Key: []ruleset.Type{ruleset.IPv4Addr}, Elements: keys("\xa9\xfe\xa9\xfd", "\xa9\xfe\xa9\xfe")},
			{Name: "exempt.ipv6", Key: []ruleset.Type{ruleset.IPv6Addr}, Interval: true,
				Elements: ranges("fd00:ec2::123", "fd00:ec2::123", "fd00:ec2::253", "fd00:ec2::254", "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")},
			{Name: "flows.ipv4", Key: []ruleset.Type{ruleset.IfName, ruleset.InetProto, ruleset.IPv4Addr}, Dynamic: true, Timeout: 600 * time.Second, Size: 65536},
			{Name: "interfaces.ingress", Key: []ruleset.Type{ruleset.IfName}, Map: true, Elements: []ruleset.Element{
				{First: ruleset.IfNameKey("eth0"), Verdict: jump("web.ingress")},
				{First: ruleset.IfNameKey("lo"), Verdict: &accept},
			}},
			{Name: "pl.partners.ipv4", Comment: "prefix_list.partners", Key: []ruleset.Type{ruleset.IPv4Addr}, Interval: true,
				Elements: ranges("0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0", "11.0.0.7", "198.51.100.0", "198.51.100.255", "240.0.0.0", "255.255.255.255")},
			{Name: "web.ingress.protocols", Key: []ruleset.Type{ruleset.NFProto, ruleset.InetProto}, Map: true, Elements: []ruleset.Element{
				{First: ruleset.Concat("\x02", "\x06"), Verdict: jump("web.ingress.tcp4")},
			}},
			{Name: "web.ingress.tcp4.ports", Key: []ruleset.Type{ruleset.InetService}, Map: true, Interval: true, Elements: []ruleset.Element{
				{First: ruleset.PortKey(22), Last: ruleset.PortKey(22), Verdict: jump("web.ingress.tcp4.ssh")},
				{First: ruleset.PortKey(80), Last: ruleset.PortKey(80), Verdict: &accept},
				{First: ruleset.PortKey(8000), Last: ruleset.PortKey(8099), Verdict: &accept},
				{First: ruleset.PortKey(65000), Last: ruleset.PortKey(65535), Verdict: &drop},
			}},
		},
		Chains: []*ruleset.Chain{
			{Name: "prerouting", Hook: &ruleset.Hook{Point: ruleset.Prerouting, Priority: -150}, Rules: []ruleset.Rule{
				rule("interfaces", ruleset.VerdictMap{Fields: []ruleset.Field{ruleset.IIFName}, Map: "interfaces.ingress"}),
				rule("interface.veth*", ruleset.Match{Field: ruleset.IIFName, Value: "veth"}, *jump("web.ingress")),
			}},
			{Name: "raw.prerouting", Comment: "what conntrack shall not see", Hook: &ruleset.Hook{Point: ruleset.Prerouting, Priority: -300}, Rules: []ruleset.Rule{
				rule("interface.eth0", ruleset.Match{Field: ruleset.L4Protocol, Value: "\x06"}, ruleset.MatchRange{Field: ruleset.DestPort, First: ruleset.PortKey(8000), Last: ruleset.PortKey(8099)}, ruleset.Notrack{}),
			}},
			{Name: "web.ingress", Comment: "interface.eth0", Rules: []ruleset.Rule{
				rule("host.exempt", ruleset.Lookup{Fields: []ruleset.Field{ruleset.IPSource}, Set: "exempt.ipv4"}, accept),
				rule("host.exempt", ruleset.Lookup{Fields: []ruleset.Field{ruleset.IP6Source}, Set: "exempt.ipv6"}, accept),
				rule("", ruleset.VerdictMap{Fields: []ruleset.Field{ruleset.NFProtocol, ruleset.L4Protocol}, Map: "web.ingress.protocols"}),
				rule("other", ruleset.Update{Fields: []ruleset.Field{ruleset.IIFName, ruleset.L4Protocol, ruleset.IPSource}, Set: "flows.ipv4", Timeout: 600 * time.Second}),
				rule("", drop),
			}},
			{Name: "web.ingress.tcp4", Rules: []ruleset.Rule{
				rule("established", ruleset.MatchState{State: ruleset.CtEstablished}, accept),
				rule("invalid", ruleset.MatchState{State: ruleset.CtInvalid}, drop),
				rule("", ruleset.MatchFlags{Mask: 0x17, Value: 0x02, Negate: true}, drop),
				rule("ports", ruleset.VerdictMap{Fields: []ruleset.Field{ruleset.DestPort}, Map: "web.ingress.tcp4.ports"}),
				rule("", drop),
			}},
			{Name: "web.ingress.tcp4.ssh", Comment: "security_group.web.ingress.ssh", Rules: []ruleset.Rule{
				rule("security_group.web.ingress.ssh", prefix(ruleset.IPSource, "203.0.113.1/32"), accept),
				rule("security_group.web.ingress.ssh", prefix(ruleset.IPSource, "192.0.2.0/25"), accept),
				rule("security_group.web.ingress.ssh", ruleset.Lookup{Fields: []ruleset.Field{ruleset.Source(flow.IPv4)}, Set: "pl.partners.ipv4"}, accept),
				rule("", drop),
			}},
		},
	}
}

func keys(k ...string) []ruleset.Element {
	out := make([]ruleset.Element, len(k))
	for i := range k {
		out[i] = ruleset.Element{First: k[i]}
	}
	return out
}

// ranges takes pairs of addresses.
func ranges(a ...string) []ruleset.Element {
	var out []ruleset.Element
	for i := 0; i < len(a); i += 2 {
		out = append(out, ruleset.Element{
			First: ruleset.AddrKey(netip.MustParseAddr(a[i])), Last: ruleset.AddrKey(netip.MustParseAddr(a[i+1])),
		})
	}
	return out
}
