package apply

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
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

// box is an element of ranges: peers of a prefix to a range of ports.
func box(prefix string, first, last uint16, timeout time.Duration) ruleset.TimedElement {
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
			c := box("10.0.0.0/8", 53, 60, 2*time.Minute)
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
			if n != 4 {
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

func TestConcurrent(t *testing.T) {
	var _ = errors.New
	var _ sync.WaitGroup
}
