package conntrack

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// neighbours are a host at eth0 and a peer, which has several addresses.
type neighbours struct{ host, peer *lab.Namespace }

const hostAddress, hostAddress6 = "192.0.2.10", "2001:db8::10"

func newNeighbours(t testing.TB) neighbours {
	t.Helper()
	n := neighbours{labtest.Namespace(t, "host"), labtest.Namespace(t, "peer")}
	peer := []netip.Prefix{netip.MustParsePrefix("2001:db8::20/64"), netip.MustParsePrefix("2001:db8::30/64")}
	for a := netip.MustParseAddr("192.0.2.20"); a != netip.MustParseAddr("192.0.2.40"); a = a.Next() {
		peer = append(peer, netip.PrefixFrom(a, 24))
	}
	labtest.Connect(t,
		lab.End{Namespace: n.host, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix(hostAddress + "/24"), netip.MustParsePrefix(hostAddress6 + "/64")}},
		lab.End{Namespace: n.peer, Interface: "wire", Addresses: peer})
	return n
}

// lose makes the host's packets to an address go nowhere from now on.
func (n neighbours) lose(t testing.TB, address string) {
	t.Helper()
	if err := n.host.AddNeighbour("eth0", netip.MustParseAddr(address), net.HardwareAddr{2, 0, 0, 0, 0, 0x99}); err != nil {
		t.Fatal(err)
	}
}

// socketMaker opens sockets in one namespace; they end with the test.
type socketMaker struct {
	t    testing.TB
	ns   *lab.Namespace
	open []int
}

func newSocketMaker(t testing.TB, ns *lab.Namespace) *socketMaker {
	m := &socketMaker{t: t, ns: ns}
	t.Cleanup(func() {
		for _, fd := range m.open {
			m.check(unix.Close(fd))
		}
	})
	return m
}

func (m *socketMaker) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// socketKind is what a socket is made as. The IPv4 addresses of an IPv6 socket
// are mapped.
type socketKind struct {
	domain, typ int
	only6       bool
	device      string
}

var (
	tcp4 = socketKind{domain: unix.AF_INET, typ: unix.SOCK_STREAM}
	tcp6 = socketKind{domain: unix.AF_INET6, typ: unix.SOCK_STREAM}
	udp4 = socketKind{domain: unix.AF_INET, typ: unix.SOCK_DGRAM}
	udp6 = socketKind{domain: unix.AF_INET6, typ: unix.SOCK_DGRAM}
)

func (k socketKind) v6Only() socketKind          { k.only6 = true; return k }
func (k socketKind) on(device string) socketKind { k.device = device; return k }

func (k socketKind) address(text string) unix.Sockaddr {
	a := netip.MustParseAddrPort(text)
	if k.domain == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// bind opens a bound socket.
func (m *socketMaker) bind(k socketKind, local string) int {
	m.t.Helper()
	var fd int
	m.check(m.ns.Do(func() (err error) {
		fd, err = unix.Socket(k.domain, k.typ|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	m.open = append(m.open, fd)
	m.check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	if k.only6 {
		m.check(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	}
	if k.device != "" {
		m.check(unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, k.device))
	}
	m.check(unix.Bind(fd, k.address(local)))
	return fd
}

func (m *socketMaker) listen(k socketKind, local string) int {
	m.t.Helper()
	fd := m.bind(k, local)
	m.listenFor(fd, 1024)
	return fd
}

// listenFor lets so many peers wait for being accepted.
func (m *socketMaker) listenFor(fd, backlog int) {
	m.t.Helper()
	m.check(unix.Listen(fd, backlog))
}

func (m *socketMaker) connect(k socketKind, local, remote string) int {
	m.t.Helper()
	fd := m.bind(k, local)
	m.check(unix.Connect(fd, k.address(remote)))
	return fd
}

// begin sends a SYN that nobody answers.
func (m *socketMaker) begin(k socketKind, local, remote string) {
	m.t.Helper()
	fd := m.bind(k, local)
	m.check(unix.SetNonblock(fd, true))
	if err := unix.Connect(fd, k.address(remote)); !errors.Is(err, unix.EINPROGRESS) {
		m.t.Fatalf("connect to %s: %v", remote, err)
	}
}

func (m *socketMaker) accept(listener int) int {
	m.t.Helper()
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	m.check(err)
	m.open = append(m.open, fd)
	return fd
}

// shut ends the stream in the direction in which the socket sends.
func (m *socketMaker) shut(fd int) {
	m.t.Helper()
	m.check(unix.Shutdown(fd, unix.SHUT_WR))
}

func (m *socketMaker) write(fd int, data string) {
	m.t.Helper()
	_, err := unix.Write(fd, []byte(data))
	m.check(err)
}

func (m *socketMaker) close(fd int) {
	m.t.Helper()
	m.open = slices.DeleteFunc(m.open, func(one int) bool { return one == fd })
	m.check(unix.Close(fd))
}

func (m *socketMaker) index(name string) uint32 {
	m.t.Helper()
	var index int
	m.check(m.ns.Do(func() error {
		i, err := net.InterfaceByName(name)
		if err == nil {
			index = i.Index
		}
		return err
	}))
	return uint32(index)
}

// connectedSocket is a socket between two places.
func connectedSocket(protocol flow.Protocol, state SocketState, local, remote string) Socket {
	return Socket{Protocol: protocol, State: state, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
}

// waitingSocket is one without a peer.
func waitingSocket(protocol flow.Protocol, state SocketState, local string) Socket {
	remote := "0.0.0.0:0"
	if netip.MustParseAddrPort(local).Addr().Is6() {
		remote = "[::]:0"
	}
	return connectedSocket(protocol, state, local, remote)
}
