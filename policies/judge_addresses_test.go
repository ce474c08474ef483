package policies

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sgc/internal/flow"
)

// TestAddressIndexIsALinearSearch holds the index against a walk over all
// prefixes, on lists that nest deeply.
func TestAddressIndexIsALinearSearch(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		var list []netip.Prefix
		for range r.IntN(40) {
			list = append(list, randomPrefix(r))
		}
		unsorted := slices.Clone(list)
		x := newAddressIndex(list)
		if !slices.Equal(list, unsorted) {
			t.Fatalf("seed %d: the index changed its input", seed)
		}
		for range 100 {
			p := randomPrefix(r)
			a := p.Addr()
			if r.IntN(2) == 0 {
				a = flow.RangeOf(p).Last
			}
			want := netip.Prefix{}
			covered, met := false, false
			for _, q := range list {
				if q.Contains(a) && (!want.IsValid() || q.Bits() > want.Bits()) {
					want = q
				}
				covered = covered || q.Overlaps(p) && q.Bits() <= p.Bits()
				met = met || q.Overlaps(p)
			}
			if got, ok := x.longest(a); got != want || ok != want.IsValid() {
				t.Fatalf("seed %d: %s is in %s of %s, want %s", seed, a, got, list, want)
			}
			if got := x.covers(p); got != covered {
				t.Fatalf("seed %d: %s covers %s: %t", seed, list, p, got)
			}
			if got := x.meets(p); got != met {
				t.Fatalf("seed %d: %s meets %s: %t", seed, list, p, got)
			}
		}
	}
}

// randomPrefix makes prefixes of so few addresses that they often nest.
func randomPrefix(r *rand.Rand) netip.Prefix {
	b := [16]byte{10, byte(r.IntN(4) * 64), 0, byte(r.IntN(256))}
	a := netip.AddrFrom4([4]byte(b[:4]))
	if r.IntN(2) == 0 {
		a = netip.AddrFrom16(b)
	}
	return netip.PrefixFrom(a, r.IntN(33)).Masked()
}
