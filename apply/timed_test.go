package apply

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

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
				if e.First == b.First && (e.Expires > b.Expires || e.Expires < b.Expires-25*time.Second) {
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

// longestTimeout bounds the timeouts of inTime.
const longestTimeout = 20 * time.Second

// mayHaveEnded reports whether an element may be gone that was put in after a
// time. The kernel counts its time in ticks, and these may be late when it is put
// in: it can end a little before its timeout.
func mayHaveEnded(begun time.Time, timeout time.Duration) bool {
	return time.Since(begun) > timeout/2
}

// inTime runs f with the timeout of elements that are to be seen before they
// end, a longer one each time until f does not say that it came too late: the
// machine may stand still at any moment.
func inTime(t *testing.T, f func(timeout time.Duration) (late bool)) {
	t.Helper()
	for timeout := 300 * time.Millisecond; f(timeout); timeout *= 2 {
		if timeout > longestTimeout {
			t.Fatalf("elements of %s have ended before anybody saw them", timeout)
		}
	}
}

func TestElementsThatEndBetweenLookAndCommit(t *testing.T) {
	t.Parallel()
	for _, set := range []string{exactName, rangesName} {
		t.Run(set, func(t *testing.T) {
			t.Parallel()
			for _, test := range []struct {
				name   string
				change func(short, long ruleset.TimedElement) []TimedChange
				// short and long say which of the two are there after the commit.
				short, long bool
			}{
				{"what ends is taken out", func(short, _ ruleset.TimedElement) []TimedChange { return takeOut(set, short) }, false, true},
				{"what was there is put in anew if it ends too early", func(short, _ ruleset.TimedElement) []TimedChange { return put(set, short) }, true, true},
				{"what ends is taken out and put in", func(short, _ ruleset.TimedElement) []TimedChange {
					return append(takeOut(set, short), put(set, short)...)
				}, true, true},
				{"what ends is taken out with what does not", func(short, long ruleset.TimedElement) []TimedChange { return takeOut(set, long, short) }, false, false},
			} {
				t.Run(test.name, func(t *testing.T) {
					t.Parallel()
					inTime(t, func(timeout time.Duration) (late bool) {
						l := newLab(t)
						short, long := tuple(1, timeout), tuple(2, time.Hour)
						if set == rangesName {
							short, long = ranged("10.0.0.0/8", 1, 9, timeout), ranged("10.0.0.0/8", 10, 19, time.Hour)
						}
						begun := time.Now()
						l.commit(timedTable(), put(set, short, long)...)
						s := l.snapshot()
						if n := len(s.Table.Set(set).Timed); n != 2 {
							if mayHaveEnded(begun, timeout) {
								return true
							}
							t.Fatalf("%d elements", n)
						}
						d, err := Diff(s, timedTable(), test.change(short, long)...)
						if err != nil {
							t.Fatal(err)
						}
						time.Sleep(timeout + 200*time.Millisecond)
						if n := len(l.snapshot().Table.Set(set).Timed); n != 1 {
							t.Fatalf("%d elements are left", n)
						}
						var want []ruleset.TimedElement
						if test.short {
							want = append(want, short)
						}
						if test.long {
							want = append(want, long)
						}
						begun = time.Now()
						if err := l.kernel.Commit(context.Background(), d); err != nil {
							t.Fatal(err)
						}
						got := l.timed(set)
						if !slices.Equal(got, want) {
							if test.short && mayHaveEnded(begun, timeout) {
								return true
							}
							t.Errorf("set %s holds %q, want %q", set, got, want)
						}
						l.wantSame(timedTable())
						return false
					})
				})
			}
		})
	}
}

// TestKernelThatCannotDestroy stands in for a kernel before 6.3: it does not
// know the message that removes what may be gone.
func TestKernelThatCannotDestroy(t *testing.T) {
	t.Parallel()
	for _, set := range []string{exactName, rangesName} {
		for _, both := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, with what does not end %t", set, both), func(t *testing.T) {
				t.Parallel()
				inTime(t, func(timeout time.Duration) (late bool) {
					l := newLab(t)
					short, long, other := tuple(1, timeout), tuple(2, time.Hour), tuple(3, time.Hour)
					if set == rangesName {
						short, long, other = ranged("10.0.0.0/8", 1, 9, timeout), ranged("10.0.0.0/8", 10, 19, time.Hour), ranged("11.0.0.0/8", 10, 19, time.Hour)
					}
					remove, left := []ruleset.TimedElement{short}, []ruleset.TimedElement{long, other}
					if both {
						remove, left = append(remove, long), left[1:]
					}
					begun := time.Now()
					l.commit(timedTable(), put(set, short, long)...)
					d, err := Diff(l.snapshot(), timedTable(), append(takeOut(set, remove...), put(set, other)...)...)
					if err != nil {
						t.Fatal(err)
					}
					destroyed := 0
					for _, b := range d.batches {
						for _, o := range b.operations {
							if o.destroys {
								b.message.Buf[o.start+4] = 99
								destroyed++
							}
						}
					}
					if destroyed < len(remove) && mayHaveEnded(begun, timeout) {
						return true
					}
					if destroyed == 0 {
						t.Fatal("nothing is destroyed")
					}
					time.Sleep(timeout + 200*time.Millisecond)
					if err := l.kernel.Commit(context.Background(), d); err != nil {
						t.Fatal(err)
					}
					l.wantTimed(set, left...)
					return false
				})
			})
		}
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
