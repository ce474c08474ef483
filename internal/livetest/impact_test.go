package livetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/nftables"

	"sgc/internal/flow"
)

// fates counts the flows of a plan by what becomes of them, in the document
// that plan --json prints.
func fates(v any) map[string]int {
	counts := map[string]int{}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			fate, isGroup := v["fate"].(string)
			if n, ok := v["count"].(float64); isGroup && ok {
				counts[fate] += int(n)
			}
			for _, e := range v {
				walk(e)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(v)
	return counts
}

// impact expects how many flows a plan of p gives each fate.
func (s *stand) impact(when string, p policy, want map[string]int, flags ...string) {
	s.t.Helper()
	got := fates(s.document(s.plan(p, append(flags, "--json")...)))
	for _, fate := range []string{"cut", "goes_on", "adopted", "becomes_tracked", "becomes_untracked"} {
		if got[fate] != want[fate] {
			s.t.Errorf("%s: the plan counts %d flows as %s, want %d", when, got[fate], fate, want[fate])
		}
	}
}

// A plan says what an apply would do to the flows that are there, and does
// nothing to them.
func TestPlanShowsTheImpact(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		// Of unconnected sockets without entries nobody knows the peers.
		countable := func(talks []*talk) int {
			if s.place.untracks() {
				talks = only(talks, func(k *talk) bool { return isTCP(k) || k.connected })
			}
			return len(talks)
		}
		s.apply(open(d))
		mine := s.open(s.serviceCalls(d)...)
		strangers := s.open(fromStrangers(kinds(call{direction: d}))...)
		other := s.open(kinds(call{direction: d, port: otherService})...)
		s.mark(append(mine, append(strangers, other...)...)...)
		before := s.watch.counts(s.t)

		s.impact("closed", closed(d), map[string]int{"cut": countable(mine) + countable(strangers)})
		if !s.place.untracks() {
			s.impact("no flush", closed(d), map[string]int{"goes_on": len(mine) + len(strangers)}, "--flows", "0", "--flush", "none")
		}
		s.impact("narrowed", narrowed(d, friends...), map[string]int{"cut": countable(strangers), "becomes_tracked": countable(mine)})
		s.impact("the same", open(d), map[string]int{})
		r := s.plan(closed(d), "--flows", "3")
		s.says("the plan", r.out, "live flows")
		s.says("the plan", r.out, " will be cut")
		s.says("the plan", r.out, fmt.Sprintf("%d flows cut", countable(mine)+countable(strangers)))
		if n := strings.Count(r.out, "  (eth0, "); n != 3 {
			s.t.Errorf("--flows 3 lists %d flows:\n%s", n, r.out)
		}
		s.smoothly("after the plans", append(mine, append(strangers, other...)...)...)
		if after := s.watch.counts(s.t); len(after) != len(before) {
			s.t.Errorf("%d flows are watched, want %d", len(after), len(before))
		}
	})
}

func TestPlanShowsWhatOutlivesItsRule(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(narrowed(d, friends...))
		talks := s.open(s.serviceCalls(d)...)
		s.impact("closed", closed(d), map[string]int{"goes_on": len(talks)})
		s.impact("revoked", closed(d), map[string]int{"cut": len(talks)}, "--flush", "revoked")
		s.impact("open", open(d), map[string]int{"becomes_untracked": len(talks)})
		s.says("the plan", s.plan(closed(d)).out, "although no rule allows them any more")
	})
}

// The first plan lists the sessions that the policy would not have let open.
func TestPlanShowsWhatIsAdopted(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			talks := s.open(kinds(call{direction: d, connected: true})...)
			fine := s.open(kinds(call{direction: d, port: otherService, connected: false})[0])
			p := policy{rules: []string{otherRule(d)}}
			s.impact("the first", p, map[string]int{"adopted": len(talks)})
			r := s.plan(p, "--flows", "100")
			for _, k := range talks {
				s.says("the plan", r.out, k.remote.String())
			}
			s.smoothly("after the plan", append(talks, fine...)...)
		})
	}
}

// So it is once the rules are lost: there are sockets without entries then. (The
// kernel lets go of conntrack a moment after the last rule is gone, and makes entries
// of UDP until then, whoever sends first.)
func TestPlanShowsTheImpactAfterTheLossOfRules(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			s.apply(open(d))
			mine := s.open(kindsOf(flow.TCP, call{direction: d})...)
			strangers := s.open(fromStrangers(kindsOf(flow.TCP, call{direction: d}))...)
			s.tamper((*nftables.Conn).FlushChain)
			s.impact("closed", closed(d), map[string]int{"cut": len(mine) + len(strangers)})
			s.impact("narrowed", narrowed(d, friends...), map[string]int{"cut": len(strangers), "becomes_tracked": len(mine)})
			s.apply(closed(d))
			s.areCut("closed", append(mine, strangers...)...)
		})
	}
}

// What is held is to be seen in status and plan.
func TestHeldIsVisible(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(open(d))
		s.open(s.serviceCalls(d)...)
		quiet, calm := s.must("status"), s.plan(open(d))
		s.apply(closed(d))
		for name, texts := range map[string][2]string{
			"status": {quiet.out, s.must("status").out},
			"plan":   {calm.out, s.plan(closed(d)).out},
		} {
			if !strings.Contains(texts[1], "refused") && !strings.Contains(texts[1], "held") {
				s.t.Errorf("%s says nothing of what is held:\n%s", name, texts[1])
			}
			if strings.Contains(texts[0], "held") {
				s.t.Errorf("%s speaks of what is held before anything was cut:\n%s", name, texts[0])
			}
		}
		if d := s.document(s.must("status", "--json")); d["drift"] == nil || len(d["drift"].([]any)) > 0 {
			s.t.Errorf("status calls what is held a drift: %v", d["drift"])
		}
	})
}
