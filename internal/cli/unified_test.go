package cli

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sgc/internal/lab/labtest"
)

func TestUnified(t *testing.T) {
	for _, tc := range []struct{ name, before, after, want string }{
		{"equal texts have no difference", "a\nb\n", "a\nb\n", ""},
		{"one line changed", "a\nb\nc\n", "a\nB\nc\n", "--- x\n+++ y\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"},
		{"a line added to nothing", "", "a\n", "--- x\n+++ y\n@@ -0,0 +1 @@\n+a\n"},
		{"the last newline is missing", "a", "a\n", "--- x\n+++ y\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"},
		{"far changes are two hunks", "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "x\n2\n3\n4\n5\n6\n7\n8\ny\n",
			"--- x\n+++ y\n@@ -1,4 +1,4 @@\n-1\n+x\n 2\n 3\n 4\n@@ -6,4 +6,4 @@\n 6\n 7\n 8\n-9\n+y\n"},
		{"near changes share a hunk", "1\n2\n3\n4\n5\n6\n7\n8\n", "x\n2\n3\n4\n5\n6\n7\ny\n",
			"--- x\n+++ y\n@@ -1,8 +1,8 @@\n-1\n+x\n 2\n 3\n 4\n 5\n 6\n 7\n-8\n+y\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := unified("x", "y", tc.before, tc.after); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

// The law: the edits without '+' are the old text, those without '-' the new.
func TestAlignKeepsBothTexts(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	text := func(n int) (l []string) {
		for range n {
			l = append(l, fmt.Sprintf("%d\n", r.IntN(4)))
		}
		return l
	}
	cases := [][2][]string{{text(3000), text(3000)}, {text(3000), text(2999)}}
	for range 300 {
		cases = append(cases, [2][]string{text(r.IntN(12)), text(r.IntN(12))})
	}
	for _, c := range cases {
		var before, after []string
		for _, e := range align(c[0], c[1]) {
			if e.oldN != len(before) || e.newN != len(after) {
				t.Fatalf("%q → %q: an edit counts %d and %d lines before it, there are %d and %d", c[0], c[1], e.oldN, e.newN, len(before), len(after))
			}
			if e.op != '+' {
				before = append(before, e.text)
			}
			if e.op != '-' {
				after = append(after, e.text)
			}
		}
		if strings.Join(before, "") != strings.Join(c[0], "") || strings.Join(after, "") != strings.Join(c[1], "") {
			t.Fatalf("the edits of %q → %q do not hold both texts", c[0], c[1])
		}
	}
}

// patch is an independent witness for hunks and their line numbers.
func TestPatchAppliesTheDifference(t *testing.T) {
	labtest.Command(t, "patch")
	r := rand.New(rand.NewPCG(7, 7))
	for i := range 40 {
		var before, after strings.Builder
		for range r.IntN(40) {
			line := fmt.Sprintf("line %d\n", r.IntN(30))
			if r.IntN(5) > 0 {
				before.WriteString(line)
			}
			if r.IntN(5) > 0 {
				after.WriteString(line)
			}
		}
		if before.Len() == 0 || after.Len() == 0 || before.String() == after.String() {
			continue
		}
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, []byte(before.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("patch", "--fuzz=0", file)
		diff := unified("f", "f", before.String(), after.String())
		cmd.Stdin = strings.NewReader(diff)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("case %d: %v\n%s\n%s", i, err, out, diff)
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != after.String() {
			t.Fatalf("case %d: patch made %q, want %q", i, got, after.String())
		}
	}
}
