package apply

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"sgc/internal/ruleset"
)

// TestDeltaTurnsOneTableIntoTheOther walks through random tables: whatever was
// there before, afterwards the wanted table is there, and then nothing more is
// to be done.
func TestDeltaTurnsOneTableIntoTheOther(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SGC_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	r := rand.New(rand.NewPCG(seed, 0))
	l := newLab(t)
	steps := 300
	if testing.Short() {
		steps = 50
	}
	var a *ruleset.Table
	for step := range steps {
		b := randomTable(r)
		if r.IntN(20) == 0 {
			b = nil
		}
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("SGC_SEED=%d step %d: %s\nfrom\n%s\nto\n%s", seed, step, fmt.Sprintf(format, args...), textOrNothing(t, a), textOrNothing(t, b))
		}
		have := l.snapshot()
		var timed []TimedChange
		if b != nil {
			timed = (&generator{r, b}).timedChanges()
		}
		d, err := Diff(have, b, timed...)
		if err != nil {
			fail("%v", err)
		}
		if err := l.kernel.Commit(context.Background(), d); err != nil {
			fail("%v", err)
		}
		s := l.snapshot()
		if s.Generation != d.After() {
			fail("generation %d, not %d", s.Generation, d.After())
		}
		if got, want := timedElements(s), expectedElements(have, s, timed); !maps.Equal(got, want) {
			fail("timed elements %v, want %v, after %v", got, want, timed)
		}
		if again, err := Diff(s, b); err != nil || !again.Empty() {
			fail("not done: %v\n%s", err, changesText(again))
		}
		if step%10 == 0 && b != nil {
			if _, err := l.kernel.ChangeTimed(context.Background(), b, removeAll(s)); err != nil {
				fail("%v", err)
			}
			fresh := newLab(t)
			fresh.apply(b)
			if got, want := l.list(), fresh.list(); got != want {
				fail("the table is\n%s\nwant\n%s", got, want)
			}
		}
		a = b
	}
}

// timedElements returns the timed elements of a table with their times to live,
// by set and key.
func timedElements(s *Snapshot) map[[3]string]time.Duration {
	out := map[[3]string]time.Duration{}
	if s.Table == nil {
		return out
	}
	for _, set := range s.Table.Sets {
		for _, e := range set.Timed {
			out[[3]string{set.Name, e.First, e.Last}] = e.Timeout
		}
	}
	return out
}

// removeAll returns the changes that empty the timed sets.
func removeAll(s *Snapshot) []TimedChange {
	var out []TimedChange
	for _, set := range s.Table.Sets {
		out = append(out, takeOut(set.Name, set.Timed...)...)
	}
	return out
}

// expectedElements returns what timedElements finds after a commit: what was
// there, in sets whose keys are as they were, and what changed.
func expectedElements(before, now *Snapshot, timed []TimedChange) map[[3]string]time.Duration {
	out := timedElements(before)
	for key := range out {
		var set *Set
		if now.Table != nil {
			set = now.Table.Set(key[0])
		}
		if was := before.Table.Set(key[0]); set == nil || set.flags != was.flags || set.keyType != was.keyType {
			delete(out, key)
		}
	}
	for _, c := range timed {
		if key := [3]string{c.Set, c.Element.First, c.Element.Last}; c.Remove {
			delete(out, key)
		}
	}
	for _, c := range timed {
		key := [3]string{c.Set, c.Element.First, c.Element.Last}
		if _, there := out[key]; !c.Remove && !there {
			out[key] = c.Element.Timeout
		}
	}
	return out
}

func textOrNothing(t *testing.T, table *ruleset.Table) string {
	if table == nil {
		return "nothing"
	}
	return scriptOf(t, table)
}

func TestNothingToDoSendsNoTransaction(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.apply(webTable())
	before := l.snapshot().Generation
	d := l.apply(webTable())
	if !d.Empty() || d.Messages() != 0 || d.Bytes() != 0 {
		t.Errorf("a second apply has %d messages of %d bytes", d.Messages(), d.Bytes())
	}
	for c := range d.Changes() {
		t.Errorf("a second apply has change %v", c)
	}
	if after := l.snapshot().Generation; after != before {
		t.Errorf("the second apply changed the generation from %d to %d", before, after)
	}
}

func TestDeltaOfOneElementIsOneElement(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.apply(webTable())
	want := webTable()
	partners := want.Sets[4]
	partners.Elements = append(partners.Elements[:3:3], append(ranges("192.0.2.0", "192.0.2.255"), partners.Elements[3:]...)...)
	d := l.diff(want)
	// Batch begin, one message, batch end.
	if d.Messages() != 3 || d.Bytes() > 250 {
		t.Errorf("one more prefix takes %d messages of %d bytes", d.Messages(), d.Bytes())
	}
	var got []Change
	for c := range d.Changes() {
		got = append(got, c)
	}
	change := Change{Action: Add, Kind: ElementKind, Name: "pl.partners.ipv4", Comment: "prefix_list.partners", Text: "192.0.2.0/24"}
	if len(got) != 1 || got[0] != change {
		t.Errorf("changes %+v, want %+v", got, change)
	}
	l.apply(want)
	l.wantSame(want)
}

func TestDynamicSetsKeepWhatPacketsPutIn(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.apply(webTable())
	l.nft(`add element inet sgc flows.ipv4 { "eth0" . gre . 192.0.2.1 timeout 600s }`)
	l.wantSame(webTable())
	want := webTable()
	want.Chains[2].Rules = want.Chains[2].Rules[1:]
	l.apply(want)
	out, err := l.run("", "nft", "list", "set", "inet", "sgc", "flows.ipv4")
	if err != nil {
		t.Fatal(err)
	}
	if !contains(out, "192.0.2.1") {
		t.Errorf("the dynamic set lost its element:\n%s", out)
	}
}

func TestRemovedTableIsGone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.nft(`table ip other { chain c { type filter hook input priority 0; tcp dport 1 drop; }; }`)
	l.apply(webTable())
	d := l.apply(nil)
	if d.Messages() != 3 {
		t.Errorf("removing the table takes %d messages, want 3", d.Messages())
	}
	if s := l.snapshot(); s.Table != nil {
		t.Error("the table is still there")
	}
	if d := l.diff(nil); !d.Empty() {
		t.Error("removing a table that is not there is not nothing")
	}
	if out, err := l.run("", "nft", "list", "ruleset"); err != nil || !contains(out, "tcp dport 1 drop") {
		t.Errorf("the other table changed: %v\n%s", err, out)
	}
}
