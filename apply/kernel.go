package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Kernel is the nf_tables of one network namespace. It may be used by several
// goroutines at once: every call has a socket of its own.
type Kernel struct {
	// netns is nil for the namespace of the process.
	netns *os.File
	name  string
	// between, if not nil, is called before every transaction of a delta but
	// the first; tests put themselves there.
	between func(next part)
}

// netnsDirs is where "ip netns" keeps the namespaces that have a name.
var netnsDirs = []string{"/run/netns", "/var/run/netns"}

// Open opens the nf_tables of a network namespace: that of the process if
// netns is empty, one made by "ip netns add" if it is a name, or the one that
// a file such as /proc/1/ns/net stands for. It fails if there is no such
// namespace, if the process may not change nf_tables (errors.Is of
// os.ErrPermission), or if the kernel has none.
func Open(netns string) (*Kernel, error) {
	k := &Kernel{name: netns}
	if netns != "" {
		f, err := openNamespace(netns)
		if err != nil {
			return nil, err
		}
		k.netns = f
	}
	if err := k.probe(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// Close releases the namespace.
func (k *Kernel) Close() error {
	if k.netns == nil {
		return nil
	}
	return k.netns.Close()
}

// Generation returns the number of the last transaction that changed nf_tables
// in the namespace, whoever sent it. Numbers wrap, and start anew at a boot.
func (k *Kernel) Generation(ctx context.Context) (uint32, error) {
	c, err := k.dial()
	if err != nil {
		return 0, err
	}
	id, err := c.generation(ctx)
	if err != nil {
		err = fmt.Errorf("read the generation of nf_tables: %w", explain(err))
	}
	return id, errors.Join(err, c.close())
}

func (k *Kernel) dial() (*conn, error) {
	fd := 0
	if k.netns != nil {
		fd = int(k.netns.Fd())
	}
	c, err := dial(fd)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket%s: %w", k.where(), explain(err))
	}
	return c, nil
}

func (k *Kernel) probe() error {
	c, err := k.dial()
	if err != nil {
		return err
	}
	defer c.close() // nothing was written: there is nothing to lose
	if _, err := c.generation(context.Background()); err != nil {
		// An unknown subsystem is an invalid message type.
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("this kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET; module nf_tables): %w", err)
		}
		return fmt.Errorf("open nf_tables%s: %w", k.where(), explain(err))
	}
	return nil
}

// where names the namespace in error messages.
func (k *Kernel) where() string {
	if k.name == "" {
		return ""
	}
	return fmt.Sprintf(" in network namespace %s", k.name)
}

// explain adds to an error what a person can do about it.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: run as root, or with CAP_NET_ADMIN in the network namespace (and CAP_SYS_ADMIN to enter another one)", err)
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%w: this kernel has no netfilter netlink (CONFIG_NETFILTER_NETLINK, CONFIG_NF_TABLES)", err)
	}
	return err
}

// openNamespace opens a namespace by name or by path.
func openNamespace(netns string) (*os.File, error) {
	var f *os.File
	var err error
	if strings.ContainsRune(netns, '/') {
		if f, err = os.Open(netns); err != nil {
			return nil, fmt.Errorf("open network namespace: %w", err)
		}
	} else {
		for _, dir := range netnsDirs {
			if f, err = os.Open(filepath.Join(dir, netns)); err == nil {
				break
			}
		}
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil, fmt.Errorf(`no network namespace is called %q (see "ip netns list"; a path must contain a slash): %w`, netns, err)
		case err != nil:
			return nil, fmt.Errorf("open network namespace %q: %w", netns, explain(err))
		}
	}
	if err := checkNamespace(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is no network namespace: %w", f.Name(), err), f.Close())
	}
	return f, nil
}

// checkNamespace fails if f is not the file of a network namespace.
func checkNamespace(f *os.File) error {
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

// Inside calls f on a thread that is in the network namespace, for what else
// is to be read there. Sockets that f opens stay in the namespace; goroutines
// that it starts do not run there.
func (k *Kernel) Inside(f func() error) error { return k.inside(f) }

// inside calls f on a thread that is in the network namespace, for what the
// kernel only tells through /proc/thread-self.
func (k *Kernel) inside(f func() error) error {
	if k.netns == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, and nobody
		// else gets to run in the wrong namespace.
		runtime.LockOSThread()
		if err := unix.Setns(int(k.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace %s: %w", k.name, explain(err))
			return
		}
		done <- f()
	}()
	return <-done
}
