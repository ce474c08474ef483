package scenario

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"sgc/internal/lab"
)

// Verdict is what became of an expectation.
type Verdict struct {
	// At is where the expectation stands.
	At hcl.Range
	// Flow is the flow that it is about, or the rule.
	Flow string
	// Expected and Seen are words for people.
	Expected, Seen string
	Met            bool
	// Policy is the policy's explanation of the flow, a line for each interface
	// of the managed host that it crosses, and Entry its conntrack entry. They
	// are set where the expectation was not met.
	Policy []string
	Entry  string
	// Note says how the numbers come about, where the expectation was not met.
	Note string
	// Pace says that the machine did not keep the scenario's pace, or that the kernel
	// could not, where that may be why the expectation was not met.
	Pace string
}

// Diagnostic returns what is to be said of an expectation that was not met, with
// its place.
func (v *Verdict) Diagnostic() *hcl.Diagnostic {
	lines := []string{"Expected: " + v.Expected + ".", "Seen: " + v.Seen + "."}
	for _, p := range v.Policy {
		lines = append(lines, "The policy: "+p+".")
	}
	if v.Entry != "" {
		lines = append(lines, "Conntrack: "+v.Entry+".")
	}
	if v.Note != "" {
		lines = append(lines, v.Note+".")
	}
	if v.Pace != "" {
		lines = append(lines, "But "+v.Pace+".")
	}
	at := v.At
	return &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Not as expected: " + v.Flow,
		Detail: strings.Join(lines, "\n"), Subject: &at,
	}
}

// Packets that were sent at the end of a window are not there at once.
const (
	// goodGrace is how long a packet that should pass may take: TCP sends again
	// what was lost, and the machine may be busy. If nothing of TCP had passed for
	// a while, that is longer by this while, since it waits twice as long each time.
	goodGrace = 3 * time.Second
	// badGrace is how long a packet that should not pass is watched, without the
	// time in which the machine stood still.
	badGrace = 250 * time.Millisecond
	// quietGrace is how long the end of a step waits for a moment at which nothing
	// is under way of what should pass.
	quietGrace = time.Second
)

// from returns where the window of an expectation begins. Survivors are looked
// at through the change, all others behind it.
func (r *Run) from(e *Expectation, s *Step, p *player) time.Duration {
	w := r.window(e.Over, s, p)
	if e.Traffic == Survives {
		return w.begun
	}
	return w.changed
}

// window returns where the windows of that name begin, in a step.
func (r *Run) window(over string, s *Step, p *player) window {
	switch over {
	case overStep:
		return r.windows[s.Name]
	case overFlow:
		return window{p.lane.Begun, p.lane.Begun}
	}
	return r.windows[over]
}

// judgement is an expectation at the end of its step. What conntrack and the
// policy said is of that moment; the record is looked at a little later, when
// what was under way has arrived. Meanwhile the scenario goes on.
type judgement struct {
	run       *Run
	e         *Expectation
	p         *player
	from, end time.Duration
	// outage is for how long a side of TCP had got nothing through.
	outage      time.Duration
	explanation []string
	// idle is the flow's idle timeout, before the speed divides it, and idleName its
	// name.
	idle     time.Duration
	idleName string
	// entry is nil for none; looked says that it was looked for, and read when the
	// kernel had listed it, which takes long where somebody else has many.
	entry  *lab.Entry
	looked bool
	read   time.Duration
}

// judgement keeps what an expectation needs to know of the present moment.
func (r *Run) judgement(e *Expectation, s *Step, end time.Duration) *judgement {
	p := r.named(e.Flow)
	j := r.sight(p, r.from(e, s, p), end)
	j.e = e
	return j
}

// sight is a judgement of a window without an expectation.
func (r *Run) sight(p *player, from, end time.Duration) *judgement {
	j := &judgement{run: r, p: p, from: from, end: end, outage: p.outage(end), explanation: r.policyOf(p)}
	if r.policy != nil {
		j.idleName, j.idle = idleTimeout(r.policy, r.scenario.Managed(), p.spec)
	}
	return j
}

// asksForEntry reports whether the expectation is one of conntrack, too.
func (e *Expectation) asksForEntry() bool { return e.Tracked != nil || e.Timeout != 0 }

// look finds the flow's entry among those that the kernel has just listed.
func (j *judgement) look(entries []lab.Entry) {
	j.entry, j.looked, j.read = j.p.entryIn(entries), true, j.run.now()
}

// cutoff is until when a packet may have passed. What should not pass must not do
// so as long as nothing has changed.
func (j *judgement) cutoff() time.Duration {
	if !j.e.isOfNothing() {
		return j.end + goodGrace + j.outage
	}
	now := j.run.now()
	j.run.mu.Lock()
	defer j.run.mu.Unlock()
	for _, m := range j.run.marks {
		if m.Begun >= j.end {
			return min(m.Begun, now)
		}
	}
	return now
}

// isOfNothing reports whether nothing should pass.
func (e *Expectation) isOfNothing() bool { return e.Traffic == Refused || e.Traffic == Cut }

// verdict holds the expectation against the record.
func (j *judgement) verdict() Verdict {
	e, p := j.e, j.p
	v := Verdict{At: e.At, Flow: e.Flow, Expected: e.text(j.run), Met: true}
	var c counts
	problem := ""
	look := func() bool {
		c = p.window(j.from, j.end, j.cutoff())
		problem = e.judge(p.spec, &c)
		return problem == ""
	}
	if e.isOfNothing() {
		// Nor may anything come late.
		j.run.until(badGrace, func() bool { return !look() })
	} else {
		j.run.until(time.Until(j.run.began.Add(j.cutoff())), look)
	}
	v.Seen = p.seen(&c)
	problems := []string{problem}
	if e.asksForEntry() {
		problems = append(problems, j.entryProblem())
	}
	for _, problem := range problems {
		if problem != "" {
			v.Met = false
			v.Seen += "; " + problem
		}
	}
	if !v.Met {
		j.explain(&v)
	}
	return v
}

// explain adds what the policy says of the flow, its conntrack entry, and whether
// the machine was too slow. An entry that nobody looked at before is that of now,
// unless the scenario has gone on to another step.
func (j *judgement) explain(v *Verdict) {
	v.Policy, v.Pace = j.explanation, j.pace()
	if !j.looked {
		if j.run.stepBegun() > j.end {
			return
		}
		entries, err := j.run.witness.Entries()
		if err != nil {
			v.Entry = err.Error()
			return
		}
		j.look(entries)
	}
	v.Entry = "no entry of it"
	if j.entry != nil {
		v.Entry = j.entry.String()
	}
}

// stepBegun returns when the latest step began.
func (r *Run) stepBegun() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.steps[len(r.steps)-1].Begun
}

// nothingPassed is what is wrong where something has to pass, however much may be
// lost, and however long it may take.
const nothingPassed = "nothing passed"

// judge returns what is wrong with the numbers of a window, "" for nothing.
func (e *Expectation) judge(f *Flow, c *counts) string {
	passed := c.passed[Opener] + c.passed[Responder]
	switch e.Traffic {
	case Allowed:
		switch {
		case e.silent(f, c) != nil:
			return "nothing was sent in that time"
		case c.lost() > e.allowance(c):
			return fmt.Sprintf("%d lost", c.lost())
		case passed == 0:
			return nothingPassed
		}
	case Refused, Cut:
		switch {
		case e.Traffic == Cut && !c.before:
			return "nothing had passed before, so there is nothing to cut"
		case passed > 0:
			return fmt.Sprintf("%d passed", passed)
		case c.unheard > 0:
			return f.unheardText(c.unheard)
		}
	case Survives:
		if e.Over != overFlow && !c.before {
			return "nothing had passed before, so there is nothing to survive"
		}
	}
	if sides := e.silent(f, c); sides != nil {
		return fmt.Sprintf("%s sent nothing in that time, so nothing is shown", f.host(sides[0]))
	}
	if e.Traffic == Survives && c.lost() > e.allowance(c) {
		return fmt.Sprintf("%d lost", c.lost())
	}
	switch {
	case e.Traffic == Survives && passed == 0:
		return nothingPassed
	case e.Sent != nil && c.sent[Opener] != *e.Sent:
		return fmt.Sprintf("%d sent", c.sent[Opener])
	case e.Passed != nil && c.passed[Opener] != *e.Passed:
		return fmt.Sprintf("%d passed", c.passed[Opener])
	case e.FirstPassed != nil && c.first != *e.FirstPassed:
		if c.first == 0 {
			return "none passed"
		}
		return fmt.Sprintf("the first that passed is number %d", c.first)
	case e.Within != 0 && passed == 0:
		return nothingPassed
	case e.Within != 0 && c.slowest > e.Within:
		return fmt.Sprintf("one took %s", c.slowest.Round(time.Millisecond))
	}
	return ""
}

// silent returns the sides that have sent nothing in a window, and of which
// something has to be seen to know what became of the flow.
func (e *Expectation) silent(f *Flow, c *counts) []Side {
	var out []Side
	for _, side := range []Side{Opener, Responder} {
		if c.sent[side] == 0 && (f.Sends[side] || side == Opener && e.Traffic == Refused) {
			out = append(out, side)
		}
	}
	switch e.Traffic {
	case Any:
		if e.Within == 0 || c.sent[Opener]+c.sent[Responder] > 0 {
			return nil
		}
	case Allowed:
		if c.sent[Opener]+c.sent[Responder] > 0 {
			return nil
		}
	case Refused:
		if c.sent[Opener] > 0 {
			return nil
		}
	case Survives, Cut:
	}
	return out
}

// await gives the flows of a step's expectations time until each has sent
// something to judge by: after a change that took long, or where a wait was short
// of a flow's interval, none might have. A flow that sends no more is not waited
// for, nor are flows that a change holds. It returns the end of the step.
func (r *Run) await(s *Step) (end time.Duration) {
	for _, e := range s.Expects {
		if r.held {
			break
		}
		p := r.named(e.Flow)
		from := r.from(e, s, p)
		r.until(patience+2*p.interval, func() bool {
			now := r.now()
			c := p.window(from, now, now)
			sides := e.silent(p.spec, &c)
			return sides == nil || slices.ContainsFunc(sides, p.isDone)
		})
	}
	// The next change may come at once. What a busy machine has not delivered by
	// then, or not even taken from its sender, would meet the rules of another step.
	r.until(quietGrace, func() bool {
		end = r.now()
		return !slices.ContainsFunc(s.Expects, func(e *Expectation) bool { return r.isUnderWay(e, s, end) })
	})
	return end
}

// isUnderWay reports whether the expectation may yet be met by packets that were
// sent before and have not passed.
func (r *Run) isUnderWay(e *Expectation, s *Step, now time.Duration) bool {
	p := r.named(e.Flow)
	c := p.window(r.from(e, s, p), now, now)
	return !e.isOfNothing() && c.lost() > 0 && e.judge(p.spec, &c) != ""
}

// looksBad reports whether the expectation is not met as far as is known now.
func (j *judgement) looksBad() bool {
	c := j.p.window(j.from, j.end, j.end)
	return j.e.judge(j.p.spec, &c) != ""
}

// allowance is how many packets of the window may be lost.
func (e *Expectation) allowance(c *counts) int {
	if e.LostPercent > 0 {
		return (c.sent[Opener] + c.sent[Responder]) * e.LostPercent / 100
	}
	return e.Lost
}

// host returns the host of a side.
func (f *Flow) host(side Side) string {
	if side == Opener {
		return f.From
	}
	return f.Reaches
}

// entryProblem returns what is wrong with the flow's entry, "" for nothing.
func (j *judgement) entryProblem() string {
	e, entry := j.e, j.entry
	switch {
	case entry == nil && (e.Tracked != nil && *e.Tracked || e.Timeout != 0):
		return "conntrack has no entry of it"
	case e.Tracked != nil && !*e.Tracked && entry != nil:
		return "conntrack has an entry of it"
	case e.Timeout == 0 || entry == nil:
		return ""
	}
	// The kernel rounds what is left down, and what the flow last sent may not
	// have come as far as the managed host. The time until the entry was read may
	// have passed before or after the kernel came to it.
	most, left := j.run.timeout(e.Timeout), time.Duration(entry.Seconds)*time.Second
	idle := j.read - j.p.window(0, j.end, j.end).lastSent
	least := max(0, most-idle-2*time.Second)
	if left > most || left < least {
		return fmt.Sprintf("the entry ends in %s, and not in %s to %s", brief(left), brief(wholeSeconds(least)), brief(most))
	}
	return ""
}

// counterNote explains numbers of packets that seem too low or too high.
const counterNote = "Of a tracked flow a rule counts only the packet that opened it, and of an untracked one all that it lets through, in its own direction; an apply that changes the rule begins anew"

// judgeCounter holds what the kernel counted for a rule against what is
// expected.
func (r *Run) judgeCounter(c *Counter) (Verdict, error) {
	counts, err := r.options.Enforcer.Counts(r.ctx, r.place)
	if err != nil {
		return Verdict{}, fmt.Errorf("read the counters of the rules: %w", err)
	}
	v := Verdict{At: c.At, Flow: c.Rule}
	if c.Packets != nil {
		v.Expected = fmt.Sprintf("the rule itself lets through %d", *c.Packets)
	} else {
		v.Expected = fmt.Sprintf("the rule itself lets through at least %d", c.AtLeast)
	}
	n, counted := counts[c.Rule]
	v.Seen = fmt.Sprintf("it let through %d", n)
	if !counted {
		v.Seen = "the kernel does not count this rule"
	}
	v.Met = counted && (c.Packets != nil && n == uint64(*c.Packets) || c.Packets == nil && n >= uint64(c.AtLeast))
	if !v.Met {
		v.Note = counterNote
	}
	return v, nil
}
