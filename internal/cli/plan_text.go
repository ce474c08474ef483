package cli

import (
	"fmt"
	"slices"
	"strings"

	"sgc/apply"
)

// showPlan prints a plan. applied is what JSON says of an apply, nil for a
// plan.
func (s *session) showPlan(p *plan, verbose bool, applied *bool) error {
	if s.JSON {
		return s.writeJSON(p.view(verbose, applied))
	}
	var b strings.Builder
	paint := s.outPaint()
	if !p.empty() {
		writeSections(&b, paint, sectionsOf(p.changes, verbose))
		if p.unrecorded && !p.delta.Empty() {
			fmt.Fprintf(&b, "%s\n", paint.yellow("There is no record of the policy that the kernel's table stands for; this is the difference object by object."))
			writeObjects(&b, paint, p.objects)
		}
		writeSections(&b, paint, p.settings.sections())
	}
	if len(p.drift) > 0 {
		fmt.Fprintf(&b, "%s\n", paint.bold("drift"))
		writeDrift(&b, paint, p.drift, verbose)
	}
	if p.live != nil {
		writeLiveFlows(&b, paint, &p.live.flows, p.live.willHold(), verbose)
		writeFlowHolds(&b, paint, p.live, verbose)
	}
	writeHeld(&b, paint, p.held(), verbose)
	if notes := p.allNotes(); len(notes) > 0 {
		fmt.Fprintf(&b, "%s\n", paint.bold("notes"))
		for _, n := range notes {
			fmt.Fprintf(&b, "  %s\n", clean(n))
		}
	}
	writeWarnings(&b, paint, p.warnings)
	if verbose && !p.empty() {
		fmt.Fprintf(&b, "%s\n", paint.bold("operations"))
		for c := range p.delta.Changes() {
			writeOperation(&b, paint, c)
		}
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s\n", p.sentence(paint))
	_, err := s.Out.Write([]byte(b.String()))
	return err
}

// held is what is refused since earlier applies, and what this one lets go of it.
func (p *plan) held() []heldView {
	if p.empty() {
		return viewHeld(p.sight.snapshot.Table, nil)
	}
	return viewHeld(p.sight.snapshot.Table, p.policy)
}

// allNotes are the notes about everything.
func (p *plan) allNotes() []string { return slices.Concat(p.notes, p.liveNotes()) }

// sentence sums the plan up.
func (p *plan) sentence(paint paint) string {
	if p.empty() {
		return paint.bold("No changes.") + " The kernel is what the policy says."
	}
	v := p.summary()
	text := fmt.Sprintf("%s to add, %s to change, %s to remove", thousands(v.Add), thousands(v.Change), thousands(v.Remove))
	if v.Add+v.Change+v.Remove == 0 {
		text = "no change of the policy"
	}
	if v.Drifted > 0 {
		text += fmt.Sprintf(", %s drifted", thousands(v.Drifted))
	}
	if n := p.live.cut(); n > 0 {
		text += "; " + plural(n, "flow") + " cut"
	}
	if p.delta.Empty() && p.settings.empty() {
		return fmt.Sprintf("%s %s. No transaction, only live flows.", paint.bold("Plan:"), text)
	}
	if p.delta.Empty() {
		return fmt.Sprintf("%s %s. No transaction, only conntrack settings.", paint.bold("Plan:"), text)
	}
	return fmt.Sprintf("%s %s. %s, %s, %s.", paint.bold("Plan:"), text, transactions(p.commitDelta()), plural(v.Messages, "message"), size(v.Bytes)+p.liftText())
}

// liftText says that the rules which cut flows at the commit are there for a
// moment only.
func (p *plan) liftText() string {
	if p.cutting == nil {
		return ""
	}
	return ", and one more once the entries of the flows that are cut are deleted"
}

// transactions says how many a delta is, and what is theirs alone.
func transactions(d *apply.Delta) string {
	const adds, removes = "only adds what nothing uses yet", "only removes what nothing uses any more"
	switch {
	case d.Prepares() && d.CleansUp():
		return fmt.Sprintf("Three transactions (the first %s, the third %s)", adds, removes)
	case d.Prepares():
		return fmt.Sprintf("Two transactions (the first %s)", adds)
	case d.CleansUp():
		return fmt.Sprintf("Two transactions (the second %s)", removes)
	}
	return "One transaction"
}

// sign returns the mark of an action, in its colour.
func sign(paint paint, action string) string {
	switch action {
	case actionAdd:
		return paint.green("+")
	case actionRemove:
		return paint.red("-")
	}
	return paint.yellow("~")
}

// writeDrift lists differences, many of one set or chain in short.
func writeDrift(b *strings.Builder, paint paint, items []drifted, verbose bool) {
	summarised(items, verbose,
		func(d drifted) string { return d.Action + " " + d.Kind + " " + d.Name },
		func(d drifted) { fmt.Fprintf(b, "  %s %s\n", sign(paint, d.Action), d.Description) },
		func(d drifted, n int) {
			fmt.Fprintf(b, "  %s %s\n", sign(paint, d.Action), paint.dim(fmt.Sprintf("%s more of the kind in %s; --verbose lists them", thousands(n), d.Name)))
		})
}

// writeOperation prints one operation on the kernel's table.
func writeOperation(b *strings.Builder, paint paint, c apply.Change) {
	text := c.Kind.String() + " " + clean(c.Name)
	comment := c.Comment
	switch {
	case c.Kind == apply.RuleKind:
		// The text of a rule holds its comment.
		text, comment = text+": "+clean(c.Text), ""
	case c.Kind == apply.ElementKind:
		text += ": " + clean(c.Text)
	case c.Kind == apply.ObjectKind || c.Action == apply.Update:
		text, comment = clean(c.Text), ""
	}
	if c.Was != "" {
		text += ", was " + clean(c.Was)
	}
	if comment != "" {
		text += paint.dim("  # " + clean(comment))
	}
	fmt.Fprintf(b, "  %s %s\n", sign(paint, actionName(c.Action)), text)
}

// objectRow sums up the operations on objects that carry the same policy
// address.
type objectRow struct {
	Action     string `json:"action"`
	Address    string `json:"address"`
	Operations int    `json:"operations"`
}

// objectRows groups a delta by policy address, for a table that nobody has a
// record of.
func objectRows(delta *apply.Delta) []objectRow {
	rows := map[string]*objectRow{}
	for c := range delta.Changes() {
		if c.Kind == apply.ChainKind && isDigest(c.Comment) {
			continue
		}
		address, action := c.Comment, actionName(c.Action)
		if !isAddress(address) {
			address = c.Kind.String() + " " + c.Name
			switch c.Kind {
			case apply.RuleKind:
				address, action = "chain "+c.Name, actionUpdate
			case apply.ElementKind:
				address, action = "set "+c.Name, actionUpdate
			}
		}
		r := rows[address]
		if r == nil {
			rows[address] = &objectRow{action, address, 1}
			continue
		}
		r.Operations++
		if r.Action != action {
			r.Action = actionUpdate
		}
	}
	var out []objectRow
	for _, r := range rows {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b objectRow) int { return strings.Compare(a.Address, b.Address) })
	return out
}

func writeObjects(b *strings.Builder, paint paint, rows []objectRow) {
	for _, r := range rows {
		fmt.Fprintf(b, "  %s %s  %s\n", sign(paint, r.Action), clean(r.Address), paint.dim("("+plural(r.Operations, "operation")+")"))
	}
}
