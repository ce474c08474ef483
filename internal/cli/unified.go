package cli

import (
	"fmt"
	"slices"
	"strings"
)

// unified returns the difference between two texts as a unified diff with
// three lines of context, or "" where they are equal.
func unified(oldName, newName, before, after string) string {
	if before == after {
		return ""
	}
	a, b := lines(before), lines(after)
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", oldName, newName)
	edits := align(a, b)
	const context = 3
	for i := 0; i < len(edits); {
		if edits[i].op == ' ' {
			i++
			continue
		}
		// A hunk reaches to the first run of unchanged lines that is too long
		// to be context of both neighbours.
		start := max(0, i-context)
		end, same := i, 0
		for j := i; j < len(edits) && same <= 2*context; j++ {
			if edits[j].op == ' ' {
				same++
			} else {
				same, end = 0, j+1
			}
		}
		stop := min(len(edits), end+context)
		writeHunk(&out, edits[start:stop])
		i = stop
	}
	return out.String()
}

// edit is one line of an alignment: kept (' '), only in the old text ('-') or
// only in the new one ('+').
type edit struct {
	op         byte
	text       string
	oldN, newN int // how many lines of each text come before it
}

func writeHunk(out *strings.Builder, edits []edit) {
	oldLen, newLen := 0, 0
	for _, e := range edits {
		if e.op != '+' {
			oldLen++
		}
		if e.op != '-' {
			newLen++
		}
	}
	fmt.Fprintf(out, "@@ -%s +%s @@\n", hunkRange(edits[0].oldN, oldLen), hunkRange(edits[0].newN, newLen))
	for _, e := range edits {
		out.WriteByte(e.op)
		out.WriteString(e.text)
		if !strings.HasSuffix(e.text, "\n") {
			out.WriteString("\n\\ No newline at end of file\n")
		}
	}
}

// hunkRange returns a range of lines as diff counts them: from 1, and from the
// line before where the range is empty.
func hunkRange(before, n int) string {
	switch n {
	case 0:
		return fmt.Sprintf("%d,0", before)
	case 1:
		return fmt.Sprint(before + 1)
	}
	return fmt.Sprintf("%d,%d", before+1, n)
}

// lines splits a text after each newline.
func lines(s string) []string {
	l := strings.SplitAfter(s, "\n")
	if l[len(l)-1] == "" {
		l = l[:len(l)-1]
	}
	return l
}

// maxEdits bounds the work and memory of align, which grow with its square.
const maxEdits = 1000

// align returns a shortest list of edits from a to b; where the texts have
// more than maxEdits of them, a longer one that is still right.
//
// Source: E. Myers, An O(ND) Difference Algorithm, 1986.
func align(a, b []string) []edit {
	n, m := len(a), len(b)
	// trace[d][k+d] is how far into a the longest path with d edits gets on
	// diagonal k, which is the place in a minus the place in b.
	var trace [][]int
	for d := 0; ; d++ {
		if d > maxEdits {
			return alignByLine(a, b)
		}
		round := make([]int, 2*d+1)
		done := false
		for k := -d; k <= d; k += 2 {
			x := 0
			if d > 0 {
				fromK, down := step(trace[d-1], d, k)
				x = trace[d-1][fromK+d-1]
				if !down {
					x++
				}
			}
			for x < n && x-k < m && a[x] == b[x-k] {
				x++
			}
			round[k+d] = x
			done = done || x >= n && x-k >= m
		}
		trace = append(trace, round)
		if done {
			break
		}
	}
	var back []edit
	keep := func(x, y, steps int) {
		for i := 1; i <= steps; i++ {
			back = append(back, edit{' ', a[x-i], x - i, y - i})
		}
	}
	x, y := n, m
	for d := len(trace) - 1; d > 0; d-- {
		fromK, down := step(trace[d-1], d, x-y)
		fromX := trace[d-1][fromK+d-1]
		fromY := fromX - fromK
		if down {
			keep(x, y, x-fromX)
			back = append(back, edit{'+', b[fromY], fromX, fromY})
		} else {
			keep(x, y, y-fromY)
			back = append(back, edit{'-', a[fromX], fromX, fromY})
		}
		x, y = fromX, fromY
	}
	keep(x, y, x)
	slices.Reverse(back)
	return back
}

// step returns the diagonal from which the longest path with d edits comes to
// diagonal k, and whether its last edit goes down, which adds a line of b.
func step(previous []int, d, k int) (from int, down bool) {
	at := func(k int) int { return previous[k+d-1] }
	if k == -d || k != d && at(k-1) < at(k+1) {
		return k + 1, true
	}
	return k - 1, false
}

// alignByLine pairs the lines of two texts of equal length, and replaces all
// lines otherwise. Formatting rarely changes how many lines a file has.
func alignByLine(a, b []string) []edit {
	var edits []edit
	if len(a) != len(b) {
		for i, text := range a {
			edits = append(edits, edit{'-', text, i, 0})
		}
		for i, text := range b {
			edits = append(edits, edit{'+', text, len(a), i})
		}
		return edits
	}
	for i := range a {
		if a[i] == b[i] {
			edits = append(edits, edit{' ', a[i], i, i})
			continue
		}
		edits = append(edits, edit{'-', a[i], i, i}, edit{'+', b[i], i + 1, i})
	}
	return edits
}
