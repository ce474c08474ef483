package scenario

import (
	"net/netip"

	"sgc/internal/flow"
)

// tuple is what the hosts on a flow's way tell it from others by.
type tuple struct {
	protocol     flow.Protocol
	from         string
	source, dest netip.AddrPort
	id           uint16
}

// tuple returns that of a flow; ok is false where the scenario leaves a part of it
// to the run, or where the protocol has nothing that flows between two hosts are
// told apart by.
func (f *Flow) tuple() (_ tuple, ok bool) {
	if !f.Source.IsValid() || !f.Dest.IsValid() || f.SourcePort == 0 && f.ID == 0 {
		return tuple{}, false
	}
	return tuple{f.Protocol, f.From, netip.AddrPortFrom(f.Source, f.SourcePort), netip.AddrPortFrom(f.Dest, f.Port), f.ID}, true
}

// alone reports a flow with the tuple of one that runs: the kernel has no second
// connection of TCP for it, and of other protocols takes both for one flow.
func (t *steps) alone(r *reader, f *Flow) {
	own, ok := f.tuple()
	if !ok {
		return
	}
	for _, name := range t.order {
		o := t.flows[name]
		if other, ok := o.tuple(); !ok || other != own || o == f || !t.running[name] {
			continue
		}
		attribute, parts := "source_port", "protocol, addresses and ports"
		if f.ID != 0 {
			attribute, parts = "id", "addresses and identifier"
		}
		t.errorAt(r.place(attribute), "Two flows of one tuple",
			"The flow %q, started at line %d, has the same %s and runs still: nobody could tell their packets apart. Stop it first, with stop %q { }, or write another %s.",
			o.Name, o.At.Start.Line, parts, o.Name, attribute)
		return
	}
}

// flows returns all flows of the scenario, those of checks included.
func (s *Scenario) flows() []*Flow {
	var out []*Flow
	for _, step := range s.Steps {
		for _, a := range step.Actions {
			switch a := a.(type) {
			case *Begin:
				out = append(out, a.Flow)
			case *Check:
				out = append(out, a.Flow)
			}
		}
	}
	return out
}

// fixed is what a scenario names of flows, and a run does not choose for another flow.
type fixed struct {
	ports, ids map[uint16]bool
	// tuples counts the flows that have them.
	tuples map[tuple]int
}

// fixed returns the ports, the identifiers and the tuples that the scenario names.
func (s *Scenario) fixed() fixed {
	n := fixed{map[uint16]bool{}, map[uint16]bool{}, map[tuple]int{}}
	for _, f := range s.flows() {
		n.ports[f.SourcePort], n.ports[f.Port], n.ports[f.ReachesPort] = true, true, true
		n.ids[f.ID] = true
		if t, ok := f.tuple(); ok {
			n.tuples[t]++
		}
	}
	for _, h := range s.Hosts {
		for _, p := range h.Publish {
			n.ports[p.Port], n.ports[p.To.Port()] = true, true
		}
	}
	return n
}

// isReused reports whether several flows of the scenario have the tuple of this
// one, one after another.
func (n *fixed) isReused(f *Flow) bool {
	t, ok := f.tuple()
	return ok && n.tuples[t] > 1
}

// choose returns a value for the flow of a number: the one of that number among
// those above first that are not named. Behind the last it begins again.
func choose(first uint16, number uint32, named map[uint16]bool) uint16 {
	var free []uint16
	for v := int(first) + 1; v <= 1<<16-1; v++ {
		if !named[uint16(v)] {
			if free = append(free, uint16(v)); len(free) == int(number) {
				return uint16(v)
			}
		}
	}
	if free == nil {
		return first // a scenario that names tens of thousands
	}
	return free[(int(number)-1)%len(free)]
}
