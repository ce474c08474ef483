package conntrack

import (
	"sgc/internal/flow"
	"sgc/policies"
)

// standing says what the policy says of the flow that p opened. Of protocols that
// sgc tracks by itself (2.2), nobody knows who opened a flow, whatever conntrack
// says: it is allowed if a rule of either direction lets its packets open it. What
// the network ACL says is about p.
func (j *Judge) standing(p *flow.Packet) policies.Standing {
	s := j.policy.Standing(p)
	if s.Class != policies.None || !p.Protocol.IsOther(p.Family()) {
		return s
	}
	reply := p.Reply()
	if back := j.policy.Standing(&reply); back.Class != policies.None {
		back.Denied = s.Denied
		return back
	}
	return s
}

// Other judges a flow of a protocol that sgc tracks by itself, of which nothing
// else may be left than what sgc remembers; the result is valid until the next
// call with the same out. Its legs are the packets that may have opened it: those
// of both directions, if rules of both allow them, else the one that a rule allows,
// or that which comes in. There are none if the policy does not govern the
// interface.
func (j *Judge) Other(f policies.OtherFlow, out *Judged) {
	out.Legs = out.room[:0]
	in, back := Leg{Packet: f.Packet(flow.Ingress)}, Leg{Packet: f.Packet(flow.Egress)}
	in.Standing, back.Standing = j.policy.Standing(&in.Packet), j.policy.Standing(&back.Packet)
	if in.Standing.Class == policies.Unmanaged {
		return
	}
	if !in.Revoked() || back.Revoked() {
		out.Legs = append(out.Legs, in)
	}
	if !back.Revoked() {
		out.Legs = append(out.Legs, back)
	}
}
