package report

import (
	"fmt"
	"strings"
	"time"

	"sgc/internal/scenario"
)

// Live is a run that goes on.
type Live struct {
	Name     string
	Timeline *scenario.Timeline
}

// Tone is what a part of a line is about, for who colours it.
type Tone uint8

const (
	Plain Tone = iota
	Name
	Faint
	Good
	Bad
)

// Slot is the time that a character stands for.
const Slot = 100 * time.Millisecond

// glyphs are the kinds as characters: no two are told apart by colour alone.
var glyphs = [kinds]struct {
	text string
	tone Tone
	// weight decides which is seen where several packets share a slot.
	weight int
}{
	passed:     {"│", Good, 2},
	opened:     {"│", Good, 2},
	late:       {"╎", Plain, 3},
	pending:    {"·", Faint, 1},
	unanswered: {"○", Bad, 4},
	lost:       {"×", Bad, 6},
	refused:    {"◆", Bad, 5},
}

const (
	laneGlyph = " "
	markGlyph = "┊"
)

// Strips are the last moments of some runs as lines of text, with a head for
// each run and a line for each of its flows. No line takes as many columns as there
// are, nor are there as many lines. paint colours a part of a line, and must
// not change its width.
func Strips(runs []Live, columns, lines int, paint func(Tone, string) string) []string {
	if columns < 2 || lines < 2 || len(runs) == 0 {
		return nil
	}
	width, left := columns-1, lines-1
	var out []string
	more := ""
	if len(runs) > left {
		// A head is more than no head.
		left--
		more = paint(Faint, cut(fmt.Sprintf("and %d more", len(runs)-left), width))
		runs = runs[:left]
	}
	for i := range runs {
		// What one does not need is there for the next.
		share := (left - len(out)) / (len(runs) - i)
		out = append(out, strips(&runs[i], width, share, paint)...)
	}
	if more != "" {
		out = append(out, more)
	}
	return out
}

// strips are at most so many lines, of at most so many columns.
func strips(l *Live, width, lines int, paint func(Tone, string) string) []string {
	t := l.Timeline
	s := &strip{t: t, paint: paint}
	out := []string{s.head(l.Name, width)}
	nameWidth := 0
	var lanes []*scenario.Lane
	for i := range t.Lanes {
		nameWidth = max(nameWidth, Columns(printable(t.Lanes[i].Name)))
	}
	nameWidth = min(nameWidth, max(width/4, 6))
	s.width = width - nameWidth - 3
	sums := s.width >= 40
	if sums {
		s.width -= sumColumns
	}
	if s.width < 4 {
		return out
	}
	s.last = int(t.Length / Slot)
	s.first = s.last - s.width + 1
	for i := range t.Lanes {
		// What has left the picture is not shown any more.
		if l := &t.Lanes[i]; l.Ended == 0 || int(l.Ended/Slot) >= s.first {
			lanes = append(lanes, l)
		}
	}
	indent := strings.Repeat(" ", nameWidth+3)
	if lines >= 3 && len(t.Marks) > 0 {
		out = append(out, indent+paint(Plain, s.marks()))
	}
	if room := lines - len(out); len(lanes) > room {
		// The newest ones are what happens now.
		lanes = lanes[len(lanes)-max(room, 0):]
	}
	for _, l := range lanes {
		name := cut(printable(l.Name), nameWidth)
		line := "  " + paint(Plain, name) + strings.Repeat(" ", nameWidth-Columns(name)+1) + s.lane(l)
		if sums {
			line += " " + paint(Faint, sum(l))
		}
		out = append(out, line)
	}
	return out
}

// strip is the window of a run that is shown.
type strip struct {
	t     *scenario.Timeline
	paint func(Tone, string) string
	// first and last are the slots of its ends.
	first, last, width int
}

// head says which step the run is at.
func (s *strip) head(name string, width int) string {
	name = cut(printable(name), width)
	text := fmt.Sprintf("  %.1f s", s.t.Length.Seconds())
	if n := len(s.t.Steps); n > 0 {
		text += "  " + printable(numbered(n-1, s.t.Steps[n-1].Name))
	}
	return s.paint(Name, name) + s.paint(Faint, cut(text, width-Columns(name)))
}

// column returns where a time is shown, false if it is not.
func (s *strip) column(at time.Duration) (int, bool) {
	slot := int(at / Slot)
	return slot - s.first, slot >= s.first && slot <= s.last
}

// marks are the texts of the changes, each where it began: behind the mark, or
// before it where there is no room behind. A later one goes before the end of one
// that is too long.
func (s *strip) marks() string {
	line := ""
	for i := range s.t.Marks {
		c, ok := s.column(s.t.Marks[i].Begun)
		if !ok {
			continue
		}
		text := printable(s.t.Marks[i].Text)
		after := markGlyph + cut(text, s.width-c-1)
		if n := Columns(text); n > s.width-c-1 && n <= c {
			c, after = c-n, text+markGlyph
		}
		line = cut(line, c)
		line += strings.Repeat(" ", c-Columns(line)) + after
	}
	return line
}

// lane is the strip of a flow.
func (s *strip) lane(l *scenario.Lane) string {
	const none = kinds
	cells := make([]kind, s.width)
	marked := make([]bool, s.width)
	for i := range cells {
		cells[i] = none
	}
	for i := range s.t.Marks {
		if c, ok := s.column(s.t.Marks[i].Begun); ok {
			marked[c] = true
		}
	}
	for i := len(l.Packets) - 1; i >= 0; i-- {
		p := &l.Packets[i]
		c, ok := s.column(p.Sent)
		if !ok {
			if c < 0 {
				break
			}
			continue
		}
		if k := kindOf(l, p, s.t.Length); cells[c] == none || glyphs[k].weight > glyphs[cells[c]].weight {
			cells[c] = k
		}
	}
	var b, run strings.Builder
	tone := Plain
	flush := func() {
		if run.Len() > 0 {
			b.WriteString(s.paint(tone, run.String()))
			run.Reset()
		}
	}
	for c, k := range cells {
		text, its := laneGlyph, Plain
		switch {
		case k != none:
			text, its = glyphs[k].text, glyphs[k].tone
		case marked[c]:
			text = markGlyph
		}
		if its != tone {
			flush()
			tone = its
		}
		run.WriteString(text)
	}
	flush()
	return b.String()
}

// sumColumns is the width of a lane's sum, with the space before it.
const sumColumns = 12

// sum says how many packets passed, in as many columns.
func sum(l *scenario.Lane) string {
	n := tallyOf(l)
	return cut(fmt.Sprintf("%d of %d", n.passed[0]+n.passed[1], n.sent[0]+n.sent[1]), sumColumns-1)
}

// Columns is the width of a text on a terminal, which may hold colours.
func Columns(s string) int {
	n := 0
	coloured := false
	for _, r := range s {
		switch {
		case r == '\x1b':
			coloured = true
		case coloured:
			coloured = r != 'm'
		case isWide(r):
			n += 2
		default:
			n++
		}
	}
	return n
}

// cut shortens a text without colours to so many columns.
func cut(s string, columns int) string {
	if Columns(s) <= columns {
		return s
	}
	used := 0
	for i, r := range s {
		if used += Columns(string(r)); used > columns-1 {
			if columns < 1 {
				return ""
			}
			return s[:i] + "…"
		}
	}
	return s
}
