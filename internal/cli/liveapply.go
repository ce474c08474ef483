package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"sgc/apply"
	"sgc/compile"
	"sgc/conntrack"
	"sgc/internal/ruleset"
)

const (
	flushName = "flush"
	flowsName = "flows"
	// flowsShown is how many live flows a plan lists unasked.
	flowsShown = 10
)

func flushFlag() cli.Flag {
	return &cli.StringFlag{Name: flushName, Value: "cloud", Usage: "cut live flows as the cloud does (cloud: untracked ones that no rule allows any more), `MODE` revoked: tracked ones too, none: no flow at all (default cloud)"}
}

func flowsFlag() cli.Flag {
	return &cli.IntFlag{Name: flowsName, Value: flowsShown, Usage: fmt.Sprintf("list up to `N` of the live flows that the change is about (default %d)", flowsShown)}
}

// liveFlags reads both flags.
func liveFlags(c *cli.Context) (mode conntrack.FlushMode, flows int, err error) {
	if err := mode.UnmarshalText([]byte(c.String(flushName))); err != nil {
		return mode, 0, fmt.Errorf("--%s: %w", flushName, err)
	}
	if flows = c.Int(flowsName); flows < 0 {
		return mode, 0, fmt.Errorf("--%s is a number of flows, not %d", flowsName, flows)
	}
	return mode, flows, nil
}

// addLive completes the plan by what it means for live flows. known is what was
// found out a moment ago, or nil; it is used if it is about the same step.
func (s *session) addLive(ctx context.Context, k *apply.Kernel, p *plan, mode conntrack.FlushMode, flows int, known *liveWork) (err error) {
	p.enforced.Flush = mode
	t := p.sight.transition(p.enforced)
	t.restores = p.restores
	if known != nil && known.same(t) {
		t.new.Past, t.new.replaces = known.new.Past, known.new.replaces
		p.live = known
		p.live.transition = t
	} else if p.live, err = s.judgeFlows(ctx, k, t, flows); err != nil {
		return err
	}
	t.write()
	timed := append(t.recompute(p.sight.snapshot.Table), t.window(p.sight.snapshot.Table)...)
	for _, h := range p.live.holds {
		timed = append(timed, t.hold(h))
	}
	p.generation = p.delta.After()
	p.cutting, p.switching = nil, nil
	target := p.want
	if closing := t.closing(p.sight.forwarding); closing != nil {
		p.cutting = compile.Compile(p.policy, compile.Environment{Conntrack: p.conntrack, Closing: closing})
		target = p.cutting
	}
	// What is taken out of a set that the policy has no more goes with the set.
	timed = slices.DeleteFunc(timed, func(c apply.TimedChange) bool {
		return c.Remove && !slices.ContainsFunc(target.Sets, func(s *ruleset.Set) bool { return s.Name == c.Set })
	})
	if p.cutting == nil && len(timed) == 0 {
		return nil
	}
	p.switching, err = apply.Diff(p.sight.snapshot, target, timed...)
	if err != nil {
		return fmt.Errorf("compare the kernel's table with the policy: %w", err)
	}
	return nil
}

// liveNotes say what is not known of live flows.
func (p *plan) liveNotes() []string {
	var notes []string
	if p.live == nil {
		return nil
	}
	if p.live.unknown != "" {
		notes = append(notes, p.live.unknown)
	}
	if !p.live.recorded {
		notes = append(notes, "there is no record of the policy that is in force; which flows it left open (untracked) was read from its table in the kernel")
	}
	return notes
}

// commitDelta is what the commit sends.
func (p *plan) commitDelta() *apply.Delta {
	if p.switching != nil {
		return p.switching
	}
	return p.delta
}

// finishLive does what comes after the commit: it deletes entries, and then
// lifts the rules that cut until then.
func (s *session) finishLive(ctx context.Context, h *host, p *plan) error {
	table := p.want
	if p.cutting != nil {
		table = p.cutting
	}
	done := cleared{generation: p.commitDelta().After()}
	err := s.clear(ctx, h.kernel, p.live.transition, table, &done)
	p.generation, p.live.deleted = done.generation, done.deleted
	if err != nil || p.cutting == nil {
		return err
	}
	p.generation, err = h.lift(ctx, table, p.want, done.generation)
	return err
}

// lift takes the temporary rules out of the table, which the kernel held as
// cutting at a generation. It returns the generation after that.
func (h *host) lift(ctx context.Context, cutting, want *ruleset.Table, generation uint32) (uint32, error) {
	for attempt := 1; ; attempt++ {
		known := apply.Known{}
		if cutting != nil {
			identity, err := h.kernel.Identity(generation)
			if err != nil {
				return 0, err
			}
			known = apply.Known{Identity: identity, Table: cutting}
		}
		snapshot, err := h.kernel.SnapshotKnowing(ctx, nil, known)
		if err != nil {
			return 0, err
		}
		delta, err := apply.Diff(snapshot, want)
		if err != nil {
			return 0, err
		}
		err = h.kernel.Commit(ctx, delta)
		var unclean *apply.CleanUpError
		switch {
		case err == nil:
			return delta.After(), nil
		case errors.As(err, &unclean):
			return 0, nil // nothing uses what is left, and the next apply removes it
		}
		if !errors.Is(err, apply.ErrChanged) || attempt == attempts {
			return 0, fmt.Errorf("lift the rules that cut live flows: %w", err)
		}
	}
}

// resume finishes an apply that was killed after its commit.
func (s *session) resume(ctx context.Context, h *host, v *sight) error {
	before, err := read(v.before)
	if err != nil {
		return err
	}
	t := resumed(before, v.last)
	var done cleared
	if err := s.clear(ctx, h.kernel, t, v.last.table(), &done); err != nil {
		return err
	}
	if slices.ContainsFunc(v.snapshot.Table.Chains, func(c *apply.Chain) bool { return compile.IsTemporary(c.Name) }) {
		if _, err := h.lift(ctx, nil, v.last.table(), 0); err != nil {
			return err
		}
	}
	return h.dir.Promote()
}
