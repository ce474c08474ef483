package apply

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
	"sgc/internal/ruleset"
)

// A writer is somebody else who changes nf_tables without a pause.
type writer struct {
	l    *lab
	stop chan struct{}
	wait sync.WaitGroup
	// done is how many transactions the kernel took.
	done atomic.Int64
	// turns, if not nil, holds what the writer waits for before each of them.
	turns chan struct{}
}

// write sends the transactions that step writes, numbered from 0, until the
// writer ends.
func (l *lab) write(step func(n int, b *batch)) *writer {
	l.t.Helper()
	c, err := l.kernel.dial()
	if err != nil {
		l.t.Fatal(err)
	}
	w := &writer{l: l, stop: make(chan struct{})}
	w.wait.Go(func() {
		defer c.close() // nothing is lost
		for n := 0; ; n++ {
			select {
			case <-w.stop:
				return
			default:
			}
			var b batch
			b.openUnbound()
			step(n, &b)
			b.close()
			if err := c.sendOnce(context.Background(), &b); err != nil {
				l.t.Errorf("transaction %d of somebody else: %v", n, err)
				return
			}
			w.done.Add(1)
		}
	})
	return w
}

// takeTurns does step, numbered from 0, a few times for every meeting with the
// writer. Who never pauses keeps a reader that happens to be the slower one from
// ever reading what he changes.
func (l *lab) takeTurns(step func(n int) error) *writer {
	const turns = 3 // much less than snapshotAttempts
	w := &writer{l: l, stop: make(chan struct{}), turns: make(chan struct{}, turns)}
	w.wait.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-w.stop:
				return
			case <-w.turns:
			}
			if err := step(n); err != nil {
				l.t.Errorf("change %d of somebody else: %v", n, err)
				return
			}
			w.done.Add(1)
		}
	})
	return w
}

// end ends the writer.
func (w *writer) end() {
	w.l.t.Helper()
	close(w.stop)
	w.wait.Wait()
	w.l.t.Logf("somebody else made %d transactions", w.done.Load())
}

// meet does step until the writer was in its way: one of its transactions ended
// while step ran. That one time does not do is no fault, since the kernel may
// serve step before it serves the writer again; undo takes back what step did.
func (w *writer) meet(step, undo func()) {
	w.l.t.Helper()
	for {
		for len(w.turns) < cap(w.turns) {
			w.turns <- struct{}{}
		}
		before := w.done.Load()
		step()
		if w.done.Load() > before || w.l.t.Failed() {
			return
		}
		undo()
	}
}

// foreign starts a message about a table of any family.
func (b *batch) foreign(typ, flags int, family uint8) *nlmsg.Message {
	m := b.begin(typ, flags, operation{kind: TableKind})
	m.Buf[b.operations[len(b.operations)-1].start+nlmsg.HeaderSize] = family
	return m
}

// comeAndGo adds a table with a chain, and removes it, in turn.
func comeAndGo(family uint8, name string) func(int, *batch) {
	return func(n int, b *batch) {
		if n%2 == 1 {
			m := b.foreign(unix.NFT_MSG_DELTABLE, 0, family)
			m.CString(unix.NFTA_TABLE_NAME, name)
			m.Finish()
			return
		}
		m := b.foreign(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, family)
		m.CString(unix.NFTA_TABLE_NAME, name)
		m.Finish()
		m = b.foreign(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, family)
		m.CString(unix.NFTA_CHAIN_TABLE, name)
		m.CString(unix.NFTA_CHAIN_NAME, "c")
		m.Finish()
	}
}

// insist brings the table to want as a command does: it looks again if the
// commit finds that somebody changed something.
func (l *lab) insist(want *ruleset.Table) {
	l.t.Helper()
	// On a machine that stands still now and then a large transaction may be late.
	const most = 2 * time.Minute
	end := time.Now().Add(most)
	for attempt := 1; ; attempt++ {
		err := l.kernel.Commit(context.Background(), l.diff(want))
		if err == nil {
			return
		}
		if !errors.Is(err, ErrChanged) || time.Now().After(end) {
			l.t.Fatalf("after %d attempts: %v", attempt, err)
		}
	}
}

func TestChangesOfOthersDoNotStopACommit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		have, want *ruleset.Table
	}{
		{"a first apply", nil, largeTable(20_000)},
		{"three transactions", started(), flipped(20_000)},
		{"one large transaction", largeTable(100), largeTable(20_000)},
		{"the end", largeTable(20_000), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			if tt.have != nil {
				l.apply(tt.have)
			}
			w := l.write(comeAndGo(unix.NFPROTO_IPV4, "other"))
			defer w.end()
			w.meet(func() { l.insist(tt.want) }, func() { l.insist(tt.have) })
			if tt.want == nil {
				if l.snapshot().Table != nil {
					t.Error("the table is still there")
				}
				return
			}
			l.wantSame(tt.want)
		})
	}
}

// TestWhatOthersChangeBetweenSnapshotAndCommit tells what matters from what does
// not.
func TestWhatOthersChangeBetweenSnapshotAndCommit(t *testing.T) {
	t.Parallel()
	const (
		nat4    = "add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; "
		nat6    = "add table ip6 nat; add chain ip6 nat post { type nat hook postrouting priority 100; }; "
		masks4  = nat4 + "add rule ip nat post oif lo masquerade; "
		masks6  = nat6 + "add rule ip6 nat post oif lo masquerade; "
		judging = "add table inet fw; add chain inet fw c; add rule inet fw c ct state established accept; "
	)
	for _, tt := range []struct {
		name, before, between string
		matters               bool
	}{
		{"a table", "", "add table ip other", false},
		{"rules that drop", "", "add table inet fw; add chain inet fw c { type filter hook input priority 0; }; add rule inet fw c tcp dport 25 drop", false},
		{"elements", "add table ip f2b; add set ip f2b s { type ipv4_addr; }", "add element ip f2b s { 192.0.2.1, 192.0.2.2 }", false},
		{"a table goes", "add table inet fw", "delete table inet fw", false},
		{"rules for a bridge", "", "add table bridge b; add chain bridge b c; add rule bridge b c counter drop", false},
		{"NAT", "", masks4, true},
		{"rules that judge by conntrack", "", judging, true},
		{"rules that set zones", "", "add table inet zones; add chain inet zones c; add rule inet zones c ct zone set 5", true},
		{"a rule in a chain for NAT", nat4, "add rule ip nat post counter", true},
		{"more NAT", masks4, "add rule ip nat post masquerade; add table ip more; add chain ip more c; add rule ip more c ct state new drop", false},
		{"NAT for the other family", masks4, masks6, true},
		{"the only NAT goes", masks4, "delete table ip nat", true},
		{"the only rule of it goes", masks4, "flush chain ip nat post", true},
		{"one rule of it goes", masks4 + "add rule ip nat post masquerade", "flush chain ip nat post; add rule ip nat post masquerade", false},
		{"NAT goes and comes again", masks4, "delete table ip nat; " + masks4, false},
		{"one of two reasons goes", masks4 + judging, "delete table ip nat", false},
		{"one of two reasons goes, the only one of a family", masks4 + judging, "delete table inet fw", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			if tt.before != "" {
				l.nft(tt.before)
			}
			d := l.diff(webTable())
			l.nft(tt.between)
			err := l.kernel.Commit(context.Background(), d)
			if tt.matters {
				if !errors.Is(err, ErrChanged) || l.snapshot().Table != nil {
					t.Errorf("got %v, want ErrChanged and no table", err)
				}
				l.apply(webTable())
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// It knows where it led to, although others made generations.
			now := l.snapshot().Generation
			if d.After() != now {
				t.Errorf("led to generation %d, and it is %d", d.After(), now)
			}
			l.wantSame(webTable())
			// Where nothing is wanted, nothing of others matters.
			d = l.diff(nil)
			l.nft("flush ruleset; add table inet sgc")
			if err := l.kernel.Commit(context.Background(), d); !errors.Is(err, ErrChanged) {
				t.Errorf("after a flush: %v, want ErrChanged", err)
			}
			d = l.diff(nil)
			l.nft(masks4)
			if err := l.kernel.Commit(context.Background(), d); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSnapshotOfTablesThatChangeAllTheTime(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.apply(largeTable(20_000))
	l.nft("add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; add rule ip nat post masquerade")
	w := l.write(comeAndGo(unix.NFPROTO_INET, "other"))
	defer w.end()
	for range 5 {
		w.meet(func() {
			l.wantSame(largeTable(20_000))
			if s := l.snapshot(); len(s.Foreign.IPv4) != 1 || len(s.Foreign.IPv6) != 0 {
				t.Errorf("conntrack is needed for %v", s.Foreign)
			}
		}, func() {})
	}
}

// Who changes the own table whenever it is read is told of, and left alone.
func TestWriterOfTheOwnTableIsToldOf(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.apply(largeTable(5000))
	before, changed := l.list(), 0
	_, err := l.kernel.Snapshot(context.Background(), func(done, total int) {
		changed++
		l.nft("add chain inet sgc mine; delete chain inet sgc mine")
	})
	if err == nil || !contains(err.Error(), "another program keeps changing nf_tables") || changed < snapshotAttempts {
		t.Errorf("after %d changes got %v", changed, err)
	}
	if after := l.list(); after != before {
		t.Errorf("the table is\n%s", after)
	}
}
