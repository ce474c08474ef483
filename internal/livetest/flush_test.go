package livetest

import (
	"path/filepath"
	"strings"
	"testing"

	"sgc/internal/flow"
)

// --flush revoked also cuts tracked flows that no rule allows any more, and
// nothing else.
func TestFlushRevoked(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(narrowed(d, friends...))
		revoked := s.open(s.serviceCalls(d)...)
		other := s.open(kinds(call{direction: d, port: otherService})...)
		tracked := narrowed(d, friends...).with(both(d, "third", "7003", friends))
		s.apply(tracked)
		kept := s.open(kinds(call{direction: d, port: thirdService})...)
		s.goOn("before", append(revoked, append(other, kept...)...)...)

		s.mark(append(other, kept...)...)
		s.apply(closed(d).with(both(d, "third", "7003", friends)), "--flush", "revoked")
		s.areCut("revoked", revoked...)
		s.haveNone("revoked", revoked...)
		s.smoothly("allowed", append(other, kept...)...)
		s.apply(closed(d).with(both(d, "third", "7003", anyone)))
		s.areCut("after another apply", revoked...)
		s.smoothly("allowed", append(other, kept...)...)
		s.opens("the other way", kinds(call{direction: d.Opposite(), port: unnamed})...)
	})
}

// It also cuts what an earlier apply let go on.
func TestFlushRevokedLater(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(narrowed(d, friends...))
		revoked := s.open(s.serviceCalls(d)...)
		s.apply(closed(d))
		s.goOn("the rule is gone", revoked...)
		s.apply(closed(d).with(both(d, "third", "7003", friends)), "--flush", "revoked")
		s.areCut("revoked", revoked...)
	})
}

// A flow that was narrowed is known by the side that opened it: it is revoked
// with the rule of that direction, although everything may go the other way.
func TestFlushRevokedAfterNarrowing(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(open(d))
		talks := s.open(s.serviceCalls(d)...)
		if s.place.untracks() {
			talks = only(talks, func(k *talk) bool { return isTCP(k) || k.connected })
		}
		s.apply(narrowed(d, friends...))
		s.goOn("narrowed", talks...)
		s.apply(closed(d), "--flush", "revoked")
		s.areCut("revoked", talks...)
	})
}

// --flush none deletes nothing: what conntrack holds goes on.
func TestFlushNone(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(narrowed(d, friends...))
		talks := s.open(s.serviceCalls(d)...)
		if !s.place.untracks() {
			s.apply(open(d))
			talks = append(talks, s.open(kinds(call{direction: d})...)...)
		}
		s.mark(talks...)
		s.apply(closed(d), "--flush", "none")
		s.smoothly("nothing is flushed", talks...)
		s.refuses("nothing is flushed", s.serviceCalls(d)[:4]...)
	})
}

// A saved plan cuts what it was made to cut.
func TestFlushOfASavedPlan(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			saved := filepath.Join(s.dir, "saved")
			s.apply(open(d))
			talks := s.open(kinds(call{direction: d, connected: true})...)
			s.plan(closed(d), "--out", saved, "--flush", "none")
			if r := s.sgc("apply", saved, "--flush", "cloud"); r.code != 1 || !strings.Contains(r.err, "--flush none") {
				t.Errorf("with another flush: exit %d, %q", r.code, r.err)
			}
			s.must("apply", saved)
			s.goOn("nothing is flushed", talks...)
			s.plan(closed(d), "--out", saved, "--flush", "revoked")
			s.must("apply", saved)
			s.areCut("revoked", talks...)
		})
	}
}

// A mistake in the flag changes nothing.
func TestFlushOfAnUnknownKind(t *testing.T) {
	t.Parallel()
	s := newStand(t, plain)
	s.apply(open(flow.Ingress))
	talks := s.open(kinds(call{})...)
	if r := s.sgc("apply", "--auto-approve", "--flush", "all", s.write(closed(flow.Ingress))); r.code != 1 || r.err == "" {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
	s.goOn("after the mistake", talks...)
}
