package conntrack

import (
	"fmt"
	"net/netip"

	"sgc/internal/flow"
	"sgc/policies"
)

// Judge says what a policy means for the entries of a table. One goroutine at a
// time may use it.
type Judge struct {
	policy *policies.Judge
	routes *Routes
}

// NewJudge makes a judge; routes tells it which interface a flow crosses, and
// stays the caller's.
func NewJudge(policy *policies.Judge, routes *Routes) *Judge { return &Judge{policy, routes} }

// Class is how a policy treats the flow of an entry today.
type Class uint8

const (
	// ClassElsewhere is the class of flows that cross no interface of the policy.
	ClassElsewhere Class = iota
	// ClassExempt flows are never filtered (2.6).
	ClassExempt
	// ClassTracked flows go on until they are idle, whatever becomes of their rule.
	ClassTracked
	// ClassOpen flows are untracked in the policy's eyes (2.3), although conntrack
	// keeps an entry for them: they end when their rule goes.
	ClassOpen
)

func (c Class) String() string {
	switch c {
	case ClassElsewhere:
		return "elsewhere"
	case ClassExempt:
		return "exempt"
	case ClassTracked:
		return "tracked"
	case ClassOpen:
		return "open"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// MarshalText is the class's name, for JSON.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Leg is where a flow crosses an interface that the policy governs.
type Leg struct {
	// Packet is the one that opened the flow, as the wire saw it there. Only
	// its addresses, ports and ICMP type and code come from the entry.
	Packet flow.Packet
	policies.Standing
}

// Class returns the class of the leg. A flow that no rule allows any more is
// tracked.
func (l *Leg) Class() Class {
	switch l.Standing.Class {
	case policies.Unmanaged:
		return ClassElsewhere
	case policies.Exempt:
		return ClassExempt
	case policies.Untracked:
		return ClassOpen
	default:
		return ClassTracked
	}
}

// Revoked reports whether no rule allows the leg any more.
func (l *Leg) Revoked() bool { return l.Standing.Class == policies.None }

// Judged is what a policy means for one entry.
type Judged struct {
	// Legs are none for a flow that crosses no interface of the policy, one for
	// a flow that ends on the host, and up to two for one that is routed: where
	// it comes in, then where it goes out.
	Legs []Leg
	room [2]Leg
}

// Class returns the class of the entry: open if a leg is open, since a change
// there cuts it, else tracked if a leg is tracked.
func (j *Judged) Class() Class {
	class := ClassElsewhere
	for i := range j.Legs {
		class = max(class, j.Legs[i].Class())
	}
	return class
}

// Revoked reports whether some leg is allowed by no rule any more.
func (j *Judged) Revoked() bool {
	for i := range j.Legs {
		if j.Legs[i].Revoked() {
			return true
		}
	}
	return false
}

// Entry judges e as if the packet that opened it came now; the result is valid
// until the next call with the same out. NAT is undone: where the flow comes in
// from the wire, addresses are those before NAT, and where it goes out, those
// after it (2.1). It fails only if the kernel cannot be asked for a route.
func (j *Judge) Entry(e *Entry, out *Judged) error {
	out.Legs = out.room[:0]
	o, r := &e.Original, &e.Reply
	if o.Source.IsUnspecified() {
		return nil // nobody's, such as a DHCP client's
	}
	// Replies go where the first packet came from, after all NAT.
	from, to := r.Dest, r.Source
	if j.routes.isOwn(o.Source) {
		if j.routes.isOwn(to) {
			return nil // it stays on the loopback
		}
		return j.add(out, e, leg{flow.Egress, from, to, r.DestPort, r.SourcePort, false})
	}
	endsHere := j.routes.hears(to)
	if err := j.add(out, e, leg{flow.Ingress, o.Source, o.Dest, o.SourcePort, o.DestPort, !endsHere}); err != nil || endsHere {
		return err
	}
	return j.add(out, e, leg{flow.Egress, from, to, r.DestPort, r.SourcePort, true})
}

// leg is a packet without what all legs of an entry have in common.
type leg struct {
	direction            flow.Direction
	source, dest         netip.Addr
	sourcePort, destPort uint16
	forwarded            bool
}

// hopLimit is that of a packet that is no neighbour discovery.
const hopLimit = 64

// add judges a leg and keeps it if a block governs its interface.
func (j *Judge) add(out *Judged, e *Entry, l leg) error {
	host, peer := l.dest, l.source
	if l.direction == flow.Egress {
		host, peer = l.source, l.dest
	}
	name, err := j.routes.link(host, peer)
	if err != nil || name == "" {
		return err
	}
	n := len(out.Legs)
	out.Legs = out.room[:n+1]
	o := &out.Legs[n]
	*o = Leg{Packet: flow.Packet{
		Interface: name, Direction: l.direction, Protocol: e.Original.Protocol,
		Source: l.source, Dest: l.dest,
		ICMPType: e.Original.ICMPType, ICMPCode: e.Original.ICMPCode,
		HopLimit: hopLimit, State: flow.New, Forwarded: l.forwarded,
	}}
	if o.Packet.Protocol.HasPorts() {
		o.Packet.SourcePort, o.Packet.DestPort = l.sourcePort, l.destPort
	}
	if o.Packet.Protocol == flow.TCP {
		o.Packet.TCPFlags = flow.SYN
	}
	o.Standing = j.policy.Standing(&o.Packet)
	if o.Standing.Class == policies.Unmanaged {
		out.Legs = out.Legs[:n]
	}
	return nil
}
