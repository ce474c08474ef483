package report

import (
	"fmt"
	"strings"
)

// colour is one on a light and on a dark ground.
type colour struct{ light, dark string }

// The colours of the marks keep apart for the common kinds of colour
// blindness, after Okabe and Ito (Color Universal Design, 2008), darker on white
// and lighter on black: each has a contrast of 4.5 to its ground.
var (
	ground = colour{"#ffffff", "#0d1117"}
	ink    = colour{"#1f2328", "#e6edf3"}
	faint  = colour{"#59636e", "#9ba5b0"}
	hair   = colour{"#d1d9e0", "#3d444d"}
	even   = colour{"#eaeef2", "#1c232c"}
	odd    = colour{"#dbe2e9", "#28313c"}
	blue   = colour{"#0a64a8", "#58a6ff"}
	red    = colour{"#c2320c", "#ff8c66"}
	amber  = colour{"#8a5a00", "#e3b341"}
	purple = colour{"#8a3799", "#dba4f0"}
	green  = colour{"#116b2c", "#4ac26b"}
)

// styles are the rules of the style sheet: a selector, what does not depend on
// the ground, and the properties that do.
var styles = []struct {
	selector, fixed string
	properties      []string
	colour          colour
}{
	{".ground", "", []string{"fill"}, ground},
	{".ink", "", []string{"fill"}, ink},
	{".faint", "", []string{"fill"}, faint},
	{".bold", "font-weight:600", nil, colour{}},
	{".hair", "fill:none;stroke-width:1", []string{"stroke"}, hair},
	{".lane", "fill:none;stroke-width:1", []string{"stroke"}, faint},
	{".even", "", []string{"fill"}, even},
	{".odd", "", []string{"fill"}, odd},
	{".change", "fill:none;stroke-width:1.2;stroke-dasharray:4 3", []string{"stroke"}, ink},
	{".commit", "fill-opacity:.11", []string{"fill"}, ink},
	{".label", "fill-opacity:.92", []string{"fill"}, ground},
	{".passed", "stroke-width:1.3", []string{"fill", "stroke"}, blue},
	{".opened", "stroke-width:1.3", []string{"fill", "stroke"}, blue},
	{".late", "stroke-width:1.2", []string{"fill", "stroke"}, amber},
	{".unanswered", "fill:none;stroke-width:1.4", []string{"stroke"}, amber},
	{".lost", "fill:none;stroke-width:1.7", []string{"stroke"}, red},
	{".pending", "stroke-width:1", []string{"fill", "stroke"}, faint},
	{".refused", "stroke-width:1.2", []string{"fill", "stroke"}, purple},
	{".good", "", []string{"fill"}, green},
	{".bad", "", []string{"fill"}, red},
	{".in", "fill:none;stroke-width:1.6;stroke-linecap:round;stroke-linejoin:round", []string{"stroke"}, ground},
}

// fontFamily are fonts that are there already.
const fontFamily = `system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif`

// sheet is the style sheet of the pictures below the selector. Renderers that
// know no media queries see them in light colours.
func sheet(below string) string {
	var light, dark strings.Builder
	for _, s := range styles {
		fmt.Fprintf(&light, "%s %s{%s", below, s.selector, s.fixed)
		separator := ";"
		if s.fixed == "" {
			separator = ""
		}
		for _, p := range s.properties {
			fmt.Fprintf(&light, "%s%s:%s", separator, p, s.colour.light)
			separator = ";"
		}
		light.WriteString("}\n")
		if len(s.properties) > 0 {
			fmt.Fprintf(&dark, "%s %s{", below, s.selector)
			for i, p := range s.properties {
				if i > 0 {
					dark.WriteByte(';')
				}
				fmt.Fprintf(&dark, "%s:%s", p, s.colour.dark)
			}
			dark.WriteString("}\n")
		}
	}
	return fmt.Sprintf("%s text{font-family:%s}\n%s@media (prefers-color-scheme:dark){\n%s}\n", below, fontFamily, light.String(), dark.String())
}
