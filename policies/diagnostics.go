package policies

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// WriteDiagnostics writes the diagnostics of l for people: what is wrong, the
// file, line and column, the lines themselves with the place marked, and what
// to do about it:
//
//	Error: Unknown protocol
//	  web.hcl:4:18, in security_group "web":
//	    4 |     protocol = "tpc"
//	      |                ^^^^^
//	  There is no protocol "tpc". Did you mean "tcp"?
//
// Text is wrapped at width columns; 0 is no limit. Colour is for terminals.
// Characters that would do something to a terminal are replaced.
func WriteDiagnostics(w io.Writer, l *Loaded, width int, color bool) error {
	d := diagnosticWriter{w: bufio.NewWriter(w), files: l.Files, lines: map[string][]int{}, width: width, color: color}
	errors, printed := 0, 0
	for _, diag := range l.Diagnostics {
		if diag.Severity == hcl.DiagError {
			if errors++; errors > mostErrors {
				continue
			}
		}
		if printed++; printed > 1 {
			d.print("\n")
		}
		d.write(diag)
	}
	if more := errors - mostErrors; more > 0 {
		d.print(fmt.Sprintf("\n%s more.\n", plural(more, "error")))
	}
	if err := d.w.Flush(); err != nil {
		return fmt.Errorf("write diagnostics: %w", err)
	}
	return nil
}

// mostErrors is how many errors are written; nobody reads more at once.
const mostErrors = 100

type diagnosticWriter struct {
	w     *bufio.Writer // keeps the first error
	files map[string]*hcl.File
	// lines are the offsets of the lines of files that were quoted.
	lines map[string][]int
	width int
	color bool
}

// Escape sequences of terminals.
const (
	escReset  = "\x1b[0m"
	escBold   = "\x1b[1m"
	escRed    = "\x1b[1;31m"
	escYellow = "\x1b[1;33m"
	escDim    = "\x1b[2m"
)

func (d *diagnosticWriter) print(s string) {
	// bufio.Writer returns its first error from Flush as well.
	_, _ = d.w.WriteString(s)
}

func (d *diagnosticWriter) paint(escape, s string) string {
	if !d.color || s == "" {
		return s
	}
	return escape + s + escReset
}

func (d *diagnosticWriter) write(diag *hcl.Diagnostic) {
	word, escape := "Error", escRed
	if diag.Severity == hcl.DiagWarning {
		word, escape = "Warning", escYellow
	}
	d.print(d.paint(escape, word+":") + " " + d.paint(escBold, visible(diag.Summary)) + "\n")
	if diag.Subject != nil {
		d.place(*diag.Subject, escape)
	}
	for _, line := range valuesOf(diag) {
		d.print("  with " + visible(line) + "\n")
	}
	for _, paragraph := range strings.Split(strings.TrimSpace(diag.Detail), "\n") {
		for _, line := range wrap(visible(paragraph), d.width-2) {
			d.print("  " + line + "\n")
		}
	}
}

// mostLines is how many lines of a range are quoted.
const mostLines = 3

// place writes where something stands, and the lines.
func (d *diagnosticWriter) place(r hcl.Range, escape string) {
	file := d.files[r.Filename]
	head := fmt.Sprintf("  %s:%d:%d", visible(r.Filename), r.Start.Line, r.Start.Column)
	if file == nil || file.Bytes == nil {
		d.print(head + "\n")
		return
	}
	lines := d.linesOf(r.Filename, file.Bytes)
	if in := blockAt(file, lines, r.Start); in != "" {
		head += ", in " + visible(in)
	}
	d.print(head + ":\n")
	last := min(max(r.End.Line, r.Start.Line), r.Start.Line+mostLines-1, len(lines))
	if first := lineText(file.Bytes, lines, max(1, min(r.Start.Line, len(lines)))); r.Start.Column > utf8.RuneCount(first) {
		last = min(last, r.Start.Line) // the end of the line is the place
	}
	gutter := len(strconv.Itoa(last)) + 4
	for n := max(r.Start.Line, 1); n <= last; n++ {
		text := lineText(file.Bytes, lines, n)
		from, to := 0, utf8.RuneCount(text)
		if n == r.Start.Line {
			from = min(max(r.Start.Column-1, 0), to)
		} else {
			from = to - utf8.RuneCount(bytes.TrimLeft(text, " \t"))
		}
		if n == r.End.Line {
			to = min(max(r.End.Column-1, from), to)
		}
		shown, from, to := excerpt(text, from, to, d.width-gutter-3)
		d.print(d.paint(escDim, fmt.Sprintf("%*d |", gutter, n)) + " " + shown + "\n")
		d.print(d.paint(escDim, strings.Repeat(" ", gutter)+" |") + " " + strings.Repeat(" ", from) +
			d.paint(escape, strings.Repeat("^", max(to-from, 1))) + "\n")
	}
}

func (d *diagnosticWriter) linesOf(name string, text []byte) []int {
	if lines, ok := d.lines[name]; ok {
		return lines
	}
	lines := []int{0}
	for i := 0; ; {
		n := bytes.IndexByte(text[i:], '\n')
		if n < 0 {
			break
		}
		i += n + 1
		lines = append(lines, i)
	}
	d.lines[name] = lines
	return lines
}

// lineText returns a line without its end.
func lineText(text []byte, lines []int, n int) []byte {
	start, end := lines[n-1], len(text)
	if n < len(lines) {
		end = lines[n]
	}
	return bytes.TrimRight(text[start:end], "\r\n")
}

// blockAt names the top-level block that a position stands in.
func blockAt(file *hcl.File, lines []int, pos hcl.Pos) string {
	nav, ok := file.Nav.(interface{ ContextString(offset int) string })
	if !ok || pos.Line < 1 || pos.Line > len(lines) {
		return ""
	}
	text := lineText(file.Bytes, lines, pos.Line)
	offset := lines[pos.Line-1]
	for range pos.Column - 1 {
		_, n := utf8.DecodeRune(text)
		text, offset = text[n:], offset+n
	}
	return nav.ContextString(offset)
}

// excerpt makes a line printable, one column a character, and cuts it to width
// columns around the part that is marked, which is from column from to column
// to.
func excerpt(line []byte, from, to, width int) (string, int, int) {
	if width < 20 {
		width = 120 // no limit; but lines of JSON may be very long
	}
	// Of a very long line, only what may be shown is looked at.
	const long = 4096
	start := 0
	if skip := from - width; len(line) > long && skip > 0 {
		for range skip {
			_, n := utf8.DecodeRune(line[start:])
			start += n
		}
		from, to = from-skip, to-skip
	}
	cut := start > 0
	runes := []rune(string(line[start:min(len(line), start+max(long, 8*width))]))
	to = min(to, len(runes))
	for i, c := range runes {
		if c == '\t' {
			runes[i] = ' '
		} else if !unicode.IsPrint(c) {
			runes[i] = '\ufffd'
		}
	}
	const ellipsis = '…'
	if len(runes) <= width && !cut {
		return string(runes), from, to
	}
	first := max(0, min(from-width/4, len(runes)-width))
	last := min(len(runes), first+width)
	to = min(to, last)
	if first > 0 || cut {
		runes[first] = ellipsis
	}
	if last < len(runes) {
		runes[last-1] = ellipsis
	}
	return string(runes[first:last]), from - first, to - first
}

// valuesOf lists the values of the names in the expression of a diagnostic,
// which tell the blocks of a dynamic block apart.
func valuesOf(diag *hcl.Diagnostic) []string {
	if diag.Expression == nil || diag.EvalContext == nil {
		return nil
	}
	var out []string
	seen := map[string]bool{}
	for _, t := range diag.Expression.Variables() {
		v, diags := t.TraverseAbs(diag.EvalContext)
		if diags.HasErrors() || !v.IsKnown() {
			continue
		}
		if _, _, isRef := reference(v); isRef {
			continue // its name says it all
		}
		line := fmt.Sprintf("%s = %s", traversalText(t), valueText(v))
		if !seen[line] {
			seen[line] = true
			out = append(out, line)
		}
	}
	sort.Strings(out)
	return out
}

func traversalText(t hcl.Traversal) string {
	var b strings.Builder
	for _, step := range t {
		switch s := step.(type) {
		case hcl.TraverseRoot:
			b.WriteString(s.Name)
		case hcl.TraverseAttr:
			b.WriteString("." + s.Name)
		case hcl.TraverseIndex:
			fmt.Fprintf(&b, "[%s]", valueText(s.Key))
		}
	}
	return b.String()
}

// valueText writes a value as an expression would, if it is short.
func valueText(v value) string {
	s := friendly(v)
	return strings.TrimPrefix(strings.TrimPrefix(s, "the text "), "the number ")
}

// wrap breaks text into lines of at most width columns, at spaces.
func wrap(text string, width int) []string {
	if width < 20 {
		return []string{text}
	}
	var out []string
	line, columns := "", 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case line == "":
			line, columns = word, n
		case columns+1+n > width:
			out = append(out, line)
			line, columns = word, n
		default:
			line, columns = line+" "+word, columns+1+n
		}
	}
	return append(out, line)
}

// visible replaces what a terminal would not print.
func visible(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '\t' || c == '\n' {
			return ' '
		}
		if !unicode.IsPrint(c) {
			return '\ufffd'
		}
		return c
	}, s)
}
