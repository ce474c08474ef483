package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// usableWithin bounds the wait for a link that has just been made. The kernel
// tells carrier changes from a work queue, up to a second late.
const usableWithin = 30 * time.Second

// End is one end of a wire.
type End struct {
	Namespace *Namespace
	// Interface is the name of the end, 1 to 15 bytes.
	Interface string
	// Addresses stand on the end with the lengths of their networks.
	Addresses []netip.Prefix
}

// Connect makes a veth pair from a to b, sets the addresses, and returns when
// both ends carry packets and all addresses are usable.
func Connect(a, b End) error {
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: a.Interface},
		PeerName:      b.Interface,
		PeerNamespace: netlink.NsFd(b.Namespace.fd),
	}
	if err := a.Namespace.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("connect %s to %s: %w", a, b, err)
	}
	ends := [2]End{a, b}
	for _, e := range ends {
		if err := e.setUp(); err != nil {
			return err
		}
	}
	for _, e := range ends {
		if err := e.Namespace.waitUsable(e.Interface); err != nil {
			return err
		}
	}
	return nil
}

func (e End) String() string { return e.Namespace.name + "/" + e.Interface }

func (e End) setUp() error {
	for _, p := range e.Addresses {
		if err := e.Namespace.AddAddress(e.Interface, p); err != nil {
			return err
		}
	}
	link, err := e.Namespace.link(e.Interface)
	if err != nil {
		return err
	}
	if err := e.Namespace.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", e, err)
	}
	return nil
}

func (n *Namespace) link(name string) (netlink.Link, error) {
	link, err := n.links.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find interface %s in %s: %w", name, n.name, err)
	}
	return link, nil
}

// waitUsable waits until the interface carries packets and none of its
// addresses is tentative.
func (n *Namespace) waitUsable(name string) error {
	for end := time.Now().Add(usableWithin); ; time.Sleep(time.Millisecond) {
		usable, err := n.usable(name)
		if usable || err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("interface %s in %s carries nothing after %s", name, n.name, usableWithin)
		}
	}
}

func (n *Namespace) usable(name string) (bool, error) {
	link, err := n.link(name)
	if err != nil {
		return false, err
	}
	if link.Attrs().OperState != netlink.OperUp {
		return false, nil
	}
	addrs, err := n.links.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return false, fmt.Errorf("list the addresses of %s in %s: %w", name, n.name, err)
	}
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			return false, nil
		}
	}
	// The link-local address, without which neighbour discovery for forwarded
	// packets has no source, comes when the carrier does.
	return len(addrs) > 0, nil
}

// AddAddress puts an address, with the length of its network, on an interface.
// It is usable at once: IPv6 skips the detection of duplicates.
func (n *Namespace) AddAddress(iface string, p netip.Prefix) error {
	link, err := n.link(iface)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if flow.FamilyOf(p.Addr()) == flow.IPv6 {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := n.links.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add address %s to %s in %s: %w", p, iface, n.name, err)
	}
	return nil
}

// Hardware returns the link-layer address of an interface.
func (n *Namespace) Hardware(iface string) (net.HardwareAddr, error) {
	link, err := n.link(iface)
	if err != nil {
		return nil, err
	}
	return link.Attrs().HardwareAddr, nil
}

// SetMTU sets the largest packet, in bytes, that the interface sends.
func (n *Namespace) SetMTU(iface string, mtu int) error {
	link, err := n.link(iface)
	if err != nil {
		return err
	}
	if err := n.links.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set the MTU of %s in %s to %d: %w", iface, n.name, mtu, err)
	}
	return nil
}

// DeleteLink removes an interface; the other end of its wire goes with it.
func (n *Namespace) DeleteLink(iface string) error {
	link, err := n.link(iface)
	if err != nil {
		return err
	}
	if err := n.links.LinkDel(link); err != nil {
		return fmt.Errorf("delete interface %s in %s: %w", iface, n.name, err)
	}
	return nil
}

// Route is an entry of the routing table.
type Route struct {
	Dest netip.Prefix
	// Via is the next hop, which needs no network of its own on the interface;
	// the zero value is a network that is on the link.
	Via       netip.Addr
	Interface string
	// Local makes every address of Dest an address of the host itself; the
	// interface is lo then.
	Local bool
	// Metric orders routes to the same destination; 0 is the kernel's default.
	Metric int
}

// AddRoute adds a route.
func (n *Namespace) AddRoute(r Route) error {
	if r.Local {
		r.Interface = "lo"
	}
	link, err := n.link(r.Interface)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.Dest), Priority: r.Metric}
	switch {
	case r.Local:
		route.Type, route.Table, route.Scope = unix.RTN_LOCAL, unix.RT_TABLE_LOCAL, netlink.SCOPE_HOST
	case r.Via.IsValid():
		route.Gw, route.Flags = r.Via.AsSlice(), int(netlink.FLAG_ONLINK)
	default:
		route.Scope = netlink.SCOPE_LINK
	}
	if err := n.links.RouteAdd(route); err != nil {
		return fmt.Errorf("add route to %s in %s: %w", r.Dest, n.name, err)
	}
	return nil
}

// AddNeighbour tells the link-layer address of a neighbour for good, so that
// none is asked for.
func (n *Namespace) AddNeighbour(iface string, addr netip.Addr, hardware net.HardwareAddr) error {
	link, err := n.link(iface)
	if err != nil {
		return err
	}
	neigh := &netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: addr.AsSlice(), HardwareAddr: hardware,
	}
	if err := n.links.NeighSet(neigh); err != nil {
		return fmt.Errorf("add neighbour %s to %s in %s: %w", addr, iface, n.name, err)
	}
	return nil
}

// FlushNeighbours forgets all neighbours on an interface but those that
// AddNeighbour told.
func (n *Namespace) FlushNeighbours(iface string) error {
	link, err := n.link(iface)
	if err != nil {
		return err
	}
	neighbours, err := n.links.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the neighbours on %s in %s: %w", iface, n.name, err)
	}
	for _, neigh := range neighbours {
		if neigh.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 {
			continue
		}
		if err := n.links.NeighDel(&neigh); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delete neighbour %s on %s in %s: %w", neigh.IP, iface, n.name, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
