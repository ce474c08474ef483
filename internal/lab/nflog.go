package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nflog receives the packets that "log group" statements of one namespace
// copy.
type nflog struct {
	conn *netlink.Conn
	// room is how many copies the socket holds before it loses one.
	room int
	next uint32
}

// logged is one copy: the statement's prefix, the packet from its network
// header on, cut to nflogCopy bytes, and the indexes of the interfaces by which
// it came in and is to go out, 0 where that is not known at the statement's hook.
type logged struct {
	prefix  string
	packet  []byte
	in, out uint32
}

// Numbers of the nflog interface, from linux/netfilter/nfnetlink_log.h.
const (
	nflogPacket = unix.NFNL_SUBSYS_ULOG<<8 | 0
	nflogConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1

	nflogCfgCmd, nflogCfgMode, nflogCfgThresh, nflogCfgFlags = 1, 2, 5, 6
	nflogCmdBind                                             = 1
	nflogCopyPacket                                          = 2
	nflogFlagSeq                                             = 1
	nflogIn, nflogOut                                        = 4, 5
	nflogPayload, nflogPrefix, nflogSeq                      = 9, 10, 12

	// nflogCopy is enough for both network headers.
	nflogCopy = 64
	// nflogSize is more than what one copy takes of the socket's buffer.
	nflogSize = 2048
)

var errLost = errors.New("the kernel's log of packets lost some")

// openNflog binds the group in the namespace. Every packet is told at once.
func (n *Namespace) openNflog(group uint16) (*nflog, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: n.fd})
	if err != nil {
		return nil, fmt.Errorf("open nfnetlink in %s: %w", n.name, err)
	}
	l := &nflog{conn: conn}
	if err := l.configure(group); err != nil {
		return nil, errors.Join(fmt.Errorf("bind nflog group %d in %s: %w", group, n.name, err), conn.Close())
	}
	return l, nil
}

func (l *nflog) configure(group uint16) error {
	if err := l.conn.SetReadBuffer(8 << 20); err != nil {
		return err
	}
	size, err := l.conn.ReadBuffer()
	if err != nil {
		return err
	}
	l.room = size / nflogSize
	mode := binary.BigEndian.AppendUint32(nil, nflogCopy)
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: nflogCfgCmd, Data: []byte{nflogCmdBind}},
		{Type: nflogCfgMode, Data: append(mode, nflogCopyPacket, 0)},
		{Type: nflogCfgThresh, Data: binary.BigEndian.AppendUint32(nil, 1)},
		{Type: nflogCfgFlags, Data: binary.BigEndian.AppendUint16(nil, nflogFlagSeq)},
	})
	if err != nil {
		return err
	}
	_, err = l.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: nflogConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{unix.AF_UNSPEC, 0, byte(group >> 8), byte(group)}, attrs...),
	})
	return err
}

func (l *nflog) close() error { return l.conn.Close() }

// receive returns the next copies. It fails with os.ErrDeadlineExceeded,
// wrapped, after the deadline, and with errLost where copies are missing.
func (l *nflog) receive(deadline time.Time) ([]logged, error) {
	if err := l.conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	messages, err := l.conn.Receive()
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return nil, errLost
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, os.ErrDeadlineExceeded
	case err != nil:
		return nil, fmt.Errorf("read the log of packets: %w", err)
	}
	var copies []logged
	for _, m := range messages {
		if m.Header.Type != nflogPacket || len(m.Data) < 4 {
			continue
		}
		c, seq, err := parseLogged(m.Data[4:])
		if err != nil {
			return nil, fmt.Errorf("read the log of packets: %w", err)
		}
		if seq != l.next {
			return nil, errLost
		}
		l.next = seq + 1
		copies = append(copies, c)
	}
	return copies, nil
}

func parseLogged(b []byte) (c logged, seq uint32, err error) {
	attrs, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return logged{}, 0, err
	}
	attrs.ByteOrder = binary.BigEndian
	for attrs.Next() {
		switch attrs.Type() {
		case nflogIn:
			c.in = attrs.Uint32()
		case nflogOut:
			c.out = attrs.Uint32()
		case nflogPrefix:
			c.prefix = attrs.String()
		case nflogPayload:
			c.packet = attrs.Bytes()
		case nflogSeq:
			seq = attrs.Uint32()
		}
	}
	return c, seq, attrs.Err()
}
