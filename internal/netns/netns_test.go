package netns_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/lab/labtest"
	"sgc/internal/netns"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// here is the namespace of the calling thread.
func here(t *testing.T) string {
	t.Helper()
	s, err := os.Readlink(netns.Own)
	if err != nil {
		t.Error(err)
	}
	return s
}

func TestPaths(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"":               {"/proc/thread-self/ns/net"},
		"web":            {"/run/netns/web", "/var/run/netns/web"},
		"/proc/1/ns/net": {"/proc/1/ns/net"},
		"./web":          {"./web"},
	} {
		if got := netns.Paths(name); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, want string
		is         error
	}{
		{"no-such-namespace", `no network namespace is called "no-such-namespace" (see "ip netns list"; a path must contain a slash)`, os.ErrNotExist},
		{"/no/such/namespace", "open network namespace: ", os.ErrNotExist},
		{file, file + " is no network namespace: it is an ordinary file", nil},
		{"/proc/self/ns/mnt", "/proc/self/ns/mnt is no network namespace: it is a namespace of another kind", nil},
	} {
		_, err := netns.Open(tt.name)
		if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	for _, name := range []string{"", "/proc/self/ns/net"} {
		f, err := netns.Open(name)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAFunctionRunsInsideAndNobodyElseDoes(t *testing.T) {
	t.Parallel()
	ns := labtest.Namespace(t, "ns")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	outside := here(t)
	var inside sync.Map
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 5 {
				if err := netns.Do(ns.FD(), "ns", func() error { inside.Store(here(t), true); return nil }); err != nil {
					t.Error(err)
				}
				if got := here(t); got != outside {
					t.Errorf("a goroutine outside runs in %s, want %s", got, outside)
				}
			}
		})
	}
	all.Wait()
	if got := here(t); got != outside {
		t.Errorf("the caller runs in %s, want %s", got, outside)
	}
	n := 0
	inside.Range(func(where, _ any) bool {
		if n++; where == outside {
			t.Errorf("inside is outside: %s", where)
		}
		return true
	})
	if n != 1 {
		t.Errorf("the functions ran in %d namespaces", n)
	}
}

func TestSocketsStayInTheNamespace(t *testing.T) {
	t.Parallel()
	ns := labtest.Namespace(t, "ns")
	var l net.Listener
	listen := func() (err error) { l, err = net.Listen("tcp4", "127.0.0.1:7"); return err }
	if err := netns.Do(ns.FD(), "ns", listen); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() error {
		c, err := net.Dial("tcp4", "127.0.0.1:7")
		if err != nil {
			return err
		}
		return c.Close()
	}
	if err := netns.Do(ns.FD(), "ns", dial); err != nil {
		t.Errorf("inside: %v", err)
	}
	other := labtest.Namespace(t, "other")
	if err := netns.Do(other.FD(), "other", dial); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("in another namespace: %v, want a refusal", err)
	}
}

func TestTheOwnNamespaceIsNotEntered(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := unix.Gettid()
	if err := netns.Do(0, "", func() error {
		if got := unix.Gettid(); got != thread {
			return fmt.Errorf("the function runs on thread %d, want the caller's, %d", got, thread)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestErrorsComeBack(t *testing.T) {
	t.Parallel()
	ns := labtest.Namespace(t, "ns")
	mine := errors.New("mine")
	if err := netns.Do(ns.FD(), "ns", func() error { return mine }); !errors.Is(err, mine) || err.Error() != "mine" {
		t.Errorf("the function's own: %v", err)
	}
	if err := netns.Do(ns.FD(), "ns", func() error { runtime.Goexit(); return nil }); !errors.Is(err, netns.ErrGoexit) {
		t.Errorf("a function that ends its goroutine: %v", err)
	}

	// What is no network namespace cannot be entered, and the function is not
	// called somewhere else instead.
	f, err := os.Open("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, want := range map[string]string{"": "enter the network namespace: ", "web": "enter network namespace web: "} {
		err := netns.Do(int(f.Fd()), name, func() error { t.Error("the function was called"); return nil })
		if !errors.Is(err, unix.EINVAL) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestMissingRightsAreExplained(t *testing.T) {
	t.Parallel()
	for _, err := range []error{unix.EPERM, unix.EACCES, fmt.Errorf("open it: %w", unix.EPERM)} {
		if got := netns.Explain(err); !errors.Is(got, err) || !strings.Contains(got.Error(), "run as root") {
			t.Errorf("%v becomes %v", err, got)
		}
	}
	for _, err := range []error{nil, unix.ENOENT} {
		if got := netns.Explain(err); got != err {
			t.Errorf("%v becomes %v", err, got)
		}
	}
}
