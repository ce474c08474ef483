package livetest

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sgc/internal/cli"
)

// result is what a command left.
type result struct {
	code     int
	out, err string
}

// sgc runs a command in the test's process, on the host's namespace and a
// state directory of its own.
func (s *stand) sgc(args ...string) result {
	var out, errout bytes.Buffer
	streams := cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errout}
	code := cli.Run(context.Background(), append([]string{"sgc"}, s.flags(args)...), streams)
	return result{code, out.String(), errout.String()}
}

func (s *stand) flags(args []string) []string {
	return append(args, "--state-dir="+s.state(), "--netns="+s.host.Path())
}

func (s *stand) state() string { return filepath.Join(s.dir, "state") }

// must runs a command that has to succeed.
func (s *stand) must(args ...string) result {
	s.t.Helper()
	r := s.sgc(args...)
	if r.code != 0 {
		s.t.Fatalf("sgc %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r
}

// write makes p the policy that the next commands find, and returns its path.
func (s *stand) write(p policy) string {
	s.t.Helper()
	path := filepath.Join(s.dir, "policy.hcl")
	if err := os.WriteFile(path, []byte(p.text(s.place)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// apply makes p the policy of the host.
func (s *stand) apply(p policy, flags ...string) result {
	s.t.Helper()
	return s.must(append([]string{"apply", "--auto-approve", s.write(p)}, flags...)...)
}

// plan returns what sgc says that an apply of p would do.
func (s *stand) plan(p policy, flags ...string) result {
	s.t.Helper()
	return s.must(append([]string{"plan", s.write(p)}, flags...)...)
}

// child is sgc in a process of its own.
func (s *stand) child(args ...string) *exec.Cmd {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(self, s.flags(args)...)
	cmd.Env = append(os.Environ(), asSGC+"=1")
	return cmd
}

// document decodes what a command printed with --json.
func (s *stand) document(r result) map[string]any {
	s.t.Helper()
	var d map[string]any
	if err := json.Unmarshal([]byte(r.out), &d); err != nil {
		s.t.Fatalf("decode %q: %v", r.out, err)
	}
	return d
}
