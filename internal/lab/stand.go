package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// Stand is a host whose interfaces end in the lab's hands: what comes in there
// is what the lab puts on the wire, with any source address, and what goes out
// meets nobody who answers. The host is a router, too: behind every interface
// there is a passive one, on which packets come in that leave by the first.
type Stand struct {
	// Host is where the policy under test is applied.
	Host    *Namespace
	outside *Namespace
	local   []netip.Prefix
	ports   []*port
}

// port is one interface of a stand's host.
type port struct {
	name string
	// index is the interface's own.
	index uint32
	// wire is the far end of the interface, back that of its passive twin.
	wire, back *Wire
	// sender sends out of the interface from the host itself.
	sender *Sender
}

// PassivePrefix begins the names of a stand's passive interfaces. A policy
// whose wildcards match them acts on forwarded packets twice.
const PassivePrefix = "zz-lab"

// The next hops of every interface. They are addresses of nobody; their
// neighbour entries are permanent.
var nextHops = map[flow.Family]netip.Addr{
	flow.IPv4: netip.MustParseAddr("169.254.255.254"),
	flow.IPv6: netip.MustParseAddr("fe80::ffff:fffe"),
}

// firstTable is the routing table of the first interface, in which everything
// leaves by it.
const firstTable = 1000

// NewStand makes a host with the interfaces. Every address of local belongs to
// the host; all others lie beyond its interfaces.
func NewStand(local []netip.Prefix, interfaces ...string) (*Stand, error) {
	s := &Stand{local: local}
	if err := s.setUp(interfaces); err != nil {
		return nil, errors.Join(fmt.Errorf("build a stand: %w", err), s.Close())
	}
	return s, nil
}

func (s *Stand) setUp(interfaces []string) (err error) {
	if s.Host, err = NewNamespace("host"); err != nil {
		return err
	}
	if s.outside, err = NewNamespace("outside"); err != nil {
		return err
	}
	if err := s.Host.Forward(); err != nil {
		return err
	}
	for _, p := range s.local {
		if err := s.Host.AddRoute(Route{Dest: p, Local: true}); err != nil {
			return err
		}
	}
	for _, name := range interfaces {
		if err := s.AddInterface(name); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the stand and its namespaces.
func (s *Stand) Close() error {
	var errs []error
	for _, p := range s.ports {
		errs = append(errs, p.close())
	}
	for _, n := range []*Namespace{s.outside, s.Host} {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// AddInterface adds one more interface to the host. A judge that is open
// already does not know it.
func (s *Stand) AddInterface(name string) error {
	index := len(s.ports)
	p := &port{name: name}
	s.ports = append(s.ports, p)
	far, passive := fmt.Sprintf("front%d", index), fmt.Sprintf("%s%d", PassivePrefix, index)
	farPassive := fmt.Sprintf("back%d", index)
	var err error
	if p.wire, err = s.connect(name, far); err != nil {
		return err
	}
	if p.back, err = s.connect(passive, farPassive); err != nil {
		return err
	}
	if p.sender, err = s.Host.OpenSender(name, observerMark); err != nil {
		return err
	}
	return s.route(name, far, passive, firstTable+index)
}

func (s *Stand) connect(name, far string) (*Wire, error) {
	if err := Connect(End{Namespace: s.Host, Interface: name}, End{Namespace: s.outside, Interface: far}); err != nil {
		return nil, err
	}
	hardware, err := s.Host.Hardware(name)
	if err != nil {
		return nil, err
	}
	return s.outside.OpenWire(far, hardware)
}

// route makes everything that comes in by the passive interface, and what is
// sent by a socket bound to the interface, leave by the interface.
func (s *Stand) route(name, far, passive string, table int) error {
	hardware, err := s.outside.Hardware(far)
	if err != nil {
		return err
	}
	link, err := s.Host.link(name)
	if err != nil {
		return err
	}
	s.port(name).index = uint32(link.Attrs().Index)
	for _, f := range flow.Families {
		via := nextHops[f]
		if err := s.Host.AddNeighbour(name, via, hardware); err != nil {
			return err
		}
		tables := []int{table}
		if table == firstTable {
			tables = append(tables, unix.RT_TABLE_MAIN)
		}
		for _, t := range tables {
			route := &netlink.Route{
				LinkIndex: link.Attrs().Index, Dst: ipNet(f.Any()), Table: t,
				Gw: via.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
			}
			if err := s.Host.links.RouteAdd(route); err != nil {
				return fmt.Errorf("add %s default route by %s: %w", f, name, err)
			}
		}
		for _, set := range []func(*netlink.Rule){
			func(r *netlink.Rule) { r.IifName = passive },
			func(r *netlink.Rule) { r.OifName = name },
		} {
			rule := netlink.NewRule()
			rule.Family, rule.Table, rule.Priority = family(f), table, table
			set(rule)
			if err := s.Host.links.RuleAdd(rule); err != nil {
				return fmt.Errorf("add %s routing rule for %s: %w", f, name, err)
			}
		}
	}
	return nil
}

func family(f flow.Family) int {
	if f == flow.IPv4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func (p *port) close() error {
	var errs []error
	if p.wire != nil {
		errs = append(errs, p.wire.Close())
	}
	if p.back != nil {
		errs = append(errs, p.back.Close())
	}
	if p.sender != nil {
		errs = append(errs, p.sender.Close())
	}
	return errors.Join(errs...)
}

// Wire returns the far end of an interface, nil for a name that the host does
// not have.
func (s *Stand) Wire(name string) *Wire {
	if p := s.port(name); p != nil {
		return p.wire
	}
	return nil
}

func (s *Stand) port(name string) *port {
	for _, p := range s.ports {
		if p.name == name {
			return p
		}
	}
	return nil
}

// IsLocal reports whether the address belongs to the host.
func (s *Stand) IsLocal(a netip.Addr) bool {
	return slices.ContainsFunc(s.local, func(p netip.Prefix) bool { return p.Contains(a) })
}

// ErrImpossible says that no host would ever see the packet where it is said
// to be.
var ErrImpossible = errors.New("impossible packet")

// Possible returns why the packet cannot cross the stand's interface as it is
// described, as ErrImpossible, wrapped, or nil.
func (s *Stand) Possible(p *flow.Packet) error {
	if reason := s.impossible(p); reason != "" {
		return fmt.Errorf("%s: %w: %s", p, ErrImpossible, reason)
	}
	return nil
}

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	broadcast   = netip.MustParseAddr("255.255.255.255")
	// linkAnycast is an address of every router on a link, and so the host's.
	linkAnycast = netip.MustParseAddr("fe80::")
)

func (s *Stand) impossible(p *flow.Packet) string {
	switch {
	case s.port(p.Interface) == nil:
		return "the host has no such interface"
	case p.Family() == flow.IPv6 && isExtensionHeader(p.Protocol):
		return "the protocol is an extension header in IPv6"
	case p.Family() == flow.IPv6 && (p.Source.Is4In6() || p.Dest.Is4In6()):
		return "IPv4-mapped addresses are never on the wire"
	case p.Source.IsMulticast() || p.Family() == flow.IPv4 && p.Source == broadcast:
		return "the source is no host"
	case p.Source.IsLoopback() || p.Dest.IsLoopback():
		return "loopback addresses are never on the wire"
	case p.Dest.IsUnspecified() || p.Family() == flow.IPv4 && thisNetwork.Contains(p.Dest):
		return "the destination is no host"
	case p.Dest.IsInterfaceLocalMulticast():
		return "the destination never leaves its host"
	}
	reaches := p.Dest.IsMulticast() || p.Dest == broadcast || s.IsLocal(p.Dest)
	switch {
	case p.Direction == flow.Ingress && !p.Forwarded && !reaches:
		return "the destination is not the host's"
	case p.Direction == flow.Ingress && p.Forwarded && reaches:
		return "the destination is the host's"
	case p.Direction == flow.Egress && (s.IsLocal(p.Dest) || p.Dest == linkAnycast):
		return "the destination is the host's: it goes over lo"
	}
	if p.Direction == flow.Egress && p.Forwarded {
		return s.impossibleThroughRouter(p, reaches)
	}
	if p.Direction == flow.Egress && p.Family() == flow.IPv4 && (p.Source.IsUnspecified() || thisNetwork.Contains(p.Source)) {
		return "the host has no such source address"
	}
	return ""
}

func (s *Stand) impossibleThroughRouter(p *flow.Packet, reaches bool) string {
	switch {
	case reaches:
		return "routers do not forward multicast and broadcast"
	case s.IsLocal(p.Source):
		return "the source is the router's own"
	case p.HopLimit == 255:
		return "a router has lowered the hop limit"
	case p.Source.IsUnspecified() || thisNetwork.Contains(p.Source):
		return "the source is no host"
	case p.Family() == flow.IPv6 && (p.Source.IsLinkLocalUnicast() || p.Dest.IsLinkLocalUnicast()):
		return "routers do not forward link-local addresses"
	}
	return ""
}

// isExtensionHeader reports whether an IPv6 header of that number is followed
// by the true protocol.
func isExtensionHeader(p flow.Protocol) bool {
	switch p {
	case 0, 43, 44, 51, 60:
		return true
	}
	return false
}
