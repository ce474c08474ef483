package compile

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sgc/internal/flow"
)

// randomRanges returns merged ranges of about n random prefixes of a family,
// crowded so that shards are of very different sizes.
func randomRanges(rng *rand.Rand, f flow.Family, n int) []flow.Range {
	var out []flow.Range
	for range n {
		var b [16]byte
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if rng.IntN(3) > 0 {
			b[0], b[1] = 10, 0
		}
		a := netip.AddrFrom16(b)
		if f == flow.IPv4 {
			a = netip.AddrFrom4([4]byte(b[:4]))
		}
		out = append(out, flow.RangeOf(netip.PrefixFrom(a, f.Bits()-rng.IntN(12))))
	}
	return flow.MergeRanges(out)
}

func TestShardsAreTheList(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, f := range flow.Families {
		ranges := randomRanges(rng, f, 30000)
		if len(ranges) <= 2*maxSet {
			t.Fatalf("only %d ranges", len(ranges))
		}
		// A range that crosses the first border, the middle of the space.
		border := flow.RangeOf(netip.PrefixFrom(f.Any().Addr(), 1)).Last
		ranges = flow.MergeRanges(append(ranges, flow.Range{First: border.Prev(), Last: border.Next()}))
		var all []flow.Range
		var last netip.Addr
		for _, s := range shards(ranges, f) {
			if len(s.ranges) == 0 || len(s.ranges) > maxSet {
				t.Errorf("shard %s holds %d ranges", s.prefix, len(s.ranges))
			}
			space := flow.RangeOf(s.prefix)
			if last.IsValid() && !last.Less(space.First) {
				t.Errorf("shard %s is not behind the one before it", s.prefix)
			}
			last = space.Last
			for _, r := range s.ranges {
				if !space.Contains(r.First) || !space.Contains(r.Last) {
					t.Errorf("shard %s holds %v", s.prefix, r)
				}
			}
			all = append(all, s.ranges...)
		}
		if got := flow.MergeRanges(all); !slices.Equal(got, ranges) {
			t.Errorf("%s: the shards are not the list: %d ranges of %d", f, len(got), len(ranges))
		}
	}
}

func TestOneMoreRangeChangesOneShard(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	ranges := randomRanges(rng, flow.IPv4, 30000)
	before := map[string][]flow.Range{}
	for _, s := range shards(ranges, flow.IPv4) {
		before[s.name()] = s.ranges
	}
	changed := 0
	const tries = 50
	for range tries {
		one := flow.RangeOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(rng.Uint32()), byte(rng.Uint32())}), 32))
		for _, s := range shards(flow.MergeRanges(append(slices.Clone(ranges), one)), flow.IPv4) {
			if !slices.Equal(before[s.name()], s.ranges) {
				changed++
			}
		}
	}
	if changed > tries+2 {
		t.Errorf("%d ranges more, one at a time, changed %d shards", tries, changed)
	}
}
