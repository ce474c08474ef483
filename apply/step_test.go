package apply

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
	"sgc/internal/ruleset"
)

// TestFailureAtEveryStep spoils each message of transactions in turn: the
// kernel must refuse the whole and keep what it had, and the error must name
// the message.
func TestFailureAtEveryStep(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	from, to := webTable(), webTable()
	// A bit of everything: a set and a chain made anew, elements and rules
	// that come and go, a chain and a set that are new and others that go.
	to.Sets[0].Comment = "another"
	to.Chains[4].Comment = "another"
	to.Sets[4].Elements = ranges("10.0.0.0", "10.0.0.255")
	to.Chains[2].Rules = append(to.Chains[2].Rules[1:4:4], to.Chains[2].Rules[0], to.Chains[2].Rules[4])
	to.Chains = append(to.Chains[:1:1], append(to.Chains[2:], &ruleset.Chain{Name: "zzz"})...)
	to.Sets = append(to.Sets, largeSet(100))
	l := newLab(t)
	l.apply(from)
	before := l.list()
	d := l.diff(to)
	kinds := map[string]bool{}
	if d.Transactions() != 1 {
		t.Fatalf("%d transactions", d.Transactions())
	}
	for i, o := range d.batches[0].operations {
		kinds[o.action.String()+" "+o.kind.String()] = true
		spoilt := spoil(d, 0)
		// The first attribute of every message is the name of the table.
		name := spoilt.batches[0].message.Buf[o.start+nlmsg.HeaderSize+nlmsg.NetfilterSize+nlmsg.AttributeSize:]
		if string(name[:3]) != tableName {
			t.Fatalf("%s: no table name in %q", o, name[:8])
		}
		name[r.IntN(3)] = 'x'
		err := l.kernel.Commit(context.Background(), spoilt)
		var refused *RefusedError
		if !errors.As(err, &refused) || !errors.Is(err, unix.ENOENT) {
			t.Fatalf("step %d, %s: %v", i, o, err)
		}
		if refused.Refusals[0].Object != o.String() {
			t.Errorf("step %d, %s: blames %s first", i, o, refused.Refusals[0].Object)
		}
		if after := l.list(); after != before {
			t.Fatalf("step %d, %s: the table is now\n%s", i, o, after)
		}
	}
	for _, kind := range []string{"remove rule", "remove element", "remove set", "remove chain", "add chain", "add set", "add element", "add rule"} {
		if !kinds[kind] {
			t.Errorf("no step is %q", kind)
		}
	}
	if err := l.kernel.Commit(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	l.wantSame(to)
}

// spoil copies a delta so that one of its transactions can be changed.
func spoil(d *Delta, transaction int) *Delta {
	spoilt := *d
	spoilt.batches = slices.Clone(d.batches)
	b := *d.batches[transaction]
	b.message.Buf = bytes.Clone(b.message.Buf)
	spoilt.batches[transaction] = &b
	return &spoilt
}

// TestSnapshotsAreOfOneMoment reads while somebody keeps changing two sets and
// a chain in single transactions: a snapshot holds all of a change or nothing.
func TestSnapshotsAreOfOneMoment(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	tables := [2]*ruleset.Table{largeTable(3000), largeTable(3000)}
	marker := ranges("255.1.0.0", "255.1.255.255")
	tables[1].Sets[7].Elements = append(tables[1].Sets[7].Elements, marker...)
	tables[1].Sets[4].Elements = tables[1].Sets[4].Elements[:4]
	tables[1].Chains[4].Rules = tables[1].Chains[4].Rules[1:]
	l.apply(tables[0])
	w := l.takeTurns(func(n int) error {
		s, err := l.kernel.Snapshot(context.Background(), nil)
		if err != nil {
			return err
		}
		d, err := Diff(s, tables[(n+1)%2])
		if err != nil {
			return err
		}
		return l.kernel.Commit(context.Background(), d)
	})
	defer w.end()
	for range 40 {
		w.meet(func() {
			s := l.snapshot()
			matches := 0
			for _, want := range tables {
				d, err := Diff(s, want)
				if err != nil {
					t.Fatal(err)
				}
				if d.Empty() {
					matches++
				}
			}
			if matches != 1 {
				t.Errorf("a snapshot is %d of the two tables", matches)
			}
		}, func() {})
	}
}

func TestTableOfAnotherProcessIsLeftAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	other, err := l.kernel.dial()
	if err != nil {
		t.Fatal(err)
	}
	b := &batch{}
	b.open(l.snapshot().Generation)
	m := b.begin(unix.NFT_MSG_NEWTABLE, create, operation{})
	m.CString(unix.NFTA_TABLE_NAME, tableName)
	m.Uint32(unix.NFTA_TABLE_FLAGS, tableOwned)
	m.Finish()
	b.close()
	if err := other.send(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []*ruleset.Table{webTable(), nil} {
		if _, err := Diff(l.snapshot(), want); err == nil || !contains(err.Error(), "belongs to another process") {
			t.Errorf("Diff: %v", err)
		}
	}
	// It goes with its owner: with the socket, which a process that another test
	// starts may have, too, until it runs its program.
	if err := other.close(); err != nil {
		t.Fatal(err)
	}
	if err := await("the table goes with its owner", func() (bool, error) { return l.snapshot().Table == nil, nil }); err != nil {
		t.Fatal(err)
	}
	l.apply(webTable())
	l.wantSame(webTable())
}
