package policies

import (
	"slices"
	"strings"

	"sgc/internal/flow"
)

// ByGroups says what the security groups mean for p, as Decide does, whatever
// the interface's ACL says. It is Standing with words.
func (j *Judge) ByGroups(p *flow.Packet) Decision {
	a := j.attachment(p.Interface)
	if a == nil || j.host.exempt(p) != "" {
		return j.Decide(p)
	}
	return a.judgeByGroups(p)
}

// Allowing returns every rule of the interface's groups that would let p open a
// flow, in the order of their addresses. The one in Standing is among them; that
// of exempt packets may be none.
func (j *Judge) Allowing(p *flow.Packet) []*Rule {
	var out []*Rule
	if a := j.attachment(p.Interface); a != nil {
		a.rules[p.Direction].eachAllowing(p, func(r *judgedRule) bool {
			out = append(out, r.Rule)
			return true
		})
	}
	slices.SortFunc(out, func(a, b *Rule) int { return strings.Compare(a.Address(), b.Address()) })
	return out
}

// Allowed returns the past rules that let p open a flow, in the order of the
// Past. Rules that were in force last are none of them.
func (j *PastJudge) Allowed(p *flow.Packet) []*PastRule {
	var numbers []int
	for _, s := range j.scopes {
		if s.contains(p.Interface) {
			s.rules[p.Direction].eachAllowing(p, func(r *judgedRule) bool {
				numbers = append(numbers, j.number[r.Rule])
				return true
			})
		}
	}
	slices.Sort(numbers)
	var out []*PastRule
	for _, n := range slices.Compact(numbers) {
		out = append(out, j.past.Rules[n])
	}
	return out
}

// Columns are those of the rule in plans, but for its peers, which may be many.
func (r *PastRule) Columns() Columns {
	return Columns{
		Direction: r.Direction.String(),
		Protocol:  protocolText(r.AllProtocols, r.Protocol),
		Ports:     portsText(r.AllProtocols, r.Protocol, r.Ports, r.ICMPType, r.ICMPCode),
	}
}
