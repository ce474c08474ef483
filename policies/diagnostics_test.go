package policies

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode"

	"github.com/hashicorp/hcl/v2"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeFile(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func written(t *testing.T, l *Loaded, width int, color bool) string {
	t.Helper()
	var out bytes.Buffer
	if err := WriteDiagnostics(&out, l, width, color); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Nothing that a policy file holds reaches the terminal as a control sequence.
func TestDiagnosticsAreSafeToPrint(t *testing.T) {
	l := loadText(t, "interface \"a\x1b[2J\u202e\" {\n  # \x1b]0;title\a\n  nonsense\u0085 = \"\x1b[2J\"\n}\n")
	for _, color := range []bool{false, true} {
		out := written(t, l, 80, color)
		if color {
			out = strings.NewReplacer(escReset, "", escBold, "", escRed, "", escYellow, "", escDim, "").Replace(out)
		}
		for _, c := range out {
			if c != '\n' && !unicode.IsPrint(c) {
				t.Fatalf("%U is in the output:\n%q", c, out)
			}
		}
	}
}

func TestDiagnosticsKeepToTheWidth(t *testing.T) {
	l := loadText(t, "security_group \"web\" {\n  members = ["+strings.Repeat("\"10.0.0.0/8\", ", 50)+"\"nonsense\"]\n  description_that_nobody_knows = 5\n}\n")
	for _, width := range []int{40, 60, 80, 120} {
		for line := range strings.Lines(written(t, l, width, false)) {
			place := strings.Contains(line, ".hcl") // paths are not broken
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > width && !place {
				t.Errorf("width %d: a line has %d columns: %s", width, n, line)
			}
		}
	}
}

// The marks stand under what is wrong, also in a line that was cut.
func TestDiagnosticsMarkThePlace(t *testing.T) {
	l := loadText(t, "\tsecurity_group \"web\" {\n\tmembers = ["+strings.Repeat("\"ü10.0.0.0/8\", ", 20)+"\"NONSENSE\"]\n}\n")
	out := strings.Split(written(t, l, 80, false), "\n")
	found := false
	for i, line := range out {
		if !strings.Contains(line, "| ") || i+1 == len(out) || !strings.Contains(out[i+1], "^") {
			continue
		}
		marks := []rune(out[i+1])
		text := []rune(line)
		var marked []rune
		for col, c := range marks {
			if c == '^' && col < len(text) {
				marked = append(marked, text[col])
			}
		}
		if s := string(marked); s == `"NONSENSE"` {
			found = true
		} else if !strings.Contains(s, "ü10") && !strings.Contains(s, "security_group") {
			t.Errorf("marked %q in:\n%s\n%s", s, line, out[i+1])
		}
	}
	if !found {
		t.Errorf("NONSENSE is not marked:\n%s", strings.Join(out, "\n"))
	}
}

// Diagnostics may point anywhere, into files that are shorter by now.
func TestDiagnosticsSurviveWrongPlaces(t *testing.T) {
	at := func(line, column, endLine, endColumn int) *hcl.Diagnostic {
		return &hcl.Diagnostic{Summary: "x", Subject: &hcl.Range{Filename: "f", Start: hcl.Pos{Line: line, Column: column}, End: hcl.Pos{Line: endLine, Column: endColumn}}}
	}
	for _, text := range [][]byte{nil, {}, []byte("a\nb"), []byte("\n"), []byte("ä")} {
		l := &Loaded{Files: map[string]*hcl.File{"f": {Bytes: text}}}
		for _, line := range []int{-1, 0, 1, 2, 99} {
			for _, column := range []int{-1, 0, 1, 2, 99} {
				l.Diagnostics = append(l.Diagnostics, at(line, column, line, column), at(line, column, 1, 1), at(1, 1, line, column))
			}
		}
		written(t, l, 80, true)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestWriteDiagnosticsReportsErrors(t *testing.T) {
	if err := WriteDiagnostics(brokenWriter{}, loadText(t, "nonsense = 1\n"), 80, false); err == nil {
		t.Error("no error from a writer that fails")
	}
}
