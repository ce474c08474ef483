package cli

import (
	"fmt"
	"slices"
	"time"

	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/policies"
)

// explanation says why a flow is as it is, and how it ends.
type explanation struct {
	Legs []legExplanation `json:"legs"`
	// Timeout is null where no packet prolongs the flow.
	Timeout *nextTimeout `json:"next_timeout"`
	// Held is what refuses its packets at the moment, of UDP without an entry.
	Held *heldView `json:"held,omitempty"`
	// Apply is what an apply of the policy does to the flow; null where it is the
	// one that is enforced.
	Apply *effectView `json:"apply,omitempty"`
	// Sentences hold for the flow as a whole; each leg has its own.
	Sentences []string `json:"sentences"`
}

// legExplanation is an explanation of a crossing of an interface.
type legExplanation struct {
	Interface string `json:"interface"`
	// Why says why the leg has its class.
	Why string `json:"why"`
	// AllowedBy are all the rules that allow it now.
	AllowedBy []string `json:"allowed_by"`
	// HadAllowed are the rules that allowed it before, if none does now.
	HadAllowed []pastView `json:"had_allowed,omitempty"`
	// GoneSince is when the last of them was gone; at the latest, if one of them
	// does not say when.
	GoneSince *time.Time `json:"gone_since,omitempty"`
	// Kept says why an open flow is in conntrack.
	Kept string `json:"kept_in_conntrack_because,omitempty"`
	// Denied are the directions whose packets the network ACL stops.
	Denied []string `json:"denied_directions,omitempty"`
	// CutBy are the ways in which it can be cut, of the policy that is enforced.
	CutBy     []string `json:"cut_by"`
	Sentences []string `json:"sentences"`
}

// effectView is what an apply does to a flow.
type effectView struct {
	Fate   conntrack.Fate   `json:"fate"`
	Reason conntrack.Reason `json:"reason,omitempty"`
}

// entry explains the flow of an entry.
func (x *explainer) entry(e *conntrack.Entry, j *conntrack.Judged, c *conntrack.Changed) explanation {
	var out explanation
	for i := range c.Legs {
		l := &c.Legs[i]
		leg := x.leg(&conntrack.Leg{Packet: l.Packet, Standing: l.New}, l.Old.Rule, c.KeptOut)
		if l.Packet.Direction != j.Legs[i].Packet.Direction {
			leg.say("The entry is written the other way round: a segment of the host began it, but a socket here waits for peers on that port, so the peer opened the connection.")
		}
		x.sayEnding(&leg, &j.Legs[i])
		out.Legs = append(out.Legs, leg)
	}
	fate, reason, alive := c.Fate, c.Reason, true
	if e.Original.Protocol.IsOther(e.Original.Family()) {
		fate, reason, alive = x.otherFate(c)
	}
	var text string
	if alive {
		out.Timeout, text = x.timeouts.explain(e, j)
		if left, known := x.others.left(j); known {
			out.Timeout, text = &nextTimeout{Seconds: secondsOf(otherTimeout), From: "sgc"}, sayRemembered(left)
		}
	} else {
		text = sayForgotten(e.Original.Protocol, j.Legs[0].Packet.Peer())
	}
	out.Sentences = append(out.Sentences, text)
	for i := range j.Legs {
		if ending := x.forgetEnding(&j.Legs[i].Packet, "makes sgc forget it, and deletes its entries"); ending != "" {
			out.Sentences = append(out.Sentences, ending)
		}
	}
	if ending := x.flushEnding(j); ending != "" {
		out.Sentences = append(out.Sentences, ending)
	}
	switch {
	case x.planned == "":
	case alive:
		out.effect(fate, reason)
	default:
		out.Apply = &effectView{Fate: conntrack.Stays}
	}
	return out
}

// otherFate returns what becomes of the flow of another protocol, as far as sgc
// remembers it; alive is false if it does not.
func (x *explainer) otherFate(c *conntrack.Changed) (fate conntrack.Fate, reason conntrack.Reason, alive bool) {
	fate = conntrack.Stays
	for i := range c.Legs {
		l := &c.Legs[i]
		switch {
		case l.New.Class == policies.Exempt:
			alive = true // the rules need not remember it
		case x.remembers(&l.Packet):
			alive = true
			if l.Fate > fate {
				fate, reason = l.Fate, l.Reason
			}
		}
	}
	return fate, reason, alive
}

// leg explains a leg. old is the rule by which the policy that is enforced
// allows it, if it is another policy.
func (x *explainer) leg(l *conntrack.Leg, old *policies.Rule, leftover bool) legExplanation {
	p := &l.Packet
	out := legExplanation{Interface: p.Interface, AllowedBy: []string{}, CutBy: []string{}, Why: x.index.ByGroups(p).Reason}
	switch class := l.Class(); {
	case class == conntrack.ClassExempt:
		out.say("Exempt: %s. Neither groups nor network ACLs act on it.", out.Why)
		return out
	case l.Revoked() && x.sayBack(&out, p):
	case l.Revoked() && x.planned != "":
		out.say("No rule of this policy allows it: %s.", out.Why)
		x.sayPast(&out, p, old)
	case l.Revoked():
		out.say("Tracked, and no rule allows it any more: %s.", out.Why)
		x.sayPast(&out, p, old)
		if x.inForce != nil && (!isOther(p) || x.remembers(p)) {
			out.say("It is alive all the same: tracked flows outlive their rule. It goes on until it has been idle for its timeout; a new flow of the kind is refused.")
		}
	case class == conntrack.ClassOpen:
		out.say("Open: %s. The rules judge each of its packets.", out.Why)
		x.sayAllowed(&out, l)
		x.sayKept(&out, p, leftover)
	default:
		out.say("Tracked: %s. Its answers pass whatever the rules of the other direction say.", out.Why)
		x.sayAllowed(&out, l)
	}
	x.sayDenied(&out, l, "; if that ends before the flow is idle for its timeout, the flow goes on")
	return out
}

func (l *legExplanation) say(format string, args ...any) {
	l.Sentences = append(l.Sentences, fmt.Sprintf(format, args...))
}

// sayBack says of a flow of another protocol that rules of the other direction let
// it open, if they do.
func (x *explainer) sayBack(out *legExplanation, p *flow.Packet) bool {
	back, ok := x.allowsBack(p)
	if ok {
		out.say("Tracked, and no rule of this direction allows it: %s.", out.Why)
		out.say("%s lets it open the other way, and nobody remembers who opened a flow of this protocol.", back.Rule.Address())
	}
	return ok
}

// sayAllowed names the rules that allow a leg.
func (x *explainer) sayAllowed(out *legExplanation, l *conntrack.Leg) {
	first := l.Rule.Address()
	out.AllowedBy = append(out.AllowedBy, first)
	var others []string
	for _, r := range x.index.Allowing(&l.Packet) {
		if r != l.Rule {
			others = append(others, r.Address())
		}
	}
	out.AllowedBy = append(out.AllowedBy, others...)
	text := fmt.Sprintf("%s allows it (%s)", first, l.Rule.Pos)
	if l.Rule.Pos.File == "" {
		text = first + " allows it"
	}
	switch len(others) {
	case 0:
	case 1:
		text += "; so does " + others[0]
	default:
		text += "; so do " + someNames(others)
	}
	out.say("%s.", text)
}

// sayKept says why an open flow is in conntrack.
func (x *explainer) sayKept(out *legExplanation, p *flow.Packet, leftover bool) {
	known := x.step.new.Conntrack
	if x.planned == "" && x.inForce != nil {
		known = x.inForce.Conntrack
	}
	block := x.index.Interface(p.Interface)
	switch reason := known[p.Family()]; {
	case p.Forwarded:
		out.Kept = "it is forwarded"
	case block.NotrackOff:
		out.Kept = fmt.Sprintf("notrack is \"off\" in %s", block.Address())
	case reason != "":
		out.Kept = reason
	case leftover:
		out.say("The kernel does not track such flows (notrack): the entry is a leftover that no packet refreshes, and says nothing of the flow.")
		return
	default:
		return
	}
	out.say("It stays in conntrack all the same: %s.", out.Kept)
}

// sayDenied says what the network ACL does to a leg, and ends with after.
func (x *explainer) sayDenied(out *legExplanation, l *conntrack.Leg, after string) {
	// The packets that answer, too, are those of an established flow: only the
	// ACL judges them.
	for _, p := range []*flow.Packet{&l.Packet, reply(&l.Packet)} {
		if !x.index.Standing(p).Denied {
			continue
		}
		out.Denied = append(out.Denied, p.Direction.String())
		out.say("The network ACL stops its %s packets: %s. None passes while that is so%s.", p.Direction, x.index.Decide(p).Reason, after)
	}
}

// effect says what an apply of a planned policy does.
func (out *explanation) effect(fate conntrack.Fate, reason conntrack.Reason) {
	out.Apply = &effectView{fate, reason}
	text := ""
	switch fate {
	case conntrack.Cut:
		switch reason {
		case conntrack.GroupDeleted:
			text = "cuts it: only groups that are deleted have ever allowed it"
		default:
			text = "cuts it: it was untracked, and no rule allows it any more"
		}
	case conntrack.Lingers:
		text = "lets it go on until it is idle for its timeout, although no rule allows it any more"
		if reason == conntrack.Adopted {
			text = "adopts it: it goes on until it is idle for its timeout, although the policy would not let it open"
		}
	case conntrack.BecomesTracked:
		text = "lets it go on, tracked from then on"
	case conntrack.BecomesOpen:
		text = "lets it go on, open (untracked) from then on: a later removal of its rule cuts it at once"
	default:
		text = "leaves it as it is"
	}
	out.Sentences = append(out.Sentences, "An apply of this policy "+text+".")
}

// groupAddresses are the addresses of groups, sorted.
func groupAddresses(names []string) []string {
	slices.Sort(names)
	var out []string
	for _, n := range slices.Compact(names) {
		out = append(out, (&policies.Group{Name: n}).Address())
	}
	return out
}
