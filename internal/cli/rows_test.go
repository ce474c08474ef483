package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"sgc/policies"
)

// TestChanges shows how plans print changes of policies. The comment of an
// archive is what is printed from its old policy to its new one, then the way
// back, then the first one with --verbose.
func TestChanges(t *testing.T) {
	names, err := filepath.Glob("testdata/changes/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		s := newStage(t, false)
		for _, f := range archive.Files {
			s.write(f.Name, string(f.Data))
		}
		before, after := s.load("old"), s.load("new")
		var b strings.Builder
		for _, c := range []struct {
			title    string
			old, new *policies.Policy
			verbose  bool
		}{{"old → new", before, after, false}, {"new → old", after, before, false}, {"old → new, verbose", before, after, true}} {
			changes := policies.Compare(c.old, c.new)
			b.WriteString("# " + c.title + "\n")
			writeSections(&b, paint{}, sectionsOf(changes, c.verbose))
			b.WriteString("\n")
		}
		if got := b.String(); got != string(archive.Comment) {
			if *update {
				archive.Comment = []byte(got)
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				continue
			}
			t.Errorf("%s differs (-update rewrites it):\n%s", name, unified("want", "got", string(archive.Comment), got))
		}
	}
}

func (s *stage) load(name string) *policies.Policy {
	s.t.Helper()
	loaded := policies.Load(filepath.Join(s.dir, name), policies.Inputs{})
	if loaded.Policy == nil {
		s.t.Fatal(loaded.Diagnostics)
	}
	return loaded.Policy
}

// The laws: from a policy to itself nothing changes, the way back adds what
// the way there removes, and every change is a line or the title of some.
func TestCountsOfChanges(t *testing.T) {
	s := newStage(t, false)
	s.write("a/web.hcl", webPolicy)
	s.write("b/db.hcl", dbPolicy)
	a, b := s.load("a"), s.load("b")
	count := func(old, new *policies.Policy) [3]int {
		add, update, remove := countChanges(policies.Compare(old, new))
		return [3]int{add, update, remove}
	}
	if got := count(a, a); got != [3]int{} {
		t.Errorf("from a policy to itself: %v", got)
	}
	if there, back := count(a, b), count(b, a); there != [3]int{1, 0, 1} || back != [3]int{1, 0, 1} {
		t.Errorf("there %v, back %v", there, back)
	}
	if first, last := count(nil, a), count(a, &policies.Policy{}); first != [3]int{4, 0, 0} || last != [3]int{0, 0, 4} {
		t.Errorf("first %v, last %v", first, last)
	}
}
