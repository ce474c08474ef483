package compile

import (
	"cmp"
	"container/heap"
	"net/netip"
	"slices"

	"sgc/internal/flow"
	"sgc/policies"
)

// firstMatch works out what a list of entries of one family says of every
// address, where the first entry that holds the address decides. It returns
// the addresses that are allowed and those that are denied, each merged; what
// no entry holds is in neither.
func firstMatch(entries []*policies.ACLEntry) (allow, deny []flow.Range) {
	for _, d := range decide(entries) {
		if entries[d.entry].Allow {
			allow = append(allow, d.Range)
		} else {
			deny = append(deny, d.Range)
		}
	}
	return flow.MergeRanges(allow), flow.MergeRanges(deny)
}

// decided is a range of addresses and the index of the entry that decides it.
type decided struct {
	flow.Range
	entry int
}

// decide returns the ranges that each entry decides, in order of address.
func decide(entries []*policies.ACLEntry) []decided {
	ranges := make([]flow.Range, len(entries))
	order := make([]int, len(entries)) // entries by their first address
	var starts []netip.Addr            // where the deciding entry may change
	for i, e := range entries {
		ranges[i] = flow.RangeOf(e.Prefix)
		order[i] = i
		starts = append(starts, ranges[i].First)
		if next := ranges[i].Last.Next(); next.IsValid() {
			starts = append(starts, next)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(ranges[a].First.Compare(ranges[b].First), a-b)
	})
	slices.SortFunc(starts, netip.Addr.Compare)
	starts = slices.Compact(starts)

	var out []decided
	var open lowest // the entries that may hold the current address
	for i, at := range starts {
		for len(order) > 0 && ranges[order[0]].First == at {
			heap.Push(&open, order[0])
			order = order[1:]
		}
		for len(open) > 0 && ranges[open[0]].Last.Compare(at) < 0 {
			heap.Pop(&open)
		}
		if len(open) == 0 {
			continue
		}
		r := flow.Range{First: at, Last: ranges[open[0]].Last}
		if i+1 < len(starts) && starts[i+1].Compare(r.Last) <= 0 {
			r.Last = starts[i+1].Prev()
		}
		out = append(out, decided{r, open[0]})
	}
	return out
}

// lowest is a heap of entry indices.
type lowest []int

func (h lowest) Len() int           { return len(h) }
func (h lowest) Less(i, j int) bool { return h[i] < h[j] }
func (h lowest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lowest) Push(x any)        { *h = append(*h, x.(int)) }
func (h *lowest) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// complement returns the addresses of the family that are in none of the
// merged ranges.
func complement(ranges []flow.Range, f flow.Family) []flow.Range {
	all := flow.RangeOf(f.Any())
	var out []flow.Range
	next := all.First
	for _, r := range ranges {
		if next.Compare(r.First) < 0 {
			out = append(out, flow.Range{First: next, Last: r.First.Prev()})
		}
		if next = r.Last.Next(); !next.IsValid() {
			return out
		}
	}
	return append(out, flow.Range{First: next, Last: all.Last})
}
