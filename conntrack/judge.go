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
	packets := [2]*flow.Packet{&out.room[0].Packet, &out.room[1].Packet}
	n, err := j.routes.crossings(e, packets, j)
	if err != nil {
		return err
	}
	for i := range n {
		l := &out.room[i]
		l.Standing = j.standing(&l.Packet)
		if l.Standing.Class == policies.Unmanaged {
			continue
		}
		if m := len(out.Legs); m < i {
			out.room[m] = *l
		}
		out.Legs = out.room[:len(out.Legs)+1]
	}
	return nil
}

// crossings fills in the packets that opened a flow where it crosses interfaces,
// as the wire saw them there, and returns how many: none for a flow that stays
// on the host or whose interface nobody knows, one for a flow that ends on the
// host, up to two for one that is routed: where it comes in, then where it goes
// out.
func (r *Routes) crossings(e *Entry, packets [2]*flow.Packet, choose chooser) (int, error) {
	original, reply := &e.Original, &e.Reply
	if r.reversed(e) {
		original, reply = reply, original
	}
	if original.Source.IsUnspecified() {
		return 0, nil // nobody's, such as a DHCP client's
	}
	// Replies go where the first packet came from, after all NAT.
	from, to := reply.Dest, reply.Source
	out := leg{flow.Egress, from, to, reply.DestPort, reply.SourcePort, false, original.Source}
	if r.isOwn(original.Source) {
		if r.isOwn(to) {
			return 0, nil // it stays on the loopback
		}
		return r.crossing(e, &out, 0, packets, choose)
	}
	out.forwarded = !r.hears(to)
	in := leg{flow.Ingress, original.Source, original.Dest, original.SourcePort, original.DestPort, out.forwarded, to}
	n, err := r.crossing(e, &in, 0, packets, choose)
	if err != nil || !out.forwarded {
		return n, err
	}
	return r.crossing(e, &out, n, packets, choose)
}

// reversed reports whether the entry is that of a connection which was opened the
// other way. Where conntrack has no entry of a connection, a segment in the middle
// of it begins one, whoever sends it. On the host, who waits for peers on a port
// has not opened a connection from there; else the ports tell, if only that of the
// other side is one that clients get. A connection with NAT cannot go on like that.
//
// An entry that began with a SYN is right, whoever waits there: a host may dial from
// a port on which it listens.
func (r *Routes) reversed(e *Entry) bool {
	o := &e.Original
	if r.openers == nil || !e.PickedUp || o.Protocol != flow.TCP || e.Status&(SourceNAT|DestNAT) != 0 {
		return false
	}
	switch e.TCPState {
	case TCPNone, TCPSynSent, TCPSynRecv, TCPSynSent2:
		return false // it began with a SYN, or with nothing that is known
	}
	source, dest := netip.AddrPortFrom(o.Source, o.SourcePort), netip.AddrPortFrom(o.Dest, o.DestPort)
	waits := func(local, remote netip.AddrPort) bool {
		return r.openers.waitsFor(&Socket{Protocol: flow.TCP, State: Established, Local: local, Remote: remote})
	}
	switch {
	case r.isOwn(o.Source) && waits(source, dest):
		return true
	case r.hears(o.Dest) && waits(dest, source):
		return false
	}
	return r.reversedByPorts(source, dest)
}

// leg is a packet without what all legs of an entry have in common.
type leg struct {
	direction            flow.Direction
	source, dest         netip.Addr
	sourcePort, destPort uint16
	forwarded            bool
	// behind is the other end of a flow that is routed, as the host sees it.
	behind netip.Addr
}

// hopLimit is that of a packet that is no neighbour discovery.
const hopLimit = 64

// crossing fills in the packet of a leg, if its interface is known, and returns
// how many there are now.
func (r *Routes) crossing(e *Entry, l *leg, n int, packets [2]*flow.Packet, choose chooser) (int, error) {
	w, err := r.way(l)
	if err != nil || r.names[w.link] == "" {
		return n, err
	}
	p := packets[n]
	*p = flow.Packet{
		Interface: r.names[w.link], Direction: l.direction, Protocol: e.Original.Protocol,
		Source: l.source, Dest: l.dest,
		ICMPType: e.Original.ICMPType, ICMPCode: e.Original.ICMPCode,
		HopLimit: hopLimit, State: flow.New, Forwarded: l.forwarded,
	}
	if p.Protocol.HasPorts() {
		p.SourcePort, p.DestPort = l.sourcePort, l.destPort
	}
	if p.Protocol == flow.TCP {
		p.TCPFlags = flow.SYN
	}
	if w.open || w.twins != nil {
		choose.among(r, w, p)
	}
	return n + 1, nil
}
