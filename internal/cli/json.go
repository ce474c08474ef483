package cli

import (
	"bytes"
	"encoding/json"
)

// formatVersion is that of every JSON document that sgc prints. It grows when
// a field changes its meaning or goes away, not when one is added.
const formatVersion = 1

// writeJSON prints v, indented, for programs and for people who pipe it.
func (s *session) writeJSON(v any) error {
	e := json.NewEncoder(s.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// compactJSON returns JSON without white space; what is no JSON stays.
func compactJSON(text []byte) []byte {
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return text
	}
	return b.Bytes()
}
