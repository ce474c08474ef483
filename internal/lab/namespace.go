package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sgc/internal/netns"
)

// Namespace is an anonymous network namespace. It ends with Close, or with the
// process, whatever ends that. Its methods may be called from several
// goroutines.
type Namespace struct {
	name string
	fd   int
	// links is the rtnetlink connection inside the namespace.
	links *netlink.Handle
}

// ErrGoexit says that the function given to Do ended its goroutine, as
// testing.T.FailNow does, instead of returning.
var ErrGoexit = netns.ErrGoexit

// quietSettings make a fresh namespace predictable: addresses are usable at
// once, every source address is taken, and no error message is held back by a
// rate limit.
var quietSettings = [][2]string{
	{"net/ipv4/conf/all/rp_filter", "0"},
	{"net/ipv4/conf/default/rp_filter", "0"},
	{"net/ipv4/icmp_ratelimit", "0"},
	{"net/ipv6/icmp/ratelimit", "0"},
	{"net/ipv6/conf/default/accept_dad", "0"},
	{"net/ipv6/conf/default/accept_ra", "0"},
	{"net/ipv6/conf/default/router_solicitations", "0"},
}

// NewNamespace makes a network namespace with its loopback interface up. The
// name serves messages alone. It fails with EPERM, wrapped, where the process
// may not make namespaces.
func NewNamespace(name string) (*Namespace, error) {
	fd, err := unshareNetwork()
	if err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	ns := &Namespace{name: name, fd: fd}
	if err := ns.setUp(); err != nil {
		return nil, errors.Join(fmt.Errorf("set up network namespace %s: %w", name, err), ns.Close())
	}
	return ns, nil
}

// unshareNetwork returns a descriptor of a new network namespace. The thread
// that made it is never unlocked, so the runtime ends it with its goroutine and
// no other goroutine can come to run there.
func unshareNetwork() (int, error) {
	type result struct {
		fd  int
		err error
	}
	made := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{-1, err}
			return
		}
		fd, err := unix.Open(netns.Own, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		made <- result{fd, err}
	}()
	r := <-made
	return r.fd, r.err
}

func (n *Namespace) setUp() error {
	err := n.Do(func() (err error) {
		n.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	for _, s := range quietSettings {
		if err := n.SetSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	lo, err := n.links.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := n.links.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// Close lets go of the namespace. The kernel removes it, with its links, once
// no socket and no other process holds it.
func (n *Namespace) Close() error {
	if n.links != nil {
		n.links.Close()
	}
	if err := unix.Close(n.fd); err != nil {
		return fmt.Errorf("close network namespace %s: %w", n.name, err)
	}
	return nil
}

// Name returns the name that the namespace was made with.
func (n *Namespace) Name() string { return n.name }

// Path returns a path of the namespace that this process and its children may
// open while the namespace is not closed.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.fd) }

// FD returns the namespace's descriptor, which stays the namespace's own.
func (n *Namespace) FD() int { return n.fd }

// Do runs f on a thread of its own inside the namespace and returns its error,
// or ErrGoexit. Sockets that f opens stay in the namespace; goroutines that f
// starts do not run there.
func (n *Namespace) Do(f func() error) error { return netns.Do(n.fd, n.name, f) }

// SetSysctl writes a setting of the namespace. The name is a path below
// /proc/sys, such as net/ipv4/ip_forward.
func (n *Namespace) SetSysctl(name, value string) error {
	return n.Do(func() error {
		// The kernel looks the file up in the namespace of the opening thread.
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s to %s in %s: %w", name, value, n.name, err)
		}
		return nil
	})
}

// Sysctl reads a setting of the namespace, without the newline at its end.
func (n *Namespace) Sysctl(name string) (string, error) {
	var value string
	err := n.Do(func() error {
		b, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			return fmt.Errorf("read %s in %s: %w", name, n.name, err)
		}
		value = strings.TrimSuffix(string(b), "\n")
		return nil
	})
	return value, err
}

// Forward makes the namespace a router of both families.
func (n *Namespace) Forward() error {
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := n.SetSysctl(name, "1"); err != nil {
			return err
		}
	}
	return nil
}
