// Package labtest gives tests the kernel: network namespaces that end with the
// test, as root or, without privileges, in a user namespace.
package labtest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"sgc/internal/lab"
)

// RequireVariable names the environment variable that, set to 1, makes a test
// fail that would otherwise be skipped for want of a kernel.
const RequireVariable = "SGC_REQUIRE_KERNEL"

// insideVariable marks the process that runs inside a user namespace.
const insideVariable = "SGC_LABTEST_USER_NAMESPACE"

// Main runs the tests of a package. A package whose tests need the kernel calls
// it:
//
//	func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }
//
// A process that may not make network namespaces runs the test binary again in
// new user, network and mount namespaces. Where the system allows none, the
// tests run all the same, and Require skips those that need the kernel.
func Main(m *testing.M) int {
	if os.Getenv(insideVariable) != "" || mayMakeNamespaces() {
		return m.Run()
	}
	code, err := runInUserNamespace()
	if err != nil {
		fmt.Fprintf(os.Stderr, "labtest: no user namespace: %v\n", err)
		return m.Run()
	}
	return code
}

// mayMakeNamespaces reports whether the process has the rights that the lab
// needs in its present user namespace.
func mayMakeNamespaces() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	const needed = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	return data[0].Effective&needed == needed
}

// runInUserNamespace runs this test binary with its arguments as root of a new
// user namespace. The error says that it could not be started.
func runInUserNamespace() (code int, err error) {
	// The death signal is sent when the starting thread ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	case err != nil:
		fmt.Fprintf(os.Stderr, "labtest: the tests in the user namespace: %v\n", err)
		return 1, nil
	}
	return 0, nil
}

// Require skips the test, or fails it if SGC_REQUIRE_KERNEL is 1, where the
// process can make no network namespace with nf_tables in it.
func Require(t testing.TB) {
	t.Helper()
	if err := kernel(); err != nil {
		if os.Getenv(RequireVariable) == "1" {
			t.Fatalf("%s=1, but there is no kernel to test with: %v", RequireVariable, err)
		}
		t.Skipf("SKIP: no kernel to test with: %v", err)
	}
}

// kernel tries once what all tests need.
var kernel = sync.OnceValue(func() error {
	ns, err := lab.NewNamespace("trial")
	if err != nil {
		return err
	}
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err == nil {
		_, err = conn.ListTables()
	}
	if err != nil {
		err = fmt.Errorf("nf_tables: %w", err)
	}
	return errors.Join(err, ns.Close())
})

// Namespace makes a network namespace that ends with the test.
func Namespace(t testing.TB, name string) *lab.Namespace {
	t.Helper()
	Require(t)
	ns, err := lab.NewNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, ns)
	return ns
}

// Stand makes a stand that ends with the test.
func Stand(t testing.TB, local []netip.Prefix, interfaces ...string) *lab.Stand {
	t.Helper()
	Require(t)
	s, err := lab.NewStand(local, interfaces...)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, s)
	return s
}

// Judge opens a judge that ends with the test.
func Judge(t testing.TB, s *lab.Stand) *lab.Judge {
	t.Helper()
	j, err := s.OpenJudge()
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, j)
	return j
}

// Witness opens the conntrack entries of a namespace until the test ends.
func Witness(t testing.TB, ns *lab.Namespace) *lab.Witness {
	t.Helper()
	w, err := ns.OpenWitness()
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, w)
	return w
}

func closeAfter(t testing.TB, c interface{ Close() error }) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Connect connects two namespaces, each with addresses of both families.
func Connect(t testing.TB, a, b lab.End) {
	t.Helper()
	if err := lab.Connect(a, b); err != nil {
		t.Fatal(err)
	}
}
