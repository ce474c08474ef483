package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"sgc/internal/netns"
)

// Kernel is the nf_tables of one network namespace. It may be used by several
// goroutines at once: every call has a socket of its own.
type Kernel struct {
	// netns is nil for the namespace of the process.
	netns *os.File
	name  string
	// watch is nil until somebody takes a snapshot.
	watch *watch
	mu    sync.Mutex
	// between, if not nil, is called before every transaction of a delta but
	// the first; tests put themselves there.
	between func(next part)
}

// Open opens the nf_tables of a network namespace: that of the process if the
// name is empty, one made by "ip netns add", or, if it is a path, the one that
// a file such as /proc/1/ns/net stands for. It fails if there is no such
// namespace, if the process may not change nf_tables (errors.Is of
// os.ErrPermission), or if the kernel has none.
func Open(name string) (*Kernel, error) {
	k := &Kernel{name: name}
	if name != "" {
		f, err := netns.Open(name)
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

// Close releases the namespace. Nobody may use the kernel any more.
func (k *Kernel) Close() error {
	var err error
	if k.watch != nil {
		err = k.watch.close()
	}
	if k.netns != nil {
		err = errors.Join(err, k.netns.Close())
	}
	return err
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

// fd is a descriptor of the namespace, 0 for that of the process.
func (k *Kernel) fd() int {
	if k.netns == nil {
		return 0
	}
	return int(k.netns.Fd())
}

func (k *Kernel) dial() (*conn, error) {
	c, err := dial(k.fd())
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
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("%w: this kernel has no netfilter netlink (CONFIG_NETFILTER_NETLINK, CONFIG_NF_TABLES)", err)
	}
	return netns.Explain(err)
}

// Inside calls f on a thread that is in the network namespace, for what else
// is to be read there. Sockets that f opens stay in the namespace; goroutines
// that it starts do not run there.
func (k *Kernel) Inside(f func() error) error { return k.inside(f) }

// inside calls f on a thread that is in the network namespace, for what the
// kernel only tells through /proc/thread-self.
func (k *Kernel) inside(f func() error) error { return netns.Do(k.fd(), k.name, f) }
