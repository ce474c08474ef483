package livetest

import (
	"fmt"
	"testing"
	"time"

	"sgc/internal/flow"
)

// admits reports whether the host lets new flows of the service come about: what
// becomes of the first segment.
func (s *stand) admits(d flow.Direction) bool {
	s.t.Helper()
	for end := time.Now().Add(patience); ; {
		k, err := s.dial(call{protocol: flow.TCP, family: flow.IPv4, direction: d}.filled(), impatience)
		pause(true, k)
		if err == nil {
			return true
		}
		// It may still be on its way, as its answer may.
		s.machine.drain(s.t)
		came := s.watch.arrivals(s.t)[k.leg][d]
		if s.watch.counts(s.t)[k.leg][d] > 0 {
			return true
		}
		if came > 0 {
			return false
		}
		if time.Now().After(end) {
			s.t.Fatalf("no segment comes to the rules: %v", err)
		}
	}
}

// An apply that is killed after any of its transactions is finished by the next
// command, whatever it is. From the commit on the cut holds.
func TestKilledWhileItCuts(t *testing.T) {
	t.Parallel()
	next := map[string]func(flow.Direction) policy{
		"apply of the same": closed,
		"apply of another":  func(d flow.Direction) policy { return closed(d).with(both(d, "third", "7003", anyone)) },
	}
	everywhere(t, func(s *stand, d flow.Direction) {
		stopped, unflushed := 0, 0
		try := func(name string, transactions uint32) (hit bool) {
			when := fmt.Sprintf("killed after %d transactions", transactions)
			s.apply(open(d))
			talks := s.open(kinds(call{direction: d})...)
			c := s.stopAfter(transactions, "apply", "--auto-approve", s.write(closed(d)))
			if hit = c.stopped; hit {
				stopped++
			}
			committed := !s.admits(d)
			if committed {
				if _, there := s.entry(talks[0]); there {
					unflushed++
				}
				s.areCut(when+", while it stands still", talks...)
			}
			c.kill()
			if committed {
				s.areCut(when, talks...)
			}
			s.apply(next[name](d))
			s.settled(when+", then "+name, next[name](d))
			s.areCut(when+", then "+name, talks...)
			s.haveNone(when+", then "+name, talks...)
			s.hangUp(talks...)
			return hit
		}
		// A process may be faster than whoever is to stop it.
		hit := func() bool { return stopped > 0 && (unflushed > 0 || s.place.untracks()) }
		for range s.rounds(hit) {
			for _, name := range sortedKeys(next) {
				for n := uint32(1); n <= 4 && try(name, n); n++ { // until there are no more transactions
				}
			}
		}
		s.t.Logf("%d applies were stopped, %d of them between the commit and the flush", stopped, unflushed)
	})
}

// A flow that was opened under a policy whose apply was killed after its commit
// is known to the next apply.
func TestKilledApplyHadOpened(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(closed(d))
		// Of its transactions the one that opens the service is among the first.
		for n := range uint32(3) {
			s.stopAfter(n+1, "apply", "--auto-approve", s.write(open(d))).kill()
			if s.admits(d) {
				break
			}
		}
		if !s.admits(d) {
			s.t.Fatal("the killed apply did not open the service")
		}
		talks := s.open(s.serviceCalls(d)...)
		s.apply(closed(d))
		s.areCut("closed again", talks...)
		s.haveNone("closed again", talks...)
	})
}

// The same for what a killed apply narrowed: its flows go on.
func TestKilledWhileItNarrows(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		for n := range uint32(3) {
			when := fmt.Sprintf("killed after %d transactions", n+1)
			s.apply(open(d))
			mine := s.open(kinds(call{direction: d, connected: d == flow.Egress})...)
			strangers := s.open(fromStrangers(kinds(call{direction: d}))...)
			s.mark(mine...)
			c := s.stopAfter(n+1, "apply", "--auto-approve", s.write(narrowed(d, friends...)))
			hit := c.stopped
			c.kill()
			s.smoothly(when, mine...)
			s.apply(narrowed(d, friends...))
			s.smoothly(when+", then applied", mine...)
			s.areCut(when+", then applied", strangers...)
			s.hangUp(append(mine, strangers...)...)
			if !hit {
				break
			}
		}
	})
}

// What a killed apply was to cut beside open flows is cut by the next one:
// tracked flows of a deleted group, and what --flush revoked means.
func TestKilledWhileItRevokes(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{nil, {"--flush", "revoked"}} {
		everywhere(t, func(s *stand, d flow.Direction) {
			missed := 0
			for n := range uint32(3) {
				when := fmt.Sprintf("killed after %d transactions", n+1)
				from, to := closed(d), closed(d)
				from.groups = map[string][]string{"g": {serviceRule(d, friends)}}
				from.attached = []string{"a", "g"}
				if flags != nil {
					to.groups = from.groups // it is detached alone
				}
				s.apply(from)
				talks := s.open(kinds(call{direction: d, connected: d == flow.Egress})...)
				c := s.stopAfter(n+1, append([]string{"apply", "--auto-approve", s.write(to)}, flags...)...)
				hit := c.stopped
				c.kill()
				if s.admits(d) {
					missed++ // it was killed before it changed a thing
				} else {
					s.apply(to.with(both(d, "third", "7003", anyone)))
					s.areCut(when, talks...)
					s.haveNone(when, talks...)
				}
				s.hangUp(talks...)
				if !hit {
					break
				}
			}
			if missed == 3 {
				s.t.Error("no apply was killed after its commit")
			}
		})
	}
}

// Kills at any moment: the next apply leaves what an apply would have left.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	for _, at := range []place{plain, besideNAT} {
		t.Run(at.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, at)
			d := flow.Ingress
			for i := range 12 {
				s.apply(open(d))
				talks := s.open(kinds(call{direction: d})...)
				cmd := s.child("apply", "--auto-approve", s.write(closed(d)))
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(10+i*8) * time.Millisecond)
				_ = cmd.Process.Kill()
				_ = cmd.Wait() // it was killed, or was faster
				s.apply(closed(d))
				s.areCut(fmt.Sprintf("round %d", i), talks...)
				s.haveNone(fmt.Sprintf("round %d", i), talks...)
				s.hangUp(talks...)
			}
		})
	}
}
