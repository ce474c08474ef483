package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, prefix(s))
	}
	return out
}

// within returns a context that ends with the test, or after d.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestSettingsAreTheNamespacesOwn(t *testing.T) {
	t.Parallel()
	a, b := labtest.Namespace(t, "a"), labtest.Namespace(t, "b")
	if err := a.Forward(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		ns   *lab.Namespace
		want string
	}{{a, "1"}, {b, "0"}} {
		got, err := tt.ns.Sysctl("net/ipv4/ip_forward")
		if err != nil || got != tt.want {
			t.Errorf("ip_forward in %s: got %q, %v, want %q", tt.ns.Name(), got, err, tt.want)
		}
	}
	if err := a.SetSysctl("net/ipv4/no_such_setting", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unknown setting: got %v, want ErrNotExist", err)
	}
}

func TestDoDoesNotLeaveItsThreadBehind(t *testing.T) {
	t.Parallel()
	ns := labtest.Namespace(t, "ns")
	inode := func() string {
		s, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
		}
		return s
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	outside := inode()
	for range 50 {
		if err := ns.Do(func() error {
			if got := inode(); got == outside {
				return fmt.Errorf("inside is outside: %s", got)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		done := make(chan string)
		go func() { done <- inode() }()
		if got := <-done; got != outside {
			t.Fatalf("a goroutine outside runs in %s, want %s", got, outside)
		}
	}
	if err := ns.Do(func() error { runtime.Goexit(); return nil }); !errors.Is(err, lab.ErrGoexit) {
		t.Errorf("a function that ends its goroutine: got %v, want ErrGoexit", err)
	}
}

func TestPathServesChildren(t *testing.T) {
	t.Parallel()
	ns := labtest.Namespace(t, "ns")
	out, err := exec.Command("readlink", ns.Path()).Output()
	if err != nil {
		t.Skipf("SKIP: no readlink: %v", err)
	}
	var want string
	if err := ns.Do(func() (err error) { want, err = os.Readlink("/proc/thread-self/ns/net"); return err }); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("a child reads %s from the path, want %s", got, want)
	}
}

// line is left — host — right, with addresses and routes of both families.
type line struct {
	left, host, right *lab.Namespace
}

func newLine(t testing.TB) line {
	t.Helper()
	l := line{labtest.Namespace(t, "left"), labtest.Namespace(t, "host"), labtest.Namespace(t, "right")}
	labtest.Connect(t,
		lab.End{Namespace: l.host, Interface: "eth0", Addresses: prefixes("192.0.2.10/24", "2001:db8:2::10/64")},
		lab.End{Namespace: l.left, Interface: "wire", Addresses: prefixes("192.0.2.20/24", "2001:db8:2::20/64")})
	labtest.Connect(t,
		lab.End{Namespace: l.host, Interface: "eth1", Addresses: prefixes("10.9.0.1/24", "2001:db8:9::1/64")},
		lab.End{Namespace: l.right, Interface: "wire", Addresses: prefixes("10.9.0.2/24", "2001:db8:9::2/64")})
	if err := l.host.Forward(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		ns  *lab.Namespace
		via string
		to  string
	}{
		{l.left, "192.0.2.10", "0.0.0.0/0"}, {l.left, "2001:db8:2::10", "::/0"},
		{l.right, "10.9.0.1", "0.0.0.0/0"}, {l.right, "2001:db8:9::1", "::/0"},
	} {
		if err := r.ns.AddRoute(lab.Route{Dest: prefix(r.to), Via: addr(r.via), Interface: "wire"}); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// pingUntilAnswered sends requests until one is answered or the context ends: the
// kernel drops what comes while it is busy with packets of others.
func pingUntilAnswered(t *testing.T, ctx context.Context, from *lab.Namespace, to netip.Addr) {
	t.Helper()
	for seq := uint16(1); ; seq++ {
		once, cancel := context.WithTimeout(ctx, time.Second)
		err := from.Ping(once, lab.Ping{Dest: to, ID: 77, Seq: seq})
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, lab.ErrNoReply) || ctx.Err() != nil {
			t.Error(err)
			return
		}
	}
}

func TestTrafficCrossesARouterInBothFamilies(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	for _, server := range []string{"10.9.0.2", "2001:db8:9::2"} {
		listener, err := l.right.ListenTCP(netip.AddrPortFrom(addr(server), 80))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		go lab.Echo(listener)
		ctx := within(t, 30*time.Second)
		pingUntilAnswered(t, ctx, l.left, addr(server))
		c, err := l.left.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(addr(server), 80))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := lab.RoundTrip(c, make([]byte, 1<<20), 30*time.Second); err != nil {
			t.Error(err)
		}
	}
	err := l.left.Ping(within(t, 50*time.Millisecond), lab.Ping{Dest: addr("192.0.2.99"), ID: 1, Seq: 1})
	if !errors.Is(err, lab.ErrNoReply) {
		t.Errorf("ping of nobody: got %v, want ErrNoReply", err)
	}
}
