package nflog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"sgc/internal/netns"
)

// Config says what to read.
type Config struct {
	// NetNS is a descriptor of the network namespace; 0 is the process's own.
	NetNS int
	// Groups are the nflog groups, without duplicates.
	Groups []uint16
	// Bytes is how much of each packet is copied, from its network header on;
	// 0 is DefaultBytes.
	Bytes int
	// AtOnce makes the kernel tell of each packet at once. Without it, a packet
	// waits for others, a tenth of a second at most, which costs a flood less.
	AtOnce bool
	// Buffer is the size of the receive buffer in bytes; 0 is DefaultBuffer.
	// Without privileges over the host, its own limit holds
	// (net.core.rmem_max).
	Buffer int
}

const (
	// DefaultBytes holds the headers of a packet, and those of one that an ICMP
	// error quotes, with options and extension headers.
	DefaultBytes = 256
	// DefaultBuffer holds tens of thousands of packets (measured: 77,000, and
	// 20,000 with AtOnce).
	DefaultBuffer = 8 << 20
)

// answerWithin bounds the wait for an answer of the kernel, which gives it
// before the request's system call ends.
const answerWithin = 5 * time.Second

var (
	// ErrLost says that the kernel had more packets than the receive buffer
	// had room for. The Conn goes on: the next copy of each group that lost
	// some says how many.
	ErrLost = errors.New("the kernel's log lost packets, which came faster than they were read")
	// ErrTaken says that another program reads the group. The kernel gives a
	// group to one reader alone.
	ErrTaken = errors.New("it is read by another program already, such as ulogd or another sgc log, and the kernel gives a group to one reader alone (/proc/net/netfilter/nfnetlink_log lists the groups and their readers' netlink ports, most often process numbers)")
	// ErrUnsupported says that the kernel has no nflog.
	ErrUnsupported = errors.New("this kernel has no nflog (CONFIG_NETFILTER_NETLINK_LOG; module nfnetlink_log)")
)

// Conn is the reader of nflog groups of one network namespace. One goroutine
// at a time may use it.
type Conn struct {
	conn *netlink.Conn
	// next is the number of each group's next packet.
	next map[uint16]uint32
	// early are the copies that came while an answer was waited for, and
	// lost says that the kernel could not tell of some then.
	early []Copy
	lost  bool
}

// Open becomes the reader of the groups. It fails with ErrTaken, wrapped, if
// one of them has a reader, with os.ErrPermission, wrapped, without
// CAP_NET_ADMIN in the namespace, and with ErrUnsupported, wrapped, where the
// kernel has no nflog.
func Open(c Config) (*Conn, error) {
	if c.Bytes == 0 {
		c.Bytes = DefaultBytes
	}
	if c.Buffer == 0 {
		c.Buffer = DefaultBuffer
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: c.NetNS})
	if err != nil {
		return nil, fmt.Errorf("open nfnetlink: %w", explain(err))
	}
	l := &Conn{conn: conn, next: make(map[uint16]uint32)}
	if err := l.bind(c); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return l, nil
}

func (l *Conn) bind(c Config) error {
	if err := l.conn.SetReadBuffer(c.Buffer); err != nil {
		return fmt.Errorf("set the size of the receive buffer: %w", err)
	}
	for _, group := range c.Groups {
		m, err := bindMessage(group, c)
		if err == nil {
			l.next[group] = 0
			err = l.request(m)
		}
		if err != nil {
			return fmt.Errorf("read nflog group %d: %w", group, l.explainBind(group, err))
		}
	}
	return nil
}

// request sends a message and waits for its answer. Packets that come first
// are kept for Receive.
func (l *Conn) request(m netlink.Message) error {
	m, err := l.conn.Send(m)
	if err != nil {
		return err
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	for {
		messages, err := l.conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			l.lost = true
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("the kernel gave no answer within %s", answerWithin)
		case err != nil:
			return err
		}
		copies, err := l.decode(messages)
		if err != nil {
			return err
		}
		l.early = append(l.early, copies...)
		if slices.ContainsFunc(messages, func(r netlink.Message) bool {
			return r.Header.Type == netlink.Error && r.Header.Sequence == m.Header.Sequence
		}) {
			return nil
		}
	}
}

// explainBind finds out what a refusal means. The kernel says EPERM both to
// those who may not read and to those who come second.
//
// Source: Linux net/netfilter/nfnetlink_log.c, nfulnl_recv_config.
func (l *Conn) explainBind(group uint16, err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return ErrTaken
	case errors.Is(err, unix.EPERM):
		// A packet message is never a request: whoever may ask is told so, with
		// another error.
		probe := netlink.Message{Header: netlink.Header{Type: messagePacket, Flags: netlink.Request | netlink.Acknowledge}, Data: make([]byte, headerSize)}
		if answer := l.request(probe); !errors.Is(answer, unix.EPERM) {
			return ErrTaken
		}
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		// An unknown subsystem is an invalid message type.
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return explain(err)
}

// explain adds to an error what a person can do about it.
func explain(err error) error {
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return netns.Explain(err)
}

// Close ends the reading. What the kernel still holds is lost.
func (l *Conn) Close() error { return l.conn.Close() }

// Buffer returns the size of the receive buffer, in bytes as the kernel counts
// them: with what it needs to keep a message.
func (l *Conn) Buffer() (int, error) { return l.conn.ReadBuffer() }

// Receive waits for packets. It fails with ErrLost, after which reading goes
// on, and with the context's error, wrapped, when that ends first.
func (l *Conn) Receive(ctx context.Context) ([]Copy, error) {
	if l.lost {
		l.lost = false
		return nil, ErrLost
	}
	if copies := l.early; len(copies) > 0 {
		l.early = nil
		return copies, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := l.conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	interrupted := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { interrupted <- l.conn.SetReadDeadline(time.Unix(1, 0)) })
	copies, err := l.receive(ctx)
	if !stop() {
		if failed := <-interrupted; failed != nil {
			return copies, failed
		}
	}
	return copies, err
}

func (l *Conn) receive(ctx context.Context) ([]Copy, error) {
	for {
		messages, err := l.conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			return nil, ErrLost
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, ctx.Err()
		case err != nil:
			return nil, fmt.Errorf("read the log: %w", err)
		}
		copies, err := l.decode(messages)
		if err != nil || len(copies) > 0 {
			return copies, err
		}
	}
}

// Finish gives the groups back and returns the packets that came until now. It
// fails with ErrLost if some were lost at the end, and returns the others all
// the same. Only Close may follow.
func (l *Conn) Finish() ([]Copy, error) {
	var errs []error
	for _, group := range l.groups() {
		m, err := unbindMessage(group)
		if err == nil {
			err = l.request(m)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("give back nflog group %d: %w", group, err))
		}
	}
	if l.lost && len(errs) == 0 {
		errs = append(errs, ErrLost)
	}
	copies := l.early
	l.early, l.lost = nil, false
	return copies, errors.Join(errs...)
}

func (l *Conn) groups() []uint16 {
	var groups []uint16
	for g := range l.next {
		groups = append(groups, g)
	}
	slices.Sort(groups)
	return groups
}

// decode reads the packets among messages, and counts those that are missing.
func (l *Conn) decode(messages []netlink.Message) ([]Copy, error) {
	var copies []Copy
	for _, m := range messages {
		if m.Header.Type != messagePacket {
			continue // an answer, or the end of a batch
		}
		c, err := decodeCopy(m.Data)
		if err != nil {
			return nil, fmt.Errorf("read the log: a message of the kernel: %w", err)
		}
		if c.isNumber {
			c.Missed = c.number - l.next[c.Group]
			l.next[c.Group] = c.number + 1
		}
		copies = append(copies, c.Copy)
	}
	return copies, nil
}
