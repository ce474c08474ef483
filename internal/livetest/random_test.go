package livetest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"sgc/internal/flow"
)

// class is what a flow is to the policy that is in force.
type class int

const (
	untracked class = iota
	tracked
	wasCut
)

// step is a policy of the walk, with what it means for the flows that are
// there: the table of the contract as a function.
type step struct {
	name   string
	policy func(flow.Direction) policy
	// allows says whose flows of the service may open, and as what.
	friend, stranger struct {
		allowed bool
		as      class
	}
}

var walk = func() []step {
	open := step{name: "open", policy: open}
	open.friend.allowed, open.stranger.allowed = true, true
	narrowed := step{name: "narrowed", policy: func(d flow.Direction) policy { return narrowed(d, friends...) }}
	narrowed.friend.allowed, narrowed.friend.as = true, tracked
	closed := step{name: "closed", policy: closed}
	oneWay := step{name: "one way", policy: oneWay}
	oneWay.friend.allowed, oneWay.friend.as = true, tracked
	oneWay.stranger = oneWay.friend
	return []step{open, narrowed, closed, oneWay}
}()

// next returns what becomes of a flow of a class under a step, and whether it
// is still of interest: a flow that was cut may be opened anew by any packet once it
// is allowed.
func (st *step) next(c class, stranger bool) (class, bool) {
	rule := st.friend
	if stranger {
		rule = st.stranger
	}
	switch {
	case c == wasCut:
		return wasCut, !rule.allowed
	case rule.allowed:
		return rule.as, true
	case c == untracked:
		return wasCut, true
	}
	return tracked, true
}

// Whatever the order of changes, and wherever some of the applies are killed:
// each flow becomes what the table says of the step before.
//
// SGC_SEED plays a walk again, SGC_WALK makes walks of so many steps.
func TestRandomWalk(t *testing.T) {
	t.Parallel()
	number := func(name string, otherwise uint64) uint64 {
		n, err := strconv.ParseUint(os.Getenv(name), 10, 64)
		if err != nil {
			return otherwise
		}
		return n
	}
	steps := int(number("SGC_WALK", 8))
	everywhere(t, func(s *stand, d flow.Direction) {
		seed := number("SGC_SEED", rand.Uint64())
		random := rand.New(rand.NewPCG(seed, uint64(d)))
		type subject struct {
			*talk
			class class
			// since is when it was still no flow that was cut.
			since time.Time
		}
		var subjects []*subject
		var way []string
		at := &walk[0]
		s.apply(at.policy(d))
		for i := range steps {
			if i < 4 {
				// Friends' flows, and strangers', if they may open.
				calls := kinds(call{direction: d, connected: d == flow.Egress})
				rule := at.friend
				if random.IntN(2) == 0 {
					calls, rule = fromStrangers(calls), at.stranger
				}
				if rule.allowed {
					for _, k := range s.open(calls...) {
						subjects = append(subjects, &subject{talk: k, class: rule.as})
					}
				}
			}
			at = &walk[random.IntN(len(walk))]
			killed := random.IntN(3) == 0
			way = append(way, at.name)
			var goOn, cut []*talk
			rest := subjects[:0]
			for _, x := range subjects {
				var more bool
				if x.class != wasCut {
					x.since = time.Now()
				}
				x.class, more = at.next(x.class, x.peer == strangerOf[x.family])
				if !more || x.class == wasCut && isUDP(x.talk) && time.Since(x.since) > surelyHeld {
					s.hangUp(x.talk)
					continue
				}
				rest = append(rest, x)
				if x.class == wasCut {
					cut = append(cut, x.talk)
				} else {
					goOn = append(goOn, x.talk)
				}
			}
			subjects = rest
			s.mark(goOn...)
			if killed {
				way[len(way)-1] += " (killed)"
				cmd := s.child("apply", "--auto-approve", s.write(at.policy(d)))
				if err := cmd.Start(); err != nil {
					s.t.Fatal(err)
				}
				time.Sleep(time.Duration(10+random.IntN(100)) * time.Millisecond)
				_ = cmd.Process.Kill()
				_ = cmd.Wait() // it was killed, or was faster
			}
			s.apply(at.policy(d))
			when := strings.Join(way, ", ")
			s.smoothly(when, goOn...)
			s.areCut(when, cut...)
			if s.t.Failed() {
				s.t.Fatalf("SGC_SEED=%d", seed)
			}
		}
	})
}
