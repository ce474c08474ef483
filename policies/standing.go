package policies

import "sgc/internal/flow"

// Standing is what a policy says today of a flow that is there already, of
// which the packet is known that opened it. It is a Decision without words, so
// that a million flows can be asked about in a moment, and it keeps groups and
// ACLs apart: a flow that only an ACL refuses is not revoked (2.4).
type Standing struct {
	// Class is Unmanaged, Exempt, Tracked, Untracked or Stateless; None if no
	// rule of the groups allows the flow.
	Class Class
	// Rule is the rule that allows it, as in Decision.
	Rule *Rule
	// Denied says that the interface's ACL stops the packet, whatever the
	// groups say.
	Denied bool
}

// Standing says what the policy means for the flow that p opened: whether p
// would open it today. It looks neither at the packet's State, which is taken
// for New, nor at its TCP flags, which are taken for those of a SYN.
func (j *Judge) Standing(p *flow.Packet) Standing {
	a := j.attachment(p.Interface)
	switch {
	case a == nil:
		return Standing{Class: Unmanaged}
	case j.host.exempt(p) != "":
		return Standing{Class: Exempt}
	}
	var s Standing
	if a.acl != nil {
		entry := a.acl.first(p)
		s.Denied = entry == nil || !entry.Allow
	}
	if here, _ := a.open(p); here != nil {
		s.Class, s.Rule = Untracked, here.Rule
		return s
	}
	r := a.rules[p.Direction].allowing(p)
	if r == nil {
		return s
	}
	s.Class, s.Rule = Tracked, r.Rule
	if p.Protocol.IsICMP(p.Family()) && !opensICMPFlow(p) {
		s.Class = Stateless
	}
	return s
}
