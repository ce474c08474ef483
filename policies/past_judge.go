package policies

import (
	"slices"

	"sgc/internal/flow"
)

// PastJudge tells which groups have ever allowed a flow. It is read-only.
type PastJudge struct {
	old *Judge
	// exists are the groups of the new policy.
	exists map[string]bool
	// anyDeleted says that a group is known that does not exist.
	anyDeleted bool
	past       *Past
	scopes     []*pastScope
	// number is the place in past of each rule of the scopes.
	number map[*Rule]int
}

// pastScope holds the rules that were past on the same interfaces.
type pastScope struct {
	scope
	rules [2]ruleIndex
}

// NewPastJudge makes a judge of the change from one policy to another. old is
// the judge of the policy that was enforced, nil where there was none.
func NewPastJudge(past *Past, old *Judge, new *Policy) *PastJudge {
	j := &PastJudge{old: old, exists: groupNames(new)}
	if old != nil {
		for name := range old.rules {
			j.anyDeleted = j.anyDeleted || !j.exists[name]
		}
	}
	if !past.IsEmpty() {
		for _, r := range past.Rules {
			j.anyDeleted = j.anyDeleted || !j.exists[r.Group]
		}
		j.past, j.number = past, map[*Rule]int{}
		j.scopes = past.scopes(j.number)
	}
	return j
}

// scopes indexes the rules by where they were; numbers gets the number of each.
func (p *Past) scopes(numbers map[*Rule]int) []*pastScope {
	var out []*pastScope
	shared := map[*flow.Range]*addressIndex{}
	for n, r := range p.Rules {
		index := shared[&r.Peers[0]]
		if index == nil {
			index = newAddressIndex(prefixesOf(r.Peers))
			shared[&r.Peers[0]] = index
		}
		at := slices.IndexFunc(out, func(s *pastScope) bool { return s.name == r.Interface && slices.Equal(s.except, r.Except) })
		if at < 0 {
			at = len(out)
			out = append(out, &pastScope{scope: scope{r.Interface, r.Except}})
		}
		rule := &Rule{
			Group: r.Group, Direction: r.Direction, AllProtocols: r.AllProtocols, Protocol: r.Protocol,
			Ports: r.Ports, ICMPType: r.ICMPType, ICMPCode: r.ICMPCode,
		}
		out[at].rules[r.Direction].add(&judgedRule{Rule: rule, peers: []*addressIndex{index}, width: ruleWidth(rule)})
		numbers[rule] = n
	}
	return out
}

// OnlyDeleted reports whether a group has ever allowed the flow that a packet
// opened, and every group that has ever allowed it is deleted. The packets are
// those that may have opened it, as the wire saw them: more than one where nobody
// knows who did.
func (j *PastJudge) OnlyDeleted(packets ...*flow.Packet) bool {
	if !j.anyDeleted {
		return false
	}
	deleted, existing := false, false
	for _, p := range packets {
		if d, e := j.deleted(p); e {
			existing = true
		} else {
			deleted = deleted || d
		}
	}
	return deleted && !existing
}

// Ever reports whether any group has ever allowed the flow that p opened.
func (j *PastJudge) Ever(p *flow.Packet) bool {
	deleted, existing := j.deleted(p)
	return deleted || existing
}

// deleted reports whether a deleted group has ever allowed the flow that p
// opened, and whether one that exists has; in that case it may not see the others.
func (j *PastJudge) deleted(p *flow.Packet) (deleted, existing bool) {
	see := func(r *judgedRule) bool {
		if j.exists[r.Group] {
			existing = true
		} else {
			deleted = true
		}
		return !existing
	}
	if j.old != nil {
		if a := j.old.attachment(p.Interface); a != nil {
			a.rules[p.Direction].eachAllowing(p, see)
		}
	}
	for _, s := range j.scopes {
		if existing {
			break
		}
		if s.contains(p.Interface) {
			s.rules[p.Direction].eachAllowing(p, see)
		}
	}
	return deleted, existing
}

// eachAllowing calls visit with every rule that lets the packet through, until
// it returns false.
func (x *ruleIndex) eachAllowing(p *flow.Packet, visit func(*judgedRule) bool) {
	peer := p.Peer()
	for _, rules := range x.candidates(p.Protocol, p.DestPort) {
		for _, r := range rules {
			if r.matches(p) && r.peerBits(peer) >= 0 && !visit(r) {
				return
			}
		}
	}
}

// Pruner finds out what of a past still matters: what some live flow was
// allowed by. One goroutine at a time may use it.
type Pruner struct {
	past   *Past
	scopes []*pastScope
	number map[*Rule]int
	seen   []bool
	unseen int
}

// Pruner begins to look for the flows that the past is kept for.
func (p *Past) Pruner() *Pruner {
	x := &Pruner{past: p, number: map[*Rule]int{}}
	if !p.IsEmpty() {
		x.scopes = p.scopes(x.number)
		x.seen, x.unseen = make([]bool, len(p.Rules)), len(p.Rules)
	}
	return x
}

// See tells of a live flow, by the packet that opened it on an interface that
// it crosses. Every flow counts, also one that rules allow: they may go later,
// and what a group once did counts then.
func (x *Pruner) See(p *flow.Packet) {
	if x.unseen == 0 {
		return
	}
	for _, s := range x.scopes {
		if s.contains(p.Interface) {
			s.rules[p.Direction].eachAllowing(p, func(r *judgedRule) bool {
				if n := x.number[r.Rule]; !x.seen[n] {
					x.seen[n] = true
					x.unseen--
				}
				return true
			})
		}
	}
}

// Past returns the past without the rules that no flow was seen of.
func (x *Pruner) Past() *Past {
	out := &Past{}
	for n, seen := range x.seen {
		if seen {
			out.Rules = append(out.Rules, x.past.Rules[n])
		}
	}
	return out
}
