package livetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"sgc/internal/flow"
)

// surelyHeld is how long a UDP flow that was cut is refused at any rate: the timeout
// of UDP streams is longer in all tests, by as much as a slow machine takes to look.
// After that its next packet may open it the other way.
const surelyHeld = 2 * time.Minute

// held is what the kernel's table refuses for a while: what is left of each
// timed element, by set and key.
type held map[string]nftables.SetElement

// held reads the elements that end by themselves, without those that let
// something in.
func (s *stand) held() held {
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
	out := held{}
	for _, set := range sets {
		if !strings.HasPrefix(set.Name, "refused.") {
			continue
		}
		elements, err := conn.GetSetElements(set)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range elements {
			if e.IntervalEnd {
				continue
			}
			out[fmt.Sprintf("%s %x-%x", set.Name, e.Key, e.KeyEnd)] = e
		}
	}
	return out
}

// What holds a cut UDP flow ends by itself: no traffic and no later apply
// prolongs it, and it leaves at once with what is allowed again.
func TestHeldAgesOut(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		const longest = 150 * time.Second
		with := func(p policy) policy {
			p.attributes = "  connection_tracking {\n    udp_stream_timeout = 150\n  }\n"
			return p
		}
		s.apply(with(open(d)))
		cut := s.open(s.serviceCalls(d)...)
		if h := s.held(); len(h) > 0 {
			s.t.Errorf("before: %d elements are held: %v", len(h), sortedKeys(h))
		}
		begin := time.Now()
		s.apply(with(closed(d)))
		s.areCut("cut", cut...)
		first := s.held()
		if len(first) == 0 {
			s.t.Fatal("nothing is held")
		}
		for name, e := range first {
			if e.Timeout <= 0 || e.Timeout > longest || e.Expires <= 0 || e.Expires > longest {
				s.t.Errorf("%s ends after %s, and %s are left; want at most %s", name, e.Timeout, e.Expires, longest)
			}
		}
		time.Sleep(600 * time.Millisecond)
		s.apply(with(closed(d).with(both(d, "third", "7003", friends))))
		time.Sleep(600 * time.Millisecond)
		s.apply(with(closed(d)))
		later := s.held()
		for name, e := range later {
			was, there := first[name]
			if !there {
				s.t.Errorf("%s is held by a later apply", name)
			} else if was.Expires-e.Expires < time.Second {
				s.t.Errorf("%s had %s left, and later %s", name, was.Expires, e.Expires)
			}
		}
		if len(later) != len(first) && time.Since(begin) < surelyHeld {
			s.t.Errorf("%d elements are held, and later %d", len(first), len(later))
		}

		s.reopen(with(open(d)), cut...)
		if h := s.held(); len(h) > 0 {
			s.t.Errorf("open again: %d elements are held: %v", len(h), sortedKeys(h))
		}
		s.mark(only(cut, isUDP)...)
		s.smoothly("open again", only(cut, isUDP)...)
	})
}

// reopen applies a policy after which flows may be opened anew, while the side
// that answered is silent for a moment. Its next packet might open the flow the
// other way: UDP that conntrack does not know is its next sender's, and NAT
// would choose other ports for it.
func (s *stand) reopen(p policy, talks ...*talk) {
	s.t.Helper()
	silent := func(paused bool) {
		for _, k := range talks {
			_, callee := k.ends()
			k.pause(paused, callee)
		}
	}
	silent(true)
	s.machine.drain(s.t)
	s.apply(p)
	s.callersSpeak(talks...)
	silent(false)
}

// callersSpeak waits until the sides that opened flows have sent something again,
// and the rules have judged it.
func (s *stand) callersSpeak(talks ...*talk) {
	s.t.Helper()
	old := map[*talk]uint64{}
	for _, k := range talks {
		caller, _ := k.ends()
		old[k] = caller.spoken.Load()
	}
	end := time.Now().Add(patience)
	for _, k := range talks {
		// A segment of TCP may wait for long, and whoever was told to says nothing.
		caller, _ := k.ends()
		if !isTCP(k) && !caller.paused.Load() && !before(end, func() bool { return caller.spoken.Load() > old[k]+2 }) {
			s.t.Errorf("%s: the side that opened it says nothing", k.call)
		}
	}
	s.machine.drain(s.t)
}

// ends returns the side that opened a flow, and the other one.
func (k *talk) ends() (caller, callee *end) {
	if k.direction == flow.Ingress {
		return &k.far, &k.near
	}
	return &k.near, &k.far
}

// What is allowed again in part leaves in part.
func TestHeldLeavesInPart(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(open(d))
		mine := s.open(s.serviceCalls(d)...)
		strangers := s.open(fromStrangers(kinds(call{direction: d}))...)
		s.apply(closed(d))
		s.areCut("cut", append(mine, strangers...)...)
		s.reopen(narrowed(d, friends...), append(mine, strangers...)...)
		s.mark(only(mine, isUDP)...)
		s.smoothly("the friend's again", only(mine, isUDP)...)
		s.areCut("the stranger's", strangers...)
		s.opens("the friend's again", kinds(call{direction: d})...)
	})
}

// Nothing is held after a destroy.
func TestDestroyHoldsNothing(t *testing.T) {
	t.Parallel()
	s := newStand(t, plain)
	s.apply(open(flow.Ingress))
	talks := s.open(s.serviceCalls(flow.Ingress)...)
	s.apply(closed(flow.Ingress))
	s.areCut("cut", talks...)
	s.must("destroy", "--auto-approve")
	s.goOn("after the destroy", talks...)
}
