package policies

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// NotEnforced returns an error for each thing in the policy that the language
// has and the compiled ruleset does not honour yet. A policy is refused rather
// than enforced in part. The result is empty for what is enforced in full.
func NotEnforced(p *Policy) hcl.Diagnostics {
	var out hcl.Diagnostics
	refuse := func(at Pos, what, way string) {
		out = append(out, &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  "Not enforced yet",
			Detail:   fmt.Sprintf("This version of sgc reads %s. %s", what, way),
			Subject:  at.Range(),
		})
	}
	for _, t := range p.Tests {
		refuse(t.Pos, "test blocks, but does not run them", "Remove the block.")
	}
	return out
}

// Range returns a range that holds nothing but the beginning of what stands
// there: Loaded.Add finds its end.
func (p Pos) Range() *hcl.Range {
	start := hcl.Pos{Line: p.Line, Column: p.Column}
	return &hcl.Range{Filename: p.File, Start: start, End: start}
}

// Add adds diagnostics about the loaded policy that were made from its Pos
// fields, which hold neither bytes nor ends. It finds both: what such a
// diagnostic is about is the header of a block.
func (l *Loaded) Add(diags ...*hcl.Diagnostic) {
	for _, d := range diags {
		if d.Subject != nil && d.Subject.Start.Byte == 0 && d.Subject.Start == d.Subject.End {
			d.Subject = l.header(*d.Subject)
		}
		l.Diagnostics = append(l.Diagnostics, d)
	}
	l.Diagnostics = tidy(l.Diagnostics)
}

// header returns the range of the header of the block that begins at r: up to
// its opening brace, or to the end of the line. In JSON, it is the key.
func (l *Loaded) header(r hcl.Range) *hcl.Range {
	file := l.Files[r.Filename]
	if file == nil {
		return &r
	}
	src := &source{name: r.Filename, text: file.Bytes}
	src.posOf(0) // finds the lines
	if r.Start.Line < 1 || r.Start.Line > len(src.lines) {
		return &r
	}
	start := src.lines[r.Start.Line-1]
	line, _, _ := bytes.Cut(src.text[start:], []byte("\n"))
	for range r.Start.Column - 1 {
		_, n := utf8.DecodeRune(line)
		line, start = line[n:], start+n
	}
	out := src.rangeOf(start, start+headerLength(line, src.isJSON()))
	return &out
}

// headerLength returns how many bytes at the beginning of the text are the
// header of a block.
func headerLength(text []byte, json bool) int {
	if !json {
		if i := bytes.IndexByte(text, '{'); i > 0 {
			text = text[:i]
		}
		return len(bytes.TrimRight(text, " \t\r"))
	}
	if len(text) > 1 && text[0] == '"' {
		if i := bytes.IndexByte(text[1:], '"'); i >= 0 {
			return i + 2
		}
	}
	return min(len(text), 1)
}
