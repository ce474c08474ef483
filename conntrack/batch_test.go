package conntrack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/lab/labtest"
	"sgc/internal/nlmsg"
)

func openBatch(t testing.TB, table *Table) *Batch {
	t.Helper()
	b, err := table.Batch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestDeletingSomeEntriesLeavesTheOthers(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	const all = 3000
	create(t, table, all, clients)
	b := openBatch(t, table)
	even := func(e *Entry) bool { return e.Original.SourcePort%2 == 0 }
	if err := table.Entries(context.Background(), func(e *Entry) error {
		if even(e) {
			return b.Delete(e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	if got, want := b.Result(), (Result{Done: all / 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	left := read(t, table)
	if len(left) != all/2 || slices.ContainsFunc(left, func(e Entry) bool { return even(&e) }) {
		t.Errorf("%d entries are left, want %d odd ones", len(left), all/2)
	}
}

func TestEveryKindOfEntryIsDeleted(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	// Of two flows with the same tuple in two zones, each is deleted for itself.
	seeds := everyKind()
	twin := udpSeed("198.51.100.1:1000", "192.0.2.10:53")
	seeds = append(seeds, twin)
	for _, s := range seeds {
		createSeeds(t, table, seeds...)
		b := openBatch(t, table)
		if err := table.Entries(context.Background(), func(e *Entry) error {
			if e.Original == s.original && e.Zone == s.zone {
				return b.Delete(e)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := b.Flush(); err != nil || b.Result() != (Result{Done: 1}) {
			t.Errorf("delete %s: %+v, %v", &s.original, b.Result(), err)
		}
		for _, e := range read(t, table) {
			if e.Original == s.original && e.Zone == s.zone {
				t.Errorf("%s is still there", &e)
			}
		}
		if err := table.Entries(context.Background(), b.Delete); err != nil {
			t.Fatal(err)
		}
		if err := b.Flush(); err != nil || b.Result().Done != len(seeds) {
			t.Errorf("of %d entries %+v were deleted: %v", len(seeds), b.Result(), err)
		}
	}
}

// keep copies an entry, so that it outlives the call that it is handed to.
func keep(e *Entry) Entry {
	kept := *e
	kept.original = slices.Clone(e.original)
	return kept
}

func keepAll(t testing.TB, table *Table) []Entry {
	t.Helper()
	var all []Entry
	if err := table.Entries(context.Background(), func(e *Entry) error {
		all = append(all, keep(e))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAnEntryThatEndedIsCountedAndItsSuccessorStays(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	s := tcpSeed("198.51.100.1:1", "192.0.2.10:80")
	createSeeds(t, table, s)
	old := keepAll(t, table)
	remove := func() Result {
		b := openBatch(t, table)
		if err := errors.Join(b.Delete(&old[0]), b.Flush()); err != nil {
			t.Fatal(err)
		}
		return b.Result()
	}
	if r := remove(); r != (Result{Done: 1}) {
		t.Errorf("the first time: %+v", r)
	}
	if r := remove(); r != (Result{Gone: 1}) {
		t.Errorf("the second time: %+v", r)
	}
	// The kernel makes ids of places in memory: another entry in between takes
	// the old one's, sooner or later.
	others := 0
	for same := true; same; {
		if others++; others > 100 {
			t.Fatal("the kernel always gives the new entry the old one's id")
		}
		createSeeds(t, table, udpSeed("198.51.100.7:7", fmt.Sprintf("192.0.2.10:%d", others)), s)
		same = false
		for _, e := range keepAll(t, table) {
			if e.Original == s.original && e.ID == old[0].ID {
				same = true
			}
		}
		if same {
			remove()
		}
	}
	if r := remove(); r != (Result{Gone: 1}) {
		t.Errorf("with another entry of the same tuple: %+v", r)
	}
	if left := read(t, table); len(left) != others+1 {
		t.Errorf("left: %v", left)
	}
}

func TestManyEntriesThatEnded(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	const all = 1000
	create(t, table, all, clients)
	old := keepAll(t, table)
	for round, want := range []Result{{Done: all}, {Gone: all}} {
		b := openBatch(t, table)
		for i := range old {
			if err := b.Delete(&old[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Flush(); err != nil || b.Result() != want {
			t.Errorf("round %d: %+v, %v; want %+v", round, b.Result(), err, want)
		}
	}
}

func TestTimeoutsOfEntries(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	createSeeds(t, table, everyKind()...)
	for _, tc := range []struct{ set, want time.Duration }{
		{2000 * time.Second, 2000 * time.Second}, {1900*time.Second + 1, 1901 * time.Second}, {0, time.Second},
	} {
		begin := time.Now()
		b := openBatch(t, table)
		for _, e := range keepAll(t, table) {
			if err := b.SetTimeout(&e, tc.set); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Flush(); err != nil || b.Result().Done != len(everyKind()) {
			t.Fatalf("%+v, %v", b.Result(), err)
		}
		for _, e := range read(t, table) {
			if !e.remains(tc.want, begin) {
				t.Errorf("%s remains %s after it was set to %s", &e.Original, e.Remaining, tc.set)
			}
		}
	}
	// The last of them may have ended meanwhile.
	createSeeds(t, table, clients(0))
	b := openBatch(t, table)
	if err := b.SetTimeout(&keepAll(t, table)[0], maxTimeout+time.Second); err == nil {
		t.Error("a timeout that the kernel would take for another one is set")
	}
}

// Without a tuple, the message would delete the whole table.
func TestOnlyWhatWasReadIsDeleted(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	create(t, table, 10, clients)
	b := openBatch(t, table)
	made := Entry{Original: clients(0).original}
	if err := b.Delete(&made); err == nil {
		t.Error("an entry that was made by hand is deleted")
	}
	if err := errors.Join(b.Flush(), b.Flush()); err != nil {
		t.Fatal(err)
	}
	if left := read(t, table); len(left) != 10 {
		t.Errorf("%d of 10 entries are left", len(left))
	}
}

func TestWhatTheKernelSaysToABatch(t *testing.T) {
	var e Entry
	if err := e.parse(answer(messageNew, 0, 1, tcpSeed("198.51.100.1:1", "192.0.2.10:80").appendTo)[nlmsg.HeaderSize:]); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		answers []any
		want    Result
		err     error
	}{
		{"all went well", []any{refused(0, 3)}, Result{Done: 3}, nil},
		{"the first had ended", []any{refused(unix.ENOENT, 1), refused(0, 3)}, Result{Done: 2, Gone: 1}, nil},
		{"the last had ended", []any{refused(unix.ENOENT, 3)}, Result{Done: 2, Gone: 1}, nil},
		{"answers in one datagram", []any{datagram(refused(unix.ENOENT, 1), refused(unix.EBUSY, 2), refused(0, 3))}, Result{Done: 1, Gone: 1, Busy: 1}, nil},
		{"a refusal does not stop the others", []any{refused(unix.EOPNOTSUPP, 1), refused(unix.ENOENT, 2), refused(0, 3)}, Result{Done: 1, Gone: 1}, unix.EOPNOTSUPP},
		{"an answer to an earlier batch", []any{refused(unix.ENOENT, 0), refused(0, 3)}, Result{Done: 3}, nil},
		{"lost answers", []any{refused(unix.ENOENT, 1), unix.ENOBUFS}, Result{Gone: 1}, unix.ENOBUFS},
		{"silence", nil, Result{}, errNoAnswer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &script{answers: tc.answers}
			b := &Batch{conn: newConn(s)}
			for range 3 {
				if err := b.Delete(&e); err != nil {
					t.Fatal(err)
				}
			}
			if len(s.sent) != 0 {
				t.Error("sent before Flush")
			}
			if err := b.Flush(); !errors.Is(err, tc.err) || tc.err == nil && err != nil {
				t.Errorf("%v, want %v", err, tc.err)
			}
			if b.Result() != tc.want {
				t.Errorf("%+v, want %+v", b.Result(), tc.want)
			}
			acks := 0
			if err := nlmsg.Split(s.sent[0], func(r nlmsg.Reply) error {
				if r.Flags&unix.NLM_F_ACK != 0 {
					acks++
				}
				return nil
			}); err != nil || acks != 1 {
				t.Errorf("%d of the messages want an answer: %v", acks, err)
			}
		})
	}
}

func TestAnInterruptedDeletionStillTakesPlace(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	create(t, table, 500, clients)
	stop := errors.New("stop")
	n := 0
	r, err := table.inBatches(func(b *Batch) error {
		return table.Entries(context.Background(), func(e *Entry) error {
			if n++; n > 50 {
				return stop
			}
			return b.Delete(e)
		})
	})
	if !errors.Is(err, stop) || r.Done != 50 || len(read(t, table)) != 450 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestATornReadingIsRepeated(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	create(t, table, 10, clients)
	rounds := 0
	r, err := table.inBatches(func(b *Batch) error {
		if rounds++; rounds < 3 {
			return ErrTorn
		}
		return table.Entries(context.Background(), b.Delete)
	})
	if err != nil || r.Done != 10 || rounds != 3 {
		t.Errorf("%+v after %d rounds: %v", r, rounds, err)
	}
	if _, err := table.inBatches(func(*Batch) error { return ErrTorn }); !errors.Is(err, ErrTorn) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a table that never holds still: %v", err)
	}
}
