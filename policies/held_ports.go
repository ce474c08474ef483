package policies

import (
	"fmt"

	"sgc/internal/flow"
)

// BoundPort is a UDP port of the host to which a socket without a peer is bound.
type BoundPort struct {
	// Interface is the name of an interface on which the port may be reached.
	Interface string
	Family    flow.Family
	Port      uint16
	// Ephemeral says that the kernel gives the port to clients.
	Ephemeral bool
}

// maxHolds is about how many Held come of bound ports, one at least for each
// port and direction. The kernel looks each packet of a new UDP flow up among
// them, which takes the longer the more there are.
const maxHolds = 1 << 14

// Holds returns what is to be held because the change closes it under the
// sockets of the host: their flows leave no trace of which peers they are with.
//
//   - A port that was open to everybody and is not for all now must not send to
//     those for whom it is closed: that would open the flow anew.
//   - A client's port that sent to ports which are closed now must not hear from
//     them. Where a rule of the new policy names the port, it is no client's.
//
// Where the closed space is in thousands of pieces, the gaps between some of them
// are held, too.
func (c *Closing) Holds(bound []BoundPort) []Held {
	type hold struct {
		BoundPort
		opened flow.Direction
	}
	var holds []hold
	seen := map[BoundPort]bool{}
	for _, b := range bound {
		key := b
		key.Ephemeral = false
		if seen[key] {
			continue
		}
		seen[key] = true
		holds = append(holds, hold{b, flow.Ingress})
		if b.Ephemeral && !c.new.names(b) {
			holds = append(holds, hold{b, flow.Egress})
		}
	}
	if len(holds) == 0 {
		return nil
	}
	n := max(1, min(maxPieces, maxHolds/len(holds)))
	// Where a flow went out, the port of the host makes no difference.
	everyPort := map[hold][]ClosedSpace{}
	var out []Held
	for _, h := range holds {
		key := hold{BoundPort{Interface: h.Interface, Family: h.Family}, h.opened}
		rest, known := everyPort[key]
		if !known {
			for _, box := range c.open(h.Interface, h.opened, h.Family, onePort(h.Port)) {
				rest = append(rest, c.new.few(h.Interface, h.opened, box, n)...)
			}
			rest = fewerSpaces(rest, n)
			if h.opened == flow.Egress {
				everyPort[key] = rest
			}
		}
		out = appendHeld(out, rest, Held{
			Interface: h.Interface, Opened: h.opened, LocalPort: h.Port,
			Comment: fmt.Sprintf("%s udp port %d was bound", directionWords[h.opened], h.Port),
		})
	}
	return out
}

// maxPieces is how many pieces come of one port, and of what remains of a Held.
const maxPieces = 1 << 12

// appendHeld appends what is like h, with the peers and their ports of boxes.
func appendHeld(out []Held, boxes []ClosedSpace, h Held) []Held {
	for _, box := range boxes {
		for _, peers := range box.Peers {
			h.Peers, h.PeerPorts = peers, box.PeerPorts
			out = append(out, h)
		}
	}
	return out
}
