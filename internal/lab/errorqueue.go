package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// ICMPError is what an ICMP message said of a datagram that a socket had sent.
type ICMPError struct {
	// PortUnreachable says that the datagram came to a host on which nobody listens
	// at its port. All others come from routers, or say that it was too long.
	PortUnreachable bool
	// Payload is as much of the datagram's as the message quoted.
	Payload []byte
}

// QueueErrors makes the kernel keep the ICMP messages about what the connected
// socket sends, for TakeErrors. Each also fails one read or write with its errno,
// those of routers included.
//
// Source: ip(7), IP_RECVERR.
func QueueErrors(c *net.UDPConn) error {
	return withSocket(c, func(fd int, f flow.Family) error {
		level, option := unix.IPPROTO_IP, unix.IP_RECVERR
		if f == flow.IPv6 {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
		}
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return fmt.Errorf("let a socket of UDP keep ICMP messages: %w", err)
		}
		return nil
	})
}

// TakeErrors returns the ICMP messages that have come since it was last called,
// in their order; it does not wait for any. It may be called from several
// goroutines: each message is returned once.
func TakeErrors(c *net.UDPConn) (out []ICMPError, err error) {
	err = withSocket(c, func(fd int, _ flow.Family) error {
		// A quotation is no longer than the shortest packet that IPv6 may not carry.
		payload, oob := make([]byte, 2048), make([]byte, 512)
		for {
			n, oobn, _, _, err := unix.Recvmsg(fd, payload, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return nil
			case errors.Is(err, unix.EINTR):
				continue
			case err != nil:
				return fmt.Errorf("read the error queue of a socket: %w", err)
			}
			messages, err := unix.ParseSocketControlMessage(oob[:oobn])
			if err != nil {
				return fmt.Errorf("read the error queue of a socket: %w", err)
			}
			for _, m := range messages {
				if unreachable, ok := parseExtendedError(m); ok {
					out = append(out, ICMPError{unreachable, append([]byte{}, payload[:n]...)})
				}
			}
		}
	})
	return out, err
}

// parseExtendedError reads a struct sock_extended_err; ok is false for one that
// does not tell of an ICMP message.
//
// Source: Linux include/uapi/linux/errqueue.h.
func parseExtendedError(m unix.SocketControlMessage) (portUnreachable, ok bool) {
	level, kind := m.Header.Level, m.Header.Type
	if (level != unix.IPPROTO_IP || kind != unix.IP_RECVERR) && (level != unix.IPPROTO_IPV6 || kind != unix.IPV6_RECVERR) || len(m.Data) < 16 {
		return false, false
	}
	errno := unix.Errno(binary.NativeEndian.Uint32(m.Data))
	switch origin := m.Data[4]; origin {
	case unix.SO_EE_ORIGIN_ICMP, unix.SO_EE_ORIGIN_ICMP6:
		// The kernel has this errno for no other message of either family.
		return errno == unix.ECONNREFUSED, true
	}
	return false, false
}

// withSocket calls f with the descriptor of a socket and the family of its peer.
func withSocket(c *net.UDPConn, f func(fd int, family flow.Family) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	family := flow.IPv4
	if remote, ok := c.RemoteAddr().(*net.UDPAddr); ok {
		family = flow.FamilyOf(remote.AddrPort().Addr().Unmap())
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd), family) }); err != nil {
		return err
	}
	return inner
}
