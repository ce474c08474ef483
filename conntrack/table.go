package conntrack

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sgc/internal/netns"
)

// Table is the connection tracking of one network namespace. It may be used by
// several goroutines at once: every call has a socket of its own.
type Table struct {
	// netns is nil for the namespace of the process.
	netns *os.File
	// sysctl is the directory of the settings, /proc/sys; tests have others.
	sysctl string
	// noTimeouts makes the kernel look like one without the cttimeout
	// interface, noFilters like one that leaves nothing out of a dump.
	noTimeouts, noFilters bool
}

// ErrUnsupported says that the kernel has no ctnetlink.
var ErrUnsupported = errors.New("this kernel has no conntrack over netlink (CONFIG_NF_CT_NETLINK; module nf_conntrack_netlink)")

// Open opens the connection tracking of a network namespace, which a
// descriptor stands for; 0 is the namespace of the process. The descriptor
// stays the caller's. It fails with os.ErrPermission, wrapped, without
// CAP_NET_ADMIN in the namespace, and with ErrUnsupported, wrapped, where the
// kernel has no ctnetlink.
func Open(namespace int) (*Table, error) {
	t := &Table{sysctl: "/proc/sys"}
	if namespace != 0 {
		fd, err := unix.FcntlInt(uintptr(namespace), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("keep the network namespace: %w", err)
		}
		t.netns = os.NewFile(uintptr(fd), "network namespace")
	}
	if _, err := t.count(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// PretendNoTimeouts makes the kernel look like one without timeouts over netlink
// (module nfnetlink_cttimeout), for tests of what uses a Table: a kernel that has
// them cannot be made to lose them.
func (t *Table) PretendNoTimeouts() { t.noTimeouts = true }

// Close releases the namespace.
func (t *Table) Close() error {
	if t.netns == nil {
		return nil
	}
	return t.netns.Close()
}

// dial opens a netlink socket in the namespace.
func (t *Table) dial(protocol int) (*conn, error) {
	var s *kernelSocket
	err := t.inside(func() (err error) {
		s, err = dialKernel(protocol)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", explain(err))
	}
	return newConn(s), nil
}

// inside calls f on a thread that is in the network namespace. Sockets that f
// opens stay there, and files below /proc/sys/net are those of the namespace.
func (t *Table) inside(f func() error) error {
	fd := 0
	if t.netns != nil {
		fd = int(t.netns.Fd())
	}
	return netns.Do(fd, "", f)
}

// explain adds to an error what a person can do about it.
func explain(err error) error {
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return netns.Explain(err)
}
