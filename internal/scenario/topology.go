package scenario

import (
	"net/netip"
	"slices"

	"sgc/internal/flow"
)

// Topology answers where packets go: it knows every host's routes.
type Topology struct {
	s      *Scenario
	routes map[*Host][]hop
}

// hop is a line of a host's routing table, which is sorted so that the first
// that matches decides.
type hop struct {
	dest netip.Prefix
	// via is the next hop, invalid for a network that is on the link.
	via   netip.Addr
	iface *Interface
	// found lines are not in the file and not on a link of the host.
	found bool
}

// NewTopology finds out, for every host, how it reaches each network of the
// scenario: by its own routes, by its links, and over hosts that forward, the
// shortest way.
func NewTopology(s *Scenario) *Topology {
	t := &Topology{s: s, routes: map[*Host][]hop{}}
	for _, h := range s.Hosts {
		var hops []hop
		for _, i := range h.Interfaces {
			for _, p := range i.Addresses {
				hops = append(hops, hop{dest: p.Masked(), iface: i})
			}
		}
		for _, r := range h.Routes {
			if i := t.link(h, r.Via); i != nil {
				hops = append(hops, hop{dest: r.Dest, via: r.Via, iface: i})
			}
		}
		for _, dest := range t.prefixes() {
			if slices.ContainsFunc(hops, func(o hop) bool { return o.dest == dest }) {
				continue
			}
			if via, i := t.search(h, dest); i != nil {
				hops = append(hops, hop{dest: dest, via: via, iface: i, found: true})
			}
		}
		slices.SortStableFunc(hops, func(a, b hop) int { return b.dest.Bits() - a.dest.Bits() })
		t.routes[h] = hops
	}
	return t
}

// prefixes returns the networks of all interfaces.
func (t *Topology) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, h := range t.s.Hosts {
		for _, i := range h.Interfaces {
			for _, p := range i.Addresses {
				out = append(out, p.Masked())
			}
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// link returns the interface of the host on whose network the address is.
func (t *Topology) link(h *Host, a netip.Addr) *Interface {
	for _, i := range h.Interfaces {
		for _, o := range t.on(i.Network) {
			if o.host != h && slices.ContainsFunc(o.iface.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
				return i
			}
		}
	}
	return nil
}

// attached is an interface of a host.
type attached struct {
	host  *Host
	iface *Interface
}

// on returns the interfaces on a network.
func (t *Topology) on(network string) []attached {
	var out []attached
	for _, h := range t.s.Hosts {
		for _, i := range h.Interfaces {
			if i.Network == network {
				out = append(out, attached{h, i})
			}
		}
	}
	return out
}

// search finds the first router on the shortest way to a network, and the
// interface that leads to it: breadth first over the hosts that forward.
func (t *Topology) search(from *Host, dest netip.Prefix) (netip.Addr, *Interface) {
	type state struct {
		host  *Host
		via   netip.Addr
		iface *Interface
	}
	family := flow.FamilyOf(dest.Addr())
	seen := map[*Host]bool{from: true}
	queue := []state{{host: from}}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		if at.host != from && slices.ContainsFunc(at.host.Interfaces, func(i *Interface) bool {
			return slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Masked() == dest })
		}) {
			return at.via, at.iface
		}
		if at.host != from && !at.host.Forward {
			continue
		}
		for _, i := range at.host.Interfaces {
			for _, o := range t.on(i.Network) {
				address, ok := addressOf(o.iface, family)
				if seen[o.host] || !o.host.Forward || !ok {
					continue
				}
				seen[o.host] = true
				next := state{o.host, at.via, at.iface}
				if at.host == from {
					next.via, next.iface = address, i
				}
				queue = append(queue, next)
			}
		}
	}
	return netip.Addr{}, nil
}

func addressOf(i *Interface, f flow.Family) (netip.Addr, bool) {
	for _, p := range i.Addresses {
		if flow.FamilyOf(p.Addr()) == f {
			return p.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// next returns the line of the host's routing table that leads to the address.
func (t *Topology) next(h *Host, to netip.Addr) (hop, bool) {
	for _, r := range t.routes[h] {
		if r.dest.Contains(to) {
			return r, true
		}
	}
	return hop{}, false
}

// maxHops ends the way of a packet that goes in circles.
const maxHops = 16

// path follows a packet through the network. It returns the packet wherever it
// crosses an interface of the managed host, with the addresses that are on the
// wire there, the host that it ends at, nil if it gets nowhere, and the packet as
// it arrives there.
func (t *Topology) path(from *Host, p flow.Packet) (crossings []flow.Packet, end *Host, arrived flow.Packet) {
	at := from
	for range maxHops {
		if at.Has(p.Dest) {
			return crossings, at, p
		}
		if at != from && !at.Forward {
			return crossings, nil, p
		}
		r, ok := t.next(at, p.Dest)
		if !ok {
			return crossings, nil, p
		}
		if at != from && slices.Contains(at.Masquerade, r.iface.Name) {
			if own, ok := addressOf(r.iface, p.Family()); ok {
				p.Source = own
			}
		}
		if at.Managed {
			crossings = append(crossings, crossing(p, r.iface.Name, flow.Egress, at != from))
		}
		to := p.Dest
		if r.via.IsValid() {
			to = r.via
		}
		far := t.owner(r.iface.Network, to)
		if far.host == nil {
			return crossings, nil, p
		}
		wire := p
		for _, pub := range far.host.Publish {
			if pub.Interface == far.iface.Name && pub.Protocol == p.Protocol && pub.Port == p.DestPort &&
				far.host.Has(p.Dest) && pub.To.Addr().Is4() == p.Dest.Is4() {
				p.Dest, p.DestPort = pub.To.Addr(), pub.To.Port()
				break
			}
		}
		if far.host.Managed {
			crossings = append(crossings, crossing(wire, far.iface.Name, flow.Ingress, !far.host.Has(p.Dest)))
		}
		at = far.host
	}
	return crossings, nil, p
}

func (t *Topology) owner(network string, a netip.Addr) attached {
	for _, o := range t.on(network) {
		if slices.ContainsFunc(o.iface.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return o
		}
	}
	return attached{}
}

func crossing(p flow.Packet, iface string, d flow.Direction, forwarded bool) flow.Packet {
	p.Interface, p.Direction, p.Forwarded = iface, d, forwarded
	return p
}
