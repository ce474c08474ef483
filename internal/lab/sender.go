package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// Sender sends whole IP packets, headers as they are given, from a host's own
// stack out of one interface: they pass the output and postrouting hooks as
// those of any local process do.
type Sender struct {
	ipv4, ipv6 *socket.Conn
	name       string
	// index is the interface's, which link-local destinations need.
	index int
}

// OpenSender opens raw sockets of both families that are bound to the
// interface and give packets the mark (0 is none).
func (n *Namespace) OpenSender(iface string, mark uint32) (*Sender, error) {
	link, err := n.link(iface)
	if err != nil {
		return nil, err
	}
	s := &Sender{name: n.name + "/" + iface, index: link.Attrs().Index}
	if s.ipv4, err = n.openRaw(unix.AF_INET, iface, mark); err != nil {
		return nil, err
	}
	if s.ipv6, err = n.openRaw(unix.AF_INET6, iface, mark); err != nil {
		return nil, errors.Join(err, s.ipv4.Close())
	}
	return s, nil
}

func (n *Namespace) openRaw(domain int, iface string, mark uint32) (*socket.Conn, error) {
	// A socket of protocol "raw" sends headers as given and receives nothing.
	conn, err := socket.Socket(domain, unix.SOCK_RAW, unix.IPPROTO_RAW, "raw", &socket.Config{NetNS: n.fd})
	if err != nil {
		return nil, fmt.Errorf("open a raw socket in %s: %w", n.name, err)
	}
	err = errors.Join(
		conn.SetsockoptString(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, iface),
		conn.SetsockoptInt(unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
		conn.SetsockoptInt(unix.SOL_SOCKET, unix.SO_MARK, int(mark)),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind a raw socket to %s in %s: %w", iface, n.name, err), conn.Close())
	}
	return conn, nil
}

// Close closes the sockets.
func (s *Sender) Close() error { return errors.Join(s.ipv4.Close(), s.ipv6.Close()) }

// Send sends an IP packet as Marshal builds it. A packet that a netfilter hook
// drops fails with EPERM, wrapped.
func (s *Sender) Send(packet []byte) error {
	if err := s.send(packet); err != nil {
		return fmt.Errorf("send from %s: %w", s.name, err)
	}
	return nil
}

func (s *Sender) send(packet []byte) error {
	switch {
	case len(packet) >= ipv4HeaderLen && packet[0]>>4 == 4:
		to := &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])}
		return s.ipv4.Sendto(context.Background(), packet, 0, to)
	case len(packet) >= ipv6HeaderLen && packet[0]>>4 == 6:
		to := &unix.SockaddrInet6{Addr: [16]byte(packet[24:40])}
		if a := netip.AddrFrom16(to.Addr); a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() {
			to.ZoneId = uint32(s.index)
		}
		return s.ipv6.Sendto(context.Background(), packet, 0, to)
	default:
		return errors.New("not an IP packet")
	}
}
