package apply

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sgc/internal/ruleset"
)

func TestTimedChangesThatCannotBe(t *testing.T) {
	t.Parallel()
	ok := tuple(1, time.Minute)
	with := func(change func(*ruleset.TimedElement)) ruleset.TimedElement {
		e := ok
		change(&e)
		return e
	}
	reversed := ranged("10.0.0.0/8", 9, 8, time.Minute)
	for _, test := range []struct {
		name    string
		changes []TimedChange
		want    string
	}{
		{"no such set", put("missing", ok), "timed elements of set missing: there is no such set"},
		{"a set that is none of timed elements", put("plain", ok), "set plain: the set is not timed"},
		{"a short key", put(exactName, with(func(e *ruleset.TimedElement) { e.First, e.Last = "x", "x" })), "wrong length: 32 bytes"},
		{"a range in a set of keys", put(exactName, with(func(e *ruleset.TimedElement) { e.Last = tuple(2, 0).First })), "wrong length"},
		{"a field backwards", put(rangesName, reversed), "field 2 of a timed element of set refused.ingress.ports.ipv4 ends before it begins"},
		{"no time", put(exactName, with(func(e *ruleset.TimedElement) { e.Timeout = 0 })), "has a timeout of 0s"},
		{"part of a millisecond", put(exactName, with(func(e *ruleset.TimedElement) { e.Timeout++ })), "whole milliseconds"},
		{"more left than there was", put(exactName, with(func(e *ruleset.TimedElement) { e.Expires = 2 * e.Timeout })), "has 2m0s left of a timeout of 1m0s"},
		{"a long comment", put(exactName, with(func(e *ruleset.TimedElement) { e.Comment = strings.Repeat("x", 129) })), "has 129 bytes: 128 are possible"},
		{"a removal of nothing that could be", takeOut(exactName, ruleset.TimedElement{First: "x"}), "wrong length"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			want := timedTable()
			want.Sets = append(want.Sets, &ruleset.Set{Name: "plain", Key: want.Sets[1].Key})
			l := newLab(t)
			l.commit(want, put(rangesName, ranged("192.0.2.0/24", 55, 56, time.Minute))...)
			_, err := Diff(l.snapshot(), want, test.changes...)
			if err == nil || !contains(err.Error(), test.want) {
				t.Errorf("Diff: got %v, want an error that says %q", err, test.want)
			}
			_, err = l.kernel.ChangeTimed(context.Background(), want, test.changes)
			if err == nil || !contains(err.Error(), test.want) {
				t.Errorf("ChangeTimed: got %v, want an error that says %q", err, test.want)
			}
		})
	}
	if _, err := Diff(&Snapshot{}, nil, put(exactName, ok)...); err == nil || !contains(err.Error(), "there is to be no table") {
		t.Errorf("got %v", err)
	}
	many := make([]TimedChange, 1000)
	if _, err := Diff(&Snapshot{}, timedTable(), many...); err == nil || strings.Count(err.Error(), "\n") > 20 {
		t.Errorf("got %v", err)
	}
}

// Keys that are there keep their time, also where they are part of a new range.
func TestRangesThatHaveKeysInCommon(t *testing.T) {
	t.Parallel()
	old := ranged("10.1.0.0/16", 50, 60, time.Minute)
	all := func(e ...ruleset.TimedElement) []ruleset.TimedElement { return e }
	piece := func(first, last string, from, to uint16) ruleset.TimedElement {
		e := ranged("0.0.0.0/0", from, to, time.Hour)
		e.First = ruleset.Concat(ruleset.AddrKey(netip.MustParseAddr(first))) + e.First[4:]
		e.Last = ruleset.Concat(ruleset.AddrKey(netip.MustParseAddr(last))) + e.Last[4:]
		return e
	}
	for _, test := range []struct {
		name  string
		added []ruleset.TimedElement
		want  []ruleset.TimedElement
	}{
		{"the same", all(ranged("10.1.0.0/16", 50, 60, time.Hour)), all(old)},
		{"inside", all(ranged("10.1.1.0/24", 55, 56, time.Hour)), all(old)},
		{"around", all(ranged("10.0.0.0/8", 40, 70, time.Hour)), all(
			piece("10.0.0.0", "10.0.255.255", 40, 70), piece("10.1.0.0", "10.1.255.255", 40, 49), old,
			piece("10.1.0.0", "10.1.255.255", 61, 70), piece("10.2.0.0", "10.255.255.255", 40, 70))},
		{"over an end", all(ranged("10.1.1.0/24", 55, 65, time.Hour)), all(old, piece("10.1.1.0", "10.1.1.255", 61, 65))},
		{"beside", all(ranged("10.1.0.0/16", 61, 65535, time.Hour), ranged("10.0.0.0/16", 0, 65535, time.Hour)), all(
			piece("10.0.0.0", "10.0.255.255", 0, 65535), old, piece("10.1.0.0", "10.1.255.255", 61, 65535))},
		{"twice", all(ranged("11.0.0.0/8", 1, 5, time.Hour), ranged("11.0.0.0/8", 3, 9, time.Hour), ranged("11.0.0.0/8", 1, 5, time.Hour)), all(
			old, piece("11.0.0.0", "11.255.255.255", 1, 5), piece("11.0.0.0", "11.255.255.255", 6, 9))},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l, other := newLab(t), newLab(t)
			l.commit(timedTable(), put(rangesName, old)...)
			l.commit(timedTable(), put(rangesName, test.added...)...)
			l.wantTimed(rangesName, test.want...)
			other.commit(timedTable(), put(rangesName, old)...)
			other.changeTimed(put(rangesName, test.added...)...)
			other.wantTimed(rangesName, test.want...)
			// Each of them can be taken out again.
			for i, e := range test.want {
				l.changeTimed(takeOut(rangesName, e)...)
				l.wantTimed(rangesName, test.want[i+1:]...)
			}
		})
	}
}

// A set that is made anew, because of its declaration or with all of the table,
// keeps what it has.
func TestElementsOfSetsMadeAnewStay(t *testing.T) {
	t.Parallel()
	for _, table := range []bool{false, true} {
		t.Run(fmt.Sprintf("table %t", table), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			a, b, c := tuple(1, time.Hour), tuple(2, time.Hour), tuple(3, time.Hour)
			a.Expires = 10 * time.Minute
			r := ranged("10.1.0.0/16", 50, 60, time.Hour)
			l.commit(timedTable(), append(put(exactName, a, b), put(rangesName, r)...)...)
			want := timedTable()
			if table {
				want.Comment = "another"
			} else {
				want.Sets[1].Comment, want.Sets[2].Comment = "another", "another"
			}
			changes := append(put(exactName, a, c), takeOut(exactName, b)...)
			changes = append(changes, put(rangesName, ranged("10.1.0.0/16", 55, 65, time.Hour))...)
			d := l.commit(want, changes...)
			for change := range d.Changes() {
				if change.Kind == ElementKind && change.Text != want.Sets[1].TimedText(c) && change.Text != want.Sets[2].TimedText(ranged("10.1.0.0/16", 61, 65, 0)) {
					t.Errorf("change %s %s", change.Action, change.Text)
				}
			}
			for _, e := range l.snapshot().Table.Set(exactName).Timed {
				if e.First == a.First && e.Expires > a.Expires {
					t.Errorf("%s are left", e.Expires)
				}
			}
			a.Expires = 0
			l.wantTimed(exactName, a, c)
			l.wantTimed(rangesName, r, ranged("10.1.0.0/16", 61, 65, time.Hour))
			l.wantSame(want)
		})
	}
}

func TestTimedChangesCount(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a, b := tuple(1, time.Minute), tuple(2, time.Minute)
	a.Comment = "security_group.web.ingress.dns"
	a.Expires = 40 * time.Second
	l.apply(timedTable())
	s := l.snapshot()
	diff := func(timed ...TimedChange) *Delta {
		t.Helper()
		d, err := Diff(s, timedTable(), timed...)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := diff(put(exactName, a)...)
	if d.Empty() || d.Messages() != 3 || d.Bytes() == 0 || d.Transactions() != 1 || d.Leftovers() {
		t.Errorf("%d messages, %d bytes, %d transactions", d.Messages(), d.Bytes(), d.Transactions())
	}
	text := changesText(d)
	if want := `add element refused.ingress.ipv4 (): "\"eth0\" . 192.0.2.1 . 10.0.0.1 . 53 . 1 comment \"security_group.web.ingress.dns\""` + "\n"; text != want {
		t.Errorf("got %s, want %s", text, want)
	}
	less := a
	less.Expires = 39 * time.Second
	if other := diff(put(exactName, less)...); other.Digest() != d.Digest() || changesText(other) != text {
		t.Errorf("what is left changes the digest or the text")
	}
	less.Timeout = 50 * time.Second
	for _, other := range []*Delta{diff(put(exactName, less)...), diff(put(exactName, b)...), diff(put(exactName, a, b)...), diff()} {
		if other.Digest() == d.Digest() {
			t.Errorf("the same digest for\n%s", changesText(other))
		}
	}
	if d := diff(takeOut(exactName, a)...); !d.Empty() || d.Messages() != 0 {
		t.Errorf("the removal of what is not there is\n%s", changesText(d))
	}
	l.commit(timedTable(), put(exactName, a)...)
	s = l.snapshot()
	if got, want := changesText(diff(takeOut(exactName, b, a)...)), `remove`+strings.TrimPrefix(text, "add"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
