package corpus

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"sgc/internal/flow"
)

// prefixes makes a canonical list of both families.
func (g generator) prefixes(n int) []netip.Prefix {
	var out []netip.Prefix
	for range n {
		out = append(out, g.prefix(pick(g.Rand, flow.Families[:])))
	}
	return sorted(out)
}

// addresses makes a canonical list of single addresses, or nearly.
func (g generator) addresses(n int) []netip.Prefix {
	var out []netip.Prefix
	for range n {
		a := pick(g.Rand, knownPrefixes[pick(g.Rand, flow.Families[:])]).Addr()
		out = append(out, netip.PrefixFrom(a, a.BitLen()-pick(g.Rand, []int{0, 0, 0, 1, 3})).Masked())
	}
	return sorted(out)
}

// prefix makes a prefix of a few networks, so that prefixes meet: equal ones,
// nested ones, and neighbours.
func (g generator) prefix(f flow.Family) netip.Prefix {
	known := pick(g.Rand, knownPrefixes[f])
	switch g.IntN(4) {
	case 0:
		return known
	case 1: // narrower
		bits := known.Bits() + g.IntN(f.Bits()-known.Bits()+1)
		return netip.PrefixFrom(within(g.Rand, known), bits).Masked()
	case 2: // wider
		return netip.PrefixFrom(known.Addr(), g.IntN(known.Bits()+1)).Masked()
	default: // the one beside it
		next := flow.RangeOf(known).Last.Next()
		if !next.IsValid() {
			return known
		}
		return netip.PrefixFrom(next, known.Bits()).Masked()
	}
}

// within returns an address of the prefix.
func within(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		for bit := range 8 {
			if i*8+bit >= p.Bits() && r.IntN(2) == 1 {
				b[i] |= 0x80 >> bit
			}
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func sorted(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}
