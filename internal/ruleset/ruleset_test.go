package ruleset

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/expr"

	"sgc/internal/flow"
)

// summary writes expressions the way `nft --debug=netlink` does, so that a
// reader can hold the two against each other.
func summary(t *testing.T, exprs []expr.Any) string {
	t.Helper()
	var out []string
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			out = append(out, fmt.Sprintf("meta %d => %d", e.Key, e.Register))
		case *expr.Payload:
			out = append(out, fmt.Sprintf("payload %d@%d+%d => %d", e.Len, e.Base, e.Offset, e.DestRegister))
		case *expr.Cmp:
			out = append(out, fmt.Sprintf("cmp %d %d %x", e.Op, e.Register, e.Data))
		case *expr.Bitwise:
			out = append(out, fmt.Sprintf("bitwise %d & %x ^ %x", e.SourceRegister, e.Mask, e.Xor))
		case *expr.Lookup:
			out = append(out, fmt.Sprintf("lookup %d %s %v %v", e.SourceRegister, e.SetName, e.IsDestRegSet, e.Invert))
		case *expr.Ct:
			of := ""
			if e.Key == expr.CtKeySRCIP || e.Key == expr.CtKeySRCIP6 {
				of = fmt.Sprintf(" of %d", e.Direction)
			}
			out = append(out, fmt.Sprintf("ct %d%s => %d", e.Key, of, e.Register))
		case *expr.Objref:
			out = append(out, fmt.Sprintf("objref %d %s", e.Type, e.Name))
		case *expr.Fib:
			out = append(out, fmt.Sprintf("fib daddr=%v type=%v => %d", e.FlagDADDR, e.ResultADDRTYPE, e.Register))
		case *expr.Dynset:
			out = append(out, fmt.Sprintf("dynset %d %s %d %s", e.SrcRegKey, e.SetName, e.Operation, e.Timeout))
		case *expr.Verdict:
			out = append(out, fmt.Sprintf("verdict %d %s", e.Kind, e.Chain))
		case *expr.Notrack:
			out = append(out, "notrack")
		default:
			t.Fatalf("unknown expression %T", e)
		}
	}
	return strings.Join(out, "; ")
}

// The expressions are those that nft 1.0.6 makes of the text.
func TestStatements(t *testing.T) {
	accept := Verdict{Kind: Accept}
	const ipv4, ipv6 = "meta 15 => 1; cmp 0 1 02; ", "meta 15 => 1; cmp 0 1 0a; "
	for _, c := range []struct {
		text  string
		rule  []Statement
		exprs string
	}{
		{`iifname "eth0" accept`, []Statement{Match{Field: IIFName, Value: IfNameKey("eth0")}, accept},
			"meta 6 => 1; cmp 0 1 65746830000000000000000000000000; verdict 1 "},
		{`oifname "eth*" accept`, []Statement{Match{Field: OIFName, Value: "eth"}, accept},
			"meta 7 => 1; cmp 0 1 657468; verdict 1 "},
		{`ip saddr 10.0.0.0/8 drop`, []Statement{MatchPrefix{IPSource, netip.MustParsePrefix("10.0.0.0/8")}, Verdict{Kind: Drop}},
			ipv4 + "payload 1@1+12 => 1; cmp 0 1 0a; verdict 0 "},
		{`ip daddr 10.0.0.4/31 accept`, []Statement{MatchPrefix{IPDest, netip.MustParsePrefix("10.0.0.4/31")}, accept},
			ipv4 + "payload 4@1+16 => 1; bitwise 1 & fffffffe ^ 00000000; cmp 0 1 0a000004; verdict 1 "},
		{`ip6 saddr 2001:db8:7::/48 accept`, []Statement{MatchPrefix{IP6Source, netip.MustParsePrefix("2001:db8:7::/48")}, accept},
			ipv6 + "payload 6@1+8 => 1; cmp 0 1 20010db80007; verdict 1 "},
		{`ip6 daddr 2001:db8::1 accept`, []Statement{MatchPrefix{IP6Dest, netip.MustParsePrefix("2001:db8::1/128")}, accept},
			ipv6 + "payload 16@1+24 => 1; cmp 0 1 20010db8000000000000000000000001; verdict 1 "},
		{`ip saddr 1.2.3.4-1.2.3.9 accept`, []Statement{MatchRange{IPSource, "\x01\x02\x03\x04", "\x01\x02\x03\x09"}, accept},
			ipv4 + "payload 4@1+12 => 1; cmp 5 1 01020304; cmp 3 1 01020309; verdict 1 "},
		{`ct state established accept`, []Statement{MatchState{CtEstablished}, accept},
			"ct 0 => 1; bitwise 1 & 02000000 ^ 00000000; cmp 1 1 00000000; verdict 1 "},
		{`tcp flags & (fin|syn|rst|ack) != syn drop`, []Statement{MatchFlags{0x17, 0x02, true}, Verdict{Kind: Drop}},
			"meta 16 => 1; cmp 0 1 06; payload 1@2+13 => 1; bitwise 1 & 17 ^ 00; cmp 1 1 02; verdict 0 "},
		{`udp sport 67 udp dport 68 accept`, []Statement{MatchUDPPorts{67, 68}, accept},
			"meta 16 => 1; cmp 0 1 11; payload 4@2+0 => 1; cmp 0 1 00430044; verdict 1 "},
		{`th dport @open fib daddr type != unicast notrack`, []Statement{Lookup{Fields: []Field{DestPort}, Set: "open"}, MatchEndsHere{}, Notrack{}},
			"payload 2@2+2 => 1; lookup 1 open false false; fib daddr=true type=true => 1; cmp 1 1 01000000; notrack"},
		{`meta nfproto . meta l4proto vmap @m`, []Statement{VerdictMap{[]Field{NFProtocol, L4Protocol}, "m"}},
			"meta 15 => 1; meta 16 => 9; lookup 1 m true false"},
		{`iifname . meta l4proto . ip saddr @s accept`, []Statement{Lookup{Fields: []Field{IIFName, L4Protocol, IPSource}, Set: "s"}, accept},
			ipv4 + "meta 6 => 1; meta 16 => 2; payload 4@1+12 => 13; lookup 1 s false false; verdict 1 "},
		{`update @s { oifname . meta l4proto . ip6 daddr timeout 10m }`, []Statement{Update{[]Field{OIFName, L4Protocol, IP6Dest}, "s", 10 * time.Minute}},
			ipv6 + "meta 7 => 1; meta 16 => 2; payload 16@1+24 => 13; dynset 1 s 1 10m0s"},
		{`icmpv6 type 133-136 ip6 hoplimit 255 accept`, []Statement{MatchRange{ICMPTypeOf6, "\x85", "\x88"}, Match{Field: IP6HopLimit, Value: "\xff"}, accept},
			ipv6 + "meta 16 => 1; cmp 0 1 3a; payload 1@2+0 => 1; cmp 5 1 85; cmp 3 1 88; payload 1@1+7 => 1; cmp 0 1 ff; verdict 1 "},
		{`meta nfproto ipv4 goto c`, []Statement{Match{Field: NFProtocol, Value: NFProtoKey(flow.IPv4)}, Verdict{Goto, "c"}},
			ipv4 + "verdict -4 c"},
		{`ct state new meta l4proto udp iifname . ip daddr . ip saddr . th dport . th sport @s drop`, []Statement{
			MatchState{CtNew}, Match{Field: L4Protocol, Value: ProtoKey(flow.UDP)},
			Lookup{Fields: []Field{IIFName, IPDest, IPSource, DestPort, SourcePort}, Set: "s"}, Verdict{Kind: Drop}},
			"ct 0 => 1; bitwise 1 & 08000000 ^ 00000000; cmp 1 1 00000000; meta 16 => 1; cmp 0 1 11; " + ipv4 +
				"meta 6 => 1; payload 4@1+16 => 2; payload 4@1+12 => 13; payload 2@2+2 => 14; payload 2@2+0 => 15; lookup 1 s false false; verdict 0 "},
		{`oifname . ct original ip saddr . ip daddr . th sport . th dport @s drop`, []Statement{
			Lookup{Fields: []Field{OIFName, OriginalSource(flow.IPv4), IPDest, SourcePort, DestPort}, Set: "s"}, Verdict{Kind: Drop}},
			ipv4 + "meta 7 => 1; ct 19 of 0 => 2; payload 4@1+16 => 13; payload 2@2+0 => 14; payload 2@2+2 => 15; lookup 1 s false false; verdict 0 "},
		{`oifname . ct original ip6 saddr . ip6 daddr . th sport . th dport @s drop`, []Statement{
			Lookup{Fields: []Field{OIFName, OriginalSource(flow.IPv6), IP6Dest, SourcePort, DestPort}, Set: "s"}, Verdict{Kind: Drop}},
			ipv6 + "meta 7 => 1; ct 21 of 0 => 2; payload 16@1+24 => 3; payload 2@2+0 => 4; payload 2@2+2 => 21; lookup 1 s false false; verdict 0 "},
		{`iif 0 ip daddr . th sport . th dport . oifname @r drop`, []Statement{
			MatchForwarded{Negate: true}, Lookup{Fields: []Field{IPDest, SourcePort, DestPort, OIFName}, Set: "r"}, Verdict{Kind: Drop}},
			"meta 4 => 1; cmp 0 1 00000000; " + ipv4 + "payload 4@1+16 => 1; payload 2@2+0 => 9; payload 2@2+2 => 10; meta 7 => 11; lookup 1 r false false; verdict 0 "},
		{`iif != 0 meta nfproto @adoption return`, []Statement{
			MatchForwarded{}, Lookup{Fields: []Field{NFProtocol}, Set: "adoption"}, Verdict{Kind: Return}},
			"meta 4 => 1; cmp 1 1 00000000; meta 15 => 1; lookup 1 adoption false false; verdict -5 "},
		{`fib daddr type unicast accept`, []Statement{MatchEndsHere{Negate: true}, accept},
			"fib daddr=true type=true => 1; cmp 0 1 01000000; verdict 1 "},
		{`ct direction original accept`, []Statement{MatchDirection{}, accept}, "ct 1 => 1; cmp 0 1 00; verdict 1 "},
		{`ct direction reply accept`, []Statement{MatchDirection{Reply: true}, accept}, "ct 1 => 1; cmp 0 1 01; verdict 1 "},
		{`ct timeout set "eth0.tcp4" accept`, []Statement{SetTimeout{"eth0.tcp4"}, accept}, "objref 7 eth0.tcp4; verdict 1 "},
		{`@th,64,8 != 69 return`, []Statement{Match{Field: Raw(64, 8), Value: "\x45", Negate: true}, Verdict{Kind: Return}},
			"payload 1@2+8 => 1; cmp 1 1 45; verdict -5 "},
		{`ip saddr != @s jump c`, []Statement{Lookup{Fields: []Field{IPSource}, Set: "s", Negate: true}, Verdict{Jump, "c"}},
			ipv4 + "payload 4@1+12 => 1; lookup 1 s false true; verdict -3 c"},
	} {
		r := Rule{Statements: c.rule}
		if got := r.Text(); got != c.text {
			t.Errorf("text: got %q, want %q", got, c.text)
		}
		exprs, err := r.Exprs()
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := summary(t, exprs); got != c.exprs {
			t.Errorf("%s:\n got %s\nwant %s", c.text, got, c.exprs)
		}
	}
}

func TestRulesThatCannotBe(t *testing.T) {
	for _, s := range []Statement{
		Match{Field: IPSource, Value: "\x01"},
		Match{Field: IIFName, Value: ""},
		MatchPrefix{IPSource, netip.MustParsePrefix("2001:db8::/32")},
		MatchPrefix{IPSource, netip.MustParsePrefix("0.0.0.0/0")},
		MatchRange{DestPort, "\x01", "\x02"},
		Verdict{Kind: 99, Chain: "x"},
	} {
		if _, err := (Rule{Statements: []Statement{s}}).Exprs(); err == nil {
			t.Errorf("%#v has expressions", s)
		}
	}
}

func TestTheDependencyIsStatedOnce(t *testing.T) {
	r := Rule{Statements: []Statement{
		Match{Field: NFProtocol, Value: NFProtoKey(flow.IPv4)},
		MatchPrefix{IPDest, netip.MustParsePrefix("10.0.0.0/8")},
		MatchPrefix{IPSource, netip.MustParsePrefix("10.1.0.0/16")},
	}}
	exprs, err := r.Exprs()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(summary(t, exprs), "meta 15"); n != 1 {
		t.Errorf("nfproto is loaded %d times", n)
	}
}

func TestWriteText(t *testing.T) {
	table := &Table{Name: "x", Sets: []*Set{
		{Name: "a", Key: []Type{IPv4Addr}, Interval: true, Comment: "list", Elements: []Element{
			{First: "\x0a\x00\x00\x00", Last: "\x0a\xff\xff\xff"}, {First: "\xc0\x00\x02\x01", Last: "\xc0\x00\x02\x01"}, {First: "\xc0\x00\x02\x04", Last: "\xc0\x00\x02\x06"},
		}},
		{Name: "d", Key: []Type{IfName, InetProto, IPv6Addr}, Dynamic: true, Timeout: 610 * time.Second, Size: 9},
		{Name: "m", Key: []Type{IfName}, Map: true, Elements: []Element{{First: IfNameKey("eth0"), Verdict: &Verdict{Goto, "c"}}}},
	}, Chains: []*Chain{
		{Name: "base", Hook: &Hook{Postrouting, 150}, Rules: []Rule{{Statements: []Statement{Verdict{Kind: Accept}}, Comment: "why"}}},
		{Name: "c", Comment: "empty"},
	}}
	const want = `table inet x
delete table inet x
table inet x {
	set a {
		type ipv4_addr
		flags interval
		comment "list"
		elements = {
			10.0.0.0/8,
			192.0.2.1,
			192.0.2.4-192.0.2.6,
		}
	}

	set d {
		type ifname . inet_proto . ipv6_addr
		size 9
		flags dynamic,timeout
		timeout 10m10s
	}

	map m {
		type ifname : verdict
		elements = {
			"eth0" : goto c,
		}
	}

	chain base {
		type filter hook postrouting priority 150; policy accept;
		accept comment "why"
	}

	chain c {
		comment "empty"
	}
}
`
	var b bytes.Buffer
	if err := table.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// timed is a table with timeouts and timed sets.
func timed() *Table {
	refused := []Type{IfName, IPv4Addr, IPv4Addr, InetService, InetService}
	return &Table{Name: "x", Timeouts: []*Timeout{
		{Name: "t4", Family: flow.IPv4, Protocol: flow.TCP, States: []StateTimeout{{TCPEstablished, 350 * time.Second}}},
		{Name: "u6", Family: flow.IPv6, Protocol: flow.UDP, States: []StateTimeout{{UDPUnreplied, 40 * time.Second}, {UDPReplied, 2 * time.Minute}}},
	}, Sets: []*Set{
		{Name: "adoption", Key: []Type{NFProto}, Timed: true, Comment: "the first apply"},
		{Name: "refused", Key: refused, Timed: true},
		{Name: "refused.ports", Key: []Type{IPv6Addr, InetService, InetService, IfName}, Timed: true, Interval: true},
	}, Chains: []*Chain{{Name: "c", Rules: []Rule{
		{Statements: []Statement{Lookup{Fields: []Field{OIFName, OriginalSource(flow.IPv4), IPDest, SourcePort, DestPort}, Set: "refused"}, Verdict{Kind: Drop}}},
		{Statements: []Statement{MatchForwarded{Negate: true}, Lookup{Fields: []Field{IP6Dest, SourcePort, DestPort, OIFName}, Set: "refused.ports"}, Verdict{Kind: Drop}}},
		{Statements: []Statement{MatchState{CtNew}, Lookup{Fields: []Field{NFProtocol}, Set: "adoption"}, MatchEndsHere{Negate: true}, Verdict{Kind: Accept}}},
		{Statements: []Statement{MatchDirection{Reply: true}, MatchForwarded{}, SetTimeout{"t4"}}},
	}}}}
}

func TestTextOfTimedSetsAndTimeouts(t *testing.T) {
	const want = `table inet x
delete table inet x
table inet x {
	ct timeout t4 {
		protocol tcp
		l3proto ip
		policy = { established : 350 }
	}

	ct timeout u6 {
		protocol udp
		l3proto ip6
		policy = { unreplied : 40, replied : 120 }
	}

	set adoption {
		type nf_proto
		flags timeout
		comment "the first apply"
	}

	set refused {
		type ifname . ipv4_addr . ipv4_addr . inet_service . inet_service
		flags timeout
	}

	set refused.ports {
		type ipv6_addr . inet_service . inet_service . ifname
		flags interval,timeout
	}

	chain c {
		oifname . ct original ip saddr . ip daddr . th sport . th dport @refused drop
		iif 0 ip6 daddr . th sport . th dport . oifname @refused.ports drop
		ct state new meta nfproto @adoption fib daddr type unicast accept
		ct direction reply iif != 0 ct timeout set "t4"
	}
}
`
	var b bytes.Buffer
	if err := timed().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	if got, want := timed().Timeouts[1].String(), "ct timeout u6: udp ip6 { unreplied : 40, replied : 120 }"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// nft takes the text. It wants a network namespace even to check it.
func TestNftTakesTheText(t *testing.T) {
	nft, err := exec.LookPath("nft")
	unshare, err2 := exec.LookPath("unshare")
	if err := errors.Join(err, err2); err != nil {
		skip(t, err)
	}
	var b bytes.Buffer
	if err := timed().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	inside := func(command string, stdin string) ([]byte, error) {
		cmd := exec.Command(unshare, "-Urn", "sh", "-c", command)
		cmd.Stdin = strings.NewReader(stdin)
		return cmd.CombinedOutput()
	}
	if out, err := inside("true", ""); err != nil {
		skip(t, fmt.Errorf("no user namespace: %w: %s", err, out))
	}
	if out, err := inside(nft+" -c -f -", b.String()); err != nil {
		t.Errorf("%v: %s\n%s", err, out, b.String())
	}
	// Elements are written as nft reads them.
	s := timed().Sets
	tuple := Concat(IfNameKey("eth0"), "\xc0\x00\x02\x01", "\xc0\x00\x02\x02", PortKey(53), PortKey(4000))
	address := func(a string) string { return AddrKey(netip.MustParseAddr(a)) }
	first := Concat(address("2001:db8::"), PortKey(1), PortKey(5), IfNameKey("eth0"))
	last := Concat(address("2001:db8::ffff"), PortKey(9), PortKey(5), IfNameKey("eth0"))
	script := b.String() + fmt.Sprintf("add element inet x adoption { %s }\nadd element inet x refused { %s }\nadd element inet x refused.ports { %s }\n",
		s[0].TimedText(TimedElement{First: "\x02", Last: "\x02"}), s[1].TimedText(TimedElement{First: tuple, Last: tuple}),
		s[2].TimedText(TimedElement{First: first, Last: last}))
	if out, err := inside(nft+" -c -f -", script); err != nil {
		t.Errorf("%v: %s\n%s", err, out, script)
	}
}

// skip ends a test that needs what is not here, or fails where it has to be.
func skip(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("SGC_REQUIRE_KERNEL") == "1" {
		t.Fatal(err)
	}
	t.Skipf("SKIP: %v", err)
}

func TestTextOfTimedElements(t *testing.T) {
	ports := &Set{Name: "p", Timed: true, Interval: true, Key: []Type{IPv4Addr, InetService, InetService, IfName}}
	exact := &Set{Name: "e", Timed: true, Key: []Type{IfName, IPv4Addr, InetService}}
	eth0 := IfNameKey("eth0")
	for _, c := range []struct {
		set  *Set
		e    TimedElement
		want string
	}{
		{ports, TimedElement{First: Concat("\x0a\x00\x00\x00", PortKey(1), PortKey(0), eth0), Last: Concat("\x0a\xff\xff\xff", PortKey(9), PortKey(65535), eth0)},
			`10.0.0.0/8 . 1-9 . 0-65535 . "eth0"`},
		{ports, TimedElement{First: Concat("\x0a\x00\x00\x01", PortKey(1), PortKey(7), eth0), Last: Concat("\x0a\x00\x00\x03", PortKey(1), PortKey(7), eth0), Comment: "why"},
			`10.0.0.1-10.0.0.3 . 1 . 7 . "eth0" comment "why"`},
		{exact, TimedElement{First: Concat(eth0, "\x0a\x00\x00\x01", PortKey(7)), Comment: "why", Timeout: time.Hour},
			`"eth0" . 10.0.0.1 . 7 comment "why"`},
	} {
		if got := c.set.TimedText(c.e); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
		if got := strings.Join(c.set.Fields(c.e.First), ""); len(c.set.Fields(c.e.First)) != len(c.set.Key) || got == "" {
			t.Errorf("%d fields of %s", len(c.set.Fields(c.e.First)), c.want)
		}
	}
}
