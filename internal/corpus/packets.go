package corpus

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"sgc/internal/flow"
	"sgc/policies"
)

// Packets makes packets for a policy: on its interfaces, and at the borders of
// its ranges and prefixes.
type Packets struct {
	r          *rand.Rand
	interfaces []string
	ports      []uint16
	addresses  map[flow.Family][]netip.Addr
	protocols  []flow.Protocol
}

// NewPackets collects the borders of the policy.
func NewPackets(r *rand.Rand, p *policies.Policy) *Packets {
	x := &Packets{r: r, addresses: map[flow.Family][]netip.Addr{}}
	for _, i := range p.Interfaces {
		stem, wildcard := strings.CutSuffix(i.Name, "*")
		if !wildcard {
			x.interfaces = append(x.interfaces, i.Name)
			continue
		}
		x.interfaces = append(x.interfaces, stem+"7")
		if stem != "" {
			x.interfaces = append(x.interfaces, stem)
		}
	}
	// Each twice, since most packets of the others tell nothing.
	x.interfaces = append(x.interfaces, x.interfaces...)
	x.interfaces = append(x.interfaces, "zz0", policies.Loopback)
	for _, g := range p.Groups {
		x.prefixes(g.Members)
		for _, rule := range g.Rules {
			x.prefixes(rule.Prefixes)
			for _, ports := range rule.Ports {
				x.portRange(ports)
			}
			if !rule.AllProtocols {
				x.protocols = append(x.protocols, rule.Protocol)
			}
		}
	}
	for _, l := range p.Lists {
		x.prefixes(l.Entries)
	}
	for _, acl := range p.ACLs {
		for _, e := range acl.Entries {
			x.prefixes([]netip.Prefix{e.Prefix})
			x.portRange(e.Ports)
			if !e.AllProtocols {
				x.protocols = append(x.protocols, e.Protocol)
			}
		}
	}
	for _, i := range p.Interfaces {
		for _, t := range i.AlwaysTrack {
			x.prefixes(t.Prefixes)
		}
	}
	x.prefixes(p.Host.DNSResolvers)
	x.prefixes(p.Host.Exempt)
	return x
}

// prefixes adds the first and last addresses, and those beside them.
func (x *Packets) prefixes(list []netip.Prefix) {
	for _, p := range list {
		r := flow.RangeOf(p)
		f := flow.FamilyOf(r.First)
		for _, a := range []netip.Addr{r.First.Prev(), r.First, r.Last, r.Last.Next()} {
			if a.IsValid() && !a.IsMulticast() {
				x.addresses[f] = append(x.addresses[f], a)
			}
		}
	}
}

func (x *Packets) portRange(r flow.PortRange) {
	x.ports = append(x.ports, r.First, r.Last)
	if r.First > 0 {
		x.ports = append(x.ports, r.First-1)
	}
	if r.Last < 65535 {
		x.ports = append(x.ports, r.Last+1)
	}
}

// Next makes a packet.
func (x *Packets) Next() flow.Packet {
	f := pick(x.r, flow.Families[:])
	p := flow.Packet{
		Interface: pick(x.r, x.interfaces),
		Direction: pick(x.r, flow.Directions[:]),
		Protocol:  x.protocol(f),
		HopLimit:  pick(x.r, []uint8{1, 2, 64, 64, 254, 255, 255}),
		State:     x.state(),
		Forwarded: x.chance(20),
	}
	x.setAddresses(&p, f)
	x.setPorts(&p)
	switch {
	case p.Protocol == flow.TCP:
		p.TCPFlags = x.flags(p.State)
	case p.Protocol.IsICMP(f):
		x.setICMP(&p)
	}
	return p
}

// flags chooses TCP flags as a segment of that state has them, most of the time.
// What conntrack calls new is a SYN, or comes from the middle of a connection that
// it does not know.
func (x *Packets) flags(s flow.State) uint8 {
	const ece, cwr = 0x40, 0x80
	switch {
	case x.chance(15):
		return uint8(x.r.IntN(256))
	case s == flow.New && x.chance(60):
		return pick(x.r, []uint8{flow.SYN, flow.SYN, flow.SYN, flow.SYN | ece | cwr})
	case s == flow.New || s == flow.Established:
		return pick(x.r, []uint8{flow.ACK, flow.ACK, flow.PSH | flow.ACK, flow.FIN | flow.ACK})
	}
	return pick(x.r, []uint8{flow.SYN, flow.ACK, flow.SYN | flow.ACK, flow.RST, flow.FIN | flow.ACK, flow.PSH | flow.ACK, 0})
}

func (x *Packets) chance(percent int) bool { return x.r.IntN(100) < percent }

func (x *Packets) protocol(f flow.Family) flow.Protocol {
	switch n := x.r.IntN(100); {
	case n < 40:
		return flow.TCP
	case n < 60:
		return flow.UDP
	case n < 82:
		return flow.ICMPOf(f)
	case n < 94 && len(x.protocols) > 0:
		return pick(x.r, x.protocols)
	case n < 97:
		return flow.ICMPOf(otherFamily(f))
	default:
		return flow.Protocol(x.r.IntN(256))
	}
}

func otherFamily(f flow.Family) flow.Family {
	if f == flow.IPv4 {
		return flow.IPv6
	}
	return flow.IPv4
}

func (x *Packets) state() flow.State {
	switch n := x.r.IntN(100); {
	case n < 50:
		return flow.New
	case n < 65:
		return flow.Established
	case n < 75:
		return flow.Related
	default:
		return flow.Invalid
	}
}

// setAddresses chooses the peer, and a local address that the packet may have:
// one of multicast is a destination, and nobody forwards it.
func (x *Packets) setAddresses(p *flow.Packet, f flow.Family) {
	local, peer := Hosts[f], x.address(f)
	if x.chance(10) {
		local = x.address(f)
	}
	if x.chance(5) && !p.Forwarded {
		if p.Direction == flow.Ingress {
			local = pick(x.r, multicast[f])
		} else {
			peer = pick(x.r, multicast[f])
		}
	}
	if p.Direction == flow.Ingress {
		p.Source, p.Dest = peer, local
	} else {
		p.Source, p.Dest = local, peer
	}
	if staysOnLink(p.Dest) {
		p.Forwarded = false
	}
}

// staysOnLink reports whether no router passes a packet to the address on.
func staysOnLink(a netip.Addr) bool {
	return a.IsMulticast() || a.IsUnspecified() || a.Is4() && (a.As4()[0] == 0 || a.As4() == [4]byte{255, 255, 255, 255})
}

func (x *Packets) address(f flow.Family) netip.Addr {
	switch n := x.r.IntN(100); {
	case n < 70 && len(x.addresses[f]) > 0:
		return pick(x.r, x.addresses[f])
	case n < 78:
		return pick(x.r, services[f])
	default:
		a := within(x.r, pick(x.r, knownPrefixes[f]))
		if a.IsMulticast() {
			return Hosts[f]
		}
		return a
	}
}

// setPorts chooses ports for both ends; now and then the pair of a service
// that is never filtered.
func (x *Packets) setPorts(p *flow.Packet) {
	if !p.Protocol.HasPorts() {
		return
	}
	p.SourcePort, p.DestPort = x.port(), x.port()
	if x.chance(8) {
		pair := pick(x.r, [][2]uint16{{67, 68}, {546, 547}, {53, 40000}})
		p.SourcePort, p.DestPort = pair[0], pair[1]
		if x.chance(50) {
			p.SourcePort, p.DestPort = pair[1], pair[0]
		}
	}
}

func (x *Packets) port() uint16 {
	switch n := x.r.IntN(100); {
	case n < 65 && len(x.ports) > 0:
		return pick(x.r, x.ports)
	case n < 90:
		return pick(x.r, knownPorts)
	default:
		return uint16(x.r.IntN(65536))
	}
}

// setICMP chooses type and code, and what an error quotes: mostly a TCP or UDP
// packet that went the other way.
func (x *Packets) setICMP(p *flow.Packet) {
	types, errors := icmpTypes4, []int{3, 4, 5, 11, 12}
	if p.Family() == flow.IPv6 {
		types, errors = icmpTypes6, []int{1, 2, 3, 4}
	}
	p.ICMPCode = pick(x.r, icmpCodes)
	p.ICMPType = uint8(pick(x.r, types))
	if x.chance(45) {
		p.ICMPType = uint8(pick(x.r, errors))
		p.State = pick(x.r, []flow.State{flow.Related, flow.Invalid, flow.Invalid, flow.Invalid})
	} else if p.State == flow.Established && !slices.Contains([]uint8{0, 8, 13, 14, 128, 129}, p.ICMPType) {
		// Only echo and the like have entries.
		p.State = flow.Invalid
	}
	isError := slices.Contains(errors, int(p.ICMPType))
	if !isError || x.chance(5) {
		return
	}
	q := flow.Packet{Direction: p.Direction.Opposite(), HopLimit: 64, Protocol: pick(x.r, []flow.Protocol{
		flow.TCP, flow.TCP, flow.TCP, flow.UDP, flow.UDP, flow.ICMPOf(p.Family()), 47,
	})}
	x.setAddresses(&q, p.Family())
	x.setPorts(&q)
	if q.Protocol == flow.TCP {
		q.TCPFlags = flow.ACK
	}
	q.Direction = 0
	p.Quoted = &q
}
