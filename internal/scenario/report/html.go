package report

import (
	"fmt"
	"strings"

	"sgc/internal/scenario"
)

// HTML makes a page of runs: a picture of each, and what is known of each
// expectation.
func HTML(runs []Picture) []byte {
	g := &page{}
	g.f("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n")
	g.f("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n")
	g.f("<title>%s</title>\n<style>\n%s%s</style>\n</head>\n<body>\n<main>\n", escape(pageTitle(runs)), pageStyle(), sheet(".sgc"))
	if len(runs) > 1 {
		g.contents(runs)
	}
	for i := range runs {
		g.section(i, &runs[i])
	}
	g.f("</main>\n</body>\n</html>\n")
	return []byte(g.b.String())
}

type page struct{ b strings.Builder }

func (g *page) f(format string, args ...any) { fmt.Fprintf(&g.b, format, args...) }

func pageTitle(runs []Picture) string {
	if len(runs) == 1 {
		return runs[0].heading()
	}
	return "sgc lab: " + plural(len(runs), "scenario")
}

// pageStyle is the style of what is around the pictures.
func pageStyle() string {
	grounds := func(pick func(colour) string) string {
		return fmt.Sprintf("body{background:%s;color:%s}\na{color:%s}\n.faint{color:%s}\ntd,th,figure,section{border-color:%s}\n.met{color:%s}\n.missed{color:%s}\npre{background:%s}\n",
			pick(ground), pick(ink), pick(blue), pick(faint), pick(hair), pick(green), pick(red), pick(even))
	}
	return `body{margin:0;font:15px/1.45 ` + fontFamily + `}
main{max-width:990px;margin:0 auto;padding:16px}
h1{font-size:22px;margin:0 0 8px}
h2{font-size:19px;margin:0}
h3{font-size:15px;margin:14px 0 4px}
p{margin:2px 0 10px}
section{border-top:1px solid;padding:18px 0}
section:first-of-type{border-top:0}
figure{margin:0;overflow-x:auto;border:1px solid;border-radius:6px}
figure svg{display:block}
table{border-collapse:collapse;font-size:13.5px;margin:4px 0 8px}
td,th{border:1px solid;padding:3px 8px;text-align:left;vertical-align:top}
td.n{text-align:right}
ol,ul{margin:4px 0;padding-left:24px}
li{margin:3px 0}
pre{white-space:pre-wrap;overflow-wrap:anywhere;padding:8px;border-radius:4px;margin:4px 0;font-size:12.5px}
.met,.missed{font-weight:600}
` + grounds(func(c colour) string { return c.light }) +
		"@media (prefers-color-scheme:dark){\n" + grounds(func(c colour) string { return c.dark }) + "}\n" +
		"@media print{figure{overflow:visible;border:0}section{break-inside:avoid}}\n"
}

// contents is a list of the runs with what came out.
func (g *page) contents(runs []Picture) {
	g.f("<h1>%s</h1>\n<ol>\n", escape(pageTitle(runs)))
	for i := range runs {
		p := &runs[i]
		g.f("<li>%s <a href=\"#run%d\">%s</a> <span class=\"faint\">%s, %s</span></li>\n", mark(p.met()), i+1, escape(p.heading()), escape(p.Name), escape(p.result()))
	}
	g.f("</ol>\n")
}

// met reports whether all was as expected.
func (p *Picture) met() bool { return p.Result.Err == nil && !p.Result.Failed() }

// mark says by a sign and a word whether something was as expected.
func mark(met bool) string {
	if met {
		return `<span class="met" role="img" aria-label="as expected">✓</span>`
	}
	return `<span class="missed" role="img" aria-label="not as expected">✗</span>`
}

func (g *page) section(i int, p *Picture) {
	id := fmt.Sprintf("run%d", i+1)
	g.f("<section id=\"%s\">\n<h2>%s</h2>\n<p class=\"faint\">%s</p>\n", id, escape(p.heading()), escape(p.outline()))
	if err := p.Result.Err; err != nil {
		g.f("<p>%s It could not be played to its end: %s</p>\n", mark(false), escape(err.Error()))
	}
	if p.Result.Skipped != "" {
		g.f("<p>This machine could not play the rest: %s</p>\n", escape(p.Result.Skipped))
	}
	d := &drawing{Picture: *p, id: id}
	g.f("<figure>\n%s</figure>\n", d.draw())
	g.timeouts(p.Result)
	g.flows(p.Result.Timeline)
	g.steps(p.Result)
	g.f("</section>\n")
}

// timeouts lists what the speed has divided.
func (g *page) timeouts(r *scenario.Result) {
	if len(r.Timeouts) == 0 || r.Timeline.Speed <= 1 {
		return
	}
	g.f("<details><summary>Idle timeouts of conntrack, divided by %d</summary>\n<table>\n<tr><th scope=\"col\">timeout</th><th scope=\"col\">seconds</th><th scope=\"col\">here</th></tr>\n", r.Timeline.Speed)
	for _, t := range r.Timeouts {
		g.f("<tr><td>%s</td><td class=\"n\">%d</td><td class=\"n\">%d</td></tr>\n", escape(t.Name), t.Was, t.Is)
	}
	g.f("</table></details>\n")
}

// flows is a table of what the lanes show.
func (g *page) flows(t *scenario.Timeline) {
	if len(t.Lanes) == 0 {
		return
	}
	g.f("<h3>Flows</h3>\n<table>\n<tr><th scope=\"col\">flow</th><th scope=\"col\">what it is</th><th scope=\"col\">its opener</th><th scope=\"col\">the other side</th></tr>\n")
	for i := range t.Lanes {
		l := &t.Lanes[i]
		n := tallyOf(l)
		cell := func(side scenario.Side) string {
			if n.sent[side] == 0 {
				return "–"
			}
			return fmt.Sprintf("%d sent, %d %s", n.sent[side], n.passed[side], verb(l))
		}
		g.f("<tr><th scope=\"row\">%s</th><td>%s</td><td>%s</td><td>%s</td></tr>\n", escape(l.Name), escape(l.Title), cell(scenario.Opener), cell(scenario.Responder))
	}
	g.f("</table>\n")
}

// steps lists what was expected, and what was seen.
func (g *page) steps(r *scenario.Result) {
	if len(r.Steps) == 0 {
		return
	}
	g.f("<h3>Steps</h3>\n")
	for i := range r.Steps {
		s := &r.Steps[i]
		g.f("<p>%s <b>%s</b> <span class=\"faint\">%s to %s</span>", mark(!s.Failed()), escape(numbered(i, s.Step.Name)), seconds(s.Begun), seconds(s.Begun+s.Took))
		if s.Step.Description != "" {
			g.f("<br/>%s", escape(s.Step.Description))
		}
		g.f("</p>\n")
		if len(s.Verdicts) > 0 {
			g.f("<ul>\n")
			for j := range s.Verdicts {
				g.verdict(&s.Verdicts[j])
			}
			g.f("</ul>\n")
		}
	}
}

func (g *page) verdict(v *scenario.Verdict) {
	g.f("<li>%s <b>%s</b>: %s. <span class=\"faint\">Seen: %s.</span>", mark(v.Met), escape(v.Flow), escape(v.Expected), escape(v.Seen))
	if !v.Met {
		g.f("<pre>%s:%d", escape(v.At.Filename), v.At.Start.Line)
		for _, line := range v.Policy {
			g.f("\nThe policy: %s.", escape(line))
		}
		if v.Entry != "" {
			g.f("\nConntrack: %s.", escape(v.Entry))
		}
		if v.Note != "" {
			g.f("\n%s.", escape(v.Note))
		}
		if v.Pace != "" {
			g.f("\nBut %s.", escape(v.Pace))
		}
		g.f("</pre>")
	}
	g.f("</li>\n")
}
