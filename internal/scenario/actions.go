package scenario

import (
	"fmt"
	"time"
)

// act does one thing of a step, which next follows. What comes back is what a
// check, or a wait that was in vain, found.
func (r *Run) act(a Action, s *Step, next Action) ([]Verdict, error) {
	switch a := a.(type) {
	case *Apply:
		text := "apply " + a.Policy.Name
		if a.Flush != "" {
			text += " --flush " + a.Flush
		}
		return nil, r.change(text, a.Hold, func() error {
			if err := r.options.Enforcer.Apply(r.ctx, r.place, a.Policy.Path, scalePolicyOf(a.Policy.Loaded, r.speed), a.Flush); err != nil {
				return err
			}
			r.policy = a.Policy.Loaded.Policy
			return nil
		})
	case *Destroy:
		return nil, r.change("destroy", a.Hold, func() error {
			r.policy = nil
			return r.options.Enforcer.Destroy(r.ctx, r.place)
		})
	case *Begin:
		_, err := r.begin(a.Flow, r.real(a.Flow.Interval), attemptTime)
		return nil, err
	case *Stop:
		p := r.named(a.Flow)
		p.drain()
		p.stop()
		return nil, nil
	case *Wait:
		return r.wait(a, s, holds(next))
	case *Check:
		return r.check(a)
	case *Fill:
		return nil, r.fillTable(a)
	case *Drain:
		return nil, r.drainTable()
	}
	return nil, fmt.Errorf("an action of type %T", a)
}

// change changes the policy, and marks it in the record.
func (r *Run) change(text string, hold bool, f func() error) error {
	if hold {
		r.hold()
		defer r.release()
	}
	r.mu.Lock()
	n := len(r.marks)
	r.marks = append(r.marks, Mark{Begun: r.now(), Text: text})
	r.mu.Unlock()
	err := f()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.marks[n].Ended = r.now()
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

// hold keeps all flows from sending until release.
func (r *Run) hold() {
	if !r.held {
		r.gate.Lock()
		r.held = true
	}
}

func (r *Run) release() {
	if !r.held {
		return
	}
	r.mu.Lock()
	for _, p := range r.players {
		p.limit.Store(0)
	}
	r.mu.Unlock()
	r.held = false
	r.gate.Unlock()
}

// named returns the flow of that name; the load has checked that there is one.
func (r *Run) named(name string) *player {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.players {
		if p.spec.Name == name {
			return p
		}
	}
	panic("no flow " + name)
}

// How often and how long a run looks whether something has come true.
const (
	lookEvery = 2 * time.Millisecond
	// lookTakes is what the time between two looks counts at most.
	lookTakes = 5 * lookEvery
	// patience is for what should have happened at once: one that is in vain
	// ends after it.
	patience = 5 * time.Second
)

// until waits until f is true or the time is over. Time in which the machine stood
// still does not count: nothing could have come true.
func (r *Run) until(limit time.Duration, f func() bool) bool {
	for waited := time.Duration(0); ; {
		if f() {
			return true
		}
		now := time.Now()
		if waited >= limit || !sleepUntil(r.ctx, now.Add(lookEvery)) {
			return false
		}
		waited += min(time.Since(now), lookTakes)
	}
}

// wait waits. If a change follows that holds all flows, they are held from here
// on, and the flow that is waited for sends no packet more than was asked for.
func (r *Run) wait(w *Wait, s *Step, hold bool) ([]Verdict, error) {
	if hold {
		defer r.hold()
	}
	if w.Flow == "" {
		d := w.For
		if !w.Real {
			d = r.real(d)
		}
		sleepUntil(r.ctx, time.Now().Add(d))
		return nil, r.ctx.Err()
	}
	p := r.named(w.Flow)
	from := r.window(w.Over, s, p).changed
	if hold && w.Sent > 0 {
		p.limit.Store(int64(p.window(0, from-1, from).sent[Opener] + w.Sent))
	}
	// A flow that sends once an interval is there in that time, or never; but one
	// of TCP that nothing passed for a while sends again after as long once more.
	now := r.now()
	limit := patience + 2*p.interval*time.Duration(max(w.Sent, w.Passed))
	limit += p.outage(now)
	var c counts
	if r.until(limit, func() bool {
		c = p.window(from, r.now(), r.now())
		return c.sent[Opener] >= w.Sent && c.passed[Opener] >= w.Passed
	}) {
		return nil, nil
	}
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	v := Verdict{At: w.At, Flow: w.Flow, Expected: "to come so far: " + waitText(w), Seen: p.seen(&c)}
	r.sight(p, from, r.now()).explain(&v)
	return []Verdict{v}, nil
}

func waitText(w *Wait) string {
	since := map[string]string{overFlow: "", overStep: " since the step's last change"}
	behind, known := since[w.Over]
	if !known {
		behind = fmt.Sprintf(" since the last change of step %q", w.Over)
	}
	switch {
	case w.Sent > 0 && w.Passed > 0:
		return fmt.Sprintf("%s sent, %d passed%s", packets(w.Sent), w.Passed, behind)
	case w.Sent > 0:
		return fmt.Sprintf("%s sent%s", packets(w.Sent), behind)
	}
	return fmt.Sprintf("%s passed%s", packets(w.Passed), behind)
}

// packets writes a number of packets.
func packets(n int) string {
	if n == 1 {
		return "1 packet"
	}
	return fmt.Sprintf("%d packets", n)
}
