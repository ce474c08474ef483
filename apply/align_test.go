package apply

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// longest is the length of the longest common subsequence, the slow way.
func longest(a, b []int32) int {
	row := make([]int, len(b)+1)
	for _, x := range a {
		diagonal := 0
		for j, y := range b {
			above := row[j+1]
			if same(x, y) {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(row[j+1], row[j])
			}
			diagonal = above
		}
	}
	return row[len(b)]
}

// checkAlignment fails if kept is no common subsequence, and returns its
// length.
func checkAlignment(t *testing.T, have, want, kept []int32) int {
	t.Helper()
	n, last := 0, int32(-1)
	for i, w := range kept {
		if w < 0 {
			continue
		}
		if w <= last || !same(have[i], want[w]) {
			t.Fatalf("align(%v, %v) = %v is no common subsequence", have, want, kept)
		}
		last = w
		n++
	}
	return n
}

func TestAlignKeepsTheMost(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	list := func() []int32 {
		l := make([]int32, r.IntN(12))
		for i := range l {
			l[i] = r.Int32N(6) - 1 // -1 is unmatched
		}
		return l
	}
	for range 20_000 {
		have, want := list(), list()
		if got, most := checkAlignment(t, have, want, align(have, want)), longest(have, want); got != most {
			t.Fatalf("align(%v, %v) keeps %d of %d", have, want, got, most)
		}
	}
}

func TestAlignOfOneMovedRuleMovesOne(t *testing.T) {
	t.Parallel()
	have := make([]int32, 1000)
	for i := range have {
		have[i] = int32(i)
	}
	want := slices.Clone(have)
	moved := want[10]
	want = append(slices.Delete(want, 10, 11), 0)
	copy(want[901:], want[900:])
	want[900] = moved
	if n := checkAlignment(t, have, want, align(have, want)); n != 999 {
		t.Errorf("%d of 1000 rules stay", n)
	}
}

// threadTime is how long the calling thread has been computing. Unlike the
// clock it stands still while others have the processor.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func TestAlignStaysFast(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := rand.New(rand.NewPCG(3, 4))
	const n = 100_000
	for name, ids := range map[string]int32{"all alike": 1, "few": 10, "many": n} {
		have, want := make([]int32, n), make([]int32, n+1)
		for i := range have {
			have[i] = r.Int32N(ids)
		}
		for i := range want {
			want[i] = r.Int32N(ids)
		}
		have[0], want[0] = n+1, n+2
		have[n-1], want[n] = n+1, n+2
		start := threadTime(t)
		kept := checkAlignment(t, have, want, align(have, want))
		if d := threadTime(t) - start; d > 5*time.Second {
			t.Errorf("%s: %s", name, d)
		}
		if kept < n/1000 {
			t.Errorf("%s: only %d stay", name, kept)
		}
	}
}
