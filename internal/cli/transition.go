package cli

import (
	"maps"
	"slices"

	"sgc/apply"
	"sgc/compile"
	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/policies"
)

// transition is the step from what is in force to what is to be, as far as it
// matters to live flows. It is made for a plan, and again from the records that
// a killed apply left.
type transition struct {
	// old is nil where nothing is known to have been in force: all live flows are
	// adopted then.
	old *enforced
	new *enforced
	// recorded is false if old was read back from the kernel's table: it says
	// only which flows were open.
	recorded bool
	// lost says that the rules of old are not in the kernel any more.
	lost bool
	// restores says that somebody else changed the rules of old in the kernel: what
	// these kept out of conntrack may have an entry.
	restores bool
}

// transition returns the step from what v found to new.
func (v *sight) transition(new *enforced) *transition {
	table := v.snapshot.Table
	asleep := !enforces(table) || table.Flags&tableDormant != 0 || flushed(table)
	switch {
	case v.last != nil:
		return &transition{old: v.last, new: new, recorded: true, lost: asleep}
	case asleep:
		return &transition{new: new, recorded: true}
	}
	return &transition{old: recoverOpen(table), new: new}
}

// resumed returns the step that a killed apply was at; before is the record of
// what was in force when it began, after the one that it wrote ahead.
func resumed(before, after *enforced) *transition {
	t := &transition{old: before, new: after, recorded: true, lost: after.Lost, restores: after.Restores}
	if before == nil || before.Policy == nil {
		t.old = after.Was
		t.recorded = after.Was == nil
	}
	return t
}

// write completes the new record, so that the next command can finish the step.
func (t *transition) write() {
	t.new.Lost, t.new.Restores, t.new.Was = t.lost, t.restores, nil
	if !t.recorded {
		t.new.Was = t.old
	}
}

// begins reports whether the step begins to enforce.
func (t *transition) begins() bool { return t.old == nil || t.lost }

// moot reports whether the step changes nothing for any flow.
func (t *transition) moot() bool {
	if t.begins() || t.new.Flush == conntrack.FlushRevoked {
		return false
	}
	if t.old.Policy != t.new.Policy && t.old.Policy.Digest() != t.new.Policy.Digest() {
		return false
	}
	for _, f := range flow.Families {
		if (t.old.Conntrack[f] != "") != (t.new.Conntrack[f] != "") {
			return false
		}
	}
	return true
}

// same reports whether two steps are one: to the same policy, from the same
// state.
func (t *transition) same(other *transition) bool {
	return t.new.Policy == other.new.Policy && t.new.Flush == other.new.Flush && maps.Equal(t.new.Conntrack, other.new.Conntrack) &&
		t.lost == other.lost && t.restores == other.restores && t.recorded == other.recorded && (t.old == nil) == (other.old == nil) &&
		(t.old == nil || t.recorded && t.old.Policy.Digest() == other.old.Policy.Digest() && maps.Equal(t.old.Conntrack, other.old.Conntrack))
}

// past returns the rules that groups had before old; those of groups that were
// gone by then have done their work.
func (t *transition) past() *policies.Past {
	if t.old == nil {
		return nil
	}
	return t.old.Past.Forget(t.old.Policy)
}

// change returns the judge of the step.
func (t *transition) change(routes *conntrack.Routes, openers *conntrack.Openers) *conntrack.Change {
	o := conntrack.ChangeOptions{
		New:  &conntrack.Enforced{Policy: t.new.Policy, Conntrack: t.new.Conntrack},
		Past: t.past(), Flush: t.new.Flush, Lost: t.lost, Routes: routes, Openers: openers,
	}
	if t.old != nil {
		o.Old = &conntrack.Enforced{Policy: t.old.Policy, Conntrack: t.old.Conntrack}
	}
	return conntrack.NewChange(o)
}

// closes reports whether the step takes away what was open.
func (t *transition) closes() bool {
	return t.old != nil && t.new.Flush != conntrack.FlushNone && compile.Closes(t.old.Policy, t.new.Policy)
}

// closing returns the policy whose open flows the commit itself has to cut,
// since conntrack may have entries of them: nil if there is none.
func (t *transition) closing(forwarding *apply.Forwarding) *policies.Policy {
	if !t.closes() || !t.keptOpen(forwarding) {
		return nil
	}
	return t.old.Policy
}

// keptOpen reports whether open flows of the old policy can be in conntrack.
func (t *transition) keptOpen(forwarding *apply.Forwarding) bool {
	if t.lost {
		return true
	}
	for _, f := range flow.Families {
		if t.old.Conntrack[f] != "" || forwarding.In(f) {
			return true
		}
	}
	for _, i := range t.old.Policy.Interfaces {
		if i.NotrackOff {
			return true
		}
	}
	return false
}

// untracks reports whether the step may begin to track what the kernel left out
// of conntrack before, so that sockets need entries.
func (t *transition) untracks() bool {
	if t.begins() {
		return true
	}
	for _, f := range flow.Families {
		for _, i := range t.old.Policy.OpenInterfaces(f) {
			if !i.NotrackOff && t.old.Conntrack[f] == "" {
				return true
			}
		}
	}
	// What the old policy did not manage, nobody tracked.
	for _, i := range t.new.Policy.Interfaces {
		if was := t.old.Policy.Interface(i.Name); was == nil || was.Name != i.Name {
			return true
		}
	}
	return false
}

// hold returns the element that refuses h from now on, for as long as conntrack
// would have kept it.
func (t *transition) hold(h policies.Held) apply.TimedChange {
	timeout := policies.DefaultTimeouts.UDPStream
	if i := t.new.Policy.Interface(h.Interface); i != nil && i.Timeouts != nil {
		timeout = i.Timeouts.UDPStream
	}
	set, e := compile.RefusedElement(h, timeout, 0)
	return apply.TimedChange{Set: set, Element: e}
}

// recompute returns what has to change of what is held since earlier: what the
// new policy allows again is let go, and the rest stays for as long as it had.
func (t *transition) recompute(table *apply.Table) []apply.TimedChange {
	var changes []apply.TimedChange
	var judge *policies.Judge
	for h, e := range heldIn(table) {
		if judge == nil {
			judge = policies.NewJudge(t.new.Policy)
		}
		rest, same := stillHeld(&h.held, judge)
		if same {
			continue
		}
		changes = append(changes, apply.TimedChange{Set: h.set, Remove: true, Element: e})
		for _, r := range rest {
			set, element := compile.RefusedElement(r, e.Timeout, e.Expires)
			changes = append(changes, apply.TimedChange{Set: set, Element: element})
		}
	}
	return changes
}

// stillHeld returns what of h a policy goes on to hold; same says that it is h
// itself.
func stillHeld(h *policies.Held, judge *policies.Judge) (rest []policies.Held, same bool) {
	rest = h.Remaining(judge)
	return rest, len(rest) == 1 && rest[0] == *h
}

// mayCut reports whether the step may cut flows.
func (t *transition) mayCut() bool {
	if t.old == nil || t.new.Flush == conntrack.FlushNone {
		return false
	}
	return t.new.Flush == conntrack.FlushRevoked || t.closes() ||
		slices.ContainsFunc(t.old.Policy.Groups, func(g *policies.Group) bool { return t.new.Policy.Group(g.Name) == nil })
}

// window returns the elements for the time in which routed flows without
// entries go on: a step that begins to enforce opens it, and one that may cut
// flows ends it, since such a flow could be one of those.
func (t *transition) window(table *apply.Table) []apply.TimedChange {
	var changes []apply.TimedChange
	set, elements := compile.Adoption()
	switch {
	case t.mayCut():
		if table == nil || table.Set(set) == nil {
			return nil
		}
		for _, e := range table.Set(set).Timed {
			changes = append(changes, apply.TimedChange{Set: set, Remove: true, Element: e})
		}
	// A policy without interfaces governs no flows, and has no sets.
	case t.begins() && len(t.new.Policy.Interfaces) > 0:
		for _, e := range elements {
			changes = append(changes, apply.TimedChange{Set: set, Element: e})
		}
	}
	return changes
}
