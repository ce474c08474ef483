package conntrack

import (
	"slices"

	"sgc/internal/flow"
	"sgc/policies"
)

// chooser chooses by which of several links the packet came that opened a flow, by
// what a policy allowed there.
type chooser interface {
	// among sets the interface of p, which is the likeliest one at first.
	among(r *Routes, w way, p *flow.Packet)
}

// among goes by what the policy allows today: nobody knows what was.
func (j *Judge) among(r *Routes, w way, p *flow.Packet) {
	if w.twins != nil {
		chooseTwin(j.policy, r, w.twins, p)
	}
}

// among goes by what the old policy allowed. A flow that was open must not outlive
// its rule because its interface was guessed wrongly; but one that has ever been
// allowed where it seems to be goes on there, and is no other interface's.
func (c *Change) among(r *Routes, w way, p *flow.Packet) {
	if c.old == nil {
		return
	}
	if w.twins != nil && chooseTwin(c.old.judge, r, w.twins, p) {
		return
	}
	if !w.open || len(c.narrowed) == 0 || !p.Protocol.HasPorts() || c.old.judge.Interface(p.Interface) == nil || c.old.judge.Standing(p).Class != policies.None || c.past.Ever(p) {
		return
	}
	likely := p.Interface
	for _, link := range c.narrowed {
		if p.Interface = link; c.old.judge.Standing(p).Class == policies.Untracked {
			return
		}
	}
	p.Interface = likely
}

// narrowedLinks returns the links whose open flows are others under the new policy,
// the first of those for which both have the same blocks.
func (c *Change) narrowedLinks(r *Routes) []string {
	var links []string
	var seen [][2]*policies.Interface
	for _, index := range r.links {
		name := r.names[index]
		blocks := [2]*policies.Interface{c.old.judge.Interface(name), c.new.judge.Interface(name)}
		if blocks[0] == nil || c.same || slices.Contains(seen, blocks) {
			continue
		}
		if slices.ContainsFunc(flow.Families[:], func(f flow.Family) bool {
			return c.old.judge.Opens(name, f) && !c.old.judge.OpensAs(c.new.judge, name, f)
		}) {
			links, seen = append(links, name), append(seen, blocks)
		}
	}
	return links
}

// chooseTwin takes the link on which the policy allows the flow, one of those on
// which it is open if there are several. It reports whether there is any.
func chooseTwin(judge *policies.Judge, r *Routes, twins []int32, p *flow.Packet) bool {
	best, rank := p.Interface, allowedRank(judge, p)
	for _, link := range twins {
		p.Interface = r.names[link]
		if n := allowedRank(judge, p); n > rank {
			best, rank = p.Interface, n
		}
	}
	p.Interface = best
	return rank > 0
}

// allowedRank orders what may have been: open comes before allowed, and that before
// what the policy does not govern or does not allow.
func allowedRank(judge *policies.Judge, p *flow.Packet) int {
	switch judge.Standing(p).Class {
	case policies.Unmanaged, policies.None:
		return 0
	case policies.Untracked:
		return 2
	default:
		return 1
	}
}
