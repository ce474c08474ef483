package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// nobody is a user without any rights.
const nobody = 65534

// asNobody returns sgc as a process of a user without rights, in a directory
// that holds the example.
func asNobody(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	labtest.Require(t)
	if lab.InUserNamespace(os.Environ()) {
		t.Skip("SKIP: these tests have no privileges themselves, so there are none to drop")
	}
	dir := t.TempDir()
	// The directory above is the user's alone.
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "web"), os.DirFS(webExample)); err != nil {
		t.Fatal(err)
	}
	// The test's binary lies where only its owner can go, but this link leads
	// there.
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "sgc"
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), asSGC+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

func TestLabWithoutPrivileges(t *testing.T) {
	cmd := asNobody(t, "lab", "run", "web")
	var out, errout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errout
	start := time.Now()
	if err := cmd.Run(); err != nil || errout.Len() > 0 {
		t.Fatalf("%v: %s", err, errout.String())
	}
	t.Logf("%s", time.Since(start))
	want, err := runLab(t, context.Background(), labOptions{Path: webExample}, false)
	if err != nil {
		t.Fatal(err)
	}
	if want = strings.Replace(want, webExample, "web", 1); out.String() != want {
		t.Error(unified("with privileges", "without", want, out.String()))
	}

	// Mistakes are told once, and exit codes are those of the run inside.
	cmd = asNobody(t, "lab", "run", "web", "--var=office=[\"x\"]")
	errout.Reset()
	cmd.Stderr = &errout
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != exitError || strings.Count(errout.String(), "Error:") != 1 {
		t.Errorf("%v: %s", err, errout.String())
	}
}

// blocked starts sgc as a user without rights, and returns it once the process
// that it started in a user namespace waits for somebody to read its output.
func blocked(t *testing.T) (cmd *exec.Cmd, inside int, stderr *bytes.Buffer) {
	t.Helper()
	cmd = asNobody(t, "lab", "run", "--json", "web")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	fillPipe(t, w)
	stderr = new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = w, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a second process that writes", func() bool {
		inside = child(cmd.Process.Pid)
		return inside != 0 && writes(inside)
	})
	return cmd, inside, stderr
}

// fillPipe fills a pipe, so that the next writer waits.
func fillPipe(t *testing.T, w *os.File) {
	t.Helper()
	fd := int(w.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1 << 12, 1} {
		for {
			if _, err := unix.Write(fd, make([]byte, size)); errors.Is(err, unix.EAGAIN) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
}

// child returns the process that a process started, 0 for none.
func child(pid int) int {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0
	}
	for _, name := range lists {
		// A thread that has ended has no children.
		list, err := os.ReadFile(name)
		var found int
		if err != nil {
			continue
		}
		if _, err := fmt.Sscan(string(list), &found); err == nil {
			return found
		}
	}
	return 0
}

// writes reports whether a thread of the process waits in a pipe.
func writes(pid int) bool {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", pid))
	if err != nil {
		return false
	}
	for _, name := range lists {
		if where, err := os.ReadFile(name); err == nil && strings.Contains(string(where), "pipe_write") {
			return true
		}
	}
	return false
}

// gone reports whether a process has ended. Who inherited it may not have asked
// for its exit code yet.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH)
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	const within = 3 * time.Minute
	for deadline := time.Now().Add(within); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, within)
		}
	}
}

func TestLabLeavesNothingBehindWhenKilled(t *testing.T) {
	cmd, inside, _ := blocked(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended well")
	}
	eventually(t, "the second process ends", func() bool { return gone(inside) })
}

func TestLabEndsWithAnInterrupt(t *testing.T) {
	cmd, inside, stderr := blocked(t)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	// Wait's error is the exit code.
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitError || stderr.String() != "Error: interrupted; nothing was changed\n" {
		t.Errorf("exit %d: %q", code, stderr.String())
	}
	eventually(t, "the second process ends", func() bool { return gone(inside) })
}

// noNamespacesVariable makes TestLabWhereNobodyMayMakeNamespaces play the user
// who may not.
const noNamespacesVariable = "SGC_TEST_NO_NAMESPACES"

func TestLabWhereNobodyMayMakeNamespaces(t *testing.T) {
	if os.Getenv(noNamespacesVariable) == "" {
		labtest.Require(t)
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestLabWhereNobodyMayMakeNamespaces$", "-test.v")
		cmd.Env = append(os.Environ(), noNamespacesVariable+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	// In a user namespace of its own, whose limit binds those below it.
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // for good: the thread loses its rights
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&header, &new([2]unix.CapUserData)[0]); err != nil {
		t.Fatal(err)
	}
	run := func(path string, environ ...string) (int, string) {
		var errout bytes.Buffer
		code := Run(context.Background(), []string{"sgc", "lab", "run", path}, Streams{In: strings.NewReader(""), Out: io.Discard, Err: &errout, Environ: environ})
		return code, errout.String()
	}
	code, text := run(webExample)
	want := "Error: the lab needs network namespaces, which this system gives to nobody but root (user.max_user_namespaces=0). " +
		"Run the command as root: sudo sgc lab run. Or let users make them: sudo sysctl -w user.max_user_namespaces=10000\n"
	if code != exitError || text != want {
		t.Errorf("exit %d:\n%swant\n%s", code, text, want)
	}
	// It never runs itself again and again.
	if code, text := run(webExample, "SGC_LAB_USER_NAMESPACE=1"); code != exitError || text != want {
		t.Errorf("inside: exit %d:\n%s", code, text)
	}
	// A JUnit report of yesterday is not that of today.
	junit := filepath.Join(t.TempDir(), "junit.xml")
	if err := os.WriteFile(junit, []byte(green), 0o600); err != nil {
		t.Fatal(err)
	}
	path := writeScenario(t, "ping.lab.hcl", pingScenarioOf("refused"))
	if code, _, text := runScenarios(t, context.Background(), "lab", "run", "--junit", junit, path); code != exitError || text != want {
		t.Errorf("a scenario: exit %d:\n%s", code, text)
	}
	if all := readJUnit(t, junit); all.Errors != 1 || !strings.HasPrefix(all.Suites[0].Cases[0].Errors[0].Message, "the lab needs network namespaces") {
		t.Errorf("got %+v", all)
	}
	if code, text := run("/nowhere"); code != exitError || !strings.Contains(text, "No policy found") {
		t.Errorf("no policy: exit %d:\n%s", code, text)
	}
}

func TestLabSaysWhatToDoInAContainer(t *testing.T) {
	if setting, _ := lab.WhyNoNamespaces(); setting != "" {
		t.Skipf("SKIP: here it is %s", setting)
	}
	refused := &os.PathError{Op: "fork/exec", Path: "/proc/self/exe", Err: syscall.EPERM}
	err := noNamespaces(fmt.Errorf("%w: %w", lab.ErrNoUserNamespace, refused))
	for _, want := range []string{"(operation not permitted)", "sudo sgc lab run", "docker run --privileged"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
}
