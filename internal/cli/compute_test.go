package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slowPolicy takes longer to load than anybody waits.
const slowPolicy = `
locals {
  slow = [for a in range(1000) : length([for b in range(1000) : length([for c in range(1000) : "${a}${b}${c}"])])]
}
`

func TestInterruptEndsALoadAtOnce(t *testing.T) {
	s := newStage(t, true)
	s.write("slow.hcl", webPolicy+slowPolicy)
	for _, command := range [][]string{{"validate"}, {"compile"}, {"plan"}, {"apply", "--auto-approve"}} {
		r, took := interrupted(t, s.child(append(command, "slow.hcl")...), 300*time.Millisecond)
		s.mustFail(r, "interrupted; nothing was changed")
		// The machine may be slow, but not as slow as the policy.
		if took > 30*time.Second {
			t.Errorf("%s ended after %v", command[0], took)
		}
	}
	s.unchanged()
}

// interrupted runs a child and interrupts it, some time after it has begun to
// wait for that. It returns how long the child went on.
func interrupted(t *testing.T, cmd *exec.Cmd, after time.Duration) (result, time.Duration) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out, errout strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errout
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(cmd.Env, asSGC+"="+announced)
	if err := errors.Join(cmd.Start(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Error(err)
	}
	time.Sleep(after)
	start := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errout.String()}, time.Since(start)
}

func TestCompute(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	if got, err := compute(ctx, func() (int, error) { return 1, syscall.EAGAIN }); got != 1 || err != syscall.EAGAIN {
		t.Errorf("got %d, %v", got, err)
	}
	release := make(chan struct{})
	defer close(release)
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := compute(ctx, func() (int, error) { <-release; return 1, nil }); err != context.Canceled {
		t.Errorf("interrupted: %v", err)
	}
	if _, err := compute(ctx, func() (int, error) { t.Error("f was called"); return 1, nil }); err != context.Canceled {
		t.Errorf("interrupted before: %v", err)
	}
}

// faultyWriter stands for a mistake anywhere in a command.
type faultyWriter struct{}

func (faultyWriter) Write([]byte) (int, error) { panic("no such\nthing") }

func TestPanicIsReportedInOneLine(t *testing.T) {
	var errout strings.Builder
	code := Run(context.Background(), []string{"sgc", "version"}, Streams{In: strings.NewReader(""), Out: faultyWriter{}, Err: &errout})
	if code != 1 || strings.Count(errout.String(), "\n") != 1 || !strings.Contains(errout.String(), "compute_test.go:") ||
		!strings.Contains(errout.String(), "(no such thing); please report this") {
		t.Errorf("exit %d: %s", code, &errout)
	}
	// Beside the command it is the same.
	defer func() {
		if f, ok := recover().(*fault); !ok || !strings.HasPrefix(f.place, "cli/compute_test.go:") {
			t.Errorf("recovered %v", f)
		}
	}()
	_, _ = compute(context.Background(), func() (int, error) {
		none := []int{}
		return none[len(none)], nil
	})
}

// What was committed is committed, whether somebody can read of it or not.
func TestOutputIsLostAfterTheCommit(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("SKIP: %v", err)
	}
	defer full.Close()
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	web := filepath.Join(s.dir, "web.hcl")

	// The plan comes before the commit: nothing is changed without it.
	cmd := s.child("apply", "--auto-approve", web)
	cmd.Stdout = full
	s.mustFail(outcome(t, cmd), "write the output")
	s.unchanged()

	for _, tc := range []struct {
		args []string
		says string
	}{
		{[]string{"apply", "--auto-approve", "--json", web}, "The policy is in force, but the output could not be written: no space left on device"},
		{[]string{"destroy", "--auto-approve"}, "The table inet sgc is removed, but the output could not be written: no space left on device"},
	} {
		cmd := s.child(tc.args...)
		cmd.Stdout = full
		if r := outcome(t, cmd); r.code != 0 || !strings.Contains(r.err, tc.says) {
			t.Errorf("%s: exit %d, %s", tc.args[0], r.code, r.err)
		}
		if enforced := strings.Contains(s.mustRun("status").out, "Enforced since"); enforced != (tc.args[0] == "apply") {
			t.Errorf("after %s: enforced %v", tc.args[0], enforced)
		}
	}
}
