package livetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// A tracked flow whose rule is gone goes on until it is idle for its timeout;
// then no packet revives it, and new ones of the kind were refused all along.
func TestTrackedOutlivesItsRule(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		// TCP may be opened the other way, so that the answering side's
		// segments could open a flow; UDP may not, since they would.
		back := rule(d.Opposite(), "tcp_back", "tcp", `"0-65535"`, anyone)
		s.apply(policy{rules: []string{serviceRule(d, friends), otherRule(d), back}})
		talks := s.open(s.serviceCalls(d)...)
		s.haveEntries("before", talks...)

		s.mark(talks...)
		s.apply(policy{rules: []string{otherRule(d), back}})
		s.smoothly("the rule is gone", talks...)
		s.haveEntries("the rule is gone", talks...)
		s.refuses("the rule is gone", s.serviceCalls(d)[:4]...)
		s.apply(policy{rules: []string{otherRule(d), back, both(d, "third", "7003", anyone)}})
		s.smoothly("after another apply", talks...)

		pause(true, talks...)
		time.Sleep(50 * time.Millisecond)
		s.idle(talks...)
		s.endWindow()
		pause(false, talks...)
		s.areCut("after the idle timeout", talks...)
		s.apply(policy{rules: []string{otherRule(d), back}})
		s.areCut("after the idle timeout and an apply", talks...)
	})
}

// idle makes flows that are silent end by their timeout.
func (s *stand) idle(talks ...*talk) {
	s.t.Helper()
	conn, err := conntrack.Dial(&netlink.Config{NetNS: s.host.FD()})
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	// A late acknowledgement gives an entry its whole timeout back.
	if !eventually(func() bool {
		entries, err := conn.Dump(nil)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range entries {
			e = conntrack.Flow{TupleOrig: e.TupleOrig, TupleReply: e.TupleReply, Timeout: 1}
			if err := conn.Update(e); err != nil && !errors.Is(err, unix.ENOENT) {
				s.t.Fatal(err)
			}
		}
		return before(time.Now().Add(3*time.Second), func() bool {
			entries := s.entries()
			return !slices.ContainsFunc(talks, func(k *talk) bool { _, there := entryOf(entries, k); return there })
		})
	}) {
		s.t.Fatalf("not all entries end: %v", s.entries())
	}
}

// adoption is the set that the window below is made of.
const adoption = "adoption"

// endWindow ends the window in which routed flows without entries may go on
// after the first apply, as five minutes would.
func (s *stand) endWindow() {
	s.t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(s.host.FD()))
	if err != nil {
		s.t.Fatal(err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "sgc"}
	sets, err := conn.GetSets(table)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, set := range sets {
		if set.Name == adoption {
			conn.FlushSet(set)
		}
	}
	if err := conn.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

// A tracked flow that becomes untracked goes on; its entry is gone where the
// kernel leaves it out of conntrack, and a later removal of the rule cuts it.
func TestTrackedBecomesUntracked(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(narrowed(d, friends...))
		talks := s.open(s.serviceCalls(d)...)
		s.haveEntries("before", talks...)

		s.mark(talks...)
		s.apply(open(d))
		s.smoothly("open now", talks...)
		if s.place.untracks() {
			s.haveNone("open now", talks...)
		}
		s.apply(closed(d))
		s.areCut("open, and the rule is gone", talks...)
		s.haveNone("open, and the rule is gone", talks...)
		s.apply(closed(d).with(both(d, "third", "7003", anyone)))
		s.areCut("after another apply", talks...)
	})
}

// A flow may change between tracked and untracked many times.
func TestTrackedUntrackedTracked(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(narrowed(d, friends...))
		talks := s.open(s.serviceCalls(d)...)
		for range 2 {
			s.mark(talks...)
			s.apply(open(d))
			s.smoothly("open", talks...)
			// An entry that is left behind gets old.
			time.Sleep(impatience)
			s.mark(talks...)
			s.apply(narrowed(d, friends...))
			s.smoothly("narrowed", talks...)
			s.haveEntries("narrowed", talks...)
		}
		s.mark(talks...)
		s.apply(closed(d))
		s.smoothly("tracked, and the rule is gone", talks...)
	})
}

// A flow that outlives its rule is a tracked one: where everything becomes
// open again it goes on, and where that ends again it is cut.
func TestOutlivedRuleComesBack(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(narrowed(d, friends...))
		talks := s.open(s.serviceCalls(d)...)
		s.mark(talks...)
		s.apply(closed(d))
		s.smoothly("the rule is gone", talks...)
		s.apply(narrowed(d, friends...))
		s.smoothly("the rule is back", talks...)
		s.apply(closed(d))
		s.smoothly("the rule is gone again", talks...)
		s.apply(open(d))
		s.smoothly("everybody's", talks...)
		s.apply(closed(d))
		s.areCut("nobody's", talks...)
	})
}
