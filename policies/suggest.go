package policies

import (
	"fmt"
	"strings"
)

// nearest returns the candidate that was probably meant by name, or "". Among
// candidates equally near, the first one wins, so put common ones first.
func nearest(name string, candidates []string) string {
	folded := fold(name)
	best, bestDistance := "", 3
	for _, c := range candidates {
		d := distance(folded, fold(c))
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

// distance counts the typing errors between two words: a character too many, too
// few, or another one, and two neighbours exchanged.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	// The rows of the table before last, last and now.
	before, last, now := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(s); i++ {
		now[0] = i
		for j := 1; j <= len(t); j++ {
			other := 1
			if s[i-1] == t[j-1] {
				other = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+other)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
		before, last, now = last, now, before
	}
	return last[len(t)]
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
