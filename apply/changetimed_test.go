package apply

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

func TestManyElementsInOneChange(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 10_000
	}
	l := newLab(t)
	l.apply(timedTable())
	elements := make([]ruleset.TimedElement, n)
	for i := range elements {
		elements[i] = tuple(i, 10*time.Minute)
		elements[i].Comment = "security_group.web.ingress.dns"
	}
	change := func(what string, changes ...TimedChange) {
		t.Helper()
		start := time.Now()
		if _, err := l.kernel.ChangeTimed(context.Background(), timedTable(), changes); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %s", what, time.Since(start))
	}
	change("put in", put(exactName, elements...)...)
	start := time.Now()
	if got := l.timed(exactName); len(got) != n || got[n-1] != elements[n-1] {
		t.Errorf("%d elements, the last of them %q", len(got), got[len(got)-1])
	}
	t.Logf("snapshot: %s", time.Since(start))
	change("put in one more", put(exactName, tuple(n, time.Hour))...)
	// What is there keeps its time, what is new comes.
	for i := range elements {
		elements[i].Timeout = time.Hour
	}
	change("put in again", append(put(exactName, elements...), put(exactName, tuple(n+1, time.Hour))...)...)
	change("take out", takeOut(exactName, elements[2:]...)...)
	got := l.timed(exactName)
	if len(got) != 4 || got[0].Timeout != 10*time.Minute || got[1].Timeout != 10*time.Minute || got[2].Timeout != time.Hour || got[3].Timeout != time.Hour {
		t.Errorf("left are %q", got)
	}
	l.wantSame(timedTable())
}

// A socket without privileges takes only so much at once.
func TestChangesAreCutToWhatTheSocketTakes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.apply(timedTable())
	c, err := l.kernel.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close() // the test is over
	p := planner{delta: &Delta{generation: l.snapshot().Generation}, want: timedTable(), part: switching}
	plan := &timedChanges{set: timedTable().Sets[1]}
	const n = 8000
	for i := range n {
		plan.added = append(plan.added, addedElement{TimedElement: tuple(i, time.Minute)})
	}
	p.sets = []setPlan{{want: plan.set, timed: plan}}
	p.emitPart()
	p.end()
	whole := p.delta.batches[0]
	parts := whole.cut(3*maxElements, p.delta.generation, true)
	if len(parts) < 4 {
		t.Fatalf("%d transactions for %d bytes", len(parts), len(whole.message.Buf))
	}
	generation := p.delta.generation
	for _, b := range parts {
		if len(b.message.Buf) > 3*maxElements {
			t.Errorf("a transaction of %d bytes", len(b.message.Buf))
		}
		if err := c.reserve(len(b.message.Buf)); err != nil {
			t.Fatal(err)
		}
		if err := c.send(context.Background(), b); err != nil {
			t.Fatal(err)
		}
		generation = after(generation)
	}
	s := l.snapshot()
	if got := len(s.Table.Set(exactName).Timed); got != n || s.Generation != generation {
		t.Errorf("%d elements at generation %d, want %d at %d", got, s.Generation, n, generation)
	}
	// One that is cut no further is the same transaction.
	if one := whole.cut(len(whole.message.Buf)+touchSize, p.delta.generation, true); len(one) != 1 || string(one[0].message.Buf) != string(whole.message.Buf) {
		t.Errorf("%d transactions where one is enough", len(one))
	}
}

func TestSetsThatAreNotThere(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	change := put(exactName, tuple(1, time.Minute))
	try := func(want string) {
		t.Helper()
		before := l.snapshot().Generation
		g, err := l.kernel.ChangeTimed(context.Background(), timedTable(), change)
		if err == nil || !contains(err.Error(), want) || g != (Generations{}) {
			t.Errorf("got %v and %v, want an error that says %q", g, err, want)
		}
		if l.snapshot().Generation != before {
			t.Error("something was changed")
		}
	}
	try("the kernel holds no set refused.ingress.ipv4 of table inet sgc: no such file or directory")
	l.apply(webTable())
	try("the kernel holds no set refused.ingress.ipv4 of table inet sgc")
	l.nft(`add set inet sgc refused.ingress.ipv4 { type ifname . ipv4_addr . ipv4_addr . inet_service . inet_service; flags timeout; timeout 5s; }`)
	try("is not as it was made: the kernel holds set refused.ingress.ipv4; key of 32 bytes; flags timeout; timeout 5s")
	l.apply(timedTable())
	if g, err := l.kernel.ChangeTimed(context.Background(), timedTable(), nil); err != nil || g.From != g.To || g.From != l.snapshot().Generation {
		t.Errorf("no changes: %v, %v", g, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.kernel.ChangeTimed(ctx, timedTable(), change); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestConcurrentChanges lets several processes change timed elements at once, and
// somebody else change nf_tables all the time.
func TestConcurrentChanges(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.apply(timedTable())
	ctx, cancel := context.WithCancel(context.Background())
	var writers, other sync.WaitGroup
	other.Add(1)
	go func() {
		defer other.Done()
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := l.run(fmt.Sprintf("add table ip t%d; delete table ip t%d;", i, i), "nft", "-f", "-"); err != nil && !errors.Is(err, exec.ErrNotFound) {
				t.Error(err)
				return
			}
		}
	}()
	const each, rounds = 50, 10
	for w := range 4 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			for round := range rounds {
				var own []ruleset.TimedElement
				for i := range each {
					own = append(own, tuple(1000*w+each*round+i, time.Hour))
				}
				// All of them put in the same one, too, and take another one out.
				changes := append(put(exactName, own...), put(exactName, tuple(999_999, time.Duration(w+1)*time.Hour))...)
				changes = append(changes, takeOut(exactName, tuple(999_998, 0))...)
				changes = append(changes, put(rangesName, ranged(fmt.Sprintf("10.%d.%d.0/24", w, round), 1, 9, time.Hour))...)
				if _, err := l.kernel.ChangeTimed(context.Background(), timedTable(), changes); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	writers.Wait()
	cancel()
	other.Wait()
	if got := len(l.timed(exactName)); got != 4*each*rounds+1 {
		t.Errorf("%d elements, want %d", got, 4*each*rounds+1)
	}
	if got := len(l.timed(rangesName)); got != 4*rounds {
		t.Errorf("%d ranges, want %d", got, 4*rounds)
	}
	l.wantSame(timedTable())
}

// Somebody who remembers the kernel's table may go on with what ChangeTimed
// tells, unless others change nf_tables too.
func TestMemoryThroughTimedChanges(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	d := l.apply(timedTable())
	g, err := l.kernel.ChangeTimed(context.Background(), timedTable(), put(exactName, tuple(1, time.Minute)))
	if err != nil || g.From != d.After() {
		t.Fatalf("%v, %v, want from %d on", g, err, d.After())
	}
	id, err := l.kernel.Identity(g.To)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.kernel.SnapshotKnowing(context.Background(), nil, Known{Identity: id, Table: timedTable()})
	if err != nil || s.Generation != g.To {
		t.Fatalf("generation %d, want %d, %v", s.Generation, g.To, err)
	}
	// Timed elements are read all the same.
	if n := len(s.Table.Set(exactName).Timed); n != 1 {
		t.Errorf("%d elements", n)
	}
	l.nft(`add table ip other`)
	if g2, err := l.kernel.ChangeTimed(context.Background(), timedTable(), put(exactName, tuple(2, time.Minute))); err != nil || g2.From == g.To {
		t.Errorf("%v after %v although somebody else changed nf_tables, %v", g2, g, err)
	}
	// A transaction in which the kernel finds nothing to do makes a generation.
	for timeout := 100 * time.Millisecond; ; timeout *= 2 {
		short := tuple(3, timeout)
		l.commit(timedTable(), put(exactName, short)...)
		d, err = Diff(l.snapshot(), timedTable(), takeOut(exactName, short)...)
		if err != nil {
			t.Fatal(err)
		}
		if !d.Empty() {
			time.Sleep(timeout + 200*time.Millisecond)
			break
		}
		if timeout > longestTimeout {
			t.Fatal("an element that was put in is never there")
		}
		// It ended before anybody looked: the machine is slow.
	}
	if err := l.kernel.Commit(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	if now := l.snapshot().Generation; now != d.After() {
		t.Errorf("the generation is %d, and not %d", now, d.After())
	}
}

// Elements that come from others between the look and the transaction are left
// alone, too.
func TestChangeBoundToNoGeneration(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.apply(timedTable())
	c, err := l.kernel.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close() // the test is over
	want := timedTable()
	sets, err := bySet(want, put(exactName, tuple(1, time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	if g, err := c.changeTimed(context.Background(), want, sets, false, false); err != nil || g != (Generations{}) {
		t.Errorf("%v, %v", g, err)
	}
	l.wantTimed(exactName, tuple(1, time.Minute))
}

func TestRefusedTimedElementIsNamed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	want := timedTable()
	want.Sets[1].Size = 2
	l.apply(want)
	_, err := l.kernel.ChangeTimed(context.Background(), want, put(exactName, tuple(1, time.Minute), tuple(2, time.Minute), tuple(3, time.Minute)))
	if err == nil || !errors.Is(err, unix.ENFILE) || !strings.Contains(err.Error(), `add element "eth0" . 192.0.2.1 . 10.0.0.3 . 53 . 3 of set refused.ingress.ipv4`) {
		t.Errorf("got %v", err)
	}
	d, err := Diff(l.snapshot(), want, put(exactName, tuple(1, time.Minute), tuple(2, time.Minute), tuple(3, time.Minute))...)
	if err != nil {
		t.Fatal(err)
	}
	err = l.kernel.Commit(context.Background(), d)
	if err == nil || !strings.Contains(err.Error(), "10.0.0.3 . 53 . 3 of set refused.ingress.ipv4") {
		t.Errorf("got %v", err)
	}
	l.wantTimed(exactName)
}
