package kerneltest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// newLink makes a host that nothing but exempt traffic may pass, with a neighbour.
func newLink(t *testing.T, policy string, host []netip.Prefix, neighbour ...netip.Prefix) (ns, far *lab.Namespace) {
	t.Helper()
	ns, far = labtest.Namespace(t, "host"), labtest.Namespace(t, "neighbour")
	labtest.Connect(t,
		lab.End{Namespace: ns, Interface: "eth0", Addresses: host},
		lab.End{Namespace: far, Interface: "wire", Addresses: neighbour})
	enforce(t, ns, load(t, policy))
	return ns, far
}

// wireTo takes the neighbour's end of its wire to the host in hand.
func wireTo(t *testing.T, far, host *lab.Namespace) *lab.Wire {
	t.Helper()
	hardware, err := host.Hardware("eth0")
	if err != nil {
		t.Fatal(err)
	}
	wire, err := far.OpenWire("wire", hardware)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { wire.Close() })
	return wire
}

// Whatever else is refused, both sides find each other.
func TestNeighboursFindEachOther(t *testing.T) {
	t.Parallel()
	for name, text := range nothingPasses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, far := newLink(t, text+"host {\n  dns_resolvers = [\"192.0.2.20\", \"2001:db8:2::20\"]\n}\n",
				prefixes("192.0.2.10/24", "2001:db8:2::10/64"), prefixes("192.0.2.20/24", "2001:db8:2::20/64")...)
			hostLinks, farLinks := linksOf(t, host), linksOf(t, far)
			for _, there := range []string{"192.0.2.20", "2001:db8:2::20"} {
				here := hostOf[flow.FamilyOf(addr(there))]
				if err := ask(host, netip.AddrPortFrom(addr(there), 53)); err != nil {
					t.Error(err)
				}
				if !eventually(func() bool { return knows(t, hostLinks, addr(there)) }) {
					t.Errorf("the host does not find %s", there)
				}
				// The other way, after both have forgotten.
				for ns, iface := range map[*lab.Namespace]string{host: "eth0", far: "wire"} {
					if err := ns.FlushNeighbours(iface); err != nil {
						t.Fatal(err)
					}
				}
				if err := ask(far, netip.AddrPortFrom(here, 9)); err != nil {
					t.Error(err)
				}
				if !eventually(func() bool { return knows(t, farLinks, here) }) {
					t.Errorf("%s does not find the host", there)
				}
			}
		})
	}
}

// ask sends a datagram to somebody.
func ask(from *lab.Namespace, to netip.AddrPort) error {
	c, err := from.DialUDP(netip.AddrPort{}, to)
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("where are you?"))
	return errors.Join(err, c.Close())
}

// knows reports whether a namespace knows the link-layer address of a
// neighbour.
func knows(t *testing.T, links *netlink.Handle, neighbour netip.Addr) bool {
	t.Helper()
	neighbours, err := links.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool {
		a, _ := netip.AddrFromSlice(n.IP)
		return a.Unmap() == neighbour && n.State&(netlink.NUD_INCOMPLETE|netlink.NUD_FAILED) == 0 && len(n.HardwareAddr) > 0
	})
}

// linksOf opens rtnetlink in a namespace until the test ends.
func linksOf(t *testing.T, ns *lab.Namespace) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// A second owner of an address is found out, and a router's word is heard.
func TestAddressesWithoutConfiguration(t *testing.T) {
	t.Parallel()
	host, far := newLink(t, nothingPasses["both"], nil, prefixes("2001:db8:2::20/64")...)
	for _, setting := range []string{"accept_dad", "accept_ra"} {
		if err := host.SetSysctl("net/ipv6/conf/eth0/"+setting, "1"); err != nil {
			t.Fatal(err)
		}
	}
	// A prefix for an hour: one option, on the link and good for addresses.
	advertisement := []byte{134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0}
	sendToAll(t, far, 255, append(advertisement, addr("2001:db8:aa::").AsSlice()...))

	links := linksOf(t, host)
	eth0, err := links.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	taken := &netlink.Addr{IPNet: &net.IPNet{IP: addr("2001:db8:2::20").AsSlice(), Mask: net.CIDRMask(64, 128)}}
	if err := links.AddrAdd(eth0, taken); err != nil {
		t.Fatal(err)
	}
	has := func(p netip.Prefix, flag int) bool {
		addrs, err := links.AddrList(eth0, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
			got, _ := netip.AddrFromSlice(a.IP)
			return p.Contains(got) && a.Flags&flag == flag
		})
	}
	if !eventually(func() bool { return has(prefix("2001:db8:aa::/64"), 0) }) {
		t.Error("the host took no address from the router")
	}
	// Its owner has a second to say so. On a machine that stalls that may be over
	// before it is heard, and the host asks again.
	if !eventually(func() bool {
		if has(prefix("2001:db8:2::20/128"), unix.IFA_F_DADFAILED) {
			return true
		}
		if !has(prefix("2001:db8:2::20/128"), unix.IFA_F_TENTATIVE) {
			if err := errors.Join(links.AddrDel(eth0, taken), links.AddrAdd(eth0, taken)); err != nil {
				t.Fatal(err)
			}
		}
		return false
	}) {
		t.Error("the host did not find out that its address is taken")
	}
}

// sendToAll sends an ICMPv6 message to all nodes on the wire of a neighbour,
// with a router alert if the hop limit is 1. The kernel fills in its checksum.
func sendToAll(t *testing.T, ns *lab.Namespace, hops int, message []byte) {
	t.Helper()
	c := rawSocket(t, ns, netip.IPv6Unspecified(), flow.ICMPv6)
	control(t, c, func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, hops)
		if hops == 1 {
			alert := string([]byte{0, 0, 5, 2, 0, 0, 1, 0})
			err = errors.Join(err, unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, alert))
		}
		return errors.Join(err, unix.BindToDevice(fd, "wire"))
	})
	if _, err := c.WriteTo(message, &net.IPAddr{IP: addr("ff02::1").AsSlice()}); err != nil {
		t.Fatal(err)
	}
}

// control does something with the descriptor of a socket.
func control(t *testing.T, c syscall.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := errors.Join(raw.Control(func(fd uintptr) { failed = f(int(fd)) }), failed); err != nil {
		t.Fatal(err)
	}
	if failed != nil {
		t.Fatal(failed)
	}
}

// A host that listens to a group says so, and answers when it is asked: a
// switch would stop sending it anything else.
func TestMulticastListenersAreHeard(t *testing.T) {
	t.Parallel()
	group := addr("ff15::7367:6300")
	host, far := newLink(t, nothingPasses["both"], prefixes("2001:db8:2::10/64"), prefixes("2001:db8:2::20/64")...)
	wire := wireTo(t, far, host)
	member, err := host.ListenUDP(netip.AddrPortFrom(netip.IPv6Unspecified(), 9))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { member.Close() })
	control(t, member, func(fd int) error {
		if err := unix.BindToDevice(fd, "eth0"); err != nil {
			return err
		}
		index, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
		if err != nil {
			return err
		}
		return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
			&unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(index)})
	})
	if !seesReport(t, wire, group) {
		t.Error("nobody heard that the host joined the group")
	}
	// It says so once more, unasked; the answer to a query comes after that.
	if !seesReport(t, wire, group) {
		t.Error("the host said only once that it joined the group")
	}
	if err := wire.Drain(); err != nil {
		t.Fatal(err)
	}
	query := append([]byte{130, 0, 0, 0, 0, 100, 0, 0}, make([]byte, 16)...)
	sendToAll(t, far, 1, append(query, 2, 0, 0, 0))
	if !seesReport(t, wire, group) {
		t.Error("the host did not answer the query")
	}
}

// seesReport reports whether a listener's report of the group comes by.
func seesReport(t *testing.T, wire *lab.Wire, group netip.Addr) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		b, err := wire.Receive(ctx)
		if err != nil {
			return false
		}
		// A hop-by-hop header with a router alert, then the report with its
		// records.
		if len(b) > 56 && b[0]>>4 == 6 && b[6] == 0 && b[40] == byte(flow.ICMPv6) && b[48] == 143 {
			for records := b[56:]; len(records) >= 20; records = records[20:] {
				if a, _ := netip.AddrFromSlice(records[4:20]); a == group {
					return true
				}
			}
		}
	}
}
