package cli

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"sgc/internal/corpus"
	"sgc/internal/lab/labtest"
)

// Whatever the policy, the kernel does with its examples what it says.
// SGC_LAB_SEED and SGC_LAB_POLICIES set the first policy and their number.
func TestLabAgreesWithRandomPolicies(t *testing.T) {
	labtest.Require(t)
	number := func(name string, otherwise uint64) uint64 {
		if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
			return n
		}
		return otherwise
	}
	first, sent := number("SGC_LAB_SEED", rand.Uint64N(1<<32)), 0
	t.Logf("SGC_LAB_SEED=%d", first)
	for seed := first; seed < first+number("SGC_LAB_POLICIES", 6); seed++ {
		p := corpus.Policy(corpus.Seeded(seed), corpus.Options{ACLs: true, AlwaysTrack: true})
		s := &session{}
		for _, all := range []bool{false, true} {
			r, err := s.tryPolicy(context.Background(), p, labOptions{Path: "random", All: all})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			c := r.count()
			sent += c.Packets
			if c.Disagreements > 0 || c.Lost > 0 {
				var out bytes.Buffer
				text := &session{Streams: Streams{Out: &out}}
				if err := text.showLab(r); err != nil {
					t.Fatal(err)
				}
				t.Errorf("seed %d:\n%s", seed, out.String())
			}
		}
	}
	t.Logf("%d packets", sent)
}
