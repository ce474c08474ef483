package policies

import (
	"slices"
	"strings"

	"sgc/internal/flow"
)

// history is a policy, as far as Add compares two.
type history struct {
	judge  *Judge
	blocks []*Interface
	merged map[*addressIndex][]flow.Range
}

func newHistory(p *Policy) *history {
	return &history{NewJudge(p), p.Interfaces, map[*addressIndex][]flow.Range{}}
}

// scope is the interfaces that a block governs: those of its name but for those
// that more specific blocks name.
type scope struct {
	name   string
	except []string
}

func (h *history) scope(i *Interface) scope {
	s := scope{name: i.Name}
	for _, other := range h.blocks {
		if other != i && within(other.Name, i.Name) {
			s.except = append(s.except, other.Name)
		}
	}
	slices.Sort(s.except)
	return s
}

// within reports whether every interface of one block name is of another, too.
func within(name, other string) bool {
	stem, wildcard := strings.CutSuffix(other, "*")
	if !wildcard {
		return name == other
	}
	return strings.HasPrefix(strings.TrimSuffix(name, "*"), stem)
}

func (s *scope) contains(name string) bool {
	if name == Loopback || !(&Interface{Name: s.name}).Matches(name) {
		return false
	}
	return !slices.ContainsFunc(s.except, func(e string) bool { return (&Interface{Name: e}).Matches(name) })
}

// governing returns the one block that governs all interfaces of a scope of
// another policy, or nil.
func (h *history) governing(s scope) *Interface {
	var best *Interface
	for _, i := range h.blocks {
		if within(s.name, i.Name) && (best == nil || within(i.Name, best.Name)) {
			best = i
		}
	}
	for _, i := range h.blocks {
		// A block within the scope takes some of it away, unless it never was in
		// the scope.
		if i != best && within(i.Name, s.name) && !slices.ContainsFunc(s.except, func(e string) bool { return within(i.Name, e) }) {
			return nil
		}
	}
	return best
}

// still returns whom rules of the same group allow all that a rule of another
// policy allowed, everywhere in the scope.
func (h *history) still(s scope, r *judgedRule) []flow.Range {
	i := h.governing(s)
	if i == nil || !slices.Contains(i.Groups, r.Group) {
		return nil
	}
	var lists [][]flow.Range
	for _, other := range h.judge.rules[r.Group] {
		if other.Direction == r.Direction && other.includes(r.Rule) {
			lists = append(lists, h.peers(other))
		}
	}
	if len(lists) == 1 {
		return lists[0]
	}
	return flow.MergeRanges(slices.Concat(lists...))
}

// differences remembers what lists are without others: many rules name one long
// list.
type differences map[[2]*flow.Range][]flow.Range

func (d differences) of(from, what []flow.Range) []flow.Range {
	if len(from) == 0 || len(what) == 0 {
		return from
	}
	key := [2]*flow.Range{&from[0], &what[0]}
	rest, known := d[key]
	if !known {
		rest = minusRanges(from, what)
		d[key] = rest
	}
	return rest
}

// includes reports whether the rule is for every packet that another is for,
// whoever the peer.
func (r *judgedRule) includes(other *Rule) bool {
	switch {
	case r.AllProtocols:
		return true
	case other.AllProtocols || r.Protocol != other.Protocol:
		return false
	case r.Protocol.HasPorts():
		// Ports are merged, so that one range has to hold each.
		return !slices.ContainsFunc(other.Ports, func(x flow.PortRange) bool {
			return !slices.ContainsFunc(r.Ports, func(y flow.PortRange) bool { return y.First <= x.First && x.Last <= y.Last })
		})
	case r.Protocol == flow.ICMP || r.Protocol == flow.ICMPv6:
		return (r.ICMPType < 0 || r.ICMPType == other.ICMPType) && (r.ICMPCode < 0 || r.ICMPCode == other.ICMPCode)
	}
	return true
}

// peers returns the merged peers of a rule. Rules that name the same list alone
// share them.
func (h *history) peers(r *judgedRule) []flow.Range {
	var all []flow.Range
	for _, index := range r.peers {
		ranges, ok := h.merged[index]
		if !ok {
			ranges = rangesOf(index.prefixes)
			h.merged[index] = ranges
		}
		if len(r.peers) == 1 {
			return ranges
		}
		all = append(all, ranges...)
	}
	return flow.MergeRanges(all)
}
