package nftvm

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

var (
	accept = ruleset.Verdict{Kind: ruleset.Accept}
	drop   = ruleset.Verdict{Kind: ruleset.Drop}
)

func to(kind ruleset.VerdictKind, chain string) ruleset.Verdict {
	return ruleset.Verdict{Kind: kind, Chain: chain}
}

func rules(list ...[]ruleset.Statement) []ruleset.Rule {
	var out []ruleset.Rule
	for _, s := range list {
		out = append(out, ruleset.Rule{Statements: s})
	}
	return out
}

func when(statements ...ruleset.Statement) []ruleset.Statement { return statements }

func base(name string, point ruleset.HookPoint, priority int32, rules []ruleset.Rule) *ruleset.Chain {
	return &ruleset.Chain{Name: name, Hook: &ruleset.Hook{Point: point, Priority: priority}, Rules: rules}
}

// prerouting makes a table with rules just behind conntrack.
func prerouting(sets []*ruleset.Set, rules []ruleset.Rule, chains ...*ruleset.Chain) *ruleset.Table {
	return &ruleset.Table{Name: "sgc", Sets: sets, Chains: append([]*ruleset.Chain{base("prerouting", ruleset.Prerouting, -150, rules)}, chains...)}
}

func mustNew(t *testing.T, table *ruleset.Table) *VM {
	t.Helper()
	vm, err := New(table)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func packet(change ...func(*flow.Packet)) *flow.Packet {
	p := &flow.Packet{
		Interface: "eth0", Protocol: flow.TCP, HopLimit: 64, TCPFlags: flow.SYN,
		Source: netip.MustParseAddr("198.51.100.7"), Dest: netip.MustParseAddr("192.0.2.10"), SourcePort: 40000, DestPort: 22,
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func v6(p *flow.Packet) {
	p.Source, p.Dest = netip.MustParseAddr("2001:db8:7::7"), netip.MustParseAddr("2001:db8::10")
}

func egress(p *flow.Packet) { *p = p.Reply() }

func protocol(n flow.Protocol) func(*flow.Packet) { return func(p *flow.Packet) { p.Protocol = n } }

func state(s flow.State) func(*flow.Packet) { return func(p *flow.Packet) { p.State = s } }

func isReply(p *flow.Packet) { p.IsReply = true }

func icmp(icmpType, icmpCode uint8) func(*flow.Packet) {
	return func(p *flow.Packet) {
		p.Protocol, p.ICMPType, p.ICMPCode, p.SourcePort, p.DestPort = flow.ICMPOf(p.Family()), icmpType, icmpCode, 0, 0
	}
}

// TestMatches runs each match alone: what it matches is dropped, all else is
// accepted.
func TestMatches(t *testing.T) {
	port := func(n uint16) string { return ruleset.PortKey(n) }
	source := func(s string) ruleset.MatchPrefix {
		p := netip.MustParsePrefix(s)
		return ruleset.MatchPrefix{Field: ruleset.Source(flow.FamilyOf(p.Addr())), Prefix: p}
	}
	quoted := packet(egress, func(p *flow.Packet) { p.SourcePort, p.DestPort = 80, 40000 })
	quoting := func(p *flow.Packet) {
		icmp(3, 4)(p)
		p.Quoted = quoted
	}
	for _, row := range []struct {
		name      string
		match     ruleset.Statement
		matches   []*flow.Packet
		otherwise []*flow.Packet
	}{
		{"a port", ruleset.Match{Field: ruleset.DestPort, Value: port(22)},
			[]*flow.Packet{packet(), packet(v6), packet(protocol(flow.UDP))}, []*flow.Packet{packet(func(p *flow.Packet) { p.DestPort = 23 })}},
		{"not a port", ruleset.Match{Field: ruleset.SourcePort, Value: port(22), Negate: true},
			[]*flow.Packet{packet()}, []*flow.Packet{packet(func(p *flow.Packet) { p.SourcePort = 22 })}},
		{"a range of ports", ruleset.MatchRange{Field: ruleset.DestPort, First: port(21), Last: port(256)},
			[]*flow.Packet{packet(), packet(func(p *flow.Packet) { p.DestPort = 256 }), packet(func(p *flow.Packet) { p.DestPort = 21 })},
			[]*flow.Packet{packet(func(p *flow.Packet) { p.DestPort = 257 }), packet(func(p *flow.Packet) { p.DestPort = 20 })}},
		{"a protocol", ruleset.Match{Field: ruleset.L4Protocol, Value: ruleset.ProtoKey(47)},
			[]*flow.Packet{packet(protocol(47)), packet(v6, protocol(47))}, []*flow.Packet{packet()}},
		{"a family", ruleset.Match{Field: ruleset.NFProtocol, Value: ruleset.NFProtoKey(flow.IPv6)},
			[]*flow.Packet{packet(v6)}, []*flow.Packet{packet()}},
		{"an interface", ruleset.Match{Field: ruleset.IIFName, Value: ruleset.IfNameKey("eth0")},
			[]*flow.Packet{packet()}, []*flow.Packet{packet(func(p *flow.Packet) { p.Interface = "eth01" }), packet(func(p *flow.Packet) { p.Interface = "eth" })}},
		{"the beginning of a name", ruleset.Match{Field: ruleset.IIFName, Value: "eth"},
			[]*flow.Packet{packet(), packet(func(p *flow.Packet) { p.Interface = "eth" })}, []*flow.Packet{packet(func(p *flow.Packet) { p.Interface = "et" })}},
		{"no outgoing interface on ingress", ruleset.Match{Field: ruleset.OIFName, Value: ruleset.IfNameKey("")},
			[]*flow.Packet{packet()}, nil},
		{"a prefix of whole bytes", source("198.51.100.0/24"),
			[]*flow.Packet{packet()}, []*flow.Packet{packet(func(p *flow.Packet) { p.Source = netip.MustParseAddr("198.51.101.0") }), packet(v6)}},
		{"a prefix of odd length", source("198.51.100.6/31"),
			[]*flow.Packet{packet()}, []*flow.Packet{packet(func(p *flow.Packet) { p.Source = netip.MustParseAddr("198.51.100.8") })}},
		{"an IPv6 prefix", source("2001:db8:6::/47"),
			[]*flow.Packet{packet(v6)}, []*flow.Packet{packet(), packet(v6, func(p *flow.Packet) { p.Source = netip.MustParseAddr("2001:db8:8::") })}},
		{"a destination", ruleset.MatchPrefix{Field: ruleset.IPDest, Prefix: netip.MustParsePrefix("192.0.2.10/32")},
			[]*flow.Packet{packet()}, []*flow.Packet{packet(egress)}},
		{"a hop limit", ruleset.Match{Field: ruleset.IP6HopLimit, Value: "\x40"},
			[]*flow.Packet{packet(v6)}, []*flow.Packet{packet(), packet(v6, func(p *flow.Packet) { p.HopLimit = 255 })}},
		{"an ICMP type", ruleset.Match{Field: ruleset.ICMPTypeOf4, Value: "\x08"},
			[]*flow.Packet{packet(icmp(8, 0))}, []*flow.Packet{packet(icmp(0, 8)), packet(v6, icmp(8, 0)), packet(protocol(flow.ICMPv6))}},
		{"an ICMPv6 code", ruleset.Match{Field: ruleset.ICMPCodeOf6, Value: "\x04"},
			[]*flow.Packet{packet(v6, icmp(1, 4))}, []*flow.Packet{packet(icmp(1, 4)), packet(v6, icmp(4, 1))}},
		{"a state", ruleset.MatchState{State: ruleset.CtEstablished},
			[]*flow.Packet{packet(state(flow.Established))}, []*flow.Packet{packet(), packet(state(flow.Related)), packet(state(flow.Invalid))}},
		{"the state of a packet that conntrack never tracks", ruleset.MatchState{State: ruleset.CtUntracked},
			[]*flow.Packet{packet(v6, icmp(135, 0)), packet(v6, icmp(143, 0))}, []*flow.Packet{packet(v6, icmp(137, 0)), packet(v6, icmp(128, 0)), packet(icmp(135, 0))}},
		{"flags", ruleset.MatchFlags{Mask: flow.SYN | flow.ACK, Value: flow.SYN},
			[]*flow.Packet{packet()}, []*flow.Packet{packet(func(p *flow.Packet) { p.TCPFlags = flow.SYN | flow.ACK }), packet(protocol(flow.UDP))}},
		{"no such flags", ruleset.MatchFlags{Mask: flow.SYN, Value: flow.SYN, Negate: true},
			[]*flow.Packet{packet(func(p *flow.Packet) { p.TCPFlags = flow.ACK })}, []*flow.Packet{packet()}},
		{"both ports of UDP", ruleset.MatchUDPPorts{Source: 40000, Dest: 22},
			[]*flow.Packet{packet(protocol(flow.UDP))}, []*flow.Packet{packet(), packet(protocol(flow.UDP), func(p *flow.Packet) { p.SourcePort, p.DestPort = 22, 40000 })}},
		{"packets that end here", ruleset.MatchEndsHere{},
			[]*flow.Packet{packet(), packet(func(p *flow.Packet) { p.Forwarded, p.Dest = true, netip.MustParseAddr("224.0.0.1") }),
				packet(func(p *flow.Packet) { p.Forwarded, p.Dest = true, netip.MustParseAddr("255.255.255.255") })},
			[]*flow.Packet{packet(func(p *flow.Packet) { p.Forwarded = true })}},
		{"packets that go on", ruleset.MatchEndsHere{Negate: true},
			[]*flow.Packet{packet(func(p *flow.Packet) { p.Forwarded = true })}, []*flow.Packet{packet()}},
		{"packets that came in", ruleset.MatchForwarded{},
			[]*flow.Packet{packet()}, nil},
		{"the direction of a flow", ruleset.MatchDirection{},
			[]*flow.Packet{packet(), packet(state(flow.Established)), packet(isReply), packet(v6, state(flow.Established))},
			[]*flow.Packet{packet(state(flow.Established), isReply), packet(state(flow.Invalid))}},
		{"the direction of answers", ruleset.MatchDirection{Reply: true},
			[]*flow.Packet{packet(state(flow.Established), isReply)},
			[]*flow.Packet{packet(), packet(isReply), packet(state(flow.Established)), packet(state(flow.Invalid), isReply)}},
		{"the source of the flow", ruleset.Match{Field: ruleset.OriginalSource(flow.IPv4), Value: ruleset.AddrKey(packet().Source)},
			[]*flow.Packet{packet(), packet(state(flow.Established)), packet(egress, state(flow.Established), isReply)},
			[]*flow.Packet{packet(state(flow.Established), isReply), packet(state(flow.Invalid)), packet(v6), packet(egress)}},
		{"the source of an IPv6 flow", ruleset.Match{Field: ruleset.OriginalSource(flow.IPv6), Value: ruleset.AddrKey(packet(v6).Source)},
			[]*flow.Packet{packet(v6)}, []*flow.Packet{packet(), packet(v6, state(flow.Established), isReply)}},
		{"the quoted source port", ruleset.Match{Field: ruleset.Raw(224, 16), Value: port(80)},
			[]*flow.Packet{packet(quoting)}, []*flow.Packet{packet(icmp(3, 4)), packet(quoting, func(p *flow.Packet) {
				q := *quoted
				q.SourcePort, q.DestPort = q.DestPort, q.SourcePort
				p.Quoted = &q
			})}},
		{"the quoted header's version", ruleset.Match{Field: ruleset.Raw(64, 8), Value: "\x45"},
			[]*flow.Packet{packet(quoting)}, []*flow.Packet{packet(icmp(3, 4))}},
		{"the quoted protocol", ruleset.Match{Field: ruleset.Raw(136, 8), Value: "\x06"},
			[]*flow.Packet{packet(quoting)}, []*flow.Packet{packet(icmp(3, 4))}},
	} {
		t.Run(row.name, func(t *testing.T) {
			vm := mustNew(t, prerouting(nil, rules(when(row.match, drop))))
			for _, list := range []struct {
				packets []*flow.Packet
				accept  bool
			}{{row.matches, false}, {row.otherwise, true}} {
				for _, p := range list.packets {
					p := *p
					p.Direction = flow.Ingress // the one hook of the table
					result, err := vm.Run(&p)
					if err != nil {
						t.Fatal(err)
					}
					if result.Accept != list.accept {
						t.Errorf("%s: accept %t", &p, result.Accept)
					}
				}
			}
		})
	}
}

func TestSets(t *testing.T) {
	ports := func(ranges ...uint16) []ruleset.Element {
		var out []ruleset.Element
		for i := 0; i < len(ranges); i += 2 {
			out = append(out, ruleset.Element{First: ruleset.PortKey(ranges[i]), Last: ruleset.PortKey(ranges[i+1])})
		}
		return out
	}
	sets := []*ruleset.Set{
		{Name: "ports", Key: []ruleset.Type{ruleset.InetService}, Interval: true, Elements: ports(0, 0, 22, 25, 256, 511, 65535, 65535)},
		{Name: "both", Key: []ruleset.Type{ruleset.InetProto, ruleset.InetService}, Elements: []ruleset.Element{
			{First: ruleset.Concat(ruleset.ProtoKey(flow.TCP), ruleset.PortKey(22))},
		}},
		{Name: "empty", Key: []ruleset.Type{ruleset.InetService}, Interval: true},
	}
	vm := mustNew(t, prerouting(sets, rules(
		when(ruleset.Lookup{Fields: []ruleset.Field{ruleset.DestPort}, Set: "empty"}, accept),
		when(ruleset.Lookup{Fields: []ruleset.Field{ruleset.L4Protocol, ruleset.DestPort}, Set: "both"}, accept),
		when(ruleset.Lookup{Fields: []ruleset.Field{ruleset.DestPort}, Set: "ports", Negate: true}, accept),
		when(drop))))
	for port, inside := range map[uint16]bool{0: true, 1: false, 21: false, 22: true, 25: true, 26: false, 255: false, 256: true, 511: true, 512: false, 65534: false, 65535: true} {
		for _, proto := range []flow.Protocol{flow.TCP, flow.UDP} {
			p := packet(protocol(proto), func(p *flow.Packet) { p.DestPort = port })
			result, err := vm.Run(p)
			if err != nil {
				t.Fatal(err)
			}
			if want := !inside || proto == flow.TCP && port == 22; result.Accept != want {
				t.Errorf("%s: accept %t", p, result.Accept)
			}
		}
	}
}

func TestVerdicts(t *testing.T) {
	ports := &ruleset.Set{Name: "ports", Map: true, Interval: true, Key: []ruleset.Type{ruleset.InetService}}
	for _, e := range []struct {
		port uint16
		v    ruleset.Verdict
	}{
		{1, accept}, {2, drop}, {3, to(ruleset.Jump, "jumped")}, {4, to(ruleset.Goto, "gone")}, {5, ruleset.Verdict{Kind: ruleset.Return}},
		{6, to(ruleset.Jump, "twice")}, {7, to(ruleset.Jump, "thrice")},
	} {
		ports.Elements = append(ports.Elements, ruleset.Element{First: ruleset.PortKey(e.port), Last: ruleset.PortKey(e.port), Verdict: &e.v})
	}
	end := func(port uint16, v ruleset.Verdict) []ruleset.Statement {
		return when(ruleset.Match{Field: ruleset.SourcePort, Value: ruleset.PortKey(port)}, v)
	}
	vm := mustNew(t, prerouting([]*ruleset.Set{ports},
		rules(
			when(ruleset.VerdictMap{Fields: []ruleset.Field{ruleset.DestPort}, Map: "ports"}),
			end(9, drop),
		),
		&ruleset.Chain{Name: "jumped", Rules: rules(end(1, accept), end(2, drop), end(3, ruleset.Verdict{Kind: ruleset.Return}), end(4, to(ruleset.Goto, "gone")), end(9, drop))},
		&ruleset.Chain{Name: "gone", Rules: rules(end(1, drop))},
		&ruleset.Chain{Name: "twice", Rules: rules(when(to(ruleset.Jump, "gone")), end(8, drop), end(9, accept))},
		&ruleset.Chain{Name: "thrice", Rules: rules(when(to(ruleset.Goto, "twice")), end(9, accept))},
	))
	for _, row := range []struct {
		name         string
		source, dest uint16
		accept       bool
	}{
		{"a map's accept", 9, 1, true},
		{"a map's drop", 0, 2, false},
		{"no element goes on", 9, 99, false},
		{"the policy is accept", 8, 99, true},
		{"a jump's accept", 1, 3, true},
		{"a jump's drop", 2, 3, false},
		{"return goes on behind the jump", 3, 3, true},
		{"the end of a chain too", 5, 3, true},
		{"and what is there decides", 9, 4, true},
		{"goto never comes back", 9, 4, true},
		{"a goto in a jump comes back behind the jump", 4, 3, true},
		{"a goto's drop", 1, 4, false},
		{"return in a base chain is its policy", 9, 5, true},
		{"a jump in a jump comes back into it", 8, 6, false},
		{"where its accept ends all", 9, 6, true},
		{"a jump in a goto in a jump", 8, 7, false},
		{"and drop in the deepest", 1, 7, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			result, err := vm.Trace(packet(func(p *flow.Packet) { p.SourcePort, p.DestPort = row.source, row.dest }))
			if err != nil {
				t.Fatal(err)
			}
			if result.Accept != row.accept {
				t.Errorf("accept %t\n%s", result.Accept, strings.Join(result.Trace, "\n"))
			}
		})
	}
}

// TestHooks: base chains run in the order of hooks and priorities, conntrack
// between them, and accept ends one base chain only.
func TestHooks(t *testing.T) {
	log := func(name string, point ruleset.HookPoint, priority int32, statements ...ruleset.Statement) *ruleset.Chain {
		logged := when(ruleset.Log{Prefix: name})
		return base(name, point, priority, rules(logged, append(statements, accept), when(drop)))
	}
	is := func(s ruleset.CtState) ruleset.Statement { return ruleset.MatchState{State: s} }
	table := &ruleset.Table{Chains: []*ruleset.Chain{
		log("late", ruleset.Prerouting, -150, is(ruleset.CtNew)),
		log("raw", ruleset.Prerouting, -300, is(ruleset.CtInvalid)),
		log("out", ruleset.Postrouting, 150, is(ruleset.CtNew)),
		log("raw.out", ruleset.Output, -300, is(ruleset.CtInvalid)),
	}}
	vm := mustNew(t, table)
	forwarded := func(p *flow.Packet) { p.Forwarded = true }
	for _, row := range []struct {
		packet *flow.Packet
		want   string
	}{
		{packet(), "raw late"},
		{packet(forwarded), "raw late"},
		{packet(egress), "raw.out out"},
		{packet(egress, forwarded), "out"},
	} {
		result, err := vm.Run(row.packet)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(result.Logged, " "); got != row.want || !result.Accept {
			t.Errorf("%s: chains %q, want %q; accept %t", row.packet, got, row.want, result.Accept)
		}
	}
}

// flows is a table that tracks other protocols by one dynamic set.
func flows(keyed ...ruleset.Field) *ruleset.Table {
	set := &ruleset.Set{
		Name: "flows", Key: []ruleset.Type{ruleset.IfName, ruleset.InetProto, ruleset.IPv4Addr}, Dynamic: true, Timeout: time.Minute, Size: 10,
	}
	return prerouting([]*ruleset.Set{set}, rules(
		when(ruleset.Lookup{Fields: keyed, Set: "flows"}, ruleset.Update{Fields: keyed, Set: "flows", Timeout: 2 * time.Minute}),
		when(ruleset.Lookup{Fields: keyed, Set: "flows"}, accept),
		when(ruleset.MatchState{State: ruleset.CtEstablished}, ruleset.Log{Prefix: "established"}),
		when(drop)))
}

func TestDynamicSetsHoldEstablishedFlowsOfOtherProtocols(t *testing.T) {
	vm := mustNew(t, flows(ruleset.IIFName, ruleset.L4Protocol, ruleset.IPSource))
	result, err := vm.Run(packet(protocol(47), state(flow.Established)))
	if err != nil {
		t.Fatal(err)
	}
	key := ruleset.Concat(ruleset.IfNameKey("eth0"), ruleset.ProtoKey(47), ruleset.AddrKey(netip.MustParseAddr("198.51.100.7")))
	want := []Updated{{"flows", key, 2 * time.Minute}}
	if !result.Accept || !slices.Equal(result.Updated, want) {
		t.Errorf("accept %t, updated %q, want %q", result.Accept, result.Updated, want)
	}
	for _, p := range []*flow.Packet{packet(protocol(47)), packet(state(flow.Established)), packet(icmp(8, 0), state(flow.Established))} {
		if result, err := vm.Run(p); err != nil || result.Accept || len(result.Updated) > 0 {
			t.Errorf("%s: %+v, %v", p, result, err)
		}
	}

	wrong := mustNew(t, flows(ruleset.IIFName, ruleset.L4Protocol, ruleset.IPDest))
	if result, err := wrong.Run(packet(protocol(47), state(flow.Established))); err != nil || result.Accept {
		t.Errorf("a look-up of the near side finds the peer's flow: %+v, %v", result, err)
	}
}

// TestForwarded: where packets leave, those that came in are told from those that
// begin on the host.
func TestForwarded(t *testing.T) {
	for _, negate := range []bool{false, true} {
		vm := mustNew(t, &ruleset.Table{Chains: []*ruleset.Chain{
			base("out", ruleset.Postrouting, 150, rules(when(ruleset.MatchForwarded{Negate: negate}, drop))),
		}})
		for _, forwarded := range []bool{false, true} {
			result, err := vm.Run(packet(egress, func(p *flow.Packet) { p.Forwarded = forwarded }))
			if err != nil {
				t.Fatal(err)
			}
			if dropped := forwarded != negate; result.Accept == dropped {
				t.Errorf("negated %t, forwarded %t: accept %t", negate, forwarded, result.Accept)
			}
		}
	}
}

// TestConntrackLiesAboutOtherProtocols: a rule that asks conntrack about them
// gets the wrong answer.
func TestConntrackLiesAboutOtherProtocols(t *testing.T) {
	vm := mustNew(t, flows(ruleset.IIFName, ruleset.L4Protocol, ruleset.IPDest))
	for s, established := range map[flow.State]bool{flow.New: true, flow.Established: false} {
		result, err := vm.Run(packet(protocol(47), state(s)))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(result.Logged) == 1; got != established {
			t.Errorf("%s: conntrack says established: %t", s, got)
		}
	}
}

func TestRunRefusesPacketsThatCannotBe(t *testing.T) {
	vm := mustNew(t, prerouting(nil, nil))
	mixed := packet(func(p *flow.Packet) { p.Dest = netip.MustParseAddr("2001:db8::10") })
	for _, p := range []*flow.Packet{mixed, {Interface: "eth0"}, packet(icmp(3, 0), func(p *flow.Packet) { p.Quoted = mixed })} {
		if _, err := vm.Run(p); err == nil {
			t.Errorf("%s: no error", p)
		}
	}
}

func TestTraceNamesRules(t *testing.T) {
	vm := mustNew(t, prerouting(nil, []ruleset.Rule{
		{Statements: when(ruleset.Match{Field: ruleset.DestPort, Value: ruleset.PortKey(80)}, accept), Comment: "security_group.web.ingress.http"},
		{Statements: when(to(ruleset.Goto, "rest")), Comment: "the rest"},
	}, &ruleset.Chain{Name: "rest", Rules: rules(when(drop))}))
	result, err := vm.Trace(packet())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`prerouting #1: th dport 80 accept comment "security_group.web.ingress.http" → no match`,
		`prerouting #2: goto rest comment "the rest" → goto rest`,
		`rest #1: drop → drop`,
	}
	if !slices.Equal(result.Trace, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(result.Trace, "\n"), strings.Join(want, "\n"))
	}
}

// TestRegistersAlias: a 16-byte register is four of 4 bytes.
func TestRegistersAlias(t *testing.T) {
	c := checker{}
	program, err := c.instructions([]expr.Any{
		&expr.Immediate{Register: unix.NFT_REG_2, Data: []byte("abcdefghijklmnop")},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG32_00 + 6, Data: []byte("ijkl")},
		&expr.Bitwise{SourceRegister: unix.NFT_REG32_00 + 4, DestRegister: unix.NFT_REG_1, Len: 2, Mask: []byte{0xff, 0}, Xor: []byte{0, 1}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG32_00, Data: []byte{'a', 1, 0, 0}},
		&expr.Range{Op: expr.CmpOpEq, Register: unix.NFT_REG32_00 + 7, FromData: []byte("mnop"), ToData: []byte("mnoz")},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := machine{packet: packet()}
	for n, i := range program {
		if !i.run(&m) {
			t.Fatalf("expression %d does not match: registers %q", n+1, m.registers)
		}
	}
}
