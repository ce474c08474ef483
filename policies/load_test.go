package policies

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden loads the files of every archive in testdata. In an archive stand
//
//	-- inputs --          lines "var name=value", "var-file FILE", "env NAME=value"
//	-- path --            what to load, if not the directory
//	-- diagnostics --     what WriteDiagnostics says
//	-- policy.json --     the policy, if it is of interest
//
// and the files of the policy under all other names.
func TestGolden(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives in testdata: %v", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			path, err := filepath.Abs(name)
			if err != nil {
				t.Fatal(err)
			}
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			l := loadArchive(t, archive)
			var out bytes.Buffer
			if err := WriteDiagnostics(&out, l, 100, false); err != nil {
				t.Fatal(err)
			}
			checkSection(t, archive, "diagnostics", out.String())
			if l.Policy == nil && !l.Diagnostics.HasErrors() {
				t.Error("no policy, although there are no errors")
			}
			if section(archive, "policy.json") != nil {
				got, err := json.MarshalIndent(l.Policy, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				checkSection(t, archive, "policy.json", string(got)+"\n")
			}
			if *update && !t.Failed() {
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// loadArchive writes the files of an archive into a new directory and loads
// them there.
func loadArchive(t *testing.T, archive *txtar.Archive) *Loaded {
	t.Helper()
	t.Chdir(t.TempDir())
	path, in := ".", Inputs{}
	for _, f := range archive.Files {
		switch f.Name {
		case "diagnostics", "policy.json":
		case "path":
			path = strings.TrimSpace(string(f.Data))
		case "inputs":
			for line := range strings.Lines(string(f.Data)) {
				kind, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
				switch kind {
				case "var":
					in.Values = append(in.Values, value)
				case "var-file":
					in.Files = append(in.Files, value)
				case "env":
					in.Environ = append(in.Environ, value)
				default:
					t.Fatalf("unknown input %q", line)
				}
			}
		default:
			if err := os.MkdirAll(filepath.Dir(f.Name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f.Name, f.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return Load(path, in)
}

func section(archive *txtar.Archive, name string) *txtar.File {
	for i := range archive.Files {
		if archive.Files[i].Name == name {
			return &archive.Files[i]
		}
	}
	return nil
}

func checkSection(t *testing.T, archive *txtar.Archive, name, got string) {
	t.Helper()
	f := section(archive, name)
	if *update {
		if f == nil {
			archive.Files = append(archive.Files, txtar.File{Name: name})
			f = &archive.Files[len(archive.Files)-1]
		}
		f.Data = []byte(got)
		return
	}
	want := ""
	if f != nil {
		want = string(f.Data)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differ (-want +got, -update rewrites):\n%s", name, diff)
	}
}

// loadText loads one file of policy text.
func loadText(t testing.TB, text string) *Loaded {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.hcl")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return Load(path, Inputs{})
}

// mustLoad loads one file of policy text that has no errors.
func mustLoad(t testing.TB, text string) *Policy {
	t.Helper()
	l := loadText(t, text)
	if l.Policy == nil {
		var out bytes.Buffer
		if err := WriteDiagnostics(&out, l, 0, false); err != nil {
			t.Fatal(err)
		}
		t.Fatalf("load failed:\n%s", out.String())
	}
	return l.Policy
}

// What cannot be read is named, once.
func TestUnreadablePaths(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"empty", "link", "loop"} {
		if err := os.Mkdir(at(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, at("link/a.hcl"), []byte(`interface "eth0" { security_groups = [] }`))
	for link, target := range map[string]string{"link/b.hcl": "../gone.hcl", "loop/a.hcl": "a.hcl"} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"nowhere": "There is no policy to read at DIR/nowhere: no such file or directory.",
		"empty":   "There is no policy to read at DIR/empty: no file here ends in .hcl or .hcl.json.",
		"link":    "DIR/link/b.hcl, a symbolic link to ../gone.hcl: no such file or directory.",
		"loop":    "DIR/loop/a.hcl, a symbolic link to a.hcl: too many levels of symbolic links.",
	} {
		l := Load(at(path), Inputs{})
		if l.Policy != nil || len(l.Diagnostics) != 1 {
			t.Errorf("%s: %v", path, l.Diagnostics)
			continue
		}
		if got := strings.ReplaceAll(l.Diagnostics[0].Detail, dir, "DIR"); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}
