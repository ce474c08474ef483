package cli

import (
	"fmt"
	"slices"
	"strings"

	"sgc/conntrack"
	"sgc/internal/flow"
)

// sayEnding says what would cut a leg, beside silence. It speaks of the policy
// that is enforced, and of none that is only planned.
func (x *explainer) sayEnding(out *legExplanation, l *conntrack.Leg) {
	if x.inForce == nil || x.planned != "" {
		return
	}
	const acl = "a deny in the network ACL, while it is there"
	switch p := &l.Packet; {
	case l.Class() == conntrack.ClassExempt:
		return
	case l.Class() == conntrack.ClassOpen:
		out.CutBy = append(out.CutBy, "an apply after which no rule allows it", acl)
		out.say("An open flow ends with its rule: the commit of an apply after which no rule allows it cuts it at once, in both directions. Allowed as tracked only, it goes on.")
		return
	case isOther(p) && !x.remembers(p):
		return
	case x.revoked(l):
		out.CutBy = append([]string{"sgc apply --flush revoked"}, append(x.deletions(l), acl)...)
	default:
		out.CutBy = append(x.deletions(l), acl, "sgc apply --flush revoked, once no rule allows it")
	}
	if !x.revoked(l) {
		out.say("It outlives its rule: if no rule allows it any more, it goes on until it is idle for its timeout.")
	}
	out.say("What cuts it: %s.", strings.Join(out.CutBy, "; "))
}

// revoked reports whether no rule lets the leg's flow open.
func (x *explainer) revoked(l *conntrack.Leg) bool {
	_, back := x.allowsBack(&l.Packet)
	return l.Revoked() && !back
}

// deletions says which groups would have to be deleted for a tracked leg to be
// cut: all that have ever allowed it, as an apply counts them.
func (x *explainer) deletions(l *conntrack.Leg) []string {
	openers := []*flow.Packet{&l.Packet}
	if isOther(&l.Packet) {
		openers = append(openers, reply(&l.Packet))
	}
	var names []string
	for _, p := range openers {
		for _, r := range x.index.Allowing(p) {
			names = append(names, r.Group)
		}
		for _, r := range x.ever.Allowed(p) {
			names = append(names, r.Group)
		}
	}
	switch groups := groupAddresses(names); len(groups) {
	case 0:
		return nil
	case 1:
		return []string{"deleting " + groups[0] + " (no other group has ever allowed it)"}
	default:
		return []string{"deleting all of " + someNames(groups)}
	}
}

// flushEnding says what becomes of a tracked flow if its entry is deleted, or is
// "".
func (x *explainer) flushEnding(j *conntrack.Judged) string {
	p := &j.Legs[0].Packet
	if x.inForce == nil || x.planned != "" || p.Protocol.IsOther(p.Family()) || j.Class() != conntrack.ClassTracked && !j.Revoked() {
		return ""
	}
	command := "sgc conntrack flush"
	if j.Revoked() {
		command += " --revoked"
	}
	command += fmt.Sprintf(" --protocol %s --cidr %s", p.Protocol.Name(p.Family()), p.Peer())
	if p.Protocol.HasPorts() {
		command += fmt.Sprintf(" --port %d", p.DestPort)
	}
	effect := "that cuts it, since no rule lets its next packet open it anew"
	if p.Protocol == flow.TCP && x.needsSYN(j) {
		effect = "that cuts it, since no segment of it is a SYN"
	} else if forth := x.opener(j, false); forth != "" {
		effect = fmt.Sprintf("it goes on with a new one, which %s lets open", forth)
	} else if back := x.opener(j, true); back != "" {
		effect = fmt.Sprintf("what %s does not pass any more, until a packet that %s opens a new one, as %s allows", sends(p), sends(reply(p)), back)
	}
	return fmt.Sprintf("%s deletes its entry, with those of all flows like it: %s.", command, effect)
}

// needsSYN reports whether the rules let only a SYN open the TCP flow anew.
func (x *explainer) needsSYN(j *conntrack.Judged) bool {
	return slices.ContainsFunc(j.Legs, func(l conntrack.Leg) bool {
		return l.Class() == conntrack.ClassTracked && !(l.Packet.Forwarded && x.window)
	})
}

// opener names a rule that would let the next packet of the flow open it anew, or
// is "": one that goes the way of the packet that opened it, or back. Where the flow
// is routed, every leg must let it.
func (x *explainer) opener(j *conntrack.Judged, back bool) string {
	if back && !j.Legs[0].Packet.Protocol.HasPorts() {
		return "" // an answer to a ping opens nothing
	}
	rule := ""
	for i := range j.Legs {
		p := &j.Legs[i].Packet
		if back {
			p = reply(p)
		}
		d := x.index.Decide(p)
		if !d.Allow {
			return ""
		}
		if d.Rule != nil {
			rule = d.Rule.Address()
		}
	}
	return rule
}
