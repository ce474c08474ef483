package policies

import (
	"fmt"
	"strings"

	"sgc/internal/flow"
)

// nameRules gives every rule of a group its ID: the label, or else a name from
// protocol and ports. Labels come first, so that a rule without one never
// takes a label away; a name that is taken gets "-2", "-3" and so on, in the
// order of the source.
func (l *loader) nameRules(rules []*ruleBlock) {
	var taken [len(flow.Directions)]declarations
	for _, r := range rules {
		label, at := r.in.label()
		if len(r.in.labels) == 0 {
			continue
		}
		if problem := nameProblem(label); problem != "" {
			l.errorAt(at, "Invalid label", problem)
			r.broken = true
			continue
		}
		what := r.rule.Direction.String() + " rule"
		if !l.declare(&taken[r.rule.Direction], what, label, at) {
			r.broken = true
			continue
		}
		r.rule.ID = label
	}
	// used is the last number that was given behind a name.
	var used [len(flow.Directions)]map[string]int
	for i := range used {
		used[i] = map[string]int{}
	}
	for _, r := range rules {
		if r.rule.ID != "" {
			continue
		}
		base := ruleName(r.rule)
		id := base
		n := max(1, used[r.rule.Direction][base])
		for taken[r.rule.Direction].has(id) {
			n++
			id = fmt.Sprintf("%s-%d", base, n)
		}
		used[r.rule.Direction][base] = n
		l.declare(&taken[r.rule.Direction], "rule", id, r.in.header)
		r.rule.ID = id
	}
}

// maxRuleName is the length up to which a made name lists ports.
const maxRuleName = 60

// ruleName makes a name from the protocol and ports of a rule, such as
// "tcp-80_8000-8099", "icmp-8" or "all".
func ruleName(r *Rule) string {
	if r.AllProtocols {
		return "all"
	}
	name := r.Protocol.String()
	if nameProblem(name) != "" {
		name = fmt.Sprintf("protocol-%d", uint8(r.Protocol))
	}
	switch {
	case r.Protocol.HasPorts():
		var ports []string
		for _, p := range r.Ports {
			ports = append(ports, p.String())
		}
		all := strings.Join(ports, "_")
		if len(name)+1+len(all) > maxRuleName {
			// The rest shows as a count; equal names are told apart anyway.
			keep, n := "", 0
			for n < len(ports) && len(name)+1+len(keep)+len(ports[n]) < maxRuleName-16 {
				keep += ports[n] + "_"
				n++
			}
			all = fmt.Sprintf("%sand-%d-more", keep, len(ports)-n)
		}
		if all != "" {
			name += "-" + all
		}
	case r.Protocol == flow.ICMP || r.Protocol == flow.ICMPv6:
		if r.ICMPType >= 0 {
			name += fmt.Sprintf("-%d", r.ICMPType)
		}
		if r.ICMPCode >= 0 {
			name += fmt.Sprintf("-%d", r.ICMPCode)
		}
	}
	return name
}

// sameRules reports rules of one group that allow the same.
func (l *loader) sameRules(rules []*ruleBlock) {
	seen := map[string]*ruleBlock{}
	for _, r := range rules {
		if r.broken {
			continue
		}
		key := meaningOf(r.rule)
		first := seen[key]
		if first == nil {
			seen[key] = r
			continue
		}
		where := fmt.Sprintf("the rule at line %d", l.pos(first.in.header).Line)
		if r.in.generated && l.pos(first.in.header) == l.pos(r.in.header) {
			where = "another block that is generated here"
		} else if len(first.in.labels) > 0 {
			where = fmt.Sprintf("rule %q at line %d", first.rule.ID, l.pos(first.in.header).Line)
		}
		l.errorAt(r.in.header, "Same rule twice", fmt.Sprintf("This rule allows exactly what %s allows; remove one of the two.", where))
	}
}

// meaningOf returns what a rule allows, without its name and place.
func meaningOf(r *Rule) string {
	var b strings.Builder
	fmt.Fprint(&b, r.Direction, r.AllProtocols, r.Protocol, r.Ports, r.ICMPType, " ", r.ICMPCode)
	for _, p := range r.Prefixes {
		b.WriteByte(' ')
		b.WriteString(p.String())
	}
	fmt.Fprintf(&b, " %q %q", r.Lists, r.Groups)
	return b.String()
}
