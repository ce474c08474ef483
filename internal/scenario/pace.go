package scenario

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// clock watches how punctually the machine wakes up who sleeps.
type clock struct {
	mu     sync.Mutex
	stalls []stall
}

// stall is a time in which the machine stood still for this process.
type stall struct{ at, took time.Duration }

const (
	// clockTick is how often the clock looks.
	clockTick = 20 * time.Millisecond
	// longStall is a stall that a scenario may notice, as long as one watches
	// for packets that should not pass.
	longStall = badGrace
	// longChange is a change that takes much longer than on an idle machine.
	longChange = time.Second
)

// watch keeps the stalls of a run until it ends.
func (c *clock) watch(r *Run) {
	for last := r.now(); sleepUntil(r.ctx, time.Now().Add(clockTick)); {
		now := r.now()
		if took := now - last - clockTick; took >= longStall {
			c.mu.Lock()
			c.stalls = append(c.stalls, stall{last, took})
			c.mu.Unlock()
		}
		last = now
	}
}

// longest returns the longest stall that has to do with a window.
func (c *clock) longest(from, to time.Duration) (longest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.stalls {
		if s.at <= to && s.at+s.took >= from {
			longest = max(longest, s.took)
		}
	}
	return longest
}

// pace says what kept a flow from the pace that the scenario has for it, "" for
// nothing: a silence that its idle timeout did not outlast, a machine that was late,
// or an idle timeout that the speed leaves longer than it says. The end of a window may be waited for longer than it is.
func (j *judgement) pace() string {
	r, until := j.run, j.run.now()
	quiet, idle := j.p.silence(j.end), r.timeout(j.idle)
	if idle > 0 && quiet > idle && j.p.interval < idle {
		return fmt.Sprintf("the flow was silent for %s, and its idle timeout is %s here: %s", tenths(quiet), brief(idle), r.slower(int(j.idle/(2*quiet))))
	}
	var late []string
	worst := time.Duration(0)
	if stood := r.clock.longest(j.from, until); stood > 0 {
		late, worst = append(late, "the machine stood still for "+tenths(stood)), stood
	}
	// At full speed nothing is divided that a change could outlast.
	if took := r.longestChange(j.from, until); took >= longChange && r.speed > 1 {
		late, worst = append(late, "a change took "+tenths(took)), max(worst, took)
	}
	// The kernel lists the entries of all hosts of the machine.
	if took := j.read - j.end; j.looked && took >= longChange {
		late, worst = append(late, "the kernel took "+tenths(took)+" to list conntrack's entries"), max(worst, took)
	}
	if late == nil {
		return j.rounded()
	}
	return fmt.Sprintf("%s, which is %s of the scenario: %s", strings.Join(late, ", and "), tenths(worst*time.Duration(r.speed)), r.slower(r.speed/4))
}

// slower says what to do where the machine does not keep the pace.
func (r *Run) slower(speed int) string {
	if r.speed == 1 {
		return "this machine was too slow for it; try again when it has less to do"
	}
	return fmt.Sprintf("this machine is too slow for speed %d; try --speed %d", r.speed, max(1, min(speed, r.speed/2)))
}

// longestChange returns how long the longest change took that has to do with a
// window: one just before it, too, since it begins behind that.
func (r *Run) longestChange(from, to time.Duration) (longest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.marks {
		if m.Begun <= to && m.Ended+clockTick >= from {
			longest = max(longest, m.Ended-m.Begun)
		}
	}
	return longest
}

// silence returns the longest time up to a moment in which neither side of the
// flow sent anything, while it was to send.
func (p *player) silence(until time.Duration) (longest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.lane.Begun
	for i := range p.lane.Packets {
		if at := p.lane.Packets[i].Sent; at <= until {
			longest, last = max(longest, at-last), at
		}
	}
	if p.lane.Ended == 0 && (p.spec.Count == 0 || p.last[Opener] < p.spec.Count) {
		longest = max(longest, until-last)
	}
	return longest
}

// tenths writes a time as people do who have waited.
func tenths(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
