package policies

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
)

// nearest returns the candidate that was probably meant by name, or "". Among
// candidates equally near, the first one wins, so put common ones first.
func nearest(name string, candidates []string) string {
	folded := fold(name)
	best, bestDistance := "", 3
	for _, c := range candidates {
		d := levenshtein.Distance(folded, fold(c), nil)
		// Two letters of three are a guess, not a typing error, unless they
		// are the same letters in another order.
		if d >= len(folded) || d >= len(c) {
			continue
		}
		if d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// didYouMean returns the sentence that offers the nearest candidate, with a
// space before it, or "".
func didYouMean(name string, candidates []string) string {
	if n := nearest(name, candidates); n != "" {
		return fmt.Sprintf(" Did you mean %q?", n)
	}
	return ""
}

// fold makes spellings alike that differ in case and in the kind of dash.
func fold(s string) string {
	return strings.ReplaceAll(strings.ToLower(s), "-", "_")
}

// quotedList writes words as a sentence has them: "a", "b" or "c".
func quotedList(words []string, conjunction string) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			b.WriteString(" " + conjunction + " ")
		default:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", w)
	}
	return b.String()
}

// plural returns "1 thing" or "n things".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	if strings.HasSuffix(thing, "y") {
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(thing, "y"))
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
