package labtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/lab"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// insideVariable is what the lab sets for a process that it started in a user
// namespace.
const insideVariable = "SGC_LAB_USER_NAMESPACE"

// helperVariable makes a test a process that another test watches.
const helperVariable = "SGC_LABTEST_HELPER"

// rerun runs one test of this binary in a process of its own, with the given
// credential, and returns what it printed.
func rerun(t *testing.T, test string, cred *syscall.Credential, env ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run", "^"+test+"$")
	// Only what was not decided for this process.
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, insideVariable+"=") && !strings.HasPrefix(e, RequireVariable+"=") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

func needRoot(t *testing.T) {
	t.Helper()
	if lab.InUserNamespace(os.Environ()) || os.Geteuid() != 0 {
		t.Skip("SKIP: only root can become somebody else")
	}
}

// TestHelper is what the other tests run elsewhere.
func TestHelper(t *testing.T) {
	switch os.Getenv(helperVariable) {
	case "namespace":
		ns := Namespace(t, "helper")
		if err := ns.Do(func() error { fmt.Printf("uid %d has a namespace\n", os.Geteuid()); return nil }); err != nil {
			t.Fatal(err)
		}
	case "wait":
		ns := Namespace(t, "helper")
		inode, err := os.Stat(ns.Path())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("namespace %d\n", inode.Sys().(*syscall.Stat_t).Ino)
		time.Sleep(time.Minute)
	default:
		t.Skip("SKIP: a helper of other tests")
	}
}

func TestWithoutPrivilegesTheTestsRunInAUserNamespace(t *testing.T) {
	Require(t)
	needRoot(t)
	out, err := rerun(t, "TestHelper", nobody, helperVariable+"=namespace", RequireVariable+"=1")
	if err != nil || !strings.Contains(out, "uid 0 has a namespace") {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

func TestWithoutAnyNamespaceTestsAreSkippedOrFail(t *testing.T) {
	needRoot(t)
	// A process that is told that it is inside does not try to get there.
	out, err := rerun(t, "TestHelper", nobody, helperVariable+"=namespace", insideVariable+"=1")
	if err != nil || !strings.Contains(out, "SKIP: no kernel to test with") {
		t.Errorf("without namespaces: %v, want a skip\n%s", err, out)
	}
	out, err = rerun(t, "TestHelper", nobody, helperVariable+"=namespace", insideVariable+"=1", RequireVariable+"=1")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(out, RequireVariable+"=1, but there is no kernel") {
		t.Errorf("without namespaces, but required: %v, want a failure\n%s", err, out)
	}
}

func TestNothingIsLeftBehindByAKilledProcess(t *testing.T) {
	Require(t)
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run", "^TestHelper$")
	cmd.Env = append(os.Environ(), helperVariable+"=wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var inode uint64
	text := make([]byte, 0, 1024)
	for buf := make([]byte, 256); inode == 0; {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("the helper ended: %v\n%s", err, text)
		}
		text = append(text, buf[:n]...)
		if i := strings.Index(string(text), "namespace "); i >= 0 {
			fmt.Sscanf(string(text[i:]), "namespace %d\n", &inode)
		}
	}
	before := holders(t, inode)
	if !before[fmt.Sprint(cmd.Process.Pid)] {
		t.Errorf("the helper does not hold its namespace while it lives, but %v", before)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	// The kernel gives the number to the next namespace that anybody makes: what
	// counts is whoever held this one.
	held := func() bool {
		for pid := range holders(t, inode) {
			if before[pid] {
				return true
			}
		}
		return false
	}
	for end := time.Now().Add(30 * time.Second); held(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the namespace of a killed process is still there")
		}
	}
}

// holders are the numbers of the processes that have the namespace open or are
// in it.
func holders(t *testing.T, inode uint64) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	want := fmt.Sprintf("net:[%d]", inode)
	for _, pattern := range []string{"/proc/[0-9]*/ns/net", "/proc/[0-9]*/fd/*"} {
		links, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			// Processes and descriptors come and go.
			if got, err := os.Readlink(l); err == nil && got == want {
				found[strings.Split(l, "/")[2]] = true
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.ESRCH) {
				t.Fatal(err)
			}
		}
	}
	return found
}
