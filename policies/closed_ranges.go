package policies

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"

	"sgc/internal/flow"
)

// splitPorts cuts a range before and after another one.
func splitPorts(r, at flow.PortRange) []flow.PortRange {
	var out []flow.PortRange
	for _, part := range [][2]int{
		{int(r.First), min(int(r.Last), int(at.First)-1)},
		{max(int(r.First), int(at.First)), min(int(r.Last), int(at.Last))},
		{max(int(r.First), int(at.Last)+1), int(r.Last)},
	} {
		if part[0] <= part[1] {
			out = append(out, flow.PortRange{First: uint16(part[0]), Last: uint16(part[1])})
		}
	}
	return out
}

// mergeSpaces joins boxes that touch in one of their ports and are equal else.
func mergeSpaces(boxes []ClosedSpace) []ClosedSpace {
	join := func(by, other func(*ClosedSpace) *flow.PortRange) {
		slices.SortFunc(boxes, func(a, b ClosedSpace) int {
			return cmp.Or(
				cmp.Compare(other(&a).First, other(&b).First), cmp.Compare(other(&a).Last, other(&b).Last),
				cmp.Compare(by(&a).First, by(&b).First),
			)
		})
		out := boxes[:0]
		for _, b := range boxes {
			if n := len(out); n > 0 {
				last := &out[n-1]
				if *other(last) == *other(&b) && int(by(last).Last)+1 == int(by(&b).First) && sameRanges(last.Peers, b.Peers) {
					by(last).Last = by(&b).Last
					continue
				}
			}
			out = append(out, b)
		}
		boxes = out
	}
	local := func(s *ClosedSpace) *flow.PortRange { return &s.LocalPorts }
	peer := func(s *ClosedSpace) *flow.PortRange { return &s.PeerPorts }
	join(peer, local)
	join(local, peer)
	return boxes
}

func sameRanges(a, b []flow.Range) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// rangesOf returns the addresses of prefixes in the fewest ranges.
func rangesOf(prefixes []netip.Prefix) []flow.Range {
	ranges := make([]flow.Range, len(prefixes))
	for i, p := range prefixes {
		ranges[i] = flow.RangeOf(p)
	}
	return flow.MergeRanges(ranges)
}

// minusRanges returns the addresses of one merged list that are not in another.
func minusRanges(from, what []flow.Range) []flow.Range {
	if len(what) == 0 {
		return from
	}
	if len(from) == 0 {
		return nil
	}
	var out []flow.Range
	n, _ := slices.BinarySearchFunc(what, from[0].First, func(r flow.Range, first netip.Addr) int { return r.Last.Compare(first) })
	for _, r := range from {
		for n < len(what) && what[n].Last.Less(r.First) {
			n++
		}
		rest, left := r, true
		for m := n; m < len(what) && !r.Last.Less(what[m].First); m++ {
			if rest.First.Less(what[m].First) {
				out = append(out, flow.Range{First: rest.First, Last: what[m].First.Prev()})
			}
			if !what[m].Last.Less(rest.Last) {
				left = false
				break
			}
			rest.First = what[m].Last.Next()
		}
		if left {
			out = append(out, rest)
		}
	}
	return out
}

// fewerRanges returns n ranges at most that hold all of the addresses, and as few
// others as can be: the narrowest gaps between them are closed.
func fewerRanges(ranges []flow.Range, n int) []flow.Range {
	if len(ranges) <= n {
		return ranges
	}
	type gap struct {
		high, low uint64
		before    int
	}
	gaps := make([]gap, 0, len(ranges))
	for i := 1; i < len(ranges); i++ {
		from, to := ranges[i-1].Last.As16(), ranges[i].First.As16()
		low, borrow := bits.Sub64(binary.BigEndian.Uint64(to[8:]), binary.BigEndian.Uint64(from[8:]), 0)
		high, _ := bits.Sub64(binary.BigEndian.Uint64(to[:8]), binary.BigEndian.Uint64(from[:8]), borrow)
		gaps = append(gaps, gap{high, low, i})
	}
	slices.SortFunc(gaps, func(a, b gap) int {
		return cmp.Or(cmp.Compare(b.high, a.high), cmp.Compare(b.low, a.low), cmp.Compare(a.before, b.before))
	})
	kept := gaps[:n-1]
	slices.SortFunc(kept, func(a, b gap) int { return cmp.Compare(a.before, b.before) })
	out := make([]flow.Range, 0, n)
	first := 0
	for _, g := range kept {
		out = append(out, flow.Range{First: ranges[first].First, Last: ranges[g.before-1].Last})
		first = g.before
	}
	return append(out, flow.Range{First: ranges[first].First, Last: ranges[len(ranges)-1].Last})
}

// fewerSpaces returns boxes with n ranges of peers in all that hold everything
// that the given ones do. These are disjoint and sorted by ports.
func fewerSpaces(boxes []ClosedSpace, n int) []ClosedSpace {
	total := 0
	for _, b := range boxes {
		total += len(b.Peers)
	}
	if total <= n {
		return boxes
	}
	if len(boxes) > n {
		all := ClosedSpace{LocalPorts: boxes[0].LocalPorts, PeerPorts: boxes[0].PeerPorts}
		for _, b := range boxes {
			all.LocalPorts.First, all.LocalPorts.Last = min(all.LocalPorts.First, b.LocalPorts.First), max(all.LocalPorts.Last, b.LocalPorts.Last)
			all.PeerPorts.First, all.PeerPorts.Last = min(all.PeerPorts.First, b.PeerPorts.First), max(all.PeerPorts.Last, b.PeerPorts.Last)
			all.Peers = flow.MergeRanges(append(all.Peers, b.Peers...))
		}
		boxes = []ClosedSpace{all}
	}
	for i := range boxes {
		boxes[i].Peers = fewerRanges(boxes[i].Peers, max(1, n/len(boxes)))
	}
	return boxes
}
