package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// Wire is the lab's own hand on an interface, below IP: it puts whole IP
// packets on the link that ends in the interface, and sees every IP packet that
// the link delivers there, whatever the namespace's own stack does with it.
type Wire struct {
	conn *socket.Conn
	name string
	// index is the interface's own, peer the far end's link-layer address.
	index int
	peer  net.HardwareAddr
}

// OpenWire takes the interface of the namespace in hand. The peer is the
// link-layer address of the far end.
func (n *Namespace) OpenWire(iface string, peer net.HardwareAddr) (*Wire, error) {
	link, err := n.link(iface)
	if err != nil {
		return nil, err
	}
	// Protocol 0 receives nothing until the socket is bound to the interface.
	conn, err := socket.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0, "packet", &socket.Config{NetNS: n.fd})
	if err != nil {
		return nil, fmt.Errorf("open a packet socket in %s: %w", n.name, err)
	}
	w := &Wire{conn: conn, name: n.name + "/" + iface, index: link.Attrs().Index, peer: peer}
	// A bigger buffer is welcome; without privileges the limit of the system
	// holds, and Receive is then called often enough or loses packets.
	_ = conn.SetReadBuffer(8 << 20)
	err = errors.Join(
		conn.SetsockoptInt(unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		conn.Bind(&unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: w.index}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind to %s: %w", w.name, err), conn.Close())
	}
	return w, nil
}

// Close lets go of the interface.
func (w *Wire) Close() error { return w.conn.Close() }

// Send puts an IP packet on the link.
func (w *Wire) Send(packet []byte) error {
	to := &unix.SockaddrLinklayer{Ifindex: w.index, Protocol: bigEndian(etherType(packet)), Halen: uint8(len(w.peer))}
	copy(to.Addr[:], w.peer)
	if err := w.conn.Sendto(context.Background(), packet, 0, to); err != nil {
		return fmt.Errorf("send on %s: %w", w.name, err)
	}
	return nil
}

// Receive returns the next IP packet that the link delivered. It fails with
// context.DeadlineExceeded, wrapped, when the context ends first.
func (w *Wire) Receive(ctx context.Context) ([]byte, error) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := w.conn.Recvfrom(ctx, b, 0)
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return nil, fmt.Errorf("receive on %s: %w", w.name, err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok {
			switch bigEndian(ll.Protocol) {
			case unix.ETH_P_IP, unix.ETH_P_IPV6:
				return b[:n:n], nil
			}
		}
	}
}

// Drain throws away what was delivered until now.
func (w *Wire) Drain() error {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		_, err := w.Receive(ctx)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return nil
		case err != nil:
			return err
		}
	}
}

func etherType(packet []byte) uint16 {
	if len(packet) > 0 && packet[0]>>4 == 6 {
		return unix.ETH_P_IPV6
	}
	return unix.ETH_P_IP
}

// bigEndian swaps between the byte order of the wire and the machine's.
func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
