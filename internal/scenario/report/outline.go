package report

import (
	"fmt"
	"strings"

	"sgc/internal/scenario"
)

// heading is what the picture is called.
func (p *Picture) heading() string {
	if title := p.Result.Timeline.Title; title != "" {
		return title
	}
	return p.Name
}

// outline says in a line what was played, and what came out.
func (p *Picture) outline() string {
	t := p.Result.Timeline
	parts := []string{p.Name, plural(len(t.Lanes), "flow") + " in " + seconds(t.Length)}
	if t.Speed > 1 {
		parts = append(parts, fmt.Sprintf("%d times faster than the scenario says", t.Speed))
	}
	return strings.Join(append(parts, p.result()), " · ")
}

// result says what came out.
func (p *Picture) result() string {
	failed, all := 0, 0
	for i := range p.Result.Steps {
		for j := range p.Result.Steps[i].Verdicts {
			all++
			if !p.Result.Steps[i].Verdicts[j].Met {
				failed++
			}
		}
	}
	text := "everything as expected"
	switch {
	case failed > 0:
		text = fmt.Sprintf("%d of %s not met", failed, plural(all, "expectation"))
	case all == 0:
		text = "nothing was expected"
	}
	switch {
	case p.Result.Err != nil:
		text += ", but it could not be played to its end"
	case p.Result.Skipped != "":
		text += ", but the machine could not play all of it"
	}
	return text
}

// description says in words what the picture shows.
func (p *Picture) description() string {
	t := p.Result.Timeline
	var b strings.Builder
	fmt.Fprintf(&b, "A lane for each flow, from left to right in time, %s long, with a mark for each packet. Result: %s.", seconds(t.Length), p.result())
	for i := range t.Lanes {
		l := &t.Lanes[i]
		fmt.Fprintf(&b, " Flow %s (%s): %s.", l.Name, l.Title, laneNumbers(l))
	}
	for i := range t.Marks {
		fmt.Fprintf(&b, " At %s: %s.", seconds(t.Marks[i].Begun), t.Marks[i].Text)
	}
	return b.String()
}

// laneNumbers says how many packets of a lane passed.
func laneNumbers(l *scenario.Lane) string {
	n := tallyOf(l)
	if n.sent[scenario.Responder] == 0 {
		return fmt.Sprintf("%d sent, %d %s", n.sent[scenario.Opener], n.passed[scenario.Opener], verb(l))
	}
	return fmt.Sprintf("%d sent by its opener, %d %s; %d sent by the other side, %d %s", n.sent[scenario.Opener], n.passed[scenario.Opener], verb(l),
		n.sent[scenario.Responder], n.passed[scenario.Responder], verb(l))
}

// numbered puts a step's number before its name, unless it is there.
func numbered(i int, name string) string {
	n := fmt.Sprint(i + 1)
	if rest, ok := strings.CutPrefix(name, n); ok && (rest == "" || strings.ContainsRune(":.) ", rune(rest[0]))) {
		return name
	}
	return n + ": " + name
}

// verdictText is an expectation for who points at its mark.
func verdictText(step string, v *scenario.Verdict) string {
	word := "As expected"
	if !v.Met {
		word = "Not as expected"
	}
	return fmt.Sprintf("%s, in %q: %s. Expected: %s. Seen: %s.", word, step, v.Flow, v.Expected, v.Seen)
}

// laneTitle says what a flow is, in the room that there is: without the port that
// the run has chosen for its opener, if need be.
func laneTitle(l *scenario.Lane) string {
	const room = nameWidth - 8
	title := printable(l.Title)
	if textWidth(title, smallSize) > room {
		title = strings.Replace(title, fmt.Sprintf(":%d →", l.Source.Port()), " →", 1)
	}
	return fit(title, smallSize, room)
}
