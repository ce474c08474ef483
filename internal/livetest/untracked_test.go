package livetest

import (
	"slices"
	"testing"
	"time"

	"sgc/internal/flow"
)

// An untracked flow that the new policy also calls untracked goes on, and has
// no entry where the kernel gets notrack.
func TestUntrackedStaysUntracked(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(open(d))
		talks := s.open(append(s.serviceCalls(d), fromStrangers(s.serviceCalls(d)[:4])...)...)
		for _, next := range []policy{
			open(d).with(both(d, "third", "7003", anyone)),
			// The same rules under other names and in another group.
			{groups: map[string][]string{"b": {both(d, "renamed", `"7000-7999"`, anyone), all(d.Opposite())}}, attached: []string{"b"}},
			open(d),
		} {
			s.mark(talks...)
			s.apply(next)
			s.smoothly("still open", talks...)
			if s.place.untracks() {
				s.haveNone("still open", talks...)
			}
		}
		s.opens("still open", kinds(call{direction: d})...)
	})
}

// No packet of an untracked flow that no rule allows any more passes, in
// either direction, although everything may go the other way; nothing brings
// it back, and nothing else is touched.
func TestUntrackedIsCut(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(open(d))
		cut := s.open(append(s.serviceCalls(d), fromStrangers(kinds(call{direction: d}))...)...)
		other := s.open(append(kinds(call{direction: d, port: otherService}), fromStrangers(kinds(call{direction: d, port: otherService}))...)...)
		s.goOn("before", append(cut, other...)...)

		s.mark(other...)
		begin := time.Now()
		s.apply(closed(d))
		s.areCut("after the commit", cut...)
		s.haveNone("after the commit", cut...)
		s.settled("after the commit", closed(d))
		s.smoothly("other ports of the same client", other...)
		s.refuses("after the commit", s.serviceCalls(d)[:4]...)
		// New flows the other way, from other ports.
		s.opens("the other way", kinds(call{direction: d.Opposite(), port: unnamed})...)
		s.opens("another port", kinds(call{direction: d, port: otherService})...)

		for _, step := range []struct {
			name   string
			policy policy
		}{
			{"after an unrelated apply", closed(d).with(both(d, "third", "7003", friends))},
			{"after an apply of the same", closed(d).with(both(d, "third", "7003", friends))},
			{"after another port was opened", closed(d).with(both(d, "third", "7003", anyone))},
			{"after everything became tracked", policy{rules: []string{otherRule(d), rule(d.Opposite(), "most", "-1", "", friends)}}},
			{"after the others became untracked again", closed(d)},
		} {
			s.mark(other...)
			s.apply(step.policy)
			if time.Since(begin) > surelyHeld {
				cut = only(cut, isTCP)
			}
			s.areCut(step.name, cut...)
			s.haveNone(step.name, cut...)
		}
		s.goOn("at the end", other...)

		// What is allowed again works at once: the cut UDP flows themselves, too.
		s.reopen(open(d), cut...)
		s.mark(only(cut, isUDP)...)
		s.smoothly("open again", only(cut, isUDP)...)
		s.opens("open again", s.serviceCalls(d)[:4]...)
	})
}

// A flow of the host's own goes to the very peer port that a cut flow came
// from.
func TestCutFlowDoesNotHoldItsPeer(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(open(d))
		cut := s.open(kinds(call{direction: d})...)
		s.apply(closed(d))
		s.areCut("after the commit", cut...)
		for _, k := range only(cut, isUDP) {
			c := call{protocol: flow.UDP, family: k.family, direction: d.Opposite(), port: k.remote.Port()}
			if d == flow.Egress {
				// Inwards, to the port that the cut flow was opened from, but
				// from another port of the peer.
				if s.place == published {
					continue // nobody publishes that port
				}
				c.port = k.local.Port()
			}
			s.opens("to the same port", c)
		}
		s.areCut("still", cut...)
	})
}

// An untracked flow that is allowed as a tracked one alone goes on: narrowed to
// its own peer.
func TestUntrackedIsNarrowedToItsPeer(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(open(d))
		mine := s.open(s.serviceCalls(d)...)
		strangers := s.open(fromStrangers(kinds(call{direction: d}))...)
		other := s.open(kinds(call{direction: d, port: otherService})...)
		s.goOn("before", append(mine, append(strangers, other...)...)...)

		s.mark(append(mine, other...)...)
		s.apply(narrowed(d, friends...))
		s.areCut("the stranger's", strangers...)
		s.smoothly("narrowed", append(mine, other...)...)
		s.haveEntries("narrowed", mine...)
		if s.place.untracks() {
			s.haveNone("still open", other...)
		}
		s.opens("narrowed", kinds(call{direction: d})...)
		s.refuses("narrowed", fromStrangers(kinds(call{direction: d}))...)

		// They are tracked: the rule may go, and they go on.
		s.mark(append(mine, other...)...)
		s.apply(closed(d))
		s.smoothly("tracked, and the rule is gone", append(mine, other...)...)
		s.areCut("the stranger's, later", strangers...)
	})
}

// The same where the rule of the other direction is gone.
func TestUntrackedLosesTheOtherDirection(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(open(d))
		mine := s.open(s.serviceCalls(d)...)
		s.goOn("before", mine...)
		if s.place == plain && d == flow.Egress {
			// The host's unconnected client may be held up: nobody can tell
			// that it opened the flow.
			mine = only(mine, func(k *talk) bool { return isTCP(k) || k.connected })
		}
		s.mark(mine...)
		s.apply(oneWay(d))
		s.smoothly("the other direction is closed", mine...)
		s.haveEntries("the other direction is closed", mine...)
		s.opens("the other direction is closed", kinds(call{direction: d})...)
		s.refuses("the other direction is closed", kinds(call{direction: d.Opposite(), port: unnamed})...)
		s.mark(mine...)
		s.apply(policy{rules: []string{otherRule(d)}})
		s.smoothly("tracked, and the rule is gone", mine...)
	})
}

// Where everything was open in both directions and only one is left, the flows
// of the other are cut, and new flows of the host are not stopped.
func TestEverythingOpenToOneDirection(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(policy{rules: []string{all(flow.Ingress), all(flow.Egress)}})
		var stay []*talk
		for _, k := range s.open(s.serviceCalls(d)...) {
			// Nobody can tell who opened the flow of an unconnected socket.
			if !s.place.untracks() || isTCP(k) || k.connected {
				stay = append(stay, k)
			}
		}
		gone := s.open(kinds(call{direction: d.Opposite(), port: otherService})...)
		s.goOn("before", append(stay, gone...)...)

		s.mark(stay...)
		s.apply(policy{rules: []string{all(d)}})
		s.areCut("the other way", gone...)
		s.smoothly("this way", stay...)
		s.haveEntries("this way", stay...)
		// Also to the peer whose flow was cut, and between its very port and a
		// new one.
		s.opens("this way", kinds(call{direction: d, port: unnamed})...)
		s.refuses("the other way", kinds(call{direction: d.Opposite(), port: unnamed})...)
		s.areCut("the other way, later", gone...)
	})
}

// An open TCP flow whose entry conntrack lost, as by an idle timeout, goes on with
// whatever segment comes next, and its new entry names the wrong side where that
// is the answering one's. It is open all the same, and is cut with its rule.
func TestUntrackedPickedUpIsCut(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		if s.place == published {
			return // without its entry nobody knows where it is published from
		}
		s.apply(open(d))
		talks := s.open(kindsOf(flow.TCP, call{direction: d})...)
		callers := func(paused bool) {
			for _, k := range talks {
				caller, _ := k.ends()
				k.pause(paused, caller)
			}
		}
		callers(true)
		reversed := func(k *talk) bool {
			e, there := s.entry(k)
			return there && (e.Original.Source == k.remote) == (d == flow.Egress)
		}
		// The first segment may be one that acknowledges.
		if !s.place.untracks() && !eventually(func() bool {
			if err := s.witness.Flush(); err != nil {
				s.t.Fatal(err)
			}
			time.Sleep(4 * pace)
			return !slices.ContainsFunc(talks, func(k *talk) bool { return !reversed(k) })
		}) {
			s.t.Fatal("no entry names the wrong side")
		}
		callers(false)
		s.goOn("picked up", talks...)
		s.apply(closed(d))
		s.areCut("the rule is gone", talks...)
		s.haveNone("the rule is gone", talks...)
	})
}
