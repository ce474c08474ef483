package corpus

import (
	"cmp"
	"fmt"
	"slices"

	"sgc/internal/flow"
	"sgc/policies"
)

func (g generator) group(name string, groups, lists []string) *policies.Group {
	out := &policies.Group{Name: name}
	if g.chance(60) {
		out.Members = g.prefixes(1 + g.IntN(3))
	}
	seen := map[string]bool{}
	add := func(id string, r *policies.Rule) {
		r.Group = name
		// The same rule twice in a group is an error of the language.
		if same := fmt.Sprintf("%+v", *r); !seen[same] {
			seen[same] = true
			r.ID = id
			out.Rules = append(out.Rules, r)
		}
	}
	for n := range g.IntN(9) {
		add(pick(g.Rand, []string{"r", "rule-", "a_"})+fmt.Sprint(n), g.rule(groups, lists))
	}
	// Families are open or closed as a whole so rarely by chance that some
	// policies get the rule that nearly everybody has.
	if g.chance(50) {
		add("any", g.anyRule(flow.Egress))
	} else if g.chance(25) {
		add("any", g.anyRule(flow.Ingress))
	}
	slices.SortFunc(out.Rules, func(a, b *policies.Rule) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// anyRule makes a rule with the literal any-address and all ports.
func (g generator) anyRule(d flow.Direction) *policies.Rule {
	r := &policies.Rule{Direction: d}
	switch g.IntN(3) {
	case 0:
		r.AllProtocols = true
	case 1:
		r.Protocol, r.Ports = flow.TCP, []flow.PortRange{flow.AllPorts}
	case 2:
		r.Protocol, r.Ports = flow.UDP, []flow.PortRange{flow.AllPorts}
	}
	for n, f := range flow.Families {
		if g.chance(70) || n == 1 && r.Prefixes == nil {
			r.Prefixes = append(r.Prefixes, f.Any())
		}
	}
	return r
}

func (g generator) rule(groups, lists []string) *policies.Rule {
	r := &policies.Rule{Direction: pick(g.Rand, flow.Directions[:])}
	families := flow.Families[:]
	switch n := g.IntN(100); {
	case n < 40:
		r.Protocol, r.Ports = flow.TCP, g.ports()
	case n < 60:
		r.Protocol, r.Ports = flow.UDP, g.ports()
	case n < 72:
		r.AllProtocols = true
	case n < 81:
		r.Protocol, families = flow.ICMP, families[:1]
		r.ICMPType, r.ICMPCode = g.icmp(icmpTypes4)
	case n < 90:
		r.Protocol, families = flow.ICMPv6, families[1:]
		r.ICMPType, r.ICMPCode = g.icmp(icmpTypes6)
	default:
		r.Protocol = pick(g.Rand, otherProtocols)
	}
	for r.Prefixes == nil && r.Lists == nil && r.Groups == nil {
		for _, f := range families {
			if g.chance(30) {
				r.Prefixes = append(r.Prefixes, f.Any())
			}
			if g.chance(40) {
				// More than the eight that a leaf chain may hold inline, at times.
				for range 1 + g.IntN(pick(g.Rand, []int{2, 4, 14})) {
					r.Prefixes = append(r.Prefixes, g.prefix(f))
				}
			}
		}
		r.Prefixes = sorted(r.Prefixes)
		if g.chance(15) {
			r.Lists = g.some(lists)
		}
		if g.chance(15) {
			r.Groups = g.some(groups)
		}
	}
	return r
}

func (g generator) icmp(types []int) (icmpType, icmpCode int) {
	if g.chance(20) {
		return -1, -1
	}
	return pick(g.Rand, types), pick(g.Rand, []int{-1, -1, 0, 1, 4, 255})
}

// ports makes sorted, disjoint and merged ranges.
func (g generator) ports() []flow.PortRange {
	if g.chance(20) {
		return []flow.PortRange{flow.AllPorts}
	}
	var ranges []flow.PortRange
	for range 1 + g.IntN(3) {
		first := g.port()
		last := first
		if g.chance(40) {
			last = uint16(min(65535, int(first)+pick(g.Rand, []int{1, 2, 9, 99, 1023, 40000, 65535})))
		}
		ranges = append(ranges, flow.PortRange{First: first, Last: last})
	}
	slices.SortFunc(ranges, func(a, b flow.PortRange) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	merged := ranges[:1]
	for _, x := range ranges[1:] {
		if last := &merged[len(merged)-1]; int(x.First) <= int(last.Last)+1 {
			last.Last = max(last.Last, x.Last)
		} else {
			merged = append(merged, x)
		}
	}
	return merged
}

func (g generator) port() uint16 {
	if g.chance(15) {
		return uint16(g.IntN(65536))
	}
	return pick(g.Rand, knownPorts)
}

func (g generator) acl(name string) *policies.ACL {
	out := &policies.ACL{Name: name}
	for _, d := range flow.Directions {
		numbers := map[int]bool{}
		for range g.IntN(7) {
			e := &policies.ACLEntry{ACL: name, Direction: d, Number: 1 + g.IntN(32766), Allow: g.chance(60)}
			if numbers[e.Number] {
				continue
			}
			numbers[e.Number] = true
			f := pick(g.Rand, flow.Families[:])
			e.Prefix = g.prefix(f)
			if g.chance(40) {
				e.Prefix = f.Any()
			}
			switch n := g.IntN(100); {
			case n < 30:
				e.AllProtocols = true
			case n < 65:
				e.Protocol, e.Ports = pick(g.Rand, []flow.Protocol{flow.TCP, flow.UDP}), pick(g.Rand, g.ports())
			case n < 90:
				e.Protocol = flow.ICMPOf(f)
				types := icmpTypes4
				if f == flow.IPv6 {
					types = icmpTypes6
				}
				e.ICMPType, e.ICMPCode = g.icmp(types)
			default:
				e.Protocol = pick(g.Rand, otherProtocols)
			}
			out.Entries = append(out.Entries, e)
		}
	}
	slices.SortFunc(out.Entries, func(a, b *policies.ACLEntry) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Number, b.Number))
	})
	return out
}
