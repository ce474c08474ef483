package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sgc/internal/flow"
	"sgc/policies"
)

// Note is something that a person should know about how a policy compiles.
type Note struct {
	Pos  policies.Pos
	Text string
	// Hidden is the entry that never decides, and By those that hide it, in
	// order: one that matches all that it matches, or several together. Both are
	// nil in notes of another kind.
	Hidden *policies.ACLEntry
	By     []*policies.ACLEntry
}

// liveEntries returns the entries of one direction and family that decide any
// packet, in order. An entry that earlier ones hide entirely is left out, and
// noted.
func (c *compiler) liveEntries(acl *policies.ACL, d flow.Direction, f flow.Family) []*policies.ACLEntry {
	var live []*policies.ACLEntry
	byPrefix := map[netip.Prefix][]*policies.ACLEntry{}
	for _, e := range acl.Entries {
		if e.Direction != d || flow.FamilyOf(e.Prefix.Addr()) != f {
			continue
		}
		if by := hider(e, byPrefix); by != nil {
			c.noteHidden(e, []*policies.ACLEntry{by})
			continue
		}
		live = append(live, e)
		byPrefix[e.Prefix] = append(byPrefix[e.Prefix], e)
	}
	by := hiders(live, f)
	return slices.DeleteFunc(live, func(e *policies.ACLEntry) bool {
		if by[e] == nil {
			return false
		}
		c.noteHidden(e, by[e])
		return true
	})
}

func (c *compiler) noteHidden(e *policies.ACLEntry, by []*policies.ACLEntry) {
	what := "comes first and matches everything that it matches"
	if len(by) > 1 {
		what = "come first and together match everything that it matches"
	}
	names := make([]string, len(by))
	for i, h := range by {
		names[i] = fmt.Sprintf("%s (%s)", h.Address(), h.Pos)
	}
	c.notes = append(c.notes, Note{Pos: e.Pos, Hidden: e, By: by, Text: fmt.Sprintf(
		"%s never decides anything: %s %s", e.Address(), strings.Join(names, ", "), what)})
}

// maxHiders is how many of the entries that hide another one together are
// named.
const maxHiders = 8

// hiders finds the entries that decide for no packet because several earlier
// ones together match all that they match, and returns those several, the first
// maxHiders of them. In a list too tangled to work that out it finds none.
func hiders(entries []*policies.ACLEntry, f flow.Family) map[*policies.ACLEntry][]*policies.ACLEntry {
	const tangled = maxEliminated / 20
	var atoms [][]*policies.ACLEntry
	for _, keyed := range [][]keyedEntry{portEntries(entries, flow.TCP), portEntries(entries, flow.UDP), otherEntries(entries)} {
		if weight(keyed) > tangled {
			return nil
		}
		for _, a := range cut(keyed) {
			atoms = append(atoms, a.rules)
		}
	}
	types, byCode := typeEntries(entries, f)
	for _, a := range cut(types) {
		if !byCode {
			atoms = append(atoms, a.rules)
			continue
		}
		for _, codes := range cut(codeEntries(a.rules)) {
			atoms = append(atoms, codes.rules)
		}
	}

	decides := map[*policies.ACLEntry]bool{}
	for _, in := range atoms {
		for _, d := range decide(in) {
			decides[in[d.entry]] = true
		}
	}
	hidden := map[*policies.ACLEntry][]*policies.ACLEntry{}
	for _, in := range atoms {
		for k, e := range in {
			if decides[e] {
				continue
			}
			for _, h := range in[:k] {
				if len(hidden[e]) < maxHiders && decides[h] && h.Prefix.Overlaps(e.Prefix) && !slices.Contains(hidden[e], h) {
					hidden[e] = append(hidden[e], h)
				}
			}
		}
	}
	for _, by := range hidden {
		slices.SortFunc(by, func(a, b *policies.ACLEntry) int { return a.Number - b.Number })
	}
	return hidden
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
