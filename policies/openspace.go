package policies

import (
	"slices"

	"sgc/internal/flow"
)

// OpenInterfaces returns the blocks on whose interfaces some flow of the family
// is open (2.3), in the policy's order.
func (p *Policy) OpenInterfaces(f flow.Family) []*Interface {
	e := newEffects(p)
	var out []*Interface
	for _, i := range p.Interfaces {
		if e.opens(i, f) {
			out = append(out, i)
		}
	}
	return out
}

func (e *effects) opens(i *Interface, f flow.Family) bool {
	var tracked []flow.Range
	for _, t := range i.AlwaysTrack {
		for _, p := range t.Prefixes {
			if flow.FamilyOf(p.Addr()) == f {
				tracked = append(tracked, flow.RangeOf(p))
			}
		}
	}
	if merged := flow.MergeRanges(tracked); len(merged) == 1 && merged[0].IsAny() {
		return false
	}
	for _, name := range i.Groups {
		on := slices.IndexFunc(e.attached[name], func(a *attachment) bool { return a.iface == i })
		if on < 0 {
			continue
		}
		for _, d := range flow.Directions {
			for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
				if len(e.openPorts(openKey{e.attached[name][on], d, protocol, f})) > 0 {
					return true
				}
			}
		}
	}
	return false
}
