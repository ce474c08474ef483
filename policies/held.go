package policies

import (
	"fmt"
	"net/netip"
	"strings"

	"sgc/internal/flow"
)

// Held is UDP traffic that is refused for a while because its flow was cut
// (2.4): UDP has no packet that begins a flow, so without it the next packet of
// the side that may still send would open the flow anew, the other way round.
type Held struct {
	// Interface is the name of an interface, never a wildcard.
	Interface string
	// Opened is the direction in which the flow had been opened. What goes the
	// other way is refused; what goes this way, the rules refuse.
	Opened flow.Direction
	// Local is the address of the host's side of a single flow: where the flow
	// was opened ingress, the one that the packet has before source NAT, else
	// the one on the wire. It is the zero Addr where a port is held towards a
	// space.
	Local     netip.Addr
	LocalPort uint16
	// Peers and PeerPorts are the far side's: of a single flow one address and
	// one port.
	Peers     flow.Range
	PeerPorts flow.PortRange
	// Comment is for people and for Remaining, 128 bytes at most. Of a single
	// flow it is the packet that opened it, as the wire saw it: "in udp
	// 198.51.100.7:40000 → 192.0.2.10:8080".
	Comment string
}

// Exact reports whether it is a single flow that is held.
func (h *Held) Exact() bool { return h.Local.IsValid() }

// Refused is the direction of the packets that are refused.
func (h *Held) Refused() flow.Direction { return h.Opened.Opposite() }

// Family returns the IP version of what is held.
func (h *Held) Family() flow.Family { return flow.FamilyOf(h.Peers.First) }

// HoldFlow holds the UDP flow that p opened on p's interface. local is the
// address and port of the host's side as Held.Local has it; without NAT, they
// are those of p.
func HoldFlow(p *flow.Packet, local netip.AddrPort) Held {
	return Held{
		Interface: p.Interface, Opened: p.Direction,
		Local: local.Addr(), LocalPort: local.Port(),
		Peers:     flow.Range{First: p.Peer(), Last: p.Peer()},
		PeerPorts: flow.PortRange{First: p.PeerPort(), Last: p.PeerPort()},
		Comment:   heldComment(p),
	}
}

// directionWords are how a comment begins.
var directionWords = [...]string{flow.Ingress: "in", flow.Egress: "out"}

func heldComment(p *flow.Packet) string {
	return fmt.Sprintf("%s udp %s → %s", directionWords[p.Direction],
		netip.AddrPortFrom(p.Source, p.SourcePort), netip.AddrPortFrom(p.Dest, p.DestPort))
}

// Opening returns the packet that opened the single flow, as the wire saw it,
// which only the comment tells where there was NAT.
func (h *Held) Opening() (flow.Packet, error) {
	words := strings.Fields(h.Comment)
	p := flow.Packet{Interface: h.Interface, Direction: h.Opened, Protocol: flow.UDP, HopLimit: 64}
	if !h.Exact() || len(words) != 5 || words[0] != directionWords[h.Opened] || words[1] != "udp" || words[3] != "→" {
		return p, fmt.Errorf("%q names no UDP flow that was opened %s", h.Comment, h.Opened)
	}
	source, err := netip.ParseAddrPort(words[2])
	if err != nil {
		return p, fmt.Errorf("read %q: %w", h.Comment, err)
	}
	dest, err := netip.ParseAddrPort(words[4])
	if err != nil {
		return p, fmt.Errorf("read %q: %w", h.Comment, err)
	}
	if source.Addr().BitLen() != dest.Addr().BitLen() {
		return p, fmt.Errorf("%q names addresses of two families", h.Comment)
	}
	p.Source, p.SourcePort, p.Dest, p.DestPort = source.Addr(), source.Port(), dest.Addr(), dest.Port()
	return p, nil
}

// Remaining returns what is still to be held under the policy of the judge:
// what it allows again is not, nor what it does not govern. It is nothing, h
// itself, or, where a port is held towards a space, pieces of h, to be held for
// as long as h. An exact one whose comment has been tampered with stays.
func (h Held) Remaining(judge *Judge) []Held {
	if h.Exact() {
		p, err := h.Opening()
		if err != nil {
			// Without the comment, the tuple is the best that is known.
			p = h.tuple()
		}
		if judge.Standing(&p).Class != None {
			return nil
		}
		return []Held{h}
	}
	box := ClosedSpace{LocalPorts: onePort(h.LocalPort), PeerPorts: h.PeerPorts, Peers: []flow.Range{h.Peers}}
	return appendHeld(nil, judge.refusals().few(h.Interface, h.Opened, box, maxPieces), h)
}

// tuple is the opening packet of an exact hold if there was no NAT.
func (h *Held) tuple() flow.Packet {
	p := flow.Packet{
		Interface: h.Interface, Direction: flow.Ingress, Protocol: flow.UDP, HopLimit: 64,
		Source: h.Peers.First, SourcePort: h.PeerPorts.First, Dest: h.Local, DestPort: h.LocalPort,
	}
	if h.Opened == flow.Egress {
		return p.Reply()
	}
	return p
}

func onePort(port uint16) flow.PortRange { return flow.PortRange{First: port, Last: port} }
