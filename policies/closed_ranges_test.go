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
