package policies

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	hcljson "github.com/hashicorp/hcl/v2/json"
)

// Format returns a policy text in its canonical layout: two blanks of
// indentation a level, equals signs and comments under each other, one line
// end at the end. It changes white space only. Text whose name ends in .json is
// laid out as JSON. If the text has syntax errors they are returned, and no
// text.
func Format(src []byte, filename string) ([]byte, hcl.Diagnostics) {
	s := &source{name: filename, text: src}
	if d := s.tooDeep(); d != nil {
		return nil, hcl.Diagnostics{d}
	}
	if s.isJSON() {
		return formatJSON(src, filename)
	}
	if _, diags := hclsyntax.ParseConfig(src, filename, hcl.InitialPos); diags.HasErrors() {
		return nil, diags
	}
	// The layout of a line may depend on that of its neighbours, so one pass
	// does not always reach the layout that stays.
	out := src
	for range 4 {
		next := endLines(hclwrite.Format(out))
		if bytes.Equal(next, out) {
			break
		}
		out = next
	}
	return bytes.Clone(out), nil
}

// endLines makes the text end in one line end, if it holds anything.
func endLines(text []byte) []byte {
	text = bytes.TrimRight(text, " \t\r\n")
	if len(text) == 0 {
		return text
	}
	return append(bytes.Clone(text), '\n')
}

func formatJSON(src []byte, filename string) ([]byte, hcl.Diagnostics) {
	if _, diags := hcljson.Parse(src, filename); diags.HasErrors() {
		return nil, diags
	}
	var out bytes.Buffer
	if err := json.Indent(&out, src, "", "  "); err != nil {
		// HCL's parser is the more generous of the two.
		d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Invalid JSON", Detail: fmt.Sprintf("%s: %s.", filename, err)}
		var at *json.SyntaxError
		if errors.As(err, &at) {
			s := &source{name: filename, text: src}
			offset := min(max(int(at.Offset)-1, 0), len(src))
			d.Subject = s.rangeOf(offset, offset).Ptr()
		}
		return nil, hcl.Diagnostics{d}
	}
	return endLines(out.Bytes()), nil
}
