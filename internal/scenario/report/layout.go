package report

import (
	"math"
	"time"

	"sgc/internal/scenario"
)

// The picture's columns, in pixels.
const (
	width     = 960.0
	margin    = 14.0
	nameWidth = 186.0
	sumWidth  = 92.0
	plotLeft  = margin + nameWidth
	plotRight = width - margin - sumWidth
)

// The sizes of its text.
const (
	titleSize = 17.0
	textSize  = 12.5
	smallSize = 11.0
	// boldness is how much wider bold text is.
	boldness = 1.12
)

// scale puts times on the x axis.
type scale struct{ length time.Duration }

func (s scale) at(t time.Duration) float64 {
	t = min(max(t, 0), s.length)
	return plotLeft + float64(t)/float64(s.length)*(plotRight-plotLeft)
}

// scaleOf covers all that was recorded.
func scaleOf(t *scenario.Timeline) scale {
	length := max(t.Length, time.Millisecond)
	for i := range t.Marks {
		length = max(length, t.Marks[i].Begun)
	}
	for i := range t.Lanes {
		if p := t.Lanes[i].Packets; len(p) > 0 {
			length = max(length, p[len(p)-1].Sent)
		}
	}
	return scale{length}
}

// axisTicks are at most about ten round times.
func (s scale) axisTicks() []time.Duration {
	step := math.Pow(10, math.Floor(math.Log10(s.length.Seconds()/5)))
	for _, factor := range []float64{1, 2, 5, 10} {
		if s.length.Seconds()/(step*factor) <= 10 {
			step *= factor
			break
		}
	}
	var out []time.Duration
	for i := 0; ; i++ {
		t := time.Duration(math.Round(float64(i) * step * float64(time.Second)))
		if t > s.length {
			return out
		}
		out = append(out, t)
	}
}

// row is a lane's place.
type row struct {
	lane *scenario.Lane
	// name are the lines of the lane's name.
	name []string
	// top and bottom bound it, base is its line, marks the middle of what was
	// expected of it.
	top, base, marks, bottom float64
	tally                    tally
	// next is where the next mark of an expectation may be.
	next float64
}

const (
	// nameStep is the height of a line of a lane's name.
	nameStep = 14.0
	// nameLines is how many of them there are at most.
	nameLines = 6
)

// nameOf breaks the name of a lane into lines.
func nameOf(l *scenario.Lane) []string {
	lines := wrap(printable(l.Name), textSize*boldness, nameWidth-8)
	if len(lines) > nameLines {
		lines = append(lines[:nameLines-1], "…")
	}
	return lines
}

// rows puts the lanes below each other, from top on.
func rows(t *scenario.Timeline, top float64) []row {
	var out []row
	for i := range t.Lanes {
		l := &t.Lanes[i]
		r := row{lane: l, name: nameOf(l), top: top, tally: tallyOf(l)}
		r.base = top + 17 + float64(max(len(r.name)-1, 0))*nameStep
		r.marks = r.base + 11
		if r.tally.sent[scenario.Responder] > 0 {
			r.marks = r.base + 23
		}
		r.bottom = r.marks + 9
		out = append(out, r)
		top = r.bottom
	}
	return out
}

// label is the text at a change of the policy.
type label struct {
	mark *scenario.Mark
	x    float64
	// left and right bound its text, in the row of that number.
	left, right float64
	row         int
	text        string
}

// maxLabelRows is how many rows of labels there may be; what finds no place then
// is not labelled.
const maxLabelRows = 6

// labels puts the texts of the changes side by side, and where that does not
// do, below each other. It returns the number of rows.
func labels(t *scenario.Timeline, x scale) (out []label, used int) {
	var ends [maxLabelRows]float64
	for i := range t.Marks {
		m := &t.Marks[i]
		l := label{mark: m, x: x.at(m.Begun), row: -1, text: fit(printable(m.Text), smallSize, 320)}
		w := textWidth(l.text, smallSize) + 4
		l.left = l.x + 3
		if l.left+w > width-margin {
			l.left = l.x - 3 - w
		}
		l.right = l.left + w
		for r := range ends {
			if l.left >= ends[r] {
				l.row, ends[r] = r, max(l.right, l.x)+4
				used = max(used, r+1)
				break
			}
		}
		out = append(out, l)
	}
	return out, used
}
