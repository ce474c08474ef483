package policies

import (
	"bytes"
	"os"
	"testing"
)

// The example that newcomers copy loads without a word, and is in canonical
// layout.
func TestExampleWeb(t *testing.T) {
	const dir = "../examples/web"
	l := Load(dir, Inputs{})
	if len(l.Diagnostics) > 0 {
		var out bytes.Buffer
		if err := WriteDiagnostics(&out, l, 0, false); err != nil {
			t.Fatal(err)
		}
		t.Errorf("diagnostics:\n%s", out.String())
	}
	if l.Policy != nil {
		if diags := NotEnforced(l.Policy); len(diags) > 0 {
			t.Errorf("not enforced: %v", diags)
		}
	}
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out, diags := Format(text, file)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if !bytes.Equal(out, text) {
			t.Errorf("%s is not in canonical layout:\n%s", file, out)
		}
	}
}
