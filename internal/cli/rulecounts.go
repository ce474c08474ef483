package cli

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"sgc/apply"
	"sgc/internal/flow"
	"sgc/policies"
)

// countedPackets says in one line what the counts of rules mean.
const countedPackets = "Packets that a rule itself let through: of a flow in conntrack those that open it, of any other flow all."

// ruleCount is what the kernel counted for a rule of the policy, or for some
// that it counts together.
type ruleCount struct {
	// Addresses are policy addresses, sorted.
	Addresses []string `json:"addresses"`
	// Packets and Bytes are null where the kernel counts nothing; Note says
	// why then, or what is missing in them.
	Packets *uint64 `json:"packets"`
	Bytes   *uint64 `json:"bytes"`
	Note    string  `json:"note,omitempty"`
}

// countRules returns a row for every rule of the policy in the record, sorted
// by address, those that no packet ever met included. It is nil where nobody
// knows the policy.
func countRules(v *sight) ([]ruleCount, error) {
	if v.last == nil {
		return nil, nil
	}
	counters, err := apply.Counters(v.snapshot, v.last.table())
	if err != nil {
		return nil, fmt.Errorf("read the counters of the rules: %w", err)
	}
	rows := []ruleCount{}
	counted := map[string]bool{}
	for _, c := range counters {
		row := ruleCount{Addresses: c.From}
		for _, address := range c.From {
			counted[address] = true
		}
		if c.Missing < c.Rules {
			row.Packets, row.Bytes = &c.Packets, &c.Bytes
		}
		switch {
		case c.Missing == c.Rules:
			row.Note = "is not in the kernel as it was applied, see drift"
		case c.Missing > 0:
			row.Note = fmt.Sprintf("without %d of its %d rules in the kernel, see drift", c.Missing, c.Rules)
		}
		rows = append(rows, row)
	}
	p := v.last.Policy
	for _, g := range p.Groups {
		for _, r := range g.Rules {
			if !counted[r.Address()] {
				rows = append(rows, ruleCount{Addresses: []string{r.Address()}, Note: whyUncounted(p, r)})
			}
		}
	}
	slices.SortFunc(rows, func(a, b ruleCount) int { return slices.Compare(a.Addresses, b.Addresses) })
	return rows, nil
}

// whyUncounted says why the compiled table needs no rule for a rule of the
// policy.
func whyUncounted(p *policies.Policy, r *policies.Rule) string {
	switch {
	case !slices.ContainsFunc(p.Interfaces, func(i *policies.Interface) bool { return slices.Contains(i.Groups, r.Group) }):
		return "does nothing: its group is attached nowhere"
	case !hasPeers(p, r):
		return "does nothing: it has no peers"
	}
	return "does nothing: other rules let through all that it would"
}

// hasPeers reports whether there is an address from which, or to which, the
// rule may let a packet through.
func hasPeers(p *policies.Policy, r *policies.Rule) bool {
	fits := func(f flow.Family) bool {
		return r.AllProtocols || r.Protocol != flow.ICMPOf(flow.IPv4) && r.Protocol != flow.ICMPOf(flow.IPv6) || r.Protocol.IsICMP(f)
	}
	prefixes := slices.Clone(r.Prefixes)
	for _, name := range r.Lists {
		prefixes = append(prefixes, p.List(name).Entries...)
	}
	for _, name := range r.Groups {
		prefixes = append(prefixes, p.Group(name).Members...)
	}
	for _, prefix := range prefixes {
		if fits(flow.FamilyOf(prefix.Addr())) {
			return true
		}
	}
	return false
}

// writeRuleCounts prints the counts, numbers first: addresses may be many.
func writeRuleCounts(b *strings.Builder, p paint, rows []ruleCount) {
	fmt.Fprintf(b, "%s\n  %s\n", p.bold("rules"), countedPackets)
	lines := make([][2]string, len(rows)+1)
	lines[0] = [2]string{"packets", "bytes"}
	for i, r := range rows {
		lines[i+1] = [2]string{"-", "-"}
		if r.Packets != nil {
			lines[i+1] = [2]string{thousands(int(*r.Packets)), size(int(*r.Bytes))}
		}
	}
	var widths [2]int
	for _, l := range lines {
		for i := range l {
			widths[i] = max(widths[i], utf8.RuneCountInString(l[i]))
		}
	}
	for i, l := range lines {
		text := fmt.Sprintf("  %*s  %*s", widths[0], l[0], widths[1], l[1])
		if i == 0 {
			fmt.Fprintln(b, p.dim(text))
			continue
		}
		r := rows[i-1]
		text += "  " + clean(strings.Join(r.Addresses, ", "))
		if r.Note != "" {
			text += "  " + p.dim("("+r.Note+")")
		}
		fmt.Fprintln(b, text)
	}
	if len(rows) == 0 {
		fmt.Fprintln(b, "  none")
	}
}
