package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// look returns what the watch knows since a generation.
func (l *lab) look(since uint32) changes {
	l.t.Helper()
	return l.kernel.watch.since(since)
}

func TestWatchKnowsWhoseTablesChanged(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	start := l.apply(webTable()).After()
	if c := l.look(start); !c.known || c.own || c.now != start || len(c.others) != 0 {
		t.Fatalf("nothing happened: %+v", c)
	}
	if c := l.look(start - 1); !c.known || !c.own {
		t.Errorf("the commit of this process is not seen: %+v", c)
	}
	if c := l.look(after(start)); c.known {
		t.Errorf("the future is known: %+v", c)
	}
	l.nft("add table ip one; add chain ip one c; add table inet two")
	l.nft("add table ip6 three")
	c := l.look(start)
	if !c.known || c.own || c.now != after(after(start)) || len(c.others) != 3 {
		t.Errorf("three tables of others: %+v", c)
	}
	if c := l.look(after(start)); len(c.others) != 1 || c.others[0].name != "three" {
		t.Errorf("one table of others: %+v", c)
	}
	// A table of that name in another family is somebody else's.
	l.nft("add table ip sgc")
	if c := l.look(start); c.own || len(c.others) != 4 {
		t.Errorf("table ip sgc: %+v", c)
	}
	before := l.look(start).now
	l.nft("add element inet sgc exempt.ipv4 { 192.0.2.1 }")
	if c := l.look(before); !c.own || len(c.others) != 0 {
		t.Errorf("an element of the own table: %+v", c)
	}
	if c := l.look(l.look(start).now); !c.known || c.own {
		t.Errorf("after it: %+v", c)
	}
}

// TestWatchThatLosesMessagesKnowsNothing lets messages be lost while nobody
// receives.
func TestWatchThatLosesMessagesKnowsNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	d := l.diff(webTable())
	w := l.kernel.watch
	if err := w.conn.socket.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	var script strings.Builder
	for i := range 300 {
		fmt.Fprintf(&script, "add table ip t%d\n", i)
	}
	l.nft(script.String())
	w.mu.Unlock()
	if c := l.look(d.Generation()); c.known {
		t.Errorf("%+v is known of what was lost", c)
	}
	if err := l.kernel.Commit(context.Background(), d); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v, want ErrChanged", err)
	}
	if err := w.conn.socket.SetReadBuffer(watchBuffer); err != nil {
		t.Fatal(err)
	}
	// From the next snapshot on all is known again.
	d = l.diff(webTable())
	l.nft("add table ip6 other")
	if err := l.kernel.Commit(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	l.wantSame(webTable())
}

func TestWatchThatLeft(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := newLab(t)
	start := l.snapshot().Generation
	w := l.kernel.watch
	c, err := l.kernel.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close() // nothing is lost
	for _, tt := range []struct {
		name, meanwhile string
		expected, known bool
	}{
		{"nothing happened, and nothing was to", "", true, true},
		{"something happened", "add table inet sgc", true, false},
		{"nothing was expected", "", false, false},
	} {
		if err := w.leave(); err != nil {
			t.Fatal(err)
		}
		if l.look(start).known {
			t.Errorf("%s: something is known meanwhile", tt.name)
		}
		if tt.meanwhile != "" {
			l.nft(tt.meanwhile)
		}
		expected := uint32(0)
		if tt.expected {
			expected = start
		}
		if err := w.join(ctx, c, expected); err != nil {
			t.Fatal(err)
		}
		if c := l.look(start); c.known != (tt.known || tt.meanwhile == "") {
			t.Errorf("%s: %+v", tt.name, c)
		}
		start = l.snapshot().Generation
		l.nft("add table inet sgc; delete table inet sgc")
		if c := l.look(start); !c.known || !c.own {
			t.Errorf("%s: after that: %+v", tt.name, c)
		}
		start = l.look(start).now
	}
}

// Another Kernel has not seen what happened since the snapshot of the first.
func TestCommitWithoutAWatch(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	d := l.diff(webTable())
	l.nft("add table ip other")
	k, err := Open(fmt.Sprintf("/proc/self/fd/%d", l.netns.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Commit(context.Background(), d); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v, want ErrChanged", err)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	if err := l.kernel.Commit(context.Background(), d); err != nil {
		t.Error(err)
	}
}

// What is remembered stays good while nobody but others changes something, as
// long as that is seen.
func TestMemoryOutlivesChangesOfOthers(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := newLab(t)
	d := l.apply(largeTable(3000))
	id, err := l.kernel.Identity(d.After())
	if err != nil {
		t.Fatal(err)
	}
	// Memory that is wrong shows that it is used.
	look := func() bool {
		s, err := l.kernel.SnapshotKnowing(ctx, nil, Known{Identity: id, Table: largeTable(2999)})
		if err != nil {
			t.Fatal(err)
		}
		d, err := Diff(s, largeTable(3000))
		if err != nil {
			t.Fatal(err)
		}
		return !d.Empty()
	}
	l.nft("add table ip other")
	if !look() {
		t.Error("the elements were read although nobody changed them")
	}
	l.nft("add element inet sgc exempt.ipv4 { 192.0.2.1 }; delete element inet sgc exempt.ipv4 { 192.0.2.1 }")
	if look() {
		t.Error("memory was used after a change of the own table")
	}
}

func TestGenerationsWrap(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b uint32
		want bool
	}{{2, 1, true}, {1, 2, false}, {1, 1, false}, {1, 1<<32 - 1, true}, {1<<32 - 1, 1, false}} {
		if got := later(tt.a, tt.b); got != tt.want {
			t.Errorf("%d after %d: %t", tt.a, tt.b, got)
		}
	}
}

// A kernel that is closed ends its watch.
func TestCloseEndsTheWatch(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	k, err := Open(fmt.Sprintf("/proc/self/fd/%d", l.netns.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Snapshot(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	w := k.watch
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-w.ended:
	case <-time.After(time.Minute):
		t.Error("it goes on")
	}
}
