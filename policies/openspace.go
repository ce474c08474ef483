package policies

import (
	"slices"

	"sgc/internal/flow"
)

// OpenInterfaces returns the blocks on whose interfaces some flow of the family
// is open (2.3), in the policy's order. It reads no lists and no members: they
// open nothing.
func (p *Policy) OpenInterfaces(f flow.Family) []*Interface {
	groups := make(map[string]*Group, len(p.Groups))
	for _, g := range p.Groups {
		groups[g.Name] = g
	}
	var out []*Interface
	for _, i := range p.Interfaces {
		if i.opens(f, groups) && !i.tracksAll(f) {
			out = append(out, i)
		}
	}
	return out
}

// opens reports whether a rule of one direction is for anybody, and one of the
// other for anybody on all ports of the same protocol.
func (i *Interface) opens(f flow.Family, groups map[string]*Group) bool {
	for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
		var some, whole [len(flow.Directions)]bool
		for _, name := range i.Groups {
			g := groups[name]
			if g == nil {
				continue
			}
			for _, r := range g.Rules {
				if (r.AllProtocols || r.Protocol == protocol) && slices.Contains(r.Prefixes, f.Any()) {
					some[r.Direction] = true
					if r.AllProtocols || slices.Equal(r.Ports, []flow.PortRange{flow.AllPorts}) {
						whole[r.Direction] = true
					}
				}
			}
		}
		for _, d := range flow.Directions {
			if some[d] && whole[d.Opposite()] {
				return true
			}
		}
	}
	return false
}

// tracksAll reports whether always_track takes every peer of the family.
func (i *Interface) tracksAll(f flow.Family) bool {
	var tracked []flow.Range
	for _, t := range i.AlwaysTrack {
		for _, p := range t.Prefixes {
			if flow.FamilyOf(p.Addr()) == f {
				tracked = append(tracked, flow.RangeOf(p))
			}
		}
	}
	merged := flow.MergeRanges(tracked)
	return len(merged) == 1 && merged[0].IsAny()
}
