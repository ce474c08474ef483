package report

import (
	"fmt"

	"sgc/internal/scenario"
)

// legend says what the marks mean: those that there are.
func (d *drawing) legend(rows []row, changed, merged bool) {
	var seen [kinds]bool
	two := false
	for i := range rows {
		for k, n := range rows[i].tally.kinds {
			seen[k] = seen[k] || n > 0
		}
		two = two || rows[i].tally.sent[scenario.Responder] > 0
	}
	d.y += 10
	x := margin
	item := func(text string, draw func(x, y float64)) {
		w := 18 + textWidth(text, smallSize) + 16
		if x > margin && x+w > width-margin+16 {
			x = margin
			d.y += 17
		}
		draw(x+7, d.y+8)
		d.text(x+18, d.y+8, smallSize, "ink", text)
		x += w
	}
	for k, text := range words {
		if !seen[k] {
			continue
		}
		if kind(k) == passed {
			text = passedWords(rows)
		}
		item(text, func(x, y float64) { d.sample(kind(k), x, y) })
	}
	if changed {
		item("a change, from its beginning to its end", func(x, y float64) {
			d.rect("commit", x, y-11, x+4, y+3, "")
			d.line("change", x, y-11, x, y+3)
		})
	}
	if met, missed := d.expected(); met+missed > 0 {
		if met > 0 {
			item("as expected at the end of the step", func(x, y float64) {
				d.f(`<g transform="translate(%s %s)">%s</g>`+"\n", number(x), number(y-4), verdictMark(true))
			})
		}
		if missed > 0 {
			item("not as expected", func(x, y float64) {
				d.f(`<g transform="translate(%s %s)">%s</g>`+"\n", number(x), number(y-4), verdictMark(false))
			})
		}
	}
	d.y += 17
	note := ""
	if two {
		note = "Above a line is what its opener sent, below it what the other side sent. "
	}
	if merged {
		note += "Packets too close to be told apart share a mark or a bar; where any is lost, that is shown."
	}
	for _, line := range wrap(note, smallSize, width-2*margin) {
		d.text(margin, d.y+8, smallSize, "faint", line)
		d.y += 15
	}
	d.y += 4
}

// passedWords say what it is to pass for these lanes.
func passedWords(rows []row) string {
	answered, arrived := false, false
	for i := range rows {
		answered = answered || rows[i].lane.Answered
		arrived = arrived || !rows[i].lane.Answered
	}
	switch {
	case answered && arrived:
		return "arrived (a ping: answered)"
	case answered:
		return "answered"
	}
	return "arrived"
}

// sample draws one mark of a kind.
func (d *drawing) sample(k kind, x, y float64) {
	lane := scenario.Lane{Packets: []scenario.Packet{{Seq: 1, Sent: 1, Arrived: 2}}}
	p := &lane.Packets[0]
	switch k {
	case opened:
		p.Open = true
	case late:
		p.Arrived = p.Sent + 2*lateAfter
	case lost:
		p.Arrived = 0
	case unanswered:
		lane.Answered = true
	case pending:
		p.Arrived, lane.Ended = 0, p.Sent
	case refused:
		p.Arrived, p.Failed = 0, "refused"
	}
	// A scale on which the packet is sent at x, and late ones arrive near by.
	s := scale{140 * lateAfter}
	t := ticksOf(&lane, scenario.Opener, 0, s)
	origin := s.at(1)
	if k == late {
		origin = s.at(1 + lateAfter)
	}
	d.f(`<g transform="translate(%s %s)">`, number(x-origin), number(y+1))
	d.path(classes[k], &t.paths[k])
	d.f("</g>\n")
}

// expected counts what was expected of flows.
func (d *drawing) expected() (met, missed int) {
	lanes := map[string]bool{}
	for i := range d.Result.Timeline.Lanes {
		lanes[d.Result.Timeline.Lanes[i].Name] = true
	}
	for i := range d.Result.Steps {
		for _, v := range d.Result.Steps[i].Verdicts {
			switch {
			case !lanes[v.Flow]:
			case v.Met:
				met++
			default:
				missed++
			}
		}
	}
	return met, missed
}

// outcome lists the steps, and what was not as expected.
func (d *drawing) outcome() {
	d.line("hair", margin, d.y, width-margin, d.y)
	d.y += 8
	left := margin + 18.0
	lines := func(class, text string, indent float64) {
		for _, line := range wrap(printable(text), smallSize, width-margin-left-indent) {
			d.text(left+indent, d.y+10, smallSize, class, line)
			d.y += 15
		}
	}
	mark := func(met bool) {
		d.f(`<g transform="translate(%s %s)">%s</g>`+"\n", number(margin+6), number(d.y+6.5), verdictMark(met))
	}
	for i := range d.Result.Steps {
		s := &d.Result.Steps[i]
		mark(!s.Failed())
		lines("ink", numbered(i, s.Step.Name), 0)
		lines("faint", s.Step.Description, 0)
		for j := range s.Verdicts {
			if v := &s.Verdicts[j]; !v.Met {
				lines("ink bold", "Not as expected: "+v.Flow, 8)
				lines("ink", "Expected: "+v.Expected+".", 16)
				lines("ink", "Seen: "+v.Seen+".", 16)
			}
		}
	}
	if skipped := d.Result.Skipped; skipped != "" {
		lines("ink", "This machine could not play the rest: "+skipped, 0)
	}
	if err := d.Result.Err; err != nil {
		mark(false)
		lines("ink", fmt.Sprintf("It could not be played to its end: %s", err), 0)
	}
}
