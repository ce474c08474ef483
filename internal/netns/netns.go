// Package netns finds network namespaces and runs functions inside them.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Own is the network namespace of the thread that looks at it. /proc/self would
// be that of the process's first thread, which a function given to Do may have
// left in another namespace.
const Own = "/proc/thread-self/ns/net"

// Dirs returns where "ip netns" keeps the namespaces that have a name. The
// second is most often the first under its old name.
func Dirs() []string { return []string{"/run/netns", "/var/run/netns"} }

// Paths returns where a namespace is to be looked for, the best place first.
// The name is one that "ip netns add" gave, a path, which has a slash, or "" for
// that of the thread.
func Paths(name string) []string {
	switch {
	case name == "":
		return []string{Own}
	case strings.Contains(name, "/"):
		return []string{name}
	}
	var paths []string
	for _, dir := range Dirs() {
		paths = append(paths, filepath.Join(dir, name))
	}
	return paths
}

// Open opens a namespace by a name as Paths takes it. It fails if there is none
// (errors.Is of os.ErrNotExist), and if what is there is no network namespace.
func Open(name string) (*os.File, error) {
	var f *os.File
	var err error
	for _, path := range Paths(name) {
		if f, err = os.Open(path); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	switch {
	case errors.Is(err, os.ErrNotExist) && !strings.Contains(name, "/"):
		return nil, fmt.Errorf(`no network namespace is called %q (see "ip netns list"; a path must contain a slash): %w`, name, err)
	case err != nil:
		return nil, fmt.Errorf("open network namespace: %w", Explain(err))
	}
	if err := check(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is no network namespace: %w", f.Name(), err), f.Close())
	}
	return f, nil
}

// check fails if f is not the file of a network namespace.
func check(f *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return errors.New("it is an ordinary file")
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return err
	}
	if kind != unix.CLONE_NEWNET {
		return errors.New("it is a namespace of another kind")
	}
	return nil
}

// ErrGoexit says that the function given to Do ended its goroutine, as
// testing.T.FailNow does, instead of returning.
var ErrGoexit = errors.New("the function ended its goroutine instead of returning")

// Do calls f on a thread of its own inside the network namespace that a
// descriptor stands for, and returns its error, or ErrGoexit. The name serves
// messages alone and may be empty. Sockets that f opens stay in the namespace,
// and /proc/thread-self/net and /proc/sys/net are those of the namespace;
// goroutines that f starts do not run there.
//
// Descriptor 0 is the namespace of the process, for which f is called as it is.
//
// The thread never comes back, so that no way back can fail: the runtime ends
// it with its goroutine, and nobody else gets to run in the wrong namespace.
// (The first thread of a process cannot be ended; the runtime lets it sleep.)
//
// Source: Go runtime/proc.go, mexit.
func Do(fd int, name string, f func() error) error {
	if fd == 0 {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			which := "the network namespace"
			if name != "" {
				which = "network namespace " + name
			}
			done <- fmt.Errorf("enter %s: %w", which, Explain(err))
			return
		}
		err := ErrGoexit
		defer func() { done <- err }()
		err = f()
	}()
	return <-done
}

// Explain adds to an error of the kernel which rights in a namespace it is
// about, if it is about rights.
func Explain(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: run as root, or with CAP_NET_ADMIN in the network namespace (and CAP_SYS_ADMIN to enter another one)", err)
	}
	return err
}
