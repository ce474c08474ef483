package report

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"sgc/internal/scenario"
)

// number writes a coordinate, to a tenth of a pixel.
func number(x float64) string {
	return strconv.FormatFloat(math.Round(x*10)/10+0, 'f', -1, 64)
}

// path builds the data of an SVG path.
type path struct{ strings.Builder }

// do adds a command and its numbers.
func (p *path) do(command string, numbers ...float64) {
	p.WriteString(command)
	for i, n := range numbers {
		s := number(n)
		if i > 0 && s[0] != '-' {
			p.WriteByte(' ')
		}
		p.WriteString(s)
	}
}

// Marks are this large, and no closer than this.
const (
	tickHeight = 11.0
	lateHeight = 6.0
	// tickStep is where ticks side by side become a bar.
	tickStep = 1.5
	// markStep is how close two marks with a shape of their own may be.
	markStep = 4.0
	// markMiddle is how far above the lane's line they are.
	markMiddle = 7.0
)

// ticks are the marks of one side of a lane, a path for each kind.
type ticks struct {
	paths [kinds]path
	// merged says that a mark stands for several packets.
	merged bool
}

// ticksOf draws the packets of a side. Above the line is the opener's side.
func ticksOf(l *scenario.Lane, side scenario.Side, base float64, x scale) *ticks {
	up := -1.0
	if side == scenario.Responder {
		up = 1
	}
	var at [kinds][]float64
	var whiskers [][2]float64
	for i := range l.Packets {
		p := &l.Packets[i]
		if p.Side != side {
			continue
		}
		k := kindOf(l, p, 0)
		at[k] = append(at[k], x.at(p.Sent))
		if k == late {
			whiskers = append(whiskers, [2]float64{x.at(p.Sent), x.at(l.Passed(p))})
		}
	}
	t := &ticks{}
	for k := range at {
		slices.Sort(at[k])
	}
	t.bars(&t.paths[passed], at[passed], base, up*tickHeight)
	t.bars(&t.paths[late], at[late], base, up*lateHeight)
	t.whiskers(whiskers, base+up*lateHeight)
	middle := base + up*markMiddle
	t.marks(opened, at[opened], middle, func(p *path, x float64) {
		p.do("M", x, base)
		p.do("V", base+up*8)
		p.do("M", x-2.6, base+up*10.4)
		p.do("a", 2.6, 2.6, 0, 1, 0, 5.2, 0)
		p.do("a", 2.6, 2.6, 0, 1, 0, -5.2, 0)
	})
	t.marks(unanswered, at[unanswered], middle, func(p *path, x float64) {
		p.do("M", x, base)
		p.do("V", base+up*4)
		p.do("M", x-2.4, base+up*6.6)
		p.do("a", 2.4, 2.4, 0, 1, 0, 4.8, 0)
		p.do("a", 2.4, 2.4, 0, 1, 0, -4.8, 0)
	})
	t.marks(lost, at[lost], middle, func(p *path, x float64) {
		p.do("M", x-2.7, middle-2.7)
		p.do("l", 5.4, 5.4)
		p.do("m", 0, -5.4)
		p.do("l", -5.4, 5.4)
	})
	t.marks(pending, at[pending], middle, func(p *path, x float64) {
		p.do("M", x-1.7, base+up*4)
		p.do("a", 1.7, 1.7, 0, 1, 0, 3.4, 0)
		p.do("a", 1.7, 1.7, 0, 1, 0, -3.4, 0)
	})
	t.marks(refused, at[refused], middle, func(p *path, x float64) {
		p.do("M", x, middle-3.4)
		p.do("l", 3, 3.4)
		p.do("l", -3, 3.4)
		p.do("l", -3, -3.4)
		p.WriteByte('z')
	})
	return t
}

// bars draws a tick at each place, and a bar where they stand side by side.
func (t *ticks) bars(p *path, xs []float64, base, height float64) {
	for i := 0; i < len(xs); {
		j := i + 1
		for j < len(xs) && xs[j]-xs[j-1] <= tickStep {
			j++
		}
		p.do("M", xs[i], base)
		p.do("v", height)
		if wide := xs[j-1] - xs[i]; wide > 0 {
			p.do("h", wide)
			p.do("v", -height)
			p.WriteByte('z')
		}
		t.merged = t.merged || j > i+1
		i = j
	}
}

// whiskers lead from where late packets were sent to where they arrived.
func (t *ticks) whiskers(of [][2]float64, y float64) {
	slices.SortFunc(of, func(a, b [2]float64) int { return cmp.Compare(a[0], b[0]) })
	p := &t.paths[late]
	for i := 0; i < len(of); {
		end := of[i][1]
		j := i + 1
		for j < len(of) && of[j][0] <= end {
			end = max(end, of[j][1])
			j++
		}
		p.do("M", of[i][0], y)
		p.do("H", max(end, of[i][0]+2))
		i = j
	}
}

// marks draws a mark at each place. What would lie upon the mark before it is
// joined to that by a line, so that nothing is left out.
func (t *ticks) marks(k kind, xs []float64, middle float64, draw func(*path, float64)) {
	p := &t.paths[k]
	join := func(from, to float64) {
		if to > from {
			p.do("M", from, middle)
			p.do("H", to+markStep/3)
		}
	}
	drawn, last := math.Inf(-1), math.Inf(-1)
	for _, x := range xs {
		if x-drawn < markStep {
			last = x
			t.merged = true
			continue
		}
		join(drawn, last)
		draw(p, x)
		drawn, last = x, x
	}
	join(drawn, last)
}
