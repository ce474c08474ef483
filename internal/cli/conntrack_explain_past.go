package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"sgc/internal/flow"
	"sgc/policies"
)

// pastView is a rule that allowed a flow and does not any more.
type pastView struct {
	// Group is "" where the policy was read back from the kernel's table, which does
	// not name it.
	Group string `json:"group,omitempty"`
	// Rule is its address, Position where it stood last; "" in records of older
	// versions of sgc, and where Group is.
	Rule     string `json:"rule,omitempty"`
	Position string `json:"position,omitempty"`
	// Now says what became of it.
	Now pastState `json:"now"`
	// GoneSince is the time of the apply after which it did not allow the flow any
	// more, null in records of older versions.
	GoneSince *time.Time `json:"gone_since"`
	policies.Columns
}

// pastState is what became of a rule that allowed a flow. The change that took
// the flow from it may have been another one, before.
type pastState string

const (
	pastDeleted  pastState = "group_deleted"
	pastDetached pastState = "group_detached"
	pastGone     pastState = "gone"
	// The rule is there and allows less.
	pastNarrowed pastState = "narrowed"
	// Which rule it was is not known.
	pastUnknown pastState = "unknown"
)

// pastShown is how many past rules sentences name.
const pastShown = 3

// sayPast names the rules that allowed a leg before.
func (x *explainer) sayPast(out *legExplanation, p *flow.Packet, old *policies.Rule) {
	if old != nil && x.step.recorded {
		out.say("The policy that is enforced allows it: %s.", old.Address())
		return
	}
	switch had := x.sayHad(out, p); {
	case had:
	case x.inForce == nil:
	default:
		out.say("The record knows of no rule that allowed it: it was there before sgc enforced anything on %s, and was adopted; its group was deleted by an apply that cut nothing (--flush none), and forgotten by a later one; or another program made its entry.", p.Interface)
	}
}

// sayHad names the rules of the record that allowed a leg before, those that did
// so last first, and reports whether there are any.
func (x *explainer) sayHad(out *legExplanation, p *flow.Packet) bool {
	past := x.had.Allowed(p)
	if len(past) == 0 {
		return false
	}
	// What does not say when was gone by the time of the record.
	gone := func(r *policies.PastRule) time.Time {
		if r.Gone.IsZero() {
			return x.since
		}
		return r.Gone
	}
	slices.SortStableFunc(past, func(a, b *policies.PastRule) int {
		return cmp.Or(gone(b).Compare(gone(a)), strings.Compare(a.Address(), b.Address()))
	})
	var texts []string
	for _, r := range past {
		v := x.newPastView(r, p)
		out.HadAllowed = append(out.HadAllowed, v)
		until := "until the apply of " + gone(r).Local().Format("2006-01-02 15:04:05 MST")
		if r.Gone.IsZero() {
			until += " at the latest"
		}
		texts = append(texts, until+" by "+v.text(p.Interface))
	}
	if more := len(texts) - pastShown; more > 0 {
		texts = append(texts[:pastShown], fmt.Sprintf("%s more", thousands(more)))
	}
	last := gone(past[0])
	out.GoneSince = &last
	out.say("It was allowed %s.", strings.Join(texts, "; "))
	return true
}

func (x *explainer) newPastView(r *policies.PastRule, p *flow.Packet) pastView {
	v := pastView{Group: r.Group, Now: x.pastState(r, p.Interface), Columns: r.Columns()}
	switch {
	case strings.HasSuffix(r.Group, recovered):
		v.Group, v.Now = "", pastUnknown
	case r.ID != "":
		v.Rule = r.Address()
	}
	if r.Pos.File != "" {
		v.Position = r.Pos.String()
	}
	if !r.Gone.IsZero() {
		v.GoneSince = &r.Gone
	}
	for _, peers := range r.Peers {
		if peers.Contains(p.Peer()) {
			v.Peers = []string{rangeText(peers)}
		}
	}
	return v
}

// pastState finds out what became of a rule, by the policy that is enforced.
func (x *explainer) pastState(r *policies.PastRule, name string) pastState {
	policy := x.policy
	if x.step.recorded && x.step.old != nil {
		policy = x.step.old.Policy
	}
	group, block := policy.Group(r.Group), policy.Interface(name)
	switch {
	case group == nil:
		return pastDeleted
	case block == nil || !slices.Contains(block.Groups, r.Group):
		return pastDetached
	case r.ID == "":
		return pastUnknown
	case slices.ContainsFunc(group.Rules, func(now *policies.Rule) bool { return now.Direction == r.Direction && now.ID == r.ID }):
		return pastNarrowed
	}
	return pastGone
}

// text names the rule, what became of it, and what it allowed, on an interface.
func (v *pastView) text(name string) string {
	text := v.Rule
	if text == "" {
		text = "a rule of security_group." + v.Group
	}
	switch {
	case v.Group == "":
		text = "a rule of a policy of which there was no record"
	case v.Now == pastDeleted:
		text += ", whose group is deleted"
	case v.Now == pastDetached:
		text += fmt.Sprintf(", whose group is not attached to %s any more", name)
	case v.Now == pastGone:
		text += ", which is gone"
	case v.Now == pastNarrowed:
		text += ", which does not cover it any more"
	}
	preposition := flow.Ingress.Preposition()
	if v.Direction == flow.Egress.String() {
		preposition = flow.Egress.Preposition()
	}
	text += fmt.Sprintf(" (%s %s %s %s", v.Direction, strings.TrimSpace(v.Protocol+" "+v.Ports), preposition, strings.Join(v.Peers, ", "))
	if v.Position != "" {
		text += "; it stood at " + v.Position
	}
	return text + ")"
}
