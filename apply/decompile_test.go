package apply

import (
	"net/netip"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// A rule that is read back is written as the wanted one is: a change of
// anything else by hand must not look like one of everything.
func TestTextOfRulesIsTheSameOnBothSides(t *testing.T) {
	field := func(f ruleset.Field, value string) ruleset.Statement { return ruleset.Match{Field: f, Value: value} }
	between := func(f ruleset.Field, first, last string) ruleset.Statement {
		return ruleset.MatchRange{Field: f, First: first, Last: last}
	}
	inside := func(f ruleset.Field, p string) ruleset.Statement {
		return ruleset.MatchPrefix{Field: f, Prefix: netip.MustParsePrefix(p)}
	}
	lookup := func(set string, fields ...ruleset.Field) ruleset.Statement {
		return ruleset.Lookup{Fields: fields, Set: set}
	}
	key := func(a string) string { return ruleset.AddrKey(netip.MustParseAddr(a)) }
	group := uint16(7)
	source4, source6 := ruleset.Source(flow.IPv4), ruleset.Source(flow.IPv6)
	rules := [][]ruleset.Statement{
		{between(ruleset.ICMPTypeOf6, "\x01", "\x04"), ruleset.MatchState{State: ruleset.CtRelated}},
		{between(ruleset.ICMPTypeOf6, "\x85", "\x88"), field(ruleset.IP6HopLimit, "\xff")},
		{between(ruleset.DestPort, ruleset.PortKey(22), ruleset.PortKey(25))},
		{between(source4, key("192.0.2.1"), key("192.0.2.9")), between(ruleset.DestPort, ruleset.PortKey(1), ruleset.PortKey(9))},
		{between(source6, key("2001:db8::1"), key("2001:db8::9"))},
		{inside(source4, "10.0.0.0/8")}, {inside(source4, "192.0.2.0/25")}, {inside(source6, "2001:db8::/33")},
		{lookup("icmp.errors", ruleset.ICMPTypeOf4), ruleset.MatchState{State: ruleset.CtInvalid}, ruleset.Verdict{Kind: ruleset.Jump, Chain: "errors"}},
		{ruleset.VerdictMap{Fields: []ruleset.Field{ruleset.ICMPCodeField(flow.IPv4)}, Map: "codes"}},
		{ruleset.VerdictMap{Fields: []ruleset.Field{ruleset.NFProtocol, ruleset.L4Protocol}, Map: "protocols"}},
		{field(ruleset.NFProtocol, ruleset.NFProtoKey(flow.IPv6)), ruleset.Verdict{Kind: ruleset.Goto, Chain: "six"}},
		{ruleset.MatchUDPPorts{Source: 67, Dest: 68}},
		{ruleset.MatchFlags{Mask: 0x17, Value: 0x02, Negate: true}}, {ruleset.MatchFlags{Mask: 0x06, Value: 0x06}},
		{ruleset.MatchFlags{Mask: 0x17, Value: 0x02, Negate: true}, ruleset.Lookup{Fields: []ruleset.Field{ruleset.DestPort}, Set: "open", Negate: true}},
		{ruleset.MatchForwarded{}, ruleset.MatchEndsHere{Negate: true}}, {ruleset.MatchForwarded{Negate: true}, ruleset.MatchState{State: ruleset.CtNew}},
		{ruleset.MatchDirection{}, ruleset.MatchState{State: ruleset.CtEstablished}}, {ruleset.MatchDirection{Reply: true}},
		{lookup("refused", ruleset.OIFName, ruleset.OriginalSource(flow.IPv4), ruleset.IPDest, ruleset.SourcePort, ruleset.DestPort)},
		{lookup("refused", ruleset.OIFName, ruleset.OriginalSource(flow.IPv6), ruleset.IP6Dest, ruleset.SourcePort, ruleset.DestPort)},
		{lookup("refused", ruleset.OriginalSource(flow.IPv6), ruleset.DestPort)},
		{field(ruleset.L4Protocol, "\x11"), lookup("refused", ruleset.IP6Source, ruleset.DestPort, ruleset.SourcePort, ruleset.IIFName)},
		{ruleset.MatchState{State: ruleset.CtNew}, ruleset.SetTimeout{Object: "eth0.tcp4"}},
		{lookup("open", ruleset.DestPort), ruleset.MatchEndsHere{}, ruleset.Notrack{}},
		{ruleset.Lookup{Fields: []ruleset.Field{ruleset.DestPort}, Set: "open", Negate: true}},
		{ruleset.Limit{Rate: 10, Unit: time.Second, Burst: 20}, ruleset.Log{Prefix: "sgc eth0 ingress acl: "}},
		{ruleset.Limit{Rate: 3, Unit: time.Hour, Burst: 5}, ruleset.Log{Prefix: "x", Group: &group}},
		{ruleset.Update{Fields: []ruleset.Field{ruleset.InterfaceName(flow.Egress), ruleset.L4Protocol, source4}, Set: "flows", Timeout: 600 * time.Second}},
		{ruleset.Update{Fields: []ruleset.Field{source4}, Set: "a", Timeout: time.Hour}},
		{ruleset.Update{Fields: []ruleset.Field{source4}, Set: "b", Timeout: 26*time.Hour + 61*time.Second}},
		{ruleset.Update{Fields: []ruleset.Field{source4}, Set: "c", Timeout: 48 * time.Hour}},
		{ruleset.Update{Fields: []ruleset.Field{source4}, Set: "d", Timeout: 180 * time.Second}},
		{ruleset.Match{Field: ruleset.Raw(64, 8), Value: "\x45", Negate: true}, field(ruleset.Raw(136, 8), "\x11"), lookup("ports", ruleset.Raw(240, 16))},
		{field(ruleset.InterfaceName(flow.Ingress), "eth"), ruleset.Counter{}, ruleset.Verdict{Kind: ruleset.Accept}},
	}
	for _, statements := range rules {
		want := ruleset.Rule{Statements: statements, Comment: "why"}
		expressions, err := encodeRule(want)
		if err != nil {
			t.Errorf("%s: %v", want.Text(), err)
			continue
		}
		if got := (Rule{Comment: want.Comment, expressions: expressions}).Text(); got != want.Text() {
			t.Errorf("got  %s\nwant %s", got, want.Text())
		}
	}
}

// Two comparisons that are no range stay what they are.
func TestComparisonsThatAreNoRange(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.nft(`table inet sgc { chain c { tcp dport >= 22 tcp sport <= 25; tcp dport > 22 tcp dport <= 25; tcp dport <= 25 tcp dport >= 22; tcp dport 22-25; tcp dport != 22-25; }; }`)
	want := []string{
		"tcp dport >= 22 tcp sport <= 25", "tcp dport > 22 tcp dport <= 25", "tcp dport <= 25 tcp dport >= 22",
		"tcp dport 22-25", "tcp dport != 22-25",
	}
	for i, r := range l.snapshot().Table.Chain("c").Rules {
		if got := r.Text(); got != want[i] {
			t.Errorf("got %s, want %s", got, want[i])
		}
	}
}

func TestTextOfWhatOthersAskOfConntrack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.nft(`table inet sgc { chain c { ct direction != reply; ct original ip saddr 10.0.0.1; ct reply ip6 daddr 2001:db8::1; ct reply bytes 5;
		ct state != new; iif 1 accept; ct mark 7; ct original packets > 3; }; }`)
	want := []string{
		"ct direction != reply", "ct original ip saddr 10.0.0.1", "ct reply ip6 daddr 2001:db8::1", "ct reply bytes 5",
		"ct state != new", "iif 1 accept", "ct mark 7", "ct original packets > 3",
	}
	rules := l.snapshot().Table.Chain("c").Rules
	for i, r := range rules {
		if got := r.Text(); i >= len(want) || got != want[i] {
			t.Errorf("got %s, want %s", got, want[min(i, len(want)-1)])
		}
	}
	if len(rules) != len(want) {
		t.Errorf("%d rules", len(rules))
	}
}

// What only asks for the header of the next field is left out, as nft does it.
func TestTextOfDependencies(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.nft(`table inet sgc { set s { type ipv6_addr . inet_service; }; chain c { ip6 saddr . udp dport @s; meta l4proto udp ip6 saddr . th dport @s;
		ip saddr 10.0.0.1 tcp dport 22-25 tcp sport 1-2; tcp flags syn / syn,ack th dport 22; icmpv6 type 1-4 icmpv6 code 2-3; meta nfproto ipv4 accept;
		udp sport 67 udp dport 68; meta mark > 7; }; }`)
	want := []string{
		"ip6 saddr . udp dport @s", "meta l4proto udp ip6 saddr . th dport @s", "ip saddr 10.0.0.1 tcp dport 22-25 tcp sport 1-2",
		"tcp flags & (syn|ack) == syn th dport 22", "icmpv6 type 1-4 icmpv6 code 2-3", "meta nfproto ipv4 accept", "udp sport 67 udp dport 68", "meta mark > 7",
	}
	for i, r := range l.snapshot().Table.Chain("c").Rules {
		if got := r.Text(); i >= len(want) || got != want[i] {
			t.Errorf("got %s, want %s", got, want[min(i, len(want)-1)])
		}
	}
}
