package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A plan is saved where nothing is, or where an older plan is; everything else
// stays what it was.
func TestPlanIsSavedOnlyWhereItHarmsNothing(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	s.write("notes", "mine")
	s.write("empty", "")
	at := func(name string) string { return filepath.Join(s.dir, name) }
	s.mustRun("plan", at("web.hcl"), "--out", at("saved"))
	s.mustRun("plan", at("web.hcl"), "--out", at("saved"))
	if err := syscall.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link": "saved", "dangling": "nowhere"} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, says := range map[string]string{
		"web.hcl":      "is a policy",
		"new.hcl.json": "is a policy",
		"notes":        "would be lost",
		"empty":        "would be lost",
		"fifo":         "no regular file",
		"link":         "symbolic link",
		"dangling":     "symbolic link",
		".":            "is a directory",
	} {
		before, err := os.Lstat(at(name))
		missing := err != nil
		s.mustFail(s.sgc(context.Background(), nil, "plan", at("web.hcl"), "--out", at(name)), "cannot be saved", says)
		after, err := os.Lstat(at(name))
		if missing != (err != nil) || !missing && (!os.SameFile(before, after) || before.Size() != after.Size()) {
			t.Errorf("%s is not what it was: %v, %v", name, after, err)
		}
	}
	s.mustFail(s.sgc(context.Background(), nil, "plan", at("web.hcl"), "--out=/dev/null"), "no regular file")
	s.mustFail(s.sgc(context.Background(), nil, "plan", at("web.hcl"), "--out="), "--out is empty")
}

func TestEmptyValuesOfGlobalFlags(t *testing.T) {
	s := newStage(t, false)
	s.write("web.hcl", webPolicy)
	for _, flag := range []string{"netns", "state-dir"} {
		for _, command := range [][]string{{"plan", s.dir}, {"apply", "--auto-approve", s.dir}, {"status"}, {"destroy", "--auto-approve"}} {
			var out, errout strings.Builder
			streams := Streams{In: strings.NewReader(""), Out: &out, Err: &errout}
			code := Run(context.Background(), append([]string{"sgc"}, append(command, "--"+flag+"=")...), streams)
			s.mustFail(result{code, out.String(), errout.String()}, "--"+flag+" is empty")
		}
	}
}

// A file that was cut off is not taken for a policy that allows nothing.
func TestFilesThatAreNoPolicy(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	s.write("empty", "")
	s.write("cut", `{"kind": "sg`)
	s.mustRun("apply", "--auto-approve", filepath.Join(s.dir, "web.hcl"))
	for _, name := range []string{"empty", "cut"} {
		for _, command := range [][]string{{"apply", "--auto-approve"}, {"plan"}, {"validate"}} {
			s.mustFail(s.sgc(context.Background(), nil, append(command, filepath.Join(s.dir, name))...), "no policy file", "nor a saved plan")
		}
	}

	// A policy without interfaces says so, and what it takes away.
	s.write("none.hcl", "")
	for _, command := range []string{"validate", "plan", "apply"} {
		args := []string{command, filepath.Join(s.dir, "none.hcl")}
		if command == "apply" {
			args = append(args, "--auto-approve")
		}
		r := s.mustRun(args...)
		if !strings.Contains(r.err, "enforces nothing: no interface block") {
			t.Errorf("%s says %q", command, r.err)
		}
		if command != "validate" && !strings.Contains(r.out, "- interface.eth0") {
			t.Errorf("%s does not show that the interface is let go:\n%s", command, r.out)
		}
	}
}

func TestLockTimeoutIsADuration(t *testing.T) {
	s := newStage(t, false)
	s.write("web.hcl", webPolicy)
	for value, says := range map[string]string{"5": "such as 5s or 1m", "": "such as 5s or 1m", "soon": "such as 5s or 1m", "-5s": "cannot be negative"} {
		for _, command := range [][]string{{"apply", "--auto-approve", s.dir}, {"destroy", "--auto-approve"}} {
			s.mustFail(s.sgc(context.Background(), nil, append(command, "--lock-timeout="+value, "--netns=nowhere")...), says)
		}
	}
}
