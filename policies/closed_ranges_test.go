package policies

import (
	"net/netip"
	"testing"

	"sgc/internal/flow"
)

// openedBy reports whether a rule of the packet's own direction makes its flow
// open: Judge.Open also counts those of the other direction, of whose flow the
// packet is an answer then.
func openedBy(j *Judge, p *flow.Packet) bool {
	a := j.attachment(p.Interface)
	if a == nil || !j.Open(p) {
		return false
	}
	return a.anyRules[p.Direction].anyRule(p.Protocol, p.Family(), p.DestPort) != nil &&
		a.wholeRules[p.Direction.Opposite()].anyRule(p.Protocol, p.Family(), 0) != nil
}

// OpenedBy lends openedBy to tests that cannot be in the package.
func OpenedBy(j *Judge, p *flow.Packet) bool { return openedBy(j, p) }

func TestMinusRanges(t *testing.T) {
	all4, all6 := flow.RangeOf(flow.IPv4.Any()), flow.RangeOf(flow.IPv6.Any())
	r := func(first, last string) flow.Range {
		return flow.Range{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}
	}
	for _, tc := range []struct {
		name             string
		from, what, want []flow.Range
	}{
		{"nothing from nothing", nil, nil, nil},
		{"nothing from all", []flow.Range{all4, all6}, nil, []flow.Range{all4, all6}},
		{"all from all", []flow.Range{all4}, []flow.Range{all4}, nil},
		{"one family from both", []flow.Range{all4, all6}, []flow.Range{all4}, []flow.Range{all6}},
		{"the other family from both", []flow.Range{all4, all6}, []flow.Range{all6}, []flow.Range{all4}},
		{"the beginning", []flow.Range{all4}, []flow.Range{r("0.0.0.0", "9.255.255.255")}, []flow.Range{r("10.0.0.0", "255.255.255.255")}},
		{"the end", []flow.Range{all4, all6}, []flow.Range{r("10.0.0.0", "255.255.255.255")}, []flow.Range{r("0.0.0.0", "9.255.255.255"), all6}},
		{"two holes", []flow.Range{r("10.0.0.0", "10.0.0.9")}, []flow.Range{r("10.0.0.1", "10.0.0.2"), r("10.0.0.4", "10.0.0.4")},
			[]flow.Range{r("10.0.0.0", "10.0.0.0"), r("10.0.0.3", "10.0.0.3"), r("10.0.0.5", "10.0.0.9")}},
		{"one hole over two", []flow.Range{r("10.0.0.0", "10.0.0.3"), r("10.0.0.5", "10.0.0.9"), r("10.0.1.0", "10.0.1.0")},
			[]flow.Range{r("10.0.0.2", "10.0.0.7")}, []flow.Range{r("10.0.0.0", "10.0.0.1"), r("10.0.0.8", "10.0.0.9"), r("10.0.1.0", "10.0.1.0")}},
		{"what lies between them", []flow.Range{r("10.0.0.0", "10.0.0.3"), r("10.0.0.9", "10.0.0.9")}, []flow.Range{r("10.0.0.4", "10.0.0.8")},
			[]flow.Range{r("10.0.0.0", "10.0.0.3"), r("10.0.0.9", "10.0.0.9")}},
	} {
		if got := minusRanges(tc.from, tc.what); !sameRanges(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// Fewer ranges hold what the many do, and the fewest others.
func TestFewerRanges(t *testing.T) {
	r := func(first, last string) flow.Range {
		return flow.Range{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}
	}
	many := []flow.Range{r("10.0.0.0", "10.0.0.3"), r("10.0.0.5", "10.0.0.9"), r("10.1.0.0", "10.1.0.0"), r("10.1.0.9", "10.1.0.9"), r("11.0.0.0", "11.0.0.0")}
	for n, want := range map[int][]flow.Range{
		9: many, 5: many,
		4: {r("10.0.0.0", "10.0.0.9"), r("10.1.0.0", "10.1.0.0"), r("10.1.0.9", "10.1.0.9"), r("11.0.0.0", "11.0.0.0")},
		3: {r("10.0.0.0", "10.0.0.9"), r("10.1.0.0", "10.1.0.9"), r("11.0.0.0", "11.0.0.0")},
		2: {r("10.0.0.0", "10.1.0.9"), r("11.0.0.0", "11.0.0.0")},
		1: {r("10.0.0.0", "11.0.0.0")},
	} {
		if got := fewerRanges(many, n); !sameRanges(got, want) {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
	six := []flow.Range{r("2001:db8::", "2001:db8::1"), r("2001:db8:0:1::", "2001:db8:0:1::"), r("2001:db8:0:1::3", "2001:db8:0:1::4"), r("fd00::", "fd00::")}
	if got, want := fewerRanges(six, 2), []flow.Range{r("2001:db8::", "2001:db8:0:1::4"), six[3]}; !sameRanges(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := fewerRanges(six, 3), []flow.Range{six[0], r("2001:db8:0:1::", "2001:db8:0:1::4"), six[3]}; !sameRanges(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A closed space of many pieces under many ports is held in a bounded number.
func TestHoldsAreFew(t *testing.T) {
	port := func(n int) flow.PortRange { return flow.PortRange{First: uint16(n), Last: uint16(n)} }
	everybody := []netip.Prefix{flow.IPv4.Any()}
	list := &PrefixList{Name: "long"}
	for i := range 20000 {
		list.Entries = append(list.Entries, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 25))
	}
	policy := func(rules ...*Rule) *Policy {
		for _, r := range rules {
			r.Group = "a"
		}
		return &Policy{Groups: []*Group{{Name: "a", Rules: rules}}, Interfaces: []*Interface{{Name: "eth0", Groups: []string{"a"}}}, Lists: []*PrefixList{list}}
	}
	old := NewJudge(policy(&Rule{ID: "in", AllProtocols: true, Prefixes: everybody}, &Rule{ID: "out", Direction: flow.Egress, AllProtocols: true, Prefixes: everybody}))
	rules := []*Rule{{ID: "all", AllProtocols: true, Lists: []string{"long"}}}
	for i := range 500 {
		rules = append(rules, &Rule{ID: "out", Direction: flow.Egress, Protocol: flow.UDP, Ports: []flow.PortRange{port(2 * i)}, Lists: []string{"long"}})
	}
	new := NewJudge(policy(rules...))
	var bound []BoundPort
	for i := range 300 {
		bound = append(bound, BoundPort{Interface: "eth0", Family: flow.IPv4, Port: uint16(40000 + i), Ephemeral: true})
	}
	held := NewClosing(old, new).Holds(bound)
	if len(held) < 300 || len(held) > maxHolds {
		t.Errorf("%d are held", len(held))
	}
	holds := map[Held]bool{}
	for _, h := range held {
		h.Comment = ""
		holds[h] = true
		if h.LocalPort == 40007 && h.Opened == flow.Ingress && h.Peers.Contains(netip.MustParseAddr("192.0.2.1")) {
			holds[Held{}] = true
		}
	}
	if !holds[Held{}] || len(holds) != len(held)+1 {
		t.Errorf("of %d, %d are one of a kind, and a peer of a closed port is not held", len(held), len(holds))
	}
	for _, h := range held[:20] {
		if rest := h.Remaining(new); len(rest) > maxPieces {
			t.Errorf("of one, %d remain", len(rest))
		}
	}
}
