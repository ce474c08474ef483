// Package labtest gives tests the kernel: network namespaces that end with the
// test, as root or, without privileges, in a user namespace.
package labtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/google/nftables"

	"sgc/internal/lab"
)

// RequireVariable names the environment variable that, set to 1, makes a test
// fail that would otherwise be skipped for want of a kernel.
const RequireVariable = "SGC_REQUIRE_KERNEL"

// Main runs the tests of a package. A package whose tests need the kernel calls
// it:
//
//	func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }
//
// A process that may not make network namespaces runs the test binary again in
// new user, network and mount namespaces. Where the system allows none, the
// tests run all the same, and Require skips those that need the kernel.
func Main(m *testing.M) int {
	environ := os.Environ()
	if lab.InUserNamespace(environ) || lab.MayMakeNamespaces() {
		return m.Run()
	}
	code, err := lab.RunInUserNamespace(context.Background(), lab.Rerun{
		Args: os.Args[1:], Env: environ, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	switch {
	case errors.Is(err, lab.ErrNoUserNamespace):
		fmt.Fprintf(os.Stderr, "labtest: %v\n", err)
		return m.Run()
	case err != nil:
		fmt.Fprintf(os.Stderr, "labtest: %v\n", err)
		return 1
	}
	return code
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

// Command returns the path of a program that a test needs as a witness. Where there
// is none, it skips the test, or fails it if SGC_REQUIRE_KERNEL is 1.
func Command(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv(RequireVariable) == "1" {
			t.Fatalf("%s=1, but a program is missing: %v", RequireVariable, err)
		}
		t.Skipf("SKIP: a program is missing: %v", err)
	}
	return path
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

// Eager makes TCP of the namespace try again at least every second when it hears
// nothing, and not give up for a minute and more, so that it goes on soon after a
// while in which it was refused. Older kernels have no setting for the former, and
// try less often.
func Eager(t testing.TB, ns *lab.Namespace) {
	t.Helper()
	for _, s := range [][2]string{
		{"tcp_rto_max_ms", "1000"}, {"tcp_retries2", "120"}, {"tcp_syn_retries", "120"}, {"tcp_synack_retries", "120"},
	} {
		if err := ns.SetSysctl("net/ipv4/"+s[0], s[1]); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// Settle waits until no packet is in the midst of rules that were replaced.
func Settle(t testing.TB) {
	t.Helper()
	if err := lab.Settle(); err != nil {
		t.Fatal(err)
	}
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
