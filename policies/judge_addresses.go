package policies

import (
	"net/netip"
	"slices"
	"sort"
)

// addressIndex finds the longest of its prefixes that holds an address, in a
// binary search and a walk outwards. It keeps the slice that it was made from
// if that is sorted, and four bytes a prefix beside it.
type addressIndex struct {
	// prefixes are sorted by family, address, length. A prefix therefore
	// stands somewhere behind every prefix that holds it.
	prefixes []netip.Prefix
	// parents holds for each prefix the index of the next wider one that holds
	// it, or -1.
	parents []int32
}

func newAddressIndex(prefixes []netip.Prefix) *addressIndex {
	prefixes = sortedPrefixes(prefixes)
	x := &addressIndex{prefixes: prefixes, parents: make([]int32, len(prefixes))}
	for i, p := range prefixes {
		parent := int32(i) - 1
		for parent >= 0 && !prefixes[parent].Contains(p.Addr()) {
			parent = x.parents[parent]
		}
		x.parents[i] = parent
	}
	return x
}

// sortedPrefixes returns the list sorted by family, address, length; itself, if
// it is.
func sortedPrefixes(list []netip.Prefix) []netip.Prefix {
	if slices.IsSortedFunc(list, netip.Prefix.Compare) {
		return list
	}
	return slices.SortedFunc(slices.Values(list), netip.Prefix.Compare)
}

// longest returns the longest prefix that holds a.
func (x *addressIndex) longest(a netip.Addr) (netip.Prefix, bool) {
	// Whatever holds a is the last prefix that begins at or before a, or holds
	// that one.
	for i := x.lastAtOrBefore(a); i >= 0; i = x.parents[i] {
		if x.prefixes[i].Contains(a) {
			return x.prefixes[i], true
		}
	}
	return netip.Prefix{}, false
}

// lastAtOrBefore returns the index of the last prefix that begins at or before
// a, or -1.
func (x *addressIndex) lastAtOrBefore(a netip.Addr) int32 {
	return int32(sort.Search(len(x.prefixes), func(i int) bool { return a.Less(x.prefixes[i].Addr()) })) - 1
}

// contains reports whether any prefix holds a.
func (x *addressIndex) contains(a netip.Addr) bool {
	_, ok := x.longest(a)
	return ok
}
