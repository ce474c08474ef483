package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// Timed sets as compiled policies have them: a hash of exact tuples, ranges, and
// one of a single field.
const (
	exactName  = "refused.ingress.ipv4"
	rangesName = "refused.ingress.ports.ipv4"
	windowName = "adoption"
)

func timedTable() *ruleset.Table {
	return &ruleset.Table{
		Name: "sgc",
		Sets: []*ruleset.Set{
			{Name: windowName, Key: []ruleset.Type{ruleset.NFProto}, Timed: true, Comment: "the first apply"},
			{Name: exactName, Timed: true, Key: []ruleset.Type{ruleset.IfName, ruleset.IPv4Addr, ruleset.IPv4Addr, ruleset.InetService, ruleset.InetService}},
			{Name: rangesName, Timed: true, Interval: true, Key: []ruleset.Type{ruleset.IPv4Addr, ruleset.InetService, ruleset.InetService, ruleset.IfName}},
		},
		Chains: []*ruleset.Chain{
			{Name: "prerouting", Hook: &ruleset.Hook{Point: ruleset.Prerouting, Priority: -150}, Rules: []ruleset.Rule{
				{Statements: []ruleset.Statement{
					ruleset.Lookup{Fields: []ruleset.Field{ruleset.IIFName, ruleset.IPDest, ruleset.IPSource, ruleset.DestPort, ruleset.SourcePort}, Set: exactName},
					ruleset.Verdict{Kind: ruleset.Drop},
				}},
				{Statements: []ruleset.Statement{
					ruleset.Lookup{Fields: []ruleset.Field{ruleset.IPSource, ruleset.DestPort, ruleset.SourcePort, ruleset.IIFName}, Set: rangesName},
					ruleset.MatchEndsHere{}, ruleset.Verdict{Kind: ruleset.Drop},
				}},
				{Statements: []ruleset.Statement{
					ruleset.MatchState{State: ruleset.CtNew},
					ruleset.Lookup{Fields: []ruleset.Field{ruleset.NFProtocol}, Set: windowName}, ruleset.Verdict{Kind: ruleset.Accept},
				}},
			}},
		},
	}
}

// tuple is an exact element; n tells it from others.
func tuple(n int, timeout time.Duration) ruleset.TimedElement {
	key := ruleset.Concat(ruleset.IfNameKey("eth0"), "\xc0\x00\x02\x01", string([]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), ruleset.PortKey(53), ruleset.PortKey(uint16(n)))
	return ruleset.TimedElement{First: key, Last: key, Timeout: timeout}
}

// ranged is an element of ranges: peers of a prefix to a range of ports.
func ranged(prefix string, first, last uint16, timeout time.Duration) ruleset.TimedElement {
	p := netip.MustParsePrefix(prefix)
	end := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		end[i/8] |= 0x80 >> (i % 8)
	}
	return ruleset.TimedElement{
		First:   ruleset.Concat(ruleset.AddrKey(p.Addr()), ruleset.PortKey(first), ruleset.PortKey(0), ruleset.IfNameKey("eth0")),
		Last:    ruleset.Concat(string(end[:]), ruleset.PortKey(last), ruleset.PortKey(65535), ruleset.IfNameKey("eth0")),
		Timeout: timeout,
	}
}

func window(timeout time.Duration) ruleset.TimedElement {
	return ruleset.TimedElement{First: "\x02", Last: "\x02", Timeout: timeout}
}

func put(set string, elements ...ruleset.TimedElement) []TimedChange {
	var out []TimedChange
	for _, e := range elements {
		out = append(out, TimedChange{Set: set, Element: e})
	}
	return out
}

func takeOut(set string, elements ...ruleset.TimedElement) []TimedChange {
	out := put(set, elements...)
	for i := range out {
		out[i].Remove = true
	}
	return out
}

// commit commits the wanted table with timed changes.
func (l *lab) commit(want *ruleset.Table, timed ...TimedChange) *Delta {
	l.t.Helper()
	d, err := Diff(l.snapshot(), want, timed...)
	if err == nil {
		err = l.kernel.Commit(context.Background(), d)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return d
}

// timed returns the elements of a set, without what is left of their time.
func (l *lab) timed(set string) []ruleset.TimedElement {
	l.t.Helper()
	list := slices.Clone(l.snapshot().Table.Set(set).Timed)
	for i := range list {
		if list[i].Expires <= 0 || list[i].Expires > list[i].Timeout {
			l.t.Errorf("%s of %s are left", list[i].Expires, list[i].Timeout)
		}
		list[i].Expires = 0
	}
	return list
}

func (l *lab) wantTimed(set string, want ...ruleset.TimedElement) {
	l.t.Helper()
	if got := l.timed(set); !slices.Equal(got, want) {
		l.t.Errorf("set %s holds %q, want %q", set, got, want)
	}
}

func TestTimedElementsComeWithACommit(t *testing.T) {
	t.Parallel()
	for _, split := range []bool{false, true} {
		t.Run(fmt.Sprintf("apart %t", split), func(t *testing.T) {
			l := newLab(t)
			if split {
				l.apply(webTable())
			}
			a, b := tuple(1, time.Minute), tuple(2, 90*time.Second)
			a.Comment = "security_group.web.ingress.dns"
			b.Expires = 30 * time.Second
			c := ranged("10.0.0.0/8", 53, 60, 2*time.Minute)
			c.Comment = strings.Repeat("x", 128)
			w := window(5 * time.Minute)
			var timed []TimedChange
			timed = append(timed, put(exactName, a, b)...)
			timed = append(timed, put(rangesName, c)...)
			timed = append(timed, put(windowName, w)...)
			d, err := diff(l.snapshot(), timedTable(), split, timed)
			if err == nil {
				err = l.kernel.Commit(context.Background(), d)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range l.snapshot().Table.Set(exactName).Timed {
				if e.First == b.First && (e.Expires > b.Expires || e.Expires < b.Expires-5*time.Second) {
					t.Errorf("%s are left of an element that came with %s", e.Expires, b.Expires)
				}
			}
			b.Expires = 0
			l.wantTimed(exactName, a, b)
			l.wantTimed(rangesName, c)
			l.wantTimed(windowName, w)
			l.wantSame(timedTable())
			n := l.commit(timedTable(), append(takeOut(windowName, w), takeOut(exactName, a)...)...).Messages()
			if n != 6 {
				t.Errorf("%d messages", n)
			}
			l.wantTimed(exactName, b)
			l.wantTimed(windowName)
			l.commit(nil)
		})
	}
}

func TestTimedSetsAreThoseThatNftMakesOfTheText(t *testing.T) {
	t.Parallel()
	committed, loaded := newLab(t), newLab(t)
	committed.apply(timedTable())
	loaded.nft(scriptOf(t, timedTable()))
	if got, want := committed.list(), loaded.list(); got != want {
		t.Errorf("committed over netlink:\n%s\nloaded by nft:\n%s", got, want)
	}
	loaded.wantSame(timedTable())
}

func TestWhatIsThereKeepsItsTime(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	old, longer := tuple(1, time.Minute), tuple(1, time.Hour)
	oldBox, longerBox := ranged("10.0.0.0/8", 1, 9, time.Minute), ranged("10.0.0.0/8", 1, 9, time.Hour)
	l.commit(timedTable(), append(put(exactName, old), put(rangesName, oldBox)...)...)
	again := append(put(exactName, longer, longer, tuple(2, time.Hour)), put(rangesName, longerBox)...)
	l.commit(timedTable(), again...)
	l.wantTimed(exactName, old, tuple(2, time.Hour))
	l.wantTimed(rangesName, oldBox)
	l.changeTimed(again...)
	l.wantTimed(exactName, old, tuple(2, time.Hour))
	l.wantTimed(rangesName, oldBox)
	// What is taken out in the same list is new.
	again = append(again, takeOut(exactName, old)...)
	again = append(again, takeOut(rangesName, oldBox)...)
	l.commit(timedTable(), again...)
	l.wantTimed(exactName, longer, tuple(2, time.Hour))
	l.wantTimed(rangesName, longerBox)
	l.changeTimed(append(append(put(exactName, old), takeOut(exactName, longer)...), append(put(rangesName, oldBox), takeOut(rangesName, longerBox)...)...)...)
	l.wantTimed(exactName, old, tuple(2, time.Hour))
	l.wantTimed(rangesName, oldBox)
}

// changeTimed changes elements, and checks that the generations are told.
func (l *lab) changeTimed(changes ...TimedChange) {
	l.t.Helper()
	before := l.snapshot().Generation
	g, err := l.kernel.ChangeTimed(context.Background(), timedTable(), changes)
	if err != nil {
		l.t.Fatal(err)
	}
	if now := l.snapshot().Generation; g != (Generations{before, now}) {
		l.t.Errorf("generations %v, were %d and are %d", g, before, now)
	}
}

func TestElementsThatEndBetweenLookAndCommit(t *testing.T) {
	t.Parallel()
	for _, set := range []string{exactName, rangesName} {
		t.Run(set, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			short, long := tuple(1, 300*time.Millisecond), tuple(2, time.Minute)
			if set == rangesName {
				short, long = ranged("10.0.0.0/8", 1, 9, 300*time.Millisecond), ranged("10.0.0.0/8", 10, 19, time.Minute)
			}
			ended := func(change ...TimedChange) {
				t.Helper()
				l.commit(timedTable(), put(set, short, long)...)
				s := l.snapshot()
				if n := len(s.Table.Set(set).Timed); n != 2 {
					t.Fatalf("%d elements", n)
				}
				d, err := Diff(s, timedTable(), change...)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(500 * time.Millisecond)
				if n := len(l.snapshot().Table.Set(set).Timed); n != 1 {
					t.Fatalf("%d elements are left", n)
				}
				if err := l.kernel.Commit(context.Background(), d); err != nil {
					t.Fatal(err)
				}
			}
			ended(takeOut(set, short)...)
			l.wantTimed(set, long)
			// What was there is put in anew if it ends too early.
			ended(put(set, short)...)
			l.wantTimed(set, short, long)
			ended(append(takeOut(set, short), put(set, short)...)...)
			l.wantTimed(set, short, long)
			ended(takeOut(set, long, short)...)
			l.wantTimed(set)
			l.wantSame(timedTable())
		})
	}
}

// TestKernelThatCannotDestroy stands in for a kernel before 6.3: it does not
// know the message that removes what may be gone.
func TestKernelThatCannotDestroy(t *testing.T) {
	t.Parallel()
	for _, set := range []string{exactName, rangesName} {
		t.Run(set, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			short, long, other := tuple(1, 300*time.Millisecond), tuple(2, time.Minute), tuple(3, time.Minute)
			if set == rangesName {
				short, long, other = ranged("10.0.0.0/8", 1, 9, 300*time.Millisecond), ranged("10.0.0.0/8", 10, 19, time.Minute), ranged("11.0.0.0/8", 10, 19, time.Minute)
			}
			l.commit(timedTable(), put(set, short, long)...)
			for _, remove := range [][]ruleset.TimedElement{{short}, {short, long}} {
				l.commit(timedTable(), append(takeOut(set, short), put(set, short)...)...)
				want := timedTable()
				d, err := Diff(l.snapshot(), want, append(takeOut(set, remove...), put(set, other)...)...)
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range d.batches[0].operations {
					if o.destroys {
						d.batches[0].message.buf[o.start+4] = 99
					}
				}
				time.Sleep(500 * time.Millisecond)
				if err := l.kernel.Commit(context.Background(), d); err != nil {
					t.Fatal(err)
				}
				if len(remove) == 1 {
					l.wantTimed(set, long, other)
				} else {
					l.wantTimed(set, other)
				}
			}
		})
	}
}

func TestOnlyElementsWithoutTimeAreDrift(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.apply(timedTable())
	l.nft(`add element inet sgc adoption { ipv6 timeout 90s }
		add element inet sgc refused.ingress.ports.ipv4 { 10.1.0.0/16 . 1-9 . 5 . "eth1" timeout 1h comment "by hand" }`)
	l.wantSame(timedTable())
	hand := ranged("10.1.0.0/16", 1, 9, time.Hour)
	hand.First = hand.First[:8] + ruleset.Concat(ruleset.PortKey(5), ruleset.IfNameKey("eth1"))
	hand.Last = hand.Last[:8] + ruleset.Concat(ruleset.PortKey(5), ruleset.IfNameKey("eth1"))
	hand.Comment = "by hand"
	l.wantTimed(rangesName, hand)
	l.nft(`add element inet sgc adoption { ipv4 }
		add element inet sgc refused.ingress.ports.ipv4 { 192.0.2.1 . 1-9 . 5 . "eth1" }
		add element inet sgc refused.ingress.ipv4 { * timeout 1h }`)
	d := l.diff(timedTable())
	var got []string
	for c := range d.Changes() {
		got = append(got, fmt.Sprintf("%s %s %s", c.Action, c.Name, c.Text))
	}
	want := []string{
		"remove adoption ipv4 (without a timeout)", "remove refused.ingress.ipv4 *",
		`remove refused.ingress.ports.ipv4 192.0.2.1 . 1-9 . 5 . "eth1" (without a timeout)`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := l.kernel.Commit(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	l.wantSame(timedTable())
	l.wantTimed(rangesName, hand)
	l.wantTimed(windowName, ruleset.TimedElement{First: "\x0a", Last: "\x0a", Timeout: 90 * time.Second})
}

func TestDeclarationsOfTimedSetsAreCompared(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, script string }{
		{"a timeout of the set", `add set inet sgc adoption { type nf_proto; flags timeout; timeout 5m; comment "the first apply"; }`},
		{"a plain set", `add set inet sgc adoption { type nf_proto; comment "the first apply"; }`},
		{"a dynamic set", `add set inet sgc adoption { type nf_proto; flags timeout,dynamic; comment "the first apply"; }`},
		{"another size", `add set inet sgc adoption { type nf_proto; flags timeout; size 5; comment "the first apply"; }`},
		{"ranges without a time", `add set inet sgc refused.ingress.ports.ipv4 { type ipv4_addr . inet_service . inet_service . ifname; flags interval; }`},
		{"exact keys", `add set inet sgc refused.ingress.ports.ipv4 { type ipv4_addr . inet_service . inet_service . ifname; flags timeout; }`},
		{"other ranges", `add set inet sgc refused.ingress.ports.ipv4 { type ipv4_addr . inet_service . ifname . inet_service; flags interval,timeout; }`},
		{"ranges", `add set inet sgc refused.ingress.ipv4 { type ifname . ipv4_addr . ipv4_addr . inet_service . inet_service; flags interval,timeout; }`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.nft("add table inet sgc\n" + test.script)
			l.apply(timedTable())
			l.wantSame(timedTable())
			fresh := newLab(t)
			fresh.apply(timedTable())
			if got, want := l.list(), fresh.list(); got != want {
				t.Errorf("the table is\n%s\nwant\n%s", got, want)
			}
		})
	}
}

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

// everything is a table with timed sets, timeouts, and what asks for them, as
// compiled policies hold them.
func everything() *ruleset.Table {
	want := timedTable()
	want.Timeouts = timeoutTable().Timeouts
	drop, accept := ruleset.Verdict{Kind: ruleset.Drop}, ruleset.Verdict{Kind: ruleset.Accept}
	rule := func(s ...ruleset.Statement) ruleset.Rule {
		return ruleset.Rule{Statements: s, Comment: "interface.eth0"}
	}
	// In the order in which nft asks for them when it loads its own listing, which
	// leaves them out.
	six := ruleset.Match{Field: ruleset.NFProtocol, Value: ruleset.NFProtoKey(flow.IPv6)}
	udp := ruleset.Match{Field: ruleset.L4Protocol, Value: ruleset.ProtoKey(flow.UDP)}
	want.Sets = append(want.Sets,
		&ruleset.Set{Name: "refused.egress.ipv6", Timed: true, Key: []ruleset.Type{ruleset.IfName, ruleset.IPv6Addr, ruleset.IPv6Addr, ruleset.InetService, ruleset.InetService}},
		&ruleset.Set{Name: "refused.egress.ports.ipv6", Timed: true, Interval: true, Key: []ruleset.Type{ruleset.IPv6Addr, ruleset.InetService, ruleset.InetService, ruleset.IfName}},
	)
	want.Chains = append(want.Chains, timeoutTable().Chains[1], &ruleset.Chain{
		Name: "eth0.egress", Rules: []ruleset.Rule{
			rule(ruleset.MatchDirection{}, ruleset.MatchState{State: ruleset.CtEstablished}, ruleset.MatchForwarded{}, accept),
			rule(ruleset.MatchDirection{Reply: true}, ruleset.MatchState{State: ruleset.CtEstablished}, ruleset.MatchForwarded{Negate: true}, accept),
			rule(ruleset.MatchState{State: ruleset.CtNew}, ruleset.MatchFlags{Mask: 0x17, Value: 0x02, Negate: true}, drop),
			rule(ruleset.MatchState{State: ruleset.CtNew}, ruleset.MatchEndsHere{Negate: true}, ruleset.SetTimeout{Object: "eth0.tcp4"}),
			rule(six, udp,
				ruleset.Lookup{Fields: []ruleset.Field{ruleset.OIFName, ruleset.OriginalSource(flow.IPv6), ruleset.IP6Dest, ruleset.SourcePort, ruleset.DestPort}, Set: "refused.egress.ipv6"}, drop),
			rule(ruleset.MatchForwarded{Negate: true}, six, udp,
				ruleset.Lookup{Fields: []ruleset.Field{ruleset.IP6Dest, ruleset.SourcePort, ruleset.DestPort, ruleset.OIFName}, Set: "refused.egress.ports.ipv6"}, drop),
		},
	})
	return want
}

// elementsOfEverything are timed elements of every set.
func elementsOfEverything() []TimedChange {
	exact := ruleset.Concat(ruleset.IfNameKey("eth0"), ruleset.AddrKey(netip.MustParseAddr("2001:db8::1")), ruleset.AddrKey(netip.MustParseAddr("2001:db8::2")), ruleset.PortKey(53), ruleset.PortKey(4000))
	ports := func(address string, first, last uint16) string {
		return ruleset.Concat(ruleset.AddrKey(netip.MustParseAddr(address)), ruleset.PortKey(first), ruleset.PortKey(last), ruleset.IfNameKey("eth0"))
	}
	out := put(exactName, tuple(1, time.Hour), tuple(2, 90*time.Minute))
	out = append(out, put(rangesName, ranged("10.0.0.0/8", 5, 9, time.Hour), ranged("0.0.0.0/5", 0, 65535, time.Hour))...)
	out = append(out, put(windowName, window(time.Hour))...)
	out = append(out, put("refused.egress.ipv6", ruleset.TimedElement{First: exact, Timeout: time.Hour, Comment: "a comment"})...)
	return append(out, put("refused.egress.ports.ipv6",
		ruleset.TimedElement{First: ports("2001:db8::", 1, 2), Last: ports("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 3, 4), Timeout: time.Hour},
		ruleset.TimedElement{First: ports("2001:db9::", 1, 2), Last: ports("2001:db9::7", 1, 2), Timeout: time.Hour, Comment: "another"})...)
}

// nft 1.0.6 lists an object of timeouts that are all its own defaults in a way
// that it cannot load ("policy = { }"); there is none here.
func TestListingCanBeLoadedAgain(t *testing.T) {
	t.Parallel()
	l, loaded, other := newLab(t), newLab(t), newLab(t)
	l.commit(everything(), elementsOfEverything()...)
	l.wantSame(everything())
	listing, err := l.run("", "nft", "list", "table", "inet", "sgc")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loaded.run(listing, "nft", "-c", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, listing)
	}
	loaded.nft(listing)
	loaded.wantSame(everything())
	for _, set := range l.snapshot().Table.Sets {
		if want, got := l.timed(set.Name), loaded.timed(set.Name); !slices.Equal(got, want) || len(want) == 0 {
			t.Errorf("set %s: loaded %q, want %q", set.Name, got, want)
		}
	}
	// The script of the table has no elements, but is the same table.
	if _, err := other.run(scriptOf(t, everything()), "nft", "-c", "-f", "-"); err != nil {
		t.Error(err)
	}
	other.nft(scriptOf(t, everything()))
	other.wantSame(everything())
	empty := newLab(t)
	empty.apply(everything())
	if got, want := other.list(), empty.list(); got != want {
		t.Errorf("loaded by nft:\n%s\ncommitted over netlink:\n%s", got, want)
	}
}

func TestFailureAtEveryStepOfTimedChanges(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	elements := elementsOfEverything()
	l.commit(everything(), elements[:4]...)
	// Timeouts and a set are made anew, and elements come and go.
	want := everything()
	want.Timeouts[0].States[0].Timeout *= 2
	want.Timeouts[1] = udpTimeout("eth0.udp6.new", 31, 121)
	want.Chains[1].Rules[0].Statements[3] = ruleset.SetTimeout{Object: "eth0.udp6.new"}
	want.Sets[2].Comment = "another"
	timed := append(takeOut(exactName, elements[0].Element), elements[4:]...)
	before := func() (*Snapshot, map[[3]string]time.Duration) { s := l.snapshot(); return s, timedElements(s) }
	s, had := before()
	d, err := Diff(s, want, timed...)
	if err != nil || d.Transactions() != 1 {
		t.Fatalf("%d transactions, %v", d.Transactions(), err)
	}
	kinds := map[string]bool{}
	for i, o := range d.batches[0].operations {
		kinds[o.action.String()+" "+o.kind.String()] = true
		spoilt := spoil(d, 0)
		spoilt.batches[0].message.buf[o.start+headerSize+nfgenmsgSize+attributeSize] = 'x'
		err := l.kernel.Commit(context.Background(), spoilt)
		var refused *RefusedError
		if o.destroys && err == nil {
			t.Fatalf("step %d, %s: nothing was refused", i, o)
		}
		if !errors.As(err, &refused) || refused.Refusals[0].Object != o.String() {
			t.Fatalf("step %d, %s: %v", i, o, err)
		}
		if now, has := before(); now.Generation != s.Generation || !maps.Equal(has, had) {
			t.Fatalf("step %d, %s: something changed", i, o)
		}
	}
	for _, kind := range []string{"remove object", "add object", "add element", "remove element"} {
		if !kinds[kind] {
			t.Errorf("no step is %q", kind)
		}
	}
	if err := l.kernel.Commit(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	l.wantSame(want)
	l.wantTimed(exactName, elements[1].Element)
	l.wantTimed(rangesName, elements[3].Element, elements[2].Element)
	l.wantTimed(windowName, elements[4].Element)
}
