package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/lab/labtest"
)

// pingScenarioOf is pingScenario that expects the traffic.
func pingScenarioOf(traffic string) string {
	return strings.Replace(pingScenario, "EXPECTED", traffic, 1)
}

// quickAndLong returns two scenarios: one that ends by itself, and one that does
// not for an hour.
func quickAndLong(t *testing.T) (quick, long string) {
	t.Helper()
	text := pingScenarioOf("refused")
	return writeScenario(t, "quick.lab.hcl", text), writeScenario(t, "long.lab.hcl", strings.Replace(text, `wait "200ms"`, `wait "1h"`, 1))
}

// applied reports whether the scenario of that number has applied its policy, in
// a run whose temporary files lie in dir.
func applied(t *testing.T, dir, number string) func() bool {
	return func() bool {
		found, err := filepath.Glob(filepath.Join(dir, "sgc-lab-*", number, "state", "netns", "*", "applied.json"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found) > 0
	}
}

// labProcess is a run of the lab in a process of its own, whose temporary files
// lie in dir.
func labProcess(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{"lab", "run"}, args...)...)
	cmd.Args[0] = "sgc"
	cmd.Env = append(os.Environ(), asSGC+"=1", "TMPDIR="+dir)
	return cmd
}

func startProcess(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may have ended
}

// leftIn returns what is in a directory.
func leftIn(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// A run clears up when its terminal goes, as it does after an interrupt; and of
// two that come together, as from timeout(1), the second does not keep it from
// that.
func TestScenariosClearUpAfterSignals(t *testing.T) {
	labtest.Require(t)
	_, long := quickAndLong(t)
	for _, signal := range []os.Signal{syscall.SIGHUP, os.Interrupt} {
		t.Run(signal.String(), func(t *testing.T) {
			eventually(t, "two signals that come together", func() bool {
				dir := t.TempDir()
				var out, errout bytes.Buffer
				cmd := labProcess(t, dir, long)
				cmd.Stdout, cmd.Stderr = &out, &errout
				startProcess(t, cmd)
				eventually(t, "an apply", applied(t, dir, "0"))
				together := signalTwice(cmd.Process, signal)
				_ = cmd.Wait() // the error is the exit code
				if !together {
					return false
				}
				if cmd.ProcessState.ExitCode() != exitError || errout.String() != "Error: interrupted; nothing was changed\n" {
					t.Errorf("%s\n%s%s", cmd.ProcessState, out.String(), errout.String())
				}
				if left := leftIn(t, dir); len(left) > 0 {
					t.Errorf("%v is left", left)
				}
				return true
			})
		})
	}
}

// signalTwice sends a process a signal, and again when it has got that. It reports
// whether the machine did not stand still in between, where the process went on
// and may have ended.
func signalTwice(p *os.Process, signal os.Signal) (together bool) {
	const moment, soon = 2 * time.Millisecond, 10 * time.Millisecond
	begun := time.Now()
	first := p.Signal(signal)
	time.Sleep(moment)
	second := p.Signal(signal)
	return first == nil && second == nil && time.Since(begun) < soon
}

// The same holds without privileges, where the run is a second process. That is
// killed if it takes much longer than a run ever does.
func TestScenariosWithoutPrivilegesClearUpAfterAHangup(t *testing.T) {
	eventually(t, "a run that clears up before it is killed", func() bool { return clearsUpWithoutPrivileges(t) })
}

func clearsUpWithoutPrivileges(t *testing.T) (inTime bool) {
	t.Helper()
	cmd := asNobody(t, "lab", "run", "web/long.lab.hcl")
	_, long := quickAndLong(t)
	text, err := os.ReadFile(long)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cmd.Dir, "web", "long.lab.hcl"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cmd.Dir, "tmp")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	var errout bytes.Buffer
	cmd.Stderr = &errout
	startProcess(t, cmd)
	eventually(t, "an apply", applied(t, dir, "0"))
	begun := time.Now()
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the error is the exit code
	if took := time.Since(begun); took > 4*time.Second {
		t.Logf("it ended after %s", took)
		return false
	}
	if cmd.ProcessState.ExitCode() != exitError || errout.String() != "Error: interrupted; nothing was changed\n" {
		t.Errorf("%s\n%s", cmd.ProcessState, errout.String())
	}
	if left := leftIn(t, dir); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	return true
}

// A run whose output nobody reads any more ends, without a word, and clears up.
func TestScenariosEndWithTheirReader(t *testing.T) {
	labtest.Require(t)
	quick, long := quickAndLong(t)
	dir := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var errout bytes.Buffer
	cmd := labProcess(t, dir, "--parallel=2", quick, long)
	cmd.Stdout, cmd.Stderr = w, &errout
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	startProcess(t, cmd)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the error is the exit code
	if cmd.ProcessState.ExitCode() != exitError || errout.Len() > 0 {
		t.Errorf("%s\n%s", cmd.ProcessState, errout.String())
	}
	if left := leftIn(t, dir); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// An interrupted run tells programs what had ended until then, and leaves no
// report that says more.
func TestInterruptedScenariosAsJSON(t *testing.T) {
	labtest.Require(t)
	quick, long := quickAndLong(t)
	dir, files := t.TempDir(), t.TempDir()
	made, kept := filepath.Join(files, "made.xml"), filepath.Join(files, "kept.xml")
	if err := os.WriteFile(kept, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, junit := range []string{made, kept} {
		var out, errout bytes.Buffer
		// One after the other: the second begins when the first has ended.
		cmd := labProcess(t, dir, "--json", "--parallel=1", "--junit", junit, quick, long, writeScenario(t, "never.lab.hcl", pingScenarioOf("refused")))
		cmd.Stdout, cmd.Stderr = &out, &errout
		startProcess(t, cmd)
		eventually(t, "the second scenario's apply", applied(t, dir, "1"))
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the error is the exit code
		if cmd.ProcessState.ExitCode() != exitError || errout.String() != "Error: interrupted; nothing was changed\n" {
			t.Errorf("%s\n%s", cmd.ProcessState, errout.String())
		}
		var v labScenariosView
		if err := json.Unmarshal(bytes.ReplaceAll(out.Bytes(), []byte(`"timeline":`), []byte(`"ignored":`)), &v); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		if !v.Interrupted || len(v.Scenarios) != 3 {
			t.Fatalf("got %+v", v)
		}
		first, second, third := v.Scenarios[0], v.Scenarios[1], v.Scenarios[2]
		if !first.Passed || first.Interrupted || len(first.Steps) != 2 {
			t.Errorf("the one that ended: %+v", first)
		}
		if second.Passed || !second.Interrupted || second.Error != "" || len(second.Steps) != 0 {
			t.Errorf("the one that was played: %+v", second)
		}
		if third.Passed || !third.Interrupted || third.Error != "" || len(third.Steps) != 0 {
			t.Errorf("the one that was not played: %+v", third)
		}
		if strings.Contains(out.String(), "null") {
			t.Errorf("a list is null:\n%s", out.String())
		}
	}
	if _, err := os.Lstat(made); err == nil {
		t.Error("there is a report")
	}
	if text, err := os.ReadFile(kept); err != nil || string(text) != "before" {
		t.Errorf("the old report is %q, %v", text, err)
	}
}

// Root of a user namespace that has no network of its own plays as anybody else
// does.
func TestLabAsRootOfAUserNamespaceAlone(t *testing.T) {
	cmd := asNobody(t, "lab", "run", "web/ping.lab.hcl")
	if err := os.WriteFile(filepath.Join(cmd.Dir, "web", "ping.lab.hcl"), []byte(pingScenarioOf("refused")), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"lab", "run", "web/ping.lab.hcl"}, {"lab", "run", "--table", "web"}} {
		cmd.Args = append([]string{"sgc"}, args...)
		again := exec.Command(cmd.Path)
		again.Args, again.Env, again.Dir = cmd.Args, cmd.Env, cmd.Dir
		again.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
