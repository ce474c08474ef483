package cli

import (
	"context"
	"errors"
	"fmt"

	"sgc/apply"
	"sgc/conntrack"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// liveWork is what an apply means for live flows: what it shows of them, and
// what its commit does about them beside the rules.
type liveWork struct {
	*transition
	flows liveFlows
	// holds are what the commit refuses for a while.
	holds []policies.Held
	// seeded is set once the entries were made that flows need at the commit.
	seeded bool
	// entries is how many are to be deleted.
	entries int
	// others is how many flows of other protocols the rules are to forget.
	others int
	// deleted is how many were deleted, after the commit.
	deleted int
	// ssh is the connection that the command runs over, cutsSSH is set if no
	// packet of it would pass any more.
	ssh     sshConnection
	cutsSSH bool
	// unknown says why the live flows are not known; "" if they are.
	unknown string
}

// cut is how many flows the work ends.
func (w *liveWork) cut() int {
	if w == nil {
		return 0
	}
	return w.flows.count(fateCut)
}

// willHold lists what the commit refuses for a while, since nobody knows the
// flows that ports of the host have open.
func (w *liveWork) willHold() []heldView {
	out := []heldView{}
	if w == nil {
		return out
	}
	for i := range w.holds {
		if h := &w.holds[i]; !h.Exact() {
			out = append(out, newHeldView(h, w.hold(*h).Element.Timeout))
		}
	}
	return out
}

// view is the JSON form.
func (w *liveWork) view() liveFlowsView {
	if w == nil {
		return (&liveFlows{}).view(false)
	}
	v := w.flows.view(w.unknown == "")
	v.WillHold = w.willHold()
	return v
}

// empty reports whether nothing is to be done apart from what the table needs.
func (w *liveWork) empty() bool { return w == nil || w.entries+w.others == 0 }

// judgeFlows finds out what the step does to the flows that are alive; limit is
// how many of them are kept for people to see. It changes nothing but the past in
// the new record.
func (s *session) judgeFlows(ctx context.Context, k *apply.Kernel, t *transition, limit int) (*liveWork, error) {
	w := &liveWork{transition: t, flows: liveFlows{limit: limit}, ssh: sshOf(s.Environ)}
	if t.old != nil {
		t.new.Past = t.old.Past
	}
	if t.moot() {
		return w, nil
	}
	pruner := t.past().Pruner()
	if err := w.judgeOthers(ctx, k, pruner); err != nil {
		return nil, err
	}
	err := s.withTable(func(tracked *conntrack.Table) error {
		return withChange(ctx, tracked, t, func(c *conntrack.Change) error {
			return w.judge(ctx, tracked, c, pruner)
		})
	})
	switch {
	case errors.Is(err, conntrack.ErrUnsupported):
		w.unknown = "live flows are not known: " + conntrack.ErrUnsupported.Error()
	case errors.Is(err, conntrack.ErrTorn):
		s.inform("%s", capitalised(conntrack.ErrTorn.Error())+".")
	case err != nil:
		return nil, err
	}
	if t.old != nil {
		past := t.past()
		if err == nil {
			past = pruner.Past()
		}
		t.new.Past, t.new.replaces = past, t.old.Policy
	}
	w.flows.sort()
	return w, nil
}

// withChange makes the judge of a step for f.
func withChange(ctx context.Context, table *conntrack.Table, t *transition, f func(*conntrack.Change) error) error {
	routes, err := table.Routes()
	if err != nil {
		return err
	}
	openers, err := table.Openers(ctx)
	if err != nil && !errors.Is(err, conntrack.ErrNoSockets) {
		return errors.Join(err, routes.Close())
	}
	return errors.Join(f(t.change(routes, openers)), routes.Close())
}

// judge goes through entries and sockets.
func (w *liveWork) judge(ctx context.Context, table *conntrack.Table, c *conntrack.Change, pruner *policies.Pruner) error {
	var sockets map[conntrack.SocketKey]socketFate
	var bound []policies.BoundPort
	var out conntrack.Changed
	err := table.Sockets(ctx, func(s *conntrack.Socket) error {
		bound = c.Bound(s, bound)
		if err := c.Socket(s, &out); err != nil || out.Fate == conntrack.Elsewhere {
			return err
		}
		see(pruner, &out)
		w.guard(c, &out)
		w.holds = append(w.holds, out.Held...)
		switch leg := out.Leg(); {
		case out.KeptOut:
			w.count(&out, true)
			w.denied(denied(c, &out), true)
		case (out.Seed || out.Unsure && out.Fate == conntrack.Cut) && leg != nil && (out.Fate != conntrack.Stays || denied(c, &out) != nil):
			// It counts unless there is an entry.
			if sockets == nil {
				sockets = map[conntrack.SocketKey]socketFate{}
			}
			sockets[s.Key()] = socketFate{out.Fate, out.Reason, *leg, denied(c, &out) != nil}
		}
		return nil
	})
	if err != nil && !errors.Is(err, conntrack.ErrNoSockets) {
		return err
	}
	w.holds = append(w.holds, c.Holds(bound)...)
	err = table.Entries(ctx, func(e *conntrack.Entry) error {
		if e.Original.Protocol.IsOther(e.Original.Family()) {
			return nil // see judgeOthers
		}
		if err := c.Entry(e, &out); err != nil {
			return err
		}
		if out.Delete {
			w.entries++
		}
		see(pruner, &out)
		w.guard(c, &out)
		if out.KeptOut || out.Fate == conntrack.Elsewhere {
			return nil
		}
		if sockets != nil {
			if key, ok := c.SocketKey(e); ok {
				delete(sockets, key)
			}
		}
		w.count(&out, false)
		w.denied(denied(c, &out), false)
		return nil
	})
	for _, f := range sockets {
		w.add(f.fate, f.reason, &f.leg, true)
		if f.denied {
			w.denied(&f.leg, true)
		}
	}
	return err
}

// guard finds out whether the flow is the connection that the command runs over,
// and no packets of it would pass: it is cut, or a network ACL denies it.
func (w *liveWork) guard(c *conntrack.Change, out *conntrack.Changed) {
	for i := range out.Legs {
		l := &out.Legs[i]
		if w.ssh.is(&l.Packet) && (out.Fate == conntrack.Cut || l.New.Denied || c.DeniedBack(l)) {
			w.cutsSSH = true
		}
	}
}

// denied returns the leg where a network ACL stops packets of a flow that it let
// through before; nil if there is none, and for flows that are cut.
func denied(c *conntrack.Change, out *conntrack.Changed) *conntrack.ChangedLeg {
	for i := range out.Legs {
		if l := &out.Legs[i]; out.Fate != conntrack.Cut && l.New.Class != policies.Exempt && c.NowDenied(l) {
			return l
		}
	}
	return nil
}

// denied counts a flow that an ACL stops, beside what becomes of it otherwise. leg
// is nil where none does.
func (w *liveWork) denied(leg *conntrack.ChangedLeg, socket bool) {
	if leg == nil {
		return
	}
	block := w.new.Policy.Interface(leg.Packet.Interface)
	w.flows.add(fateDenied, "", "network_acl."+block.ACL, func() liveFlowView { return newLiveFlowView(&leg.Packet, socket) })
}

// see tells of a live flow, whose past is not to be forgotten.
func see(pruner *policies.Pruner, out *conntrack.Changed) {
	for i := range out.Legs {
		pruner.See(&out.Legs[i].Packet)
	}
}

type socketFate struct {
	fate   conntrack.Fate
	reason conntrack.Reason
	leg    conntrack.ChangedLeg
	denied bool
}

func (w *liveWork) count(out *conntrack.Changed, socket bool) {
	if leg := out.Leg(); leg != nil {
		w.add(out.Fate, out.Reason, leg, socket)
	}
}

// add counts a flow, by the leg that decides its fate.
func (w *liveWork) add(fate conntrack.Fate, reason conntrack.Reason, leg *conntrack.ChangedLeg, socket bool) {
	w.addAs(fate, reason, leg, func() liveFlowView { return newLiveFlowView(&leg.Packet, socket) })
}

// addAs is add with another view of the flow.
func (w *liveWork) addAs(fate conntrack.Fate, reason conntrack.Reason, leg *conntrack.ChangedLeg, view func() liveFlowView) {
	rule := ""
	if leg.Old.Rule != nil && w.recorded {
		rule = leg.Old.Rule.Address()
	}
	switch fate {
	case conntrack.Cut:
		why := "no rule allows it any more"
		switch reason {
		case conntrack.WasOpen:
			why = "was untracked, and no rule allows it any more"
		case conntrack.WasRevoked:
			why = "no rule allows it any more (--flush revoked)"
		case conntrack.GroupDeleted:
			why = "only groups that are deleted have ever allowed it"
		}
		w.flows.add(fateCut, why, rule, view)
	case conntrack.Lingers:
		if reason == conntrack.Adopted {
			w.flows.add(fateAdopted, "", "", view)
			return
		}
		w.flows.add(fateLingers, "", rule, view)
	case conntrack.BecomesTracked:
		w.flows.add(fateTracked, "", rule, view)
	case conntrack.BecomesOpen:
		w.flows.add(fateUntracked, "", ruleOf(leg.New.Rule), view)
	}
}

func ruleOf(r *policies.Rule) string {
	if r == nil {
		return ""
	}
	return r.Address()
}

// seed makes entries for the sockets of which the kernel is about to track the
// flows, so that no packet of theirs begins a flow.
func (s *session) seed(ctx context.Context, t *transition) error {
	if t.moot() || !t.untracks() {
		return nil
	}
	err := s.withTable(func(table *conntrack.Table) error {
		return withChange(ctx, table, t, func(c *conntrack.Change) error {
			_, err := table.SeedChange(ctx, c)
			return err
		})
	})
	if errors.Is(err, conntrack.ErrUnsupported) || errors.Is(err, conntrack.ErrNoSockets) {
		return nil // the plan says so
	}
	if err != nil {
		return fmt.Errorf("make conntrack entries for the host's connections: %w", err)
	}
	return nil
}

// seedBefore is seed before the commit. When others keep changing nf_tables, it
// is done once: after the commit it is done again in any case.
func (s *session) seedBefore(ctx context.Context, w *liveWork) error {
	if w.seeded {
		return nil
	}
	w.seeded = true
	return s.seed(ctx, w.transition)
}

// cleared is what was done to live flows after a commit.
type cleared struct {
	// generation is that of nf_tables, if nobody else has changed it since.
	generation uint32
	deleted    int
}

// follow notes that the command itself has changed nf_tables.
func (c *cleared) follow(g apply.Generations) {
	if g.From == c.generation {
		c.generation = g.To
	}
}

// clear does to live flows what the step means for them, once its rules are in
// force: entries are made for what was opened meanwhile, flows of other protocols
// that are cut are forgotten, UDP that is cut is refused, and then the entries go.
// table is the one in the kernel.
func (s *session) clear(ctx context.Context, k *apply.Kernel, t *transition, table *ruleset.Table, done *cleared) error {
	// What was opened since the first time waits for its entry.
	if err := s.seed(ctx, t); err != nil {
		return err
	}
	if t.moot() && !t.restores {
		return nil
	}
	if err := clearOthers(ctx, k, t, table, done); err != nil {
		return err
	}
	// What the old rules still let through has its entry by now.
	apply.AwaitPackets()
	err := s.withTable(func(tracked *conntrack.Table) error {
		return withChange(ctx, tracked, t, func(c *conntrack.Change) error {
			result, err := tracked.Clear(ctx, c, func(holds []policies.Held) error {
				var changes []apply.TimedChange
				for _, h := range holds {
					changes = append(changes, t.hold(h))
				}
				g, err := k.ChangeTimed(ctx, table, changes)
				if err == nil {
					done.follow(g)
				}
				return err
			})
			done.deleted += result.Done
			return err
		})
	})
	if errors.Is(err, conntrack.ErrUnsupported) {
		return nil // the plan says so
	}
	if err != nil {
		return fmt.Errorf("delete the entries of flows that are cut: %w", err)
	}
	return nil
}
