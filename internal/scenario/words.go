package scenario

import (
	"fmt"
	"strings"
)

// trafficWords say what is expected, by kind.
var trafficWords = map[Traffic]string{
	Allowed:  "allowed: what is sent passes",
	Refused:  "refused: nothing that is sent passes",
	Survives: "survives: the flow goes on through the change",
	Cut:      "cut: nothing passes any more, although all who sent go on sending",
}

// text says what is expected.
func (e *Expectation) text(r *Run) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if e.Traffic != Any {
		text := trafficWords[e.Traffic]
		switch {
		case e.Lost > 0:
			text += fmt.Sprintf(", up to %d lost", e.Lost)
		case e.LostPercent > 0:
			text += fmt.Sprintf(", up to %d %% lost", e.LostPercent)
		}
		parts = append(parts, text)
	}
	if e.Sent != nil {
		add("%d sent", *e.Sent)
	}
	if e.Passed != nil {
		add("%d passed", *e.Passed)
	}
	if e.FirstPassed != nil {
		add("the first that passed is number %d", *e.FirstPassed)
	}
	if e.Within != 0 {
		add("whatever passes does so within %s", brief(e.Within))
	}
	if e.Tracked != nil {
		parts = append(parts, trackedWords(*e.Tracked))
	}
	if e.Timeout != 0 {
		text := "an idle timeout of " + brief(e.Timeout)
		if r.speed > 1 {
			text += fmt.Sprintf(" (here %s)", brief(r.timeout(e.Timeout)))
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

func trackedWords(tracked bool) string {
	if tracked {
		return "tracked: conntrack has an entry"
	}
	return "untracked: conntrack has no entry"
}

// seen says what a window holds.
func (p *player) seen(c *counts) string {
	verb := "arrived"
	if p.lane.Answered {
		verb = "answered"
	}
	var parts []string
	for _, side := range []Side{Opener, Responder} {
		if side == Responder && !p.spec.Sends[Responder] {
			continue
		}
		text := fmt.Sprintf("%s sent %d, %d %s", p.spec.host(side), c.sent[side], c.passed[side], verb)
		if n := c.failed[side]; n > 0 {
			text += fmt.Sprintf(" (%d: %s)", n, c.why[side])
		}
		if n := c.unheard; n > 0 && side == Opener {
			text += fmt.Sprintf(" (%d: nobody listens there)", n)
		}
		parts = append(parts, text)
	}
	if c.first > c.firstSent {
		parts = append(parts, fmt.Sprintf("the first of them is number %d", c.first))
	}
	return strings.Join(parts, "; ")
}

// unheardText says that packets passed which nobody listened for.
func (f *Flow) unheardText(n int) string {
	text := fmt.Sprintf("something answered that nobody listens there: %d passed the policy", n)
	if f.Reaches == f.To && f.ReachesPort == f.Port {
		return text + fmt.Sprintf(` (if a router sends on what comes to port %d, reaches = "HOST" and reaches_port say to where)`, f.Port)
	}
	return text + fmt.Sprintf(` (reaches and reaches_port say that port %d of %s gets what is sent to port %d of %s)`, f.ReachesPort, f.Reaches, f.Port, f.To)
}
