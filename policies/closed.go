package policies

import (
	"slices"

	"sgc/internal/flow"
)

// ClosedSpace is a box of UDP flows of one interface, family and opening
// direction: those between any of the local ports and any of the peers' ports.
type ClosedSpace struct {
	LocalPorts, PeerPorts flow.PortRange
	// Peers are sorted, disjoint and merged, never empty. Boxes may share them:
	// they are read-only.
	Peers []flow.Range
}

// Closing finds what a change of policy closes for UDP: what the old policy
// left open and the new one does not allow (2.4).
type Closing struct {
	old *Judge
	new *refusals
}

// NewClosing compares two policies.
func NewClosing(old, new *Judge) *Closing { return &Closing{old, new.refusals()} }

// Space returns the closed space of the flows that are opened in one direction
// on an interface: those that a rule of that direction had opened, to the local
// port if they came in, to the peer's if they went out. The boxes are disjoint.
func (c *Closing) Space(name string, opened flow.Direction, f flow.Family) []ClosedSpace {
	var out []ClosedSpace
	for _, box := range c.open(name, opened, f, flow.AllPorts) {
		c.new.each(name, opened, box, func(rest ClosedSpace) {
			out = append(out, c.new.judge.withoutExempt(rest)...)
		})
	}
	return mergeSpaces(out)
}

// open returns what the old policy left open of some local ports.
func (c *Closing) open(name string, opened flow.Direction, f flow.Family, local flow.PortRange) []ClosedSpace {
	a := c.old.attachment(name)
	if a == nil {
		return nil
	}
	ports := a.openPorts(opened, flow.UDP, f)
	if len(ports) == 0 {
		return nil
	}
	var tracked []flow.Range
	for _, t := range a.alwaysTrack {
		tracked = append(tracked, rangesOf(t.addresses.of(f))...)
	}
	peers := minusRanges([]flow.Range{flow.RangeOf(f.Any())}, flow.MergeRanges(tracked))
	if len(peers) == 0 {
		return nil
	}
	var out []ClosedSpace
	for _, x := range ports {
		box := ClosedSpace{LocalPorts: local, PeerPorts: x, Peers: peers}
		if opened == flow.Ingress {
			box.LocalPorts, box.PeerPorts = flow.PortRange{First: max(x.First, local.First), Last: min(x.Last, local.Last)}, flow.AllPorts
			if box.LocalPorts.First > box.LocalPorts.Last {
				continue
			}
		}
		out = append(out, box)
	}
	return out
}

// openPorts returns the destination ports of the flows that rules of direction
// opened make untracked, sorted and disjoint.
func (a *attachment) openPorts(opened flow.Direction, protocol flow.Protocol, f flow.Family) []flow.PortRange {
	if a.wholeRules[opened.Opposite()].anyRule(protocol, f, 0) == nil {
		return nil
	}
	var ports []flow.PortRange
	a.anyRules[opened].each(func(r *judgedRule) {
		switch {
		case !r.any[familyIndex(f)]:
		case r.AllProtocols:
			ports = append(ports, flow.AllPorts)
		case r.Protocol == protocol:
			ports = append(ports, r.Ports...)
		}
	})
	return mergePorts(ports)
}

// Opens reports whether the policy leaves any flow of the family open on an
// interface.
func (j *Judge) Opens(name string, f flow.Family) bool {
	a := j.attachment(name)
	return a != nil && a.opens(f)
}

func (a *attachment) opens(f flow.Family) bool {
	for _, opened := range flow.Directions {
		for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
			if len(a.openPorts(opened, protocol, f)) > 0 {
				return true
			}
		}
	}
	return false
}

// OpensAs reports whether both policies leave the same flows of the family open
// on an interface: what Open says of a packet, it says under both. It may be
// false where they do so in different words.
func (j *Judge) OpensAs(other *Judge, name string, f flow.Family) bool {
	a, b := j.attachment(name), other.attachment(name)
	switch {
	case a == nil || b == nil:
		return (a == nil || !a.opens(f)) && (b == nil || !b.opens(f))
	case !slices.EqualFunc(a.alwaysTrack, b.alwaysTrack, func(x, y trackedPeers) bool {
		return slices.Equal(x.addresses.of(f), y.addresses.of(f))
	}):
		return false
	}
	for _, opened := range flow.Directions {
		for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
			if !slices.Equal(a.openPorts(opened, protocol, f), b.openPorts(opened, protocol, f)) {
				return false
			}
		}
	}
	return true
}
