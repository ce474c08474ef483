package cli

import (
	"fmt"
	"slices"
	"strings"

	"sgc/apply"
	"sgc/internal/flow"
	"sgc/policies"
)

// conntrackNotes says in sentences which interfaces keep open flows in
// conntrack, and why. Interfaces on which nothing is open are left out, and so
// is every reason that concerns none: an interface is named once, where
// notrack is off, else where another table needs conntrack, else where packets
// are forwarded.
func conntrackNotes(p *policies.Policy, v *sight) []string {
	var notes, off []string
	for _, f := range flow.Families {
		var open []string
		for _, i := range p.OpenInterfaces(f) {
			if i.NotrackOff {
				off = append(off, i.Name)
			} else {
				open = append(open, i.Name)
			}
		}
		if len(open) > 0 {
			notes = append(notes, familyNotes(p, v, f, open)...)
		}
	}
	if len(off) > 0 {
		slices.Sort(off)
		off = slices.Compact(off)
		notes = append(notes, fmt.Sprintf("open flows of %s stay in conntrack: notrack is \"off\" there", someNames(off)))
	}
	return notes
}

// familyNotes are conntrackNotes for one family and the interfaces that leave
// the choice to sgc.
func familyNotes(p *policies.Policy, v *sight, f flow.Family, open []string) []string {
	var notes []string
	before, neededBefore := v.neededBefore(f)
	reasons := reasonsOf(v.snapshot.Foreign, f)
	for _, reason := range reasons {
		note := fmt.Sprintf("%s: %s, so open flows of %s stay in conntrack", f, reason, someNames(open))
		if v.last != nil && !neededBefore {
			note += " (new since the last apply: at work from the next one on)"
		}
		notes = append(notes, note)
	}
	if len(reasons) > 0 {
		return notes
	}
	if neededBefore {
		notes = append(notes, fmt.Sprintf("%s: no other table needs conntrack any more (at the last apply: %s), so open flows of %s leave it", f, before, someNames(open)))
	}
	if v.forwarding.In(f) {
		var routed []string
		for _, name := range v.forwarding.Interfaces {
			if i := p.Interface(name); i != nil && slices.Contains(open, i.Name) {
				routed = append(routed, name)
			}
		}
		if len(routed) > 0 {
			notes = append(notes, fmt.Sprintf("%s: this host forwards packets, and those of open flows that it forwards over %s stay in conntrack", f, someNames(routed)))
		}
	}
	return notes
}

// neededBefore returns why conntrack was needed in a family at the last apply.
func (v *sight) neededBefore(f flow.Family) (why string, ok bool) {
	if v.last == nil {
		return "", false
	}
	why, ok = v.last.Conntrack[f]
	return why, ok
}

// unknownPolicyNotes is conntrackNotes for a table that nobody has a record of.
func unknownPolicyNotes(foreign apply.Foreign) []string {
	var notes []string
	for _, f := range flow.Families {
		for _, reason := range reasonsOf(foreign, f) {
			notes = append(notes, fmt.Sprintf("%s: %s, so open flows stay in conntrack", f, reason))
		}
	}
	return notes
}

func reasonsOf(foreign apply.Foreign, f flow.Family) []string {
	if f == flow.IPv4 {
		return foreign.IPv4
	}
	return foreign.IPv6
}

// someNames lists the names of interfaces, the first of many.
func someNames(names []string) string {
	if len(names) < 2 || len(names) > 4 {
		return shortList(names)
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}
