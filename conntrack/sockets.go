package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// Socket is the host's end of a flow, or the place where it waits for flows.
type Socket struct {
	// Protocol is flow.TCP or flow.UDP.
	Protocol flow.Protocol
	State    SocketState
	// Local and Remote are as they stand on the wire: the IPv4 addresses of an
	// IPv6 socket are IPv4. Remote is not connected to anything while the socket
	// is Listening or Unconnected; its address is unspecified then. Link-local
	// addresses have no zone; Interface is set for most of them.
	Local, Remote netip.AddrPort
	// DualStack says that the wildcard IPv6 address which Local is stands for
	// every IPv4 address too.
	DualStack bool
	// Interface is the index of the link or VRF that the socket is bound to; 0
	// is none.
	Interface uint32
	// Unacknowledged counts what a TCP socket has sent or has still to send, and
	// its peer has not acknowledged, in bytes; the end of the stream (FIN) is
	// one. It means nothing for others.
	Unacknowledged uint32
	// Inode tells which processes hold the socket (/proc/PID/fd); 0 if none does,
	// as after close, or before accept.
	Inode uint32
}

func (s *Socket) String() string {
	name := s.Protocol.Name(flow.FamilyOf(s.Local.Addr()))
	if s.State == Listening || s.State == Unconnected {
		return fmt.Sprintf("%s %s %s", name, s.Local, s.State)
	}
	return fmt.Sprintf("%s %s ↔ %s %s", name, s.Local, s.Remote, s.State)
}

// SocketState is the state of a socket. Those between SynSent and TimeWait are
// of TCP connections, as its standard names them (RFC 9293, section 3.3.2).
type SocketState uint8

// The states. Closed sockets are not listed.
const (
	// Listening TCP sockets wait for peers.
	Listening SocketState = iota + 1
	// SynSent is a connection that the host has asked for.
	SynSent
	// SynReceived is one that a peer has asked for, and the host has agreed to.
	SynReceived
	Established
	// FinWait1 and FinWait2 have been closed by the host alone, CloseWait by the
	// peer alone; the other side may go on sending.
	FinWait1
	FinWait2
	CloseWait
	// Closing and LastAck have been closed by both, and the peer has yet to say
	// that it knows.
	Closing
	LastAck
	// TimeWait is over; the kernel keeps it so that stray segments hit nobody.
	TimeWait
	// Unconnected UDP sockets talk to everybody.
	Unconnected
	// Connected UDP sockets talk to one peer.
	Connected
)

var socketStateNames = [...]string{
	Listening: "listening", SynSent: "syn-sent", SynReceived: "syn-received", Established: "established", FinWait1: "fin-wait-1",
	FinWait2: "fin-wait-2", CloseWait: "close-wait", Closing: "closing", LastAck: "last-ack", TimeWait: "time-wait",
	Unconnected: "unconnected", Connected: "connected",
}

func (s SocketState) String() string {
	if int(s) < len(socketStateNames) && s != 0 {
		return socketStateNames[s]
	}
	return fmt.Sprintf("socket state %d", uint8(s))
}

// ErrNoSockets says that the kernel does not tell of its sockets, or of those
// of one protocol. What it does tell of was handed over all the same.
var ErrNoSockets = errors.New("this kernel does not list its sockets")

// errTornSockets is an ErrTorn.
type errTornSockets struct{}

func (errTornSockets) Error() string {
	return "the list of the host's sockets was lost in parts while it was read: some may be missing"
}

func (errTornSockets) Is(target error) bool { return target == ErrTorn }

// Sockets calls each with the host's TCP sockets of all states but closed and
// with its bound and connected UDP sockets, of both families, in the kernel's
// order. It is what ss -tuan shows. The socket is valid during the call.
//
// The list is of no single moment: sockets that are opened or change while it
// is read may be missing, and the kernel does not say so. Sockets ends with the
// context's error, with the first error of each, with an ErrTorn if the kernel
// lost some, or, after all that could be read, with ErrNoSockets, wrapped, where
// it is built without the list for a protocol.
func (t *Table) Sockets(ctx context.Context, each func(*Socket) error) error {
	return t.dumpSockets(ctx, allSockets, each)
}

// dumpSockets is Sockets for some of them.
func (t *Table) dumpSockets(ctx context.Context, queries []socketQuery, each func(*Socket) error) error {
	c, err := t.dial(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return socketsError(unix.IPPROTO_TCP, err)
	}
	return errors.Join(sockets(ctx, c, queries, each), c.close())
}

func sockets(ctx context.Context, c *conn, queries []socketQuery, each func(*Socket) error) error {
	// stopped is an error of the caller's, which the reading passes on unchanged.
	var stopped, missing error
	var s Socket
	n, torn := 0, false
	lacks := map[uint8]bool{}
	for _, q := range queries {
		ripped, err := c.dump(messageSockets, q.appendTo, func(payload []byte) error {
			if n++; n%256 == 0 {
				if stopped = ctx.Err(); stopped != nil {
					return stopped
				}
			}
			if err := s.parse(q.protocol, payload); err != nil {
				return err
			}
			stopped = each(&s)
			return stopped
		})
		torn = torn || ripped
		if stopped != nil {
			return stopped
		}
		if err != nil {
			err = socketsError(q.protocol, err)
			if !errors.Is(err, ErrNoSockets) {
				return fmt.Errorf("read the host's sockets: %w", err)
			}
			switch {
			case lacks[q.protocol]: // of the other family, too
			case missing == nil:
				missing = err
			default:
				missing = fmt.Errorf("%w; %w", missing, err)
			}
			lacks[q.protocol] = true
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case missing != nil:
		return missing
	case torn:
		return errTornSockets{}
	}
	return nil
}
