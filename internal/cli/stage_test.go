package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sgc/apply"
	"sgc/internal/lab/labtest"
	"sgc/policies"
)

// webPolicy lets one address in by SSH, and everybody by HTTP.
const webPolicy = `
security_group "web" {
  ingress "ssh" {
    protocol    = "tcp"
    ports       = [22]
    cidr_blocks = ["203.0.113.1/32"]
  }
  ingress "http" {
    protocol    = "tcp"
    ports       = [80]
    cidr_blocks = ["0.0.0.0/0"]
  }
  egress "any" {
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

interface "eth0" {
  security_groups = [security_group.web]
}
`

// dbPolicy is another one.
var dbPolicy = strings.NewReplacer("ports       = [22]", "ports       = [5432]", `"ssh"`, `"db"`).Replace(webPolicy)

// result is what a command left.
type result struct {
	code     int
	out, err string
}

// sgc runs a command in the test's process, on the stage's namespace and state
// directory. in is what a person types; nil is no terminal.
func (s *stage) sgc(ctx context.Context, in io.Reader, args ...string) result {
	var out, errout bytes.Buffer
	streams := Streams{In: in, Out: &out, Err: &errout, InTerminal: in != nil}
	if in == nil {
		streams.In = strings.NewReader("")
	}
	args = append(args, "--state-dir="+s.state())
	if s.ns != nil {
		args = append(args, "--netns="+s.ns.Path())
	}
	code := Run(ctx, append([]string{"sgc"}, args...), streams)
	return result{code, out.String(), errout.String()}
}

func (s *stage) state() string { return filepath.Join(s.dir, ".state") }

// mustRun runs a command that has to succeed without a question.
func (s *stage) mustRun(args ...string) result {
	s.t.Helper()
	r := s.sgc(context.Background(), nil, args...)
	if r.code != 0 {
		s.t.Fatalf("sgc %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r
}

// child is sgc in a process of its own.
func (s *stage) child(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(self, append(args, "--state-dir="+s.state(), "--netns="+s.ns.Path())...)
	cmd.Env = append(os.Environ(), asSGC+"=1")
	cmd.Dir = s.dir
	return cmd
}

// nft runs a command of nft in the namespace, as somebody else would.
func (s *stage) nft(command string) string {
	s.t.Helper()
	var out, errout bytes.Buffer
	if code := s.shell("nft "+command, os.Environ(), nil, &out, &errout); code != 0 {
		s.t.Fatalf("nft %s: %s", command, errout.String())
	}
	return out.String()
}

// requireNft skips the test where the witness is missing.
func requireNft(t *testing.T) {
	t.Helper()
	labtest.Command(t, "nft")
}

// open returns the stage's kernel and its state directory.
func (s *stage) open() (*apply.Kernel, *apply.Dir) {
	s.t.Helper()
	k, err := apply.Open(s.ns.Path())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := k.Close(); err != nil {
			s.t.Error(err)
		}
	})
	key, err := namespaceKey(s.ns.Path())
	if err != nil {
		s.t.Fatal(err)
	}
	dir, err := apply.OpenDir(filepath.Join(s.state(), "netns", key))
	if err != nil {
		s.t.Fatal(err)
	}
	return k, dir
}

// begin does what an apply does up to its commit, and leaves it there.
func (s *stage) begin(k *apply.Kernel, dir *apply.Dir, path string) *plan {
	s.t.Helper()
	loaded := policies.Load(path, policies.Inputs{})
	if loaded.Policy == nil {
		s.t.Fatal(loaded.Diagnostics)
	}
	session := &session{Streams: Streams{Err: io.Discard}}
	v, err := session.look(context.Background(), k, dir)
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := newPlan(path, loaded.Policy, v)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := p.record()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := dir.WriteAhead(r); err != nil {
		s.t.Fatal(err)
	}
	return p
}
