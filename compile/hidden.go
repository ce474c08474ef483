package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"sgc/internal/flow"
	"sgc/policies"
)

// Note is something that a person should know about how a policy compiles.
type Note struct {
	Pos  policies.Pos
	Text string
	// Hidden is the entry that never decides, and By the one that hides it.
	// Both are nil in notes of another kind.
	Hidden, By *policies.ACLEntry
}

// liveEntries returns the entries of one direction and family that decide any
// packet, in order. An entry that an earlier one hides entirely is left out,
// and noted.
func (c *compiler) liveEntries(acl *policies.ACL, d flow.Direction, f flow.Family) []*policies.ACLEntry {
	var live []*policies.ACLEntry
	byPrefix := map[netip.Prefix][]*policies.ACLEntry{}
	for _, e := range acl.Entries {
		if e.Direction != d || flow.FamilyOf(e.Prefix.Addr()) != f {
			continue
		}
		if by := hider(e, byPrefix); by != nil {
			c.notes = append(c.notes, Note{Pos: e.Pos, Hidden: e, By: by, Text: fmt.Sprintf(
				"%s never decides anything: %s (%s) comes first and matches everything that it matches", e.Address(), by.Address(), by.Pos)})
			continue
		}
		live = append(live, e)
		byPrefix[e.Prefix] = append(byPrefix[e.Prefix], e)
	}
	return live
}

// hider returns the first of the earlier entries that matches all that e
// matches, or nil. An earlier entry's prefix must be e's or one around it:
// there are at most 129 of those.
func hider(e *policies.ACLEntry, earlier map[netip.Prefix][]*policies.ACLEntry) *policies.ACLEntry {
	var found *policies.ACLEntry
	for bits := range e.Prefix.Bits() + 1 {
		p := netip.PrefixFrom(e.Prefix.Addr(), bits).Masked()
		i := slices.IndexFunc(earlier[p], func(h *policies.ACLEntry) bool { return matchesAll(h, e) })
		if i >= 0 && (found == nil || earlier[p][i].Number < found.Number) {
			found = earlier[p][i]
		}
	}
	return found
}

// matchesAll reports whether h matches every protocol, port and ICMP type that
// e matches. Prefixes are not looked at.
func matchesAll(h, e *policies.ACLEntry) bool {
	if h.AllProtocols {
		return true
	}
	if e.AllProtocols || h.Protocol != e.Protocol {
		return false
	}
	switch {
	case h.Protocol.HasPorts():
		return h.Ports.First <= e.Ports.First && e.Ports.Last <= h.Ports.Last
	case h.Protocol == flow.ICMP || h.Protocol == flow.ICMPv6:
		return h.ICMPType < 0 || h.ICMPType == e.ICMPType && (h.ICMPCode < 0 || h.ICMPCode == e.ICMPCode)
	}
	return true
}
