package conntrack

import (
	"cmp"
	"net/netip"
	"slices"

	"sgc/internal/flow"
	"sgc/policies"
)

// maxHeldLinks is on how many links a flow that is cut is refused at most, beside
// the one that it crossed. Hosts with more have one for each container or client.
const maxHeldLinks = 64

// governedLinks returns the names of the links that the new policy governs, those
// that it names before those that a wildcard covers.
func (c *Change) governedLinks(names map[int32]string) []string {
	var links []string
	for _, name := range names {
		if c.new.judge.Interface(name) != nil {
			links = append(links, name)
		}
	}
	covered := func(name string) int {
		if c.new.judge.Interface(name).Name == name {
			return 0
		}
		return 1
	}
	slices.SortFunc(links, func(a, b string) int { return cmp.Or(cmp.Compare(covered(a), covered(b)), cmp.Compare(a, b)) })
	return links
}

// hold takes up what is to be refused so that the UDP flow of a leg that is cut does
// not begin anew; local is as HoldFlow has it. Routes may lead it by another link
// with its next packet, or while it is held: several ways to one place, a way that
// fails. So it is refused on every link on which the new policy does not let it open.
func (out *Changed) hold(c *Change, l *ChangedLeg, local netip.AddrPort) {
	out.Held = append(out.Held, policies.HoldFlow(&l.Packet, local))
	others := 0
	for _, name := range c.governed {
		if name == l.Packet.Interface || others == maxHeldLinks {
			continue
		}
		p := l.Packet
		p.Interface = name
		if c.new.judge.Standing(&p).Class == policies.None {
			out.Held = append(out.Held, policies.HoldFlow(&p, local))
			others++
		}
	}
}

// holdEntry is hold for the legs of an entry.
func (out *Changed) holdEntry(c *Change, e *Entry) {
	for i := range out.Legs {
		l := &out.Legs[i]
		if l.Fate != Cut {
			continue
		}
		local := netip.AddrPortFrom(e.Reply.Source, e.Reply.SourcePort)
		if l.Packet.Direction == flow.Egress {
			local = netip.AddrPortFrom(l.Packet.Source, l.Packet.SourcePort)
		}
		out.hold(c, l, local)
	}
}
