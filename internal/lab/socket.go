package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// ListenTCP listens inside the namespace. Port 0 chooses one.
func (n *Namespace) ListenTCP(local netip.AddrPort) (*net.TCPListener, error) {
	var l *net.TCPListener
	err := n.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(local))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen in %s: %w", n.name, err)
	}
	return l, nil
}

// ErrNotSent says that no packet was sent, since the socket could not be had: its
// address is taken, or none leads to the other side.
var ErrNotSent = errors.New("nothing was sent")

// DialTCP connects from inside the namespace until the context ends. The zero
// local address, or a local port 0, leaves the choice to the kernel. Connections to
// different addresses or ports may share a local port. A dial that
// is given up leaves no connection behind that would keep its port.
//
// An error that wraps ErrNotSent is about this machine, and all others are about
// what became of the packets: ECONNREFUSED for a segment with RST or an ICMP message
// that nobody listens, others for what routers say, and the context's for no answer.
//
// It asks the kernel once more when its time is up, unlike that of package net: on
// a busy machine this process may not run for as long as an attempt takes, and the
// connection is there.
func (n *Namespace) DialTCP(ctx context.Context, local, remote netip.AddrPort) (*net.TCPConn, error) {
	conn, err := n.dialTCP(ctx, local, remote)
	if err != nil {
		return nil, fmt.Errorf("dial %s from %s: %w", remote, n.name, err)
	}
	return conn, nil
}

func (n *Namespace) dialTCP(ctx context.Context, local, remote netip.AddrPort) (_ *net.TCPConn, err error) {
	domain := unix.AF_INET6
	if remote.Addr().Is4() {
		domain = unix.AF_INET
	}
	var fd int
	err = n.Do(func() (err error) {
		fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: open a socket: %w", ErrNotSent, err)
	}
	// net.FileConn has a copy of its own.
	file := os.NewFile(uintptr(fd), "tcp")
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return nil, fmt.Errorf("%w: set SO_LINGER: %w", ErrNotSent, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return nil, fmt.Errorf("%w: set SO_REUSEADDR: %w", ErrNotSent, err)
	}
	if local.IsValid() {
		if err := unix.Bind(fd, sockaddrPort(local)); err != nil {
			return nil, fmt.Errorf("%w: bind to %s: %w", ErrNotSent, local, err)
		}
	}
	switch err := unix.Connect(fd, sockaddrPort(remote)); {
	case err == nil, errors.Is(err, unix.EINPROGRESS):
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ECONNREFUSED):
		// The host's own rules, or a port of its own.
		return nil, err
	default:
		return nil, fmt.Errorf("%w: connect from %s: %w", ErrNotSent, local, err)
	}
	if err := awaitConnected(ctx, fd); err != nil {
		return nil, err
	}
	// From now on it is closed as any connection is.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{}); err != nil {
		return nil, fmt.Errorf("set SO_LINGER: %w", err)
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a connection of type %T", conn), conn.Close())
	}
	if err := tcp.SetKeepAlive(false); err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	return tcp, nil
}

// dialLook is how often a dial looks whether its context has ended.
const dialLook = 20 * time.Millisecond

// awaitConnected waits for the outcome of a connect.
func awaitConnected(ctx context.Context, fd int) error {
	for {
		cause := ctx.Err()
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		wait := dialLook
		if cause != nil {
			wait = 0
		}
		switch ready, err := unix.Poll(fds, int(wait/time.Millisecond)); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case ready > 0:
			code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err != nil {
				return fmt.Errorf("read SO_ERROR: %w", err)
			}
			if code != 0 {
				return unix.Errno(code)
			}
			return nil
		case cause != nil:
			return cause
		}
	}
}

func sockaddrPort(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// ListenUDP opens an unconnected UDP socket inside the namespace. Others may
// share its port.
func (n *Namespace) ListenUDP(local netip.AddrPort) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: sharePort}
	var c net.PacketConn
	err := n.Do(func() (err error) {
		c, err = lc.ListenPacket(context.Background(), "udp", local.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen in %s: %w", n.name, err)
	}
	return c.(*net.UDPConn), nil
}

// DialUDP opens a connected UDP socket inside the namespace. Its local port may
// be one that somebody else has: the kernel gives a packet to the socket that is
// connected to its sender, and all others to the unconnected one.
func (n *Namespace) DialUDP(local, remote netip.AddrPort) (*net.UDPConn, error) {
	d := net.Dialer{Control: sharePort}
	if local.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(local)
	}
	var c net.Conn
	err := n.Do(func() (err error) {
		c, err = d.Dial("udp", remote.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dial from %s: %w", n.name, err)
	}
	return c.(*net.UDPConn), nil
}

// sharePort lets several sockets of UDP have one port, as a resolver has that
// asks from the port at which it is asked.
func sharePort(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}); e != nil {
		return e
	}
	return err
}

// ErrNoReply says that nothing answered in time.
var ErrNoReply = errors.New("no reply")

// Ping is one echo request.
type Ping struct {
	// Source may be the zero value: the kernel chooses.
	Source, Dest netip.Addr
	ID, Seq      uint16
	Payload      []byte
}

// Ping sends an echo request from inside the namespace and waits for its reply
// until the context ends, which is ErrNoReply, wrapped. A request that the
// host's own rules drop fails with EPERM, wrapped.
func (n *Namespace) Ping(ctx context.Context, p Ping) error {
	family := flow.FamilyOf(p.Dest)
	domain, proto := unix.AF_INET, int(flow.ICMP)
	request := []byte{8, 0, 0, 0}
	if family == flow.IPv6 {
		domain, proto = unix.AF_INET6, int(flow.ICMPv6)
		request[0] = 128 // the kernel fills in the checksum of ICMPv6
	}
	request = binary.BigEndian.AppendUint16(request, p.ID)
	request = binary.BigEndian.AppendUint16(request, p.Seq)
	request = append(request, p.Payload...)
	if family == flow.IPv4 {
		binary.BigEndian.PutUint16(request[2:], checksum(request))
	}
	conn, err := socket.Socket(domain, unix.SOCK_RAW, proto, "ping", &socket.Config{NetNS: n.fd})
	if err != nil {
		return fmt.Errorf("open a raw socket in %s: %w", n.name, err)
	}
	err = n.exchange(ctx, conn, p, request)
	if err != nil {
		err = fmt.Errorf("ping %s from %s: %w", p.Dest, n.name, err)
	}
	return errors.Join(err, conn.Close())
}

func (n *Namespace) exchange(ctx context.Context, conn *socket.Conn, p Ping, request []byte) error {
	if p.Source.IsValid() {
		if err := conn.Bind(sockaddr(p.Source)); err != nil {
			return fmt.Errorf("bind to %s: %w", p.Source, err)
		}
	}
	// Sent it is in any case: a busy machine may have used up the time before.
	if err := conn.Sendto(context.WithoutCancel(ctx), request, 0, sockaddr(p.Dest)); err != nil {
		return err
	}
	b := make([]byte, 1<<16)
	for {
		size, _, err := conn.Recvfrom(ctx, b, 0)
		switch {
		case err != nil && ctx.Err() != nil:
			return ErrNoReply
		case err != nil:
			return err
		case isEchoReply(b[:size], p):
			return nil
		}
	}
}

// isEchoReply reports whether what a raw ICMP socket received, in IPv4 with the
// IP header and in IPv6 without, answers the request.
func isEchoReply(b []byte, p Ping) bool {
	reply := byte(129)
	if p.Dest.Is4() {
		packet, _, err := Parse(b)
		if err != nil || packet.Source != p.Dest {
			return false
		}
		reply, b = 0, b[int(b[0]&0xf)*4:]
	}
	return len(b) >= 8 && b[0] == reply &&
		binary.BigEndian.Uint16(b[4:]) == p.ID && binary.BigEndian.Uint16(b[6:]) == p.Seq
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

// Echo serves a TCP listener until it is closed: everything that a client sends
// comes back to it.
func Echo(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return // the listener was closed
		}
		go func() {
			defer c.Close()
			// The client sees what went wrong: its bytes do not come back.
			_, _ = c.ReadFrom(c)
		}()
	}
}

// RoundTrip sends data over a connection to an Echo and compares what comes
// back before the timeout.
func RoundTrip(c net.Conn, data []byte, timeout time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- err
	}()
	got, want := make([]byte, len(data)), data
	for n := 0; n < len(got); {
		m, err := c.Read(got[n:])
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", n, len(got), err)
		}
		n += m
	}
	if err := <-sent; err != nil {
		return err
	}
	if string(got) != string(want) {
		return errors.New("the data came back changed")
	}
	return nil
}
