package policies

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// loadNamed loads one file of the given name.
func loadNamed(t *testing.T, name, text string, in Inputs) *Loaded {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path, in)
}

// Go cannot recover from a stack that overflows: without the bound, each of
// these ends the process if only n is large enough.
func TestDepthIsBounded(t *testing.T) {
	const n = 20_000
	many := func(s string) string { return strings.Repeat(s, n) }
	for name, expr := range map[string]string{
		"sums":           "1" + many("+1"),
		"signs":          many("-") + "1",
		"negations":      many("!") + "true",
		"conditionals":   many("true ? 1 : ") + "1",
		"indexes":        "[1]" + many("[0]"),
		"template ifs":   `"` + many("%{if true}") + `"`,
		"in parentheses": strings.Repeat("("+strings.Repeat("1+", 100), 400) + "1" + strings.Repeat(")", 400),
		"over lines":     "(1" + many("\n+1") + ")",
		"comparisons":    "1" + many(" == 1"),
		"splats":         "[1]" + many("[*]"),
		"dotted splats":  "[1]" + many(".*"),
		"in a heredoc":   "<<E\n${1" + many("+1") + "}\nE",
	} {
		l := loadNamed(t, "p.hcl", "locals {\n  a = "+expr+"\n}\n", Inputs{})
		if len(l.Diagnostics) != 1 || l.Diagnostics[0].Summary != "Expression too long" {
			t.Errorf("%s: %d diagnostics, %.300v", name, len(l.Diagnostics), l.Diagnostics)
		}
	}
	for name, expr := range map[string]string{
		"a sum":     "${1" + many("+1") + "}",
		"escaped":   `${1` + many(`\u002b1`) + "}",
		"all of it": `\u0024{` + many("-") + "1}",
	} {
		l := loadNamed(t, "p.hcl.json", `{"locals": {"a": "`+expr+`"}}`, Inputs{})
		if len(l.Diagnostics) != 1 || l.Diagnostics[0].Summary != "Expression too long" {
			t.Errorf("JSON, %s: %d diagnostics, %.300v", name, len(l.Diagnostics), l.Diagnostics)
		}
	}
	l := loadNamed(t, "p.hcl", "variable \"v\" {\n  type = list(number)\n}\n", Inputs{Values: []string{"v=[" + many("-") + "1]"}})
	if len(l.Diagnostics) != 1 || l.Diagnostics[0].Summary != "Expression too long" {
		t.Errorf("--var: %.300v", l.Diagnostics)
	}
}

// What only looks like an expression, or is many, is none.
func TestManyOperatorsAreNoDepth(t *testing.T) {
	lines := strings.Repeat("# ---------- + ----------\n", 3000)
	locals := lines + "locals {\n"
	for i := range 3000 {
		name := "a" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/200)
		if !strings.Contains(locals, " "+name+" =") {
			locals += " " + name + " = 1 + 2 - -3 # - - -\n"
		}
	}
	locals += " list = [\n" + strings.Repeat("  1 + 1, # -----\n", 3000) + " ]\n text = \"" + strings.Repeat("-", 9000) + "\"\n"
	locals += " long = 1" + strings.Repeat(" + 1", 1900) + "\n}\n"
	if l := loadNamed(t, "p.hcl", locals, Inputs{}); len(l.Diagnostics) != 0 {
		t.Errorf("%.500v", l.Diagnostics)
	}
	if l := loadNamed(t, "p.hcl.json", `{"locals": {"a": "`+strings.Repeat("-", 9000)+`"}}`, Inputs{}); len(l.Diagnostics) != 0 {
		t.Errorf("JSON: %.500v", l.Diagnostics)
	}
}

func TestFunctionsAreBounded(t *testing.T) {
	for expr, says := range map[string]string{
		`setproduct(range(1000), range(1000), range(1000))`: "more than 262144 elements",
		`range(2000000000)`:                                                 "more than 1024 values",
		`format("%999999999d", 1)`:                                          "at most 9999",
		`formatlist("a %s %-[1]12345s", ["a"])`:                             "at most 9999",
		`indent(2000000000, "a\nb")`:                                        "at most 9999",
		`jsondecode(join("", [for i in range(1000) : "[["]))`:               "more than 500 brackets",
		`join("", [for i in range(1000) : format("%9999s%9999s", "", "")])`: "",
	} {
		l := loadNamed(t, "p.hcl", "locals {\n  a = "+expr+"\n}\n", Inputs{})
		switch {
		case says == "" && len(l.Diagnostics) != 0:
			t.Errorf("%s: %v", expr, l.Diagnostics)
		case says != "" && (len(l.Diagnostics) != 1 || !strings.Contains(l.Diagnostics[0].Detail, says)):
			t.Errorf("%s: %v", expr, l.Diagnostics)
		}
	}
	text := "locals {\n  a0 = \"0123456789\"\n"
	for i := range 40 {
		name := func(n int) string { return "a" + strings.Repeat("x", n) + "0" }
		text += "  " + name(i+1) + " = \"${local." + name(i) + "}${local." + name(i) + "}\"\n"
	}
	if l := loadNamed(t, "p.hcl", text+"}\n", Inputs{}); len(l.Diagnostics) != 1 || l.Diagnostics[0].Summary != "Value too large" {
		t.Errorf("doubled text: %.500v", l.Diagnostics)
	}
	l := loadNamed(t, "p.hcl", `locals {
  a = setproduct([1, 2], ["a", "b"])
  b = format("%05.1f%%", 3)
  c = jsondecode("{\"a\": [[1]]}").a
  d = indent(2, "a\nb")
}
`, Inputs{})
	if len(l.Diagnostics) != 0 {
		t.Errorf("%v", l.Diagnostics)
	}
}

// A FIFO that nobody writes holds nothing up.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.hcl"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "zero.hcl")); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe.hcl")
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "p.hcl")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, load := range map[string]func() *Loaded{
		"a policy":      func() *Loaded { return Load(pipe, Inputs{}) },
		"a device":      func() *Loaded { return Load(filepath.Join(dir, "zero.hcl"), Inputs{}) },
		"a directory":   func() *Loaded { return Load(dir, Inputs{}) },
		"a list":        func() *Loaded { return Load(write(`prefix_list "a" { file = "`+pipe+`" }`), Inputs{}) },
		"the function":  func() *Loaded { return Load(write(`locals { a = file("`+pipe+`") }`), Inputs{}) },
		"the variables": func() *Loaded { return Load(write(""), Inputs{Files: []string{pipe}}) },
	} {
		done := make(chan *Loaded, 1)
		go func() { done <- load() }()
		select {
		case l := <-done:
			if !l.Diagnostics.HasErrors() || !strings.Contains(l.Diagnostics[0].Detail, "not a regular file") {
				t.Errorf("%s: %v", name, l.Diagnostics)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: still reading", name)
		}
	}
}
