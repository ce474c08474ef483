package apply

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

// refusedBatch is a transaction that adds elements to a set, and that the kernel
// refuses a while later.
func refusedBatch(s *ruleset.Set, elements []ruleset.Element) *batch {
	b := &batch{}
	b.openUnbound()
	p := planner{batch: b}
	w := p.elementWriter(unix.NFT_MSG_NEWSETELEM, create, Add, s)
	for _, e := range elements {
		w.element(e.First, e.Last, verdict{})
	}
	w.close()
	for range 5000 {
		p.flushChain("web.ingress")
	}
	p.deleteChain("missing", "")
	b.close()
	return b
}

// While the kernel looks at a transaction that it then refuses, the elements of that
// one stand among those of the set, and go again, and no generation tells of it.
func TestRefusedTransactionsOfOthersAreNotSeen(t *testing.T) {
	t.Parallel()
	const n = 12_000
	intervals := largeSet(n)
	single := &ruleset.Set{Name: intervals.Name, Key: intervals.Key}
	for _, e := range intervals.Elements {
		single.Elements = append(single.Elements, ruleset.Element{First: e.First})
	}
	for _, tt := range []struct {
		name string
		set  *ruleset.Set
		more []ruleset.Element
	}{
		// The kernel lists ranges from the last one on.
		{"ranges", intervals, ranges("255.1.0.0", "255.1.255.255", "255.3.0.0", "255.3.255.255")},
		{"keys", single, keys("\xff\x01\x00\x00", "\xff\x01\x00\x01", "\xff\x01\x00\x02")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			l := newLab(t)
			want := webTable()
			want.Sets = append(want.Sets, tt.set)
			l.apply(want)
			var conns [2]*conn
			for i := range conns {
				var err error
				if conns[i], err = l.kernel.dial(); err != nil {
					t.Fatal(err)
				}
				defer conns[i].close() // nothing is lost
			}
			other, witness := conns[0], conns[1]
			b := refusedBatch(tt.set, tt.more)
			if err := other.reserve(len(b.message.Buf)); err != nil {
				t.Fatal(err)
			}
			for met := 0; met < 5 && !t.Failed(); {
				var ended chan error
				s, err := l.kernel.Snapshot(ctx, func(done, total int) {
					if ended != nil || done == total {
						return
					}
					// The set is being read. The kernel counts what comes as soon as it is there.
					ended = make(chan error, 1)
					go func() { ended <- other.sendOnce(ctx, b) }()
					for len(ended) == 0 {
						if now, err := witness.set(ctx, tableName, tt.set.Name); err != nil {
							t.Error(err)
							return
						} else if now.count > n {
							met++
							return
						}
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				var refused *RefusedError
				if err := <-ended; !errors.As(err, &refused) || !errors.Is(err, unix.ENOENT) {
					t.Errorf("got %v, want that it is refused", err)
				}
				if d, err := Diff(s, want); err != nil || !d.Empty() {
					t.Errorf("%v\n%s", err, changesText(d))
				}
			}
		})
	}
}
