package compile_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"sgc/compile"
	"sgc/internal/ruleset"
	"sgc/policies"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestClosingGolden compiles new.hcl of every archive with what closes of
// old.hcl, and compares what is temporary, with the base chains that lead to it.
func TestClosingGolden(t *testing.T) {
	archives, err := filepath.Glob("testdata/closing-*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives in testdata: %v", err)
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var loaded [2]*policies.Policy
			var want []byte
			at := 0
			for i, f := range archive.Files {
				switch f.Name {
				case "old.hcl":
					loaded[0] = loadText(t, f.Data)
				case "new.hcl":
					loaded[1] = loadText(t, f.Data)
				case "cut":
					want, at = f.Data, i
				}
			}
			table := compile.Compile(loaded[1], compile.Environment{Closing: loaded[0]})
			table.Sets = slices.DeleteFunc(table.Sets, func(s *ruleset.Set) bool { return !compile.IsTemporary(s.Name) })
			table.Timeouts = nil
			table.Chains = slices.DeleteFunc(table.Chains, func(c *ruleset.Chain) bool {
				return !compile.IsTemporary(c.Name) && c.Name != "prerouting" && c.Name != "postrouting"
			})
			var got bytes.Buffer
			if err := table.WriteText(&got); err != nil {
				t.Fatal(err)
			}
			if *update {
				archive.Files[at].Data = got.Bytes()
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("the cut differs (-want +got, -update rewrites):\n%s", diff)
			}
		})
	}
}

// loadText loads a policy from its text.
func loadText(t *testing.T, text []byte) *policies.Policy {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.hcl")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	l := policies.Load(path, policies.Inputs{})
	if l.Policy == nil {
		t.Fatal(l.Diagnostics.Error())
	}
	return l.Policy
}
