package flow

import (
	"net/netip"
	"slices"
)

// Range is an inclusive range of addresses of one family.
type Range struct {
	First, Last netip.Addr
}

// RangeOf returns the addresses of a prefix.
func RangeOf(p netip.Prefix) Range {
	p = p.Masked()
	first := p.Addr()
	if first.Is4() {
		b := first.As4()
		fillHostBits(b[:], p.Bits())
		return Range{first, netip.AddrFrom4(b)}
	}
	b := first.As16()
	fillHostBits(b[:], p.Bits())
	return Range{first, netip.AddrFrom16(b)}
}

// fillHostBits sets every bit of b from position bits on.
func fillHostBits(b []byte, bits int) {
	for i := bits / 8; i < len(b); i++ {
		if i == bits/8 {
			b[i] |= 0xff >> (bits % 8)
		} else {
			b[i] = 0xff
		}
	}
}

// Contains reports whether a lies in the range.
func (r Range) Contains(a netip.Addr) bool {
	return r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// IsAny reports whether the range is the whole address space of its family.
func (r Range) IsAny() bool { return r == RangeOf(FamilyOf(r.First).Any()) }

// MergeRanges sorts ranges and joins those that overlap or touch, so that the
// result is the same address space in the fewest disjoint ranges. It works in
// place and returns a slice of the same array. Families stay apart.
func MergeRanges(ranges []Range) []Range {
	slices.SortFunc(ranges, func(a, b Range) int {
		if c := a.First.Compare(b.First); c != 0 {
			return c
		}
		return a.Last.Compare(b.Last)
	})
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out); n > 0 && FamilyOf(out[n-1].First) == FamilyOf(r.First) {
			last := &out[n-1]
			next := last.Last.Next()
			if !next.IsValid() || r.First.Compare(next) <= 0 {
				if last.Last.Compare(r.Last) < 0 {
					last.Last = r.Last
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// Prefixes splits the range into the fewest prefixes, in order. A range that
// ends before it begins, or in another family, holds nothing and has none.
func (r Range) Prefixes() []netip.Prefix {
	if r.First.BitLen() != r.Last.BitLen() || !r.First.IsValid() || r.Last.Less(r.First) {
		return nil
	}
	var out []netip.Prefix
	for first := r.First; ; {
		bits := FamilyOf(first).Bits()
		for bits > 0 {
			wider := netip.PrefixFrom(first, bits-1)
			if wider.Masked().Addr() != first || RangeOf(wider).Last.Compare(r.Last) > 0 {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(first, bits)
		out = append(out, p)
		last := RangeOf(p).Last
		if last == r.Last {
			return out
		}
		first = last.Next()
	}
}
