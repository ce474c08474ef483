package report

import (
	"fmt"
	"strings"
	"time"

	"sgc/internal/scenario"
)

// Picture is what is drawn.
type Picture struct {
	// Name is what the scenario is called where it is played.
	Name   string
	Result *scenario.Result
}

// SVG draws a run as a picture that stands for itself.
func SVG(p Picture) []byte {
	d := &drawing{Picture: p, id: "run", alone: true}
	return []byte("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" + d.draw())
}

// drawing is a picture that is being made.
type drawing struct {
	Picture
	// id begins the names of its elements.
	id string
	// alone says that the picture has nothing around it: title, style and what
	// the steps found are part of it.
	alone bool
	b     strings.Builder
	x     scale
	y     float64
}

func (d *drawing) f(format string, args ...any) { fmt.Fprintf(&d.b, format, args...) }

// text writes one line. The classes are those of the style sheet.
func (d *drawing) text(x, y, size float64, class, s string) {
	d.f(`<text x="%s" y="%s" font-size="%s" class="%s">%s</text>`+"\n", number(x), number(y), number(size), class, escape(s))
}

func (d *drawing) textEnd(x, y, size float64, class, s string) {
	d.f(`<text x="%s" y="%s" font-size="%s" class="%s" text-anchor="end">%s</text>`+"\n", number(x), number(y), number(size), class, escape(s))
}

// path draws what there is to draw.
func (d *drawing) path(class string, p *path) {
	if p.Len() > 0 {
		d.f(`<path class="%s" d="%s"/>`+"\n", class, p.String())
	}
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	var p path
	p.do("M", x1, y1)
	if x1 == x2 {
		p.do("V", y2)
	} else {
		p.do("H", x2)
	}
	d.path(class, &p)
}

// rect draws a box with a text for who points at it; none if that is "".
func (d *drawing) rect(class string, x1, y1, x2, y2 float64, tip string) {
	d.f(`<rect class="%s" x="%s" y="%s" width="%s" height="%s"`, class, number(x1), number(y1), number(x2-x1), number(y2-y1))
	if tip == "" {
		d.f("/>\n")
		return
	}
	d.f("><title>%s</title></rect>\n", escape(tip))
}

// draw returns the svg element.
func (d *drawing) draw() string {
	t := d.Result.Timeline
	d.x = scaleOf(t)
	d.y = 6
	if d.alone {
		d.title()
	}
	d.steps()
	found, labelRows := labels(t, d.x)
	top := d.y
	first := top + float64(labelRows)*labelHeight + 4
	lanes := rows(t, first)
	bottom := first
	if n := len(lanes); n > 0 {
		bottom = lanes[n-1].bottom
	}
	d.axis(top, bottom)
	d.changes(found, top, first, bottom)
	merged := false
	for i := range lanes {
		merged = d.lane(&lanes[i]) || merged
	}
	d.expectations(lanes)
	d.y = bottom + 22
	d.legend(lanes, len(found) > 0, merged)
	if d.alone {
		d.outcome()
	}
	return d.frame()
}

// frame puts the svg element around what was drawn.
func (d *drawing) frame() string {
	var b strings.Builder
	height := number(d.y + 6)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="sgc" width="%s" height="%s" viewBox="0 0 %s %s" role="img" aria-labelledby="%s-title %s-desc">`+"\n",
		number(width), height, number(width), height, d.id, d.id)
	fmt.Fprintf(&b, "<title id=\"%s-title\">%s</title>\n<desc id=\"%s-desc\">%s</desc>\n", d.id, escape(d.heading()), d.id, escape(d.description()))
	fmt.Fprintf(&b, "<metadata>%s%s</metadata>\n", digestIntro, Digest(d.Result.Scenario))
	if d.alone {
		fmt.Fprintf(&b, "<style>\n%s</style>\n", sheet(".sgc"))
		fmt.Fprintf(&b, `<rect class="ground" width="%s" height="%s" rx="6"/>`+"\n", number(width), height)
	}
	b.WriteString(d.b.String())
	b.WriteString("</svg>\n")
	return b.String()
}

func (d *drawing) title() {
	d.text(margin, 26, titleSize, "ink bold", fit(printable(d.heading()), titleSize*boldness, width-2*margin))
	d.text(margin, 45, smallSize, "faint", fit(printable(d.outline()), smallSize, width-2*margin))
	d.y = 56
}

const (
	stepHeight  = 20.0
	labelHeight = 15.0
)

// steps draws the band of the steps.
func (d *drawing) steps() {
	t := d.Result.Timeline
	d.text(margin, d.y+14, smallSize, "faint", "Steps")
	for i := range t.Steps {
		s := &t.Steps[i]
		begun, ended := d.x.at(s.Begun), d.x.at(s.End(t))
		class := []string{"even", "odd"}[i%2]
		name := printable(numbered(i, s.Name))
		d.rect(class, begun, d.y, max(ended, begun+1), d.y+stepHeight, name+", "+seconds(s.Begun)+" to "+seconds(s.End(t)))
		if s.Failed {
			d.rect("bad", begun, d.y+stepHeight-2.5, max(ended, begun+2), d.y+stepHeight, "")
		}
		text := fit(name, smallSize, ended-begun-8)
		if len([]rune(text)) < 4 && text != name {
			// What has no room for its number is found by what is below the picture.
			text = fit(fmt.Sprint(i+1), smallSize, ended-begun-5)
		}
		if text != "" && text != "…" {
			d.text(begun+4, d.y+14, smallSize, "ink", text)
		}
	}
	d.y += stepHeight + 5
}

// axis draws the times below the lanes, and lines for them and for the steps.
func (d *drawing) axis(top, bottom float64) {
	var grid path
	for _, s := range d.Result.Timeline.Steps {
		grid.do("M", d.x.at(s.Begun), top-5)
		grid.do("V", bottom)
	}
	grid.do("M", plotLeft, bottom)
	grid.do("H", plotRight)
	ticks := d.x.axisTicks()
	for _, t := range ticks {
		grid.do("M", d.x.at(t), bottom)
		grid.do("v", 4)
	}
	d.path("hair", &grid)
	for _, t := range ticks {
		d.f(`<text x="%s" y="%s" font-size="%s" class="faint" text-anchor="middle">%s</text>`+"\n", number(d.x.at(t)), number(bottom+15), number(smallSize), axisText(t))
	}
	d.text(margin, bottom+15, smallSize, "faint", "Time of the run")
}

func axisText(t time.Duration) string {
	return fmt.Sprintf("%g s", float64(t.Round(10*time.Microsecond).Microseconds())/1e6)
}

// changes draws a line for each change of the policy, through all lanes.
func (d *drawing) changes(labels []label, top, first, bottom float64) {
	for i := range labels {
		l := &labels[i]
		from := top
		if l.row >= 0 {
			from += float64(l.row) * labelHeight
		}
		end := l.mark.Ended
		if end == 0 {
			end = d.Result.Timeline.Length
		}
		tip := fmt.Sprintf("%s, %s to %s", l.mark.Text, seconds(l.mark.Begun), seconds(end))
		d.rect("commit", l.x, first, max(d.x.at(end), l.x+2), bottom, tip)
		d.line("change", l.x, from, l.x, bottom)
	}
	for i := range labels {
		if l := &labels[i]; l.row >= 0 {
			y := top + float64(l.row)*labelHeight
			d.rect("label", l.left-1, y, l.right, y+labelHeight-1, "")
			d.text(l.left, y+11, smallSize, "ink", l.text)
		}
	}
}

// lane draws one flow. It reports whether a mark stands for several packets.
func (d *drawing) lane(r *row) (merged bool) {
	l := r.lane
	d.f("<g><title>%s</title>\n", escape(l.Name+": "+l.Title+": "+laneNumbers(l)))
	for i, line := range r.name {
		d.text(margin, r.base-2-float64(len(r.name)-1-i)*nameStep, textSize, "ink bold", line)
	}
	d.text(margin, r.base+11.5, smallSize, "faint", laneTitle(l))
	ended := l.Ended
	if ended == 0 {
		ended = d.x.length
	}
	d.line("lane", d.x.at(l.Begun), r.base, max(d.x.at(ended), d.x.at(l.Begun)+2), r.base)
	for _, side := range []scenario.Side{scenario.Opener, scenario.Responder} {
		t := ticksOf(l, side, r.base, d.x)
		for k := range t.paths {
			d.path(classes[k], &t.paths[k])
		}
		merged = merged || t.merged
	}
	for side, y := range []float64{r.base - 2, r.base + 11.5} {
		if r.tally.sent[scenario.Responder] == 0 {
			// One side: a line for what was sent and one for what passed.
			n := []int{r.tally.sent[scenario.Opener], r.tally.passed[scenario.Opener]}[side]
			d.textEnd(width-margin, y, smallSize, "ink", fmt.Sprintf("%d %s", n, []string{"sent", verb(l)}[side]))
			continue
		}
		d.textEnd(width-margin, y, smallSize, "ink", fmt.Sprintf("%d of %d %s", r.tally.passed[side], r.tally.sent[side], []string{"→", "←"}[side]))
	}
	d.f("</g>\n")
	return merged
}

// expectations draws what was expected of a flow at the end of the step.
func (d *drawing) expectations(rows []row) {
	for i := range d.Result.Steps {
		s := &d.Result.Steps[i]
		for j := range s.Verdicts {
			v := &s.Verdicts[j]
			r := rowOf(rows, v.Flow, s.Begun+s.Took)
			if r == nil {
				continue
			}
			x := max(d.x.at(s.Begun+s.Took)-7, r.next, plotLeft+6)
			r.next = x + 13
			d.f(`<g transform="translate(%s %s)"><title>%s</title>`, number(x), number(r.marks), escape(verdictText(s.Step.Name, v)))
			d.f("%s</g>\n", verdictMark(v.Met))
		}
	}
}

// rowOf finds the flow of that name that was there at a time, or nil.
func rowOf(rows []row, name string, at time.Duration) *row {
	var found *row
	for i := range rows {
		if rows[i].lane.Name == name && (found == nil || rows[i].lane.Begun <= at) {
			found = &rows[i]
		}
	}
	return found
}

// verdictMark is a hook in a disc, or a cross in a square.
func verdictMark(met bool) string {
	if met {
		return `<circle class="good" r="5.5"/><path class="in" d="M-2.6 0.2l1.9 2l3.3-4.2"/>`
	}
	return `<rect class="bad" x="-5.5" y="-5.5" width="11" height="11"/><path class="in" d="M-2.3-2.3l4.6 4.6m0-4.6l-4.6 4.6"/>`
}
