package policies

import (
	"net/netip"

	"sgc/internal/flow"
)

// OtherFlow is a live flow of a protocol other than TCP, UDP and the family's
// ICMP, by all that is remembered of it (2.2). Who opened it is not, nor the
// address on the near side.
type OtherFlow struct {
	// Interface is the name of an interface, never a wildcard.
	Interface string
	Protocol  flow.Protocol
	Peer      netip.Addr
}

// Packet returns a packet of the flow that goes in a direction. Its near side has
// the unspecified address, at which no rule looks.
func (f *OtherFlow) Packet(d flow.Direction) flow.Packet {
	p := flow.Packet{
		Interface: f.Interface, Direction: flow.Ingress, Protocol: f.Protocol, HopLimit: 64, State: flow.New,
		Source: f.Peer, Dest: netip.IPv4Unspecified(),
	}
	if f.Peer.Is6() {
		p.Dest = netip.IPv6Unspecified()
	}
	if d == flow.Egress {
		return p.Reply()
	}
	return p
}

// OtherFlowOf returns the flow that a packet of such a protocol belongs to.
func OtherFlowOf(p *flow.Packet) OtherFlow {
	return OtherFlow{Interface: p.Interface, Protocol: p.Protocol, Peer: p.Peer()}
}
