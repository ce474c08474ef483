package flow

import (
	"fmt"
	"net/netip"
)

// State is what the kernel's conntrack says of a packet before sgc's own
// chains have decided anything about it.
type State uint8

const (
	// New is a packet that belongs to no known flow.
	New State = iota
	// Established belongs to a flow that has an entry, in either direction.
	// For protocols that sgc tracks itself (all but TCP, UDP and the family's
	// ICMP) it means that a packet of the protocol went the other way, to or
	// from this peer, within the last 600 seconds.
	Established
	// Related is an ICMP error whose quoted packet belongs to an entry.
	Related
	// Invalid has no entry and cannot open one, such as an ICMP error whose
	// quoted packet has no entry, or an ICMP type that conntrack does not know.
	Invalid
)

func (s State) String() string {
	switch s {
	case New:
		return "new"
	case Established:
		return "established"
	case Related:
		return "related"
	case Invalid:
		return "invalid"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Packet is one packet as it crosses an interface, with the addresses and
// ports that are on the wire: before destination NAT on ingress, after source
// NAT on egress.
type Packet struct {
	// Interface is the name of the interface that the packet crosses.
	Interface string
	// Direction says whether it comes in or goes out there.
	Direction Direction
	Protocol  Protocol
	// Source and Dest are of the same family.
	Source, Dest netip.Addr
	// SourcePort and DestPort are 0 for protocols without ports.
	SourcePort, DestPort uint16
	// ICMPType and ICMPCode are 0 for protocols other than the family's ICMP.
	ICMPType, ICMPCode uint8
	// HopLimit is the IPv6 hop limit or the IPv4 time to live.
	HopLimit uint8
	// TCPFlags is byte 13 of the TCP header.
	TCPFlags uint8
	State    State
	// IsReply says that the packet goes against the direction in which its flow
	// was opened. It counts for packets of flows that conntrack knows (State
	// Established or Related); what opens a flow is no reply.
	IsReply bool `json:",omitempty"`
	// Forwarded packets do not begin or end on the host itself.
	Forwarded bool
	// Quoted is the packet that an ICMP error quotes, as its headers stand in
	// the error (Interface and Direction are not set); nil for all others.
	Quoted *Packet
}

// The flags of byte 13 of the TCP header that decide anything here.
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// Family returns the IP version of the packet.
func (p *Packet) Family() Family { return FamilyOf(p.Source) }

// Peer returns the address on the far side of the wire, seen from the
// interface: the source of an ingress packet, the destination of an egress one.
func (p *Packet) Peer() netip.Addr {
	if p.Direction == Ingress {
		return p.Source
	}
	return p.Dest
}

// Local returns the address on the near side, the opposite of Peer.
func (p *Packet) Local() netip.Addr {
	if p.Direction == Ingress {
		return p.Dest
	}
	return p.Source
}

// PeerPort returns the port on the far side of the wire.
func (p *Packet) PeerPort() uint16 {
	if p.Direction == Ingress {
		return p.SourcePort
	}
	return p.DestPort
}

// LocalPort returns the port on the near side, the opposite of PeerPort.
func (p *Packet) LocalPort() uint16 {
	if p.Direction == Ingress {
		return p.DestPort
	}
	return p.SourcePort
}

// OriginalSource returns the source of the packet that opened the flow, as far
// as the wire of this interface tells: what NAT did to it on its way through the
// host is not known here.
func (p *Packet) OriginalSource() netip.Addr {
	if p.IsReply {
		return p.Dest
	}
	return p.Source
}

// Reply returns the packet that answers p: the same flow, the other way. What
// conntrack says of it is the caller's to set; State and IsReply are those of p.
func (p *Packet) Reply() Packet {
	r := *p
	r.Direction = p.Direction.Opposite()
	r.Source, r.Dest = p.Dest, p.Source
	r.SourcePort, r.DestPort = p.DestPort, p.SourcePort
	r.Quoted = nil
	return r
}

func (p *Packet) String() string {
	s := fmt.Sprintf("%s %s %s ", p.Interface, p.Direction, p.Protocol.Name(p.Family()))
	switch {
	case p.Protocol.HasPorts():
		s += fmt.Sprintf("%s → %s", netip.AddrPortFrom(p.Source, p.SourcePort), netip.AddrPortFrom(p.Dest, p.DestPort))
	case p.Protocol.IsICMP(p.Family()):
		s += fmt.Sprintf("%s → %s type %d code %d", p.Source, p.Dest, p.ICMPType, p.ICMPCode)
	default:
		s += fmt.Sprintf("%s → %s", p.Source, p.Dest)
	}
	if p.Protocol == TCP {
		s += fmt.Sprintf(" flags %#02x", p.TCPFlags)
	}
	s += fmt.Sprintf(" (%s", p.State)
	if p.IsReply {
		s += ", reply"
	}
	if p.Forwarded {
		s += ", forwarded"
	}
	if p.Quoted != nil {
		s += ", quotes " + p.Quoted.String()
	}
	return s + ")"
}
