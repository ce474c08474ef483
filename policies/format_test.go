package policies

import (
	"bytes"
	"strings"
	"testing"
)

func TestFormat(t *testing.T) {
	for name, c := range map[string]struct{ file, in, want string }{
		"alignment and indentation": {"a.hcl",
			"security_group   \"web\"{\n ingress \"ssh\" {\nprotocol=\"tcp\" # comment\n    from_port  =  22\n  }\n}\n",
			"security_group \"web\" {\n  ingress \"ssh\" {\n    protocol  = \"tcp\" # comment\n    from_port = 22\n  }\n}\n"},
		"one line end at the end":    {"a.hcl", "locals {\n}\n\n\n", "locals {\n}\n"},
		"a missing line end":         {"a.hcl", "locals {\n}", "locals {\n}\n"},
		"an empty file":              {"a.hcl", "", ""},
		"blank lines alone":          {"a.hcl", "\n \n", ""},
		"a heredoc keeps its blanks": {"a.hcl", "locals {\n  t   = <<EOT\n  a  =  b  \nEOT\n}\n", "locals {\n  t = <<EOT\n  a  =  b  \nEOT\n}\n"},
		"JSON":                       {"a.hcl.json", "{\"a\":[1,2],\n\"b\":{}}", "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": {}\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, diags := Format([]byte(c.in), c.file)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			if string(got) != c.want {
				t.Errorf("got:\n%swant:\n%s", got, c.want)
			}
			again, diags := Format(got, c.file)
			if diags.HasErrors() || !bytes.Equal(again, got) {
				t.Errorf("formatting again changes it:\n%s", again)
			}
		})
	}
}

func TestFormatRefusesSyntaxErrors(t *testing.T) {
	for _, c := range []struct{ file, in string }{
		{"a.hcl", "locals {"},
		{"a.hcl", "x = = 5\n"},
		{"a.hcl", strings.Repeat("[", 100_000)},
		{"a.hcl.json", "{\"a\": 1"},
		{"a.hcl.json", "{\"a\": 1,}"},
		{"a.hcl.json", ""},
		{"a.hcl.json", strings.Repeat("[", 100_000)},
	} {
		out, diags := Format([]byte(c.in), c.file)
		if !diags.HasErrors() || out != nil {
			t.Errorf("%.20q: no error, and the text %q", c.in, out)
		}
		for _, d := range diags {
			if d.Subject == nil || d.Subject.Filename != c.file || d.Subject.Start.Line < 1 {
				t.Errorf("%.20q: %v has no place", c.in, d)
			}
		}
	}
}

// What formatting leaves behind means the same.
func TestFormatKeepsTheMeaning(t *testing.T) {
	before := specPolicy(t)
	text := readFile(t, "web.hcl")
	ugly := strings.ReplaceAll(strings.ReplaceAll(text, "  ", ""), " = ", "=")
	out, diags := Format([]byte(ugly), "web.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	writeFile(t, "web.hcl", out)
	after := Load(".", Inputs{}).Policy
	if after == nil || after.Digest() != before.Digest() {
		t.Errorf("formatting changed the policy:\n%s", out)
	}
	tidied, diags := Format([]byte(text), "web.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if got, want := string(out), string(tidied); strings.Count(got, "\n") != strings.Count(want, "\n") {
		t.Errorf("lines came or went:\n%s", got)
	}
}
