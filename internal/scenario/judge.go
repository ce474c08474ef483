package scenario

import (
	"fmt"
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
	at := v.At
	return &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Not as expected: " + v.Flow,
		Detail: strings.Join(lines, "\n"), Subject: &at,
	}
}

// Packets that were sent at the end of a window are not there at once.
const (
	// goodGrace is how long a packet that should pass may take: TCP sends again
	// what was lost, and the machine may be busy.
	goodGrace = 3 * time.Second
	// badGrace is how long a packet that should not pass is watched.
	badGrace = 250 * time.Millisecond
)

// from returns where the window of an expectation begins. Survivors are looked
// at through the change, all others behind it.
func (r *Run) from(e *Expectation, s *Step, p *player) time.Duration {
	w := r.windows[s.Name]
	switch e.Over {
	case overStep:
	case overFlow:
		return p.lane.Begun
	default:
		w = r.windows[e.Over]
	}
	if e.Traffic == Survives {
		return w.begun
	}
	return w.changed
}

// judgement is an expectation at the end of its step. What conntrack and the
// policy said is of that moment; the record is looked at a little later, when
// what was under way has arrived. Meanwhile the scenario goes on.
type judgement struct {
	run         *Run
	e           *Expectation
	p           *player
	from, end   time.Duration
	explanation []string
	// entry is nil for none; looked says that it was looked for.
	entry  *lab.Entry
	looked bool
}

// judgement keeps what an expectation needs to know of the present moment.
func (r *Run) judgement(e *Expectation, s *Step, end time.Duration) *judgement {
	p := r.named(e.Flow)
	return &judgement{run: r, e: e, p: p, from: r.from(e, s, p), end: end, explanation: r.policyOf(p)}
}

// asksForEntry reports whether the expectation is one of conntrack, too.
func (e *Expectation) asksForEntry() bool { return e.Tracked != nil || e.Timeout != 0 }

// look finds the flow's entry.
func (j *judgement) look(entries []lab.Entry) { j.entry, j.looked = j.p.entryIn(entries), true }

// cutoff is until when a packet may have passed. What should not pass may do so
// only as long as nothing has changed.
func (j *judgement) cutoff() time.Duration {
	if j.e.Traffic != Refused && j.e.Traffic != Cut {
		return j.end + goodGrace
	}
	j.run.mu.Lock()
	defer j.run.mu.Unlock()
	for _, m := range j.run.marks {
		if m.Begun >= j.end {
			return min(m.Begun, j.end+badGrace)
		}
	}
	return j.end + badGrace
}

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
	switch e.Traffic {
	case Refused, Cut:
		// Nothing may come late.
		sleepUntil(j.run.ctx, j.run.began.Add(j.end+badGrace))
		look()
	default:
		j.run.until(time.Until(j.run.began.Add(j.end+goodGrace)), look)
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

// explain adds what the policy says of the flow, and its conntrack entry: that
// of now, if nobody asked for it before.
func (j *judgement) explain(v *Verdict) {
	v.Policy = j.explanation
	if !j.looked {
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

// judge returns what is wrong with the numbers of a window, "" for nothing.
func (e *Expectation) judge(f *Flow, c *counts) string {
	sending := func() string {
		for _, side := range []Side{Opener, Responder} {
			if f.Sends[side] && c.sent[side] == 0 {
				return fmt.Sprintf("%s sent nothing in that time, so nothing is shown; wait longer", f.host(side))
			}
		}
		return ""
	}
	passed := c.passed[Opener] + c.passed[Responder]
	switch e.Traffic {
	case Allowed:
		switch {
		case c.sent[Opener]+c.sent[Responder] == 0:
			return "nothing was sent in that time"
		case c.lost() > e.allowance(c):
			return fmt.Sprintf("%d lost", c.lost())
		}
	case Refused:
		switch {
		case c.sent[Opener] == 0:
			return f.From + " sent nothing in that time, so nothing is shown; wait longer"
		case passed > 0:
			return fmt.Sprintf("%d passed", passed)
		}
	case Survives:
		switch {
		case e.Over != overFlow && !c.before:
			return "nothing had passed before, so there is nothing to survive"
		case sending() != "":
			return sending()
		case c.lost() > e.allowance(c):
			return fmt.Sprintf("%d lost", c.lost())
		}
	case Cut:
		switch {
		case !c.before:
			return "nothing had passed before, so there is nothing to cut"
		case passed > 0:
			return fmt.Sprintf("%d passed", passed)
		}
		return sending()
	}
	switch {
	case e.Sent != nil && c.sent[Opener] != *e.Sent:
		return fmt.Sprintf("%d sent", c.sent[Opener])
	case e.Passed != nil && c.passed[Opener] != *e.Passed:
		return fmt.Sprintf("%d passed", c.passed[Opener])
	case e.FirstPassed != nil && c.first != *e.FirstPassed:
		if c.first == 0 {
			return "none passed"
		}
		return fmt.Sprintf("the first that passed is number %d", c.first)
	case e.Within != 0 && c.slowest > e.Within:
		return fmt.Sprintf("one took %s", c.slowest.Round(time.Millisecond))
	}
	return ""
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
	// have come as far as the managed host.
	most, left := j.run.timeout(e.Timeout), time.Duration(entry.Seconds)*time.Second
	idle := j.end - j.p.window(0, j.end, j.end).lastSent
	if left > most || left < most-idle-2*time.Second {
		return fmt.Sprintf("the entry ends in %s, of a timeout of %s", left, most)
	}
	return ""
}

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
	return v, nil
}
