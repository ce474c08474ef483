package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// Raw is a raw socket of one protocol in a namespace: it sends what follows the
// IP header, and receives what the host's stack delivers to that protocol, after
// all netfilter hooks.
type Raw struct {
	conn     *socket.Conn
	name     string
	family   flow.Family
	protocol flow.Protocol
}

// OpenRaw opens a raw socket. The zero local address leaves the choice of the
// source to the kernel and receives what is sent to any address.
func (n *Namespace) OpenRaw(p flow.Protocol, f flow.Family, local netip.Addr) (*Raw, error) {
	conn, err := socket.Socket(family(f), unix.SOCK_RAW, int(p), "raw", &socket.Config{NetNS: n.fd})
	if err != nil {
		return nil, fmt.Errorf("open a raw socket of protocol %s in %s: %w", p, n.name, err)
	}
	if local.IsValid() {
		if err := conn.Bind(sockaddr(local)); err != nil {
			return nil, errors.Join(fmt.Errorf("bind a raw socket to %s in %s: %w", local, n.name, err), conn.Close())
		}
	}
	return &Raw{conn, n.name, f, p}, nil
}

// Close closes the socket, which ends a Receive.
func (r *Raw) Close() error { return r.conn.Close() }

// Send sends a packet with the body. A packet that the host's own rules drop
// fails with EPERM, wrapped.
func (r *Raw) Send(to netip.Addr, body []byte) error {
	if err := r.conn.Sendto(context.Background(), body, 0, sockaddr(to)); err != nil {
		return fmt.Errorf("send protocol %s from %s to %s: %w", r.protocol, r.name, to, err)
	}
	return nil
}

// SetHopLimit sets the hop limit, or time to live, of what the socket sends to a
// single host.
func (r *Raw) SetHopLimit(hops uint8) error {
	level, option := unix.IPPROTO_IP, unix.IP_TTL
	if r.family == flow.IPv6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
	}
	if err := r.conn.SetsockoptInt(level, option, int(hops)); err != nil {
		return fmt.Errorf("set the hop limit of protocol %s in %s to %d: %w", r.protocol, r.name, hops, err)
	}
	return nil
}

// Receive returns the body of the next packet, which is a part of b, and where
// it comes from. It fails when the socket is closed or the context ends.
func (r *Raw) Receive(ctx context.Context, b []byte) (from netip.Addr, body []byte, err error) {
	n, sa, err := r.conn.Recvfrom(ctx, b, 0)
	if err != nil {
		return from, nil, fmt.Errorf("receive protocol %s in %s: %w", r.protocol, r.name, err)
	}
	body = b[:n]
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		from = netip.AddrFrom4(sa.Addr)
		// IPv4 delivers the header, too.
		if len(body) > 0 {
			body = body[min(int(body[0]&0xf)*4, len(body)):]
		}
	case *unix.SockaddrInet6:
		from = netip.AddrFrom16(sa.Addr)
	}
	return from, body, nil
}

// ICMPMessage builds the body of an ICMP message: its type and code, and what
// follows the checksum. The kernel fills in the checksum of ICMPv6.
func ICMPMessage(f flow.Family, kind, code uint8, rest []byte) []byte {
	b := append([]byte{kind, code, 0, 0}, rest...)
	if f == flow.IPv4 {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// Echo types by family: request, and reply.
var echoTypes = map[flow.Family][2]uint8{flow.IPv4: {8, 0}, flow.IPv6: {128, 129}}

// EchoRequest builds the body of an echo request. The kernel fills in the
// checksum of ICMPv6.
func EchoRequest(f flow.Family, id, seq uint16, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	b[0] = echoTypes[f][0]
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	b = append(b, payload...)
	if f == flow.IPv4 {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// ParseEcho reads an echo request or reply; ok is false for all other ICMP.
func ParseEcho(f flow.Family, body []byte) (reply bool, id uint16, payload []byte, ok bool) {
	types := echoTypes[f]
	if len(body) < 8 || body[0] != types[0] && body[0] != types[1] {
		return false, 0, nil, false
	}
	return body[0] == types[1], binary.BigEndian.Uint16(body[4:]), body[8:], true
}
