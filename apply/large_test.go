package apply

import (
	"context"
	"os"
	"testing"
	"time"
)

// TestMillionPrefixes commits a million prefixes and reads them back. The
// kernel reads a set in pieces, each from the start of the set, so that this
// takes long; it is run where somebody asks for it.
func TestMillionPrefixes(t *testing.T) {
	n := 100_000
	if os.Getenv("SGC_LARGE") == "1" {
		n = 1_000_000
	} else if testing.Short() {
		t.Skip("SKIP: large, and -short was given")
	}
	l := newLab(t)
	want := largeTable(n)
	start := time.Now()
	d := l.diff(want)
	t.Logf("diff: %s, %d messages, %d bytes", time.Since(start), d.Messages(), d.Bytes())
	start = time.Now()
	if err := l.kernel.Commit(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	t.Logf("commit: %s", time.Since(start))
	start = time.Now()
	s := l.snapshot()
	t.Logf("snapshot: %s", time.Since(start))
	if got := s.Table.Set("large").Size(); got != n {
		t.Errorf("%d elements, want %d", got, n)
	}
	start = time.Now()
	d, err := Diff(s, want)
	if err != nil || !d.Empty() {
		t.Fatalf("%v\n%s", err, changesText(d))
	}
	t.Logf("second diff: %s", time.Since(start))
	id, err := l.kernel.Identity(s.Generation)
	if err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	if s, err = l.kernel.SnapshotKnowing(context.Background(), nil, Known{Identity: id, Table: want}); err != nil {
		t.Fatal(err)
	}
	t.Logf("snapshot from memory: %s", time.Since(start))
	if d, err := Diff(s, want); err != nil || !d.Empty() {
		t.Errorf("%v\n%s", err, changesText(d))
	}
}
