package policies

import (
	"bytes"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// bulk holds the long lists of plain strings of one file.
//
// The HCL parser needs about 4 kB and 15 µs for each element of a list. A list
// of a million CIDRs would take gigabytes, so lists of nothing but plain
// strings are read here, and the parser gets blanks in their place. A blank has
// the length of what it stands for: byte offsets stay true, and lines and
// columns are computed from them (source.fix).
//
// The scanner need not know HCL's grammar. If what it took for a list is in
// truth part of a string, a comment or a larger expression, the parser finds no
// list at that offset, restore is not called for it, and the file is parsed
// again without it.
type bulk struct {
	src   *source
	lists map[int]*literalList // by the offset of the opening bracket
}

// bulkElements is the length from which a list is worth it.
const bulkElements = 1000

// literalList is an expression: a list of plain strings.
type literalList struct {
	src        *source
	start, end int
	spans      []span
	restored   bool
}

// span is the place of a string between its quotes. Policy files are smaller
// than 2 GiB.
type span struct{ start, end int32 }

// findBulk finds the lists of a file of either syntax.
func findBulk(src *source) *bulk {
	b := &bulk{src: src, lists: map[int]*literalList{}}
	text, before := src.text, byte('=')
	if src.isJSON() {
		before = ':'
	}
	for at := 0; ; {
		i := bytes.IndexByte(text[at:], '[')
		if i < 0 {
			return b
		}
		start := at + i
		at = start + 1
		if head := bytes.TrimRight(text[:start], " \t\r\n"); len(head) == 0 || head[len(head)-1] != before {
			continue
		}
		if spans, end, ok := scanStrings(text, start+1, src.isJSON()); ok && len(spans) >= bulkElements {
			b.lists[start] = &literalList{src: src, start: start, end: end, spans: spans}
			at = end
		}
	}
}

// scanStrings reads from behind an opening bracket to behind the closing one.
// It is false if anything but plain strings, commas, blanks and line comments
// stands between them. JSON has no comments and no comma at the end.
func scanStrings(text []byte, at int, json bool) (spans []span, end int, ok bool) {
	wantComma := false
	for at < len(text) {
		switch c := text[at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			at++
		case !json && (c == '#' || c == '/' && at+1 < len(text) && text[at+1] == '/'):
			i := bytes.IndexByte(text[at:], '\n')
			if i < 0 {
				return nil, 0, false
			}
			at += i + 1
		case c == ',' && wantComma:
			wantComma = false
			at++
		case c == ']' && (wantComma || !json):
			return spans, at + 1, true
		case c == '"' && !wantComma:
			length, ok := plainString(text[at+1:])
			if !ok {
				return nil, 0, false
			}
			spans = append(spans, span{int32(at + 1), int32(at + 1 + length)})
			at += length + 2
			wantComma = true
		default:
			return nil, 0, false
		}
	}
	return nil, 0, false
}

// plainString returns the length up to the closing quote, if the string has
// no escapes, no template and nothing but printable ASCII.
func plainString(text []byte) (int, bool) {
	for i, c := range text {
		switch {
		case c == '"':
			return i, true
		case c < ' ' || c > '~' || c == '\\':
			return 0, false
		case (c == '$' || c == '%') && i+1 < len(text) && text[i+1] == '{':
			return 0, false
		}
	}
	return 0, false
}

// blank returns the text with blanks between the brackets of the lists.
func (b *bulk) blank() []byte {
	if len(b.lists) == 0 {
		return b.src.text
	}
	out := slices.Clone(b.src.text)
	for _, l := range b.lists {
		inside := out[l.start+1 : l.end-1]
		for i := range inside {
			inside[i] = ' '
		}
	}
	return out
}

// restoreJSON is restore for the JSON syntax.
func (b *bulk) restoreJSON(expr hcl.Expression) hcl.Expression {
	if len(b.lists) == 0 {
		return expr
	}
	at := expr.Range()
	l := b.lists[at.Start.Byte]
	if l == nil || l.end != at.End.Byte {
		return expr
	}
	if list, diags := hcl.ExprList(expr); diags.HasErrors() || len(list) > 0 {
		return expr
	}
	l.restored = true
	return l
}

// restore returns the list that stands where the parser saw the empty list
// expr, else expr itself.
func (b *bulk) restore(expr hclsyntax.Expression) hcl.Expression {
	tuple, ok := expr.(*hclsyntax.TupleConsExpr)
	if !ok {
		return expr
	}
	l := b.lists[tuple.SrcRange.Start.Byte]
	if l == nil || l.end != tuple.SrcRange.End.Byte {
		return expr
	}
	l.restored = true
	return l
}

// forget drops the lists that the parser did not find and reports whether
// there were any.
func (b *bulk) forget() bool {
	dropped := false
	for start, l := range b.lists {
		if !l.restored {
			delete(b.lists, start)
			dropped = true
		}
		l.restored = false
	}
	return dropped
}

// at returns the i-th string.
func (l *literalList) at(i int) string {
	return string(l.src.text[l.spans[i].start:l.spans[i].end])
}

// rangeAt returns the place of the i-th string, with its quotes.
func (l *literalList) rangeAt(i int) hcl.Range {
	return l.src.rangeOf(int(l.spans[i].start)-1, int(l.spans[i].end)+1)
}

// Value implements hcl.Expression. The value is a list of strings, where the
// parser would make a tuple: cty takes quadratic time to convert long tuples.
func (l *literalList) Value(*hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	vals := make([]cty.Value, len(l.spans))
	for i := range l.spans {
		vals[i] = cty.StringVal(l.at(i))
	}
	return cty.ListVal(vals), nil
}

// Variables implements hcl.Expression.
func (l *literalList) Variables() []hcl.Traversal { return nil }

// Range implements hcl.Expression.
func (l *literalList) Range() hcl.Range { return l.src.rangeOf(l.start, l.end) }

// StartRange implements hcl.Expression.
func (l *literalList) StartRange() hcl.Range { return l.src.rangeOf(l.start, l.start+1) }
