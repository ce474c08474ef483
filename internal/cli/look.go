package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sgc/apply"
	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// sight is what a command finds on the host: the kernel's table, and the
// record of who asked for it.
type sight struct {
	snapshot *apply.Snapshot
	// forwarding says which interfaces there are, and whether packets may pass
	// from one to another.
	forwarding *apply.Forwarding
	// surroundings are what else the warnings need to know.
	surroundings surroundings
	// settings are the host's conntrack settings; nil where the kernel does not
	// tell them.
	settings *settingsSight
	// record is that of what the kernel enforces, nil where there is none; it
	// was the pending one if an apply was killed after its commit.
	record *apply.Record
	// last is what the record holds, nil without one.
	last *enforced
	// before is the record of what an apply was about to replace that was killed
	// after its commit; nil else.
	before *apply.Record
	// made is nil, or the policy at hand and the table that it makes; the same as
	// last if nothing is to change.
	made *enforced
	// pending is what a killed apply (or one that is still running) left:
	// whether it had committed when it ended.
	pending pendingState
	// destroyed is set if it was no apply that was killed, but a destroy that
	// had committed.
	destroyed bool
}

type pendingState int

const (
	noPending pendingState = iota
	pendingCommitted
	pendingNotCommitted
)

// records are what the state directory holds.
type records struct{ applied, pending *apply.Record }

// readRecords reads the state directory; dir is nil where there is none. The
// pending record is read first: an apply that ends in between then shows as
// pending and applied, and not as neither.
func readRecords(dir *apply.Dir) (records, error) {
	var r records
	if dir == nil {
		return r, nil
	}
	var err error
	if r.pending, err = dir.Pending(); err != nil {
		return r, err
	}
	r.applied, err = dir.Applied()
	return r, err
}

func (r records) same(other records) bool {
	same := func(a, b *apply.Record) bool {
		return a == b || a != nil && b != nil && a.Digest == b.Digest && a.Applied.Equal(b.Applied)
	}
	return same(r.applied, other.applied) && same(r.pending, other.pending)
}

// lookAttempts is how often look looks again at most, which takes milliseconds
// where the table is small. About one in ten is in vain while others do nothing
// but apply.
const lookAttempts = 20

// look takes a snapshot of the kernel and reads the record. It changes
// neither. dir is nil where there is no state directory. It holds no lock: if
// an apply ends at the same time, it looks again, so that the snapshot and the
// record are of one moment.
func (s *session) look(ctx context.Context, k *apply.Kernel, dir *apply.Dir) (*sight, error) {
	return s.lookFor(ctx, k, dir, nil)
}

// lookFor is look for somebody who has a policy at hand, which most often is
// the one that is enforced.
func (s *session) lookFor(ctx context.Context, k *apply.Kernel, dir *apply.Dir, policy *policies.Policy) (*sight, error) {
	before, err := readRecords(dir)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		recalled, err := compute(ctx, func() (recollection, error) { return recall(ctx, k, dir, before.applied, policy) })
		if err != nil {
			return nil, err
		}
		progress := s.progress("Reading the table from the kernel")
		snapshot, err := k.SnapshotKnowing(ctx, progress.step, recalled.known)
		progress.end()
		if err != nil {
			return nil, err
		}
		after, err := readRecords(dir)
		if err != nil {
			return nil, err
		}
		if before.same(after) || attempt == lookAttempts {
			v, err := compute(ctx, func() (*sight, error) { return newSight(snapshot, after, recalled.last) })
			if err != nil {
				return nil, err
			}
			v.made = recalled.made
			if v.forwarding, err = k.Forwarding(); err != nil {
				return nil, err
			}
			if v.settings, err = lookAtSettings(k, dir); err != nil {
				return nil, err
			}
			v.surroundings, err = s.lookAround(k)
			return v, err
		}
		before = after
	}
}

// recollection is what an earlier run of sgc left, as far as it had to be found
// out for known.
type recollection struct {
	// known is set if nobody changed anything since: what the kernel holds need
	// not all be read then.
	known apply.Known
	// last is what the applied record holds, made the policy at hand as that
	// record's run would have compiled it; one and the same if the policy is the
	// one that is enforced.
	last, made *enforced
}

// recall finds out whether the kernel still holds what an earlier run of sgc
// left. policy is nil, or what is at hand.
func recall(ctx context.Context, k *apply.Kernel, dir *apply.Dir, applied *apply.Record, policy *policies.Policy) (r recollection, err error) {
	if dir == nil || applied == nil {
		return r, nil
	}
	memory, err := dir.Recall()
	if err != nil || memory.Identity == "" {
		return r, err
	}
	generation, err := k.Generation(ctx)
	if err != nil {
		return r, err
	}
	identity, err := k.Identity(generation)
	if err != nil || identity != memory.Identity {
		return r, err
	}
	is := func(e *enforced) bool {
		t := e.table()
		if t == nil || apply.Fingerprint(t) != memory.Table {
			return false
		}
		r.known, r.last = apply.Known{Identity: identity, Table: t}, e
		return true
	}
	if policy != nil {
		if r.made, err = readAs(applied, policy); err != nil || is(r.made) {
			return r, err
		}
	}
	if r.last, err = read(applied); err == nil {
		is(r.last)
	}
	return r, err
}

// newSight finds out which record is that of the table in the kernel. last is
// what the applied one holds, or nil.
func newSight(snapshot *apply.Snapshot, r records, last *enforced) (*sight, error) {
	v := &sight{snapshot: snapshot, record: r.applied, last: last}
	if r.pending != nil {
		committed, err := isCommitted(snapshot, r.applied, r.pending)
		if err != nil {
			return nil, err
		}
		v.pending = pendingNotCommitted
		if committed {
			v.pending, v.record, v.last, v.before = pendingCommitted, r.pending, nil, r.applied
		}
	}
	if v.last == nil {
		var err error
		if v.last, err = read(v.record); err != nil {
			return nil, err
		}
	}
	if v.last != nil && v.last.Policy == nil {
		v.record, v.last, v.destroyed = nil, nil, true
	}
	return v, nil
}

// explainPending tells the reader of a command that changes nothing what an
// apply left.
func (s *session) explainPending(v *sight) {
	switch v.pending {
	case noPending:
	case pendingCommitted:
		s.inform("An apply or destroy ended, or still is, between its commit and its record: what it wanted is what the kernel enforces.")
	case pendingNotCommitted:
		s.inform("An apply or destroy ended, or still is, before its commit: nothing of it is enforced.")
	}
}

// isCommitted finds out from the kernel whether a transaction that was written
// ahead took place. The table carries the digest of its policy; where that is
// the same before and after, the tables themselves are compared.
func isCommitted(have *apply.Snapshot, applied, pending *apply.Record) (bool, error) {
	want, err := read(pending)
	if err != nil {
		return false, err
	}
	if want.Policy == nil {
		return have.Table == nil, nil
	}
	if have.Table == nil {
		return false, nil
	}
	if applied == nil || applied.Digest != pending.Digest {
		return digestOf(have.Table) == pending.Digest, nil
	}
	delta, err := apply.Diff(have, want.table())
	if err != nil {
		return false, err
	}
	// An apply that was cut off before it cleaned up did all that matters.
	return delta.Empty() || delta.Leftovers(), nil
}

// enforces reports whether the table in the kernel is one that sgc made and
// finished: without base chains and a digest it is what an apply left that was
// cut off before it began to enforce anything.
func enforces(t *apply.Table) bool {
	return t != nil && (digestOf(t) != "" || slices.ContainsFunc(t.Chains, func(c *apply.Chain) bool { return c.Base != nil }))
}

// flushed reports whether somebody took all rules out of the table's base chains,
// as nft flush table does: nothing judges a packet.
func flushed(t *apply.Table) bool {
	return !slices.ContainsFunc(t.Chains, func(c *apply.Chain) bool { return c.Base != nil && len(c.Rules) > 0 })
}

// digestOf returns the digest of the policy that the kernel's table was made
// from, or "".
func digestOf(t *apply.Table) string {
	if t == nil {
		return ""
	}
	for _, c := range t.Chains {
		if isDigest(c.Comment) {
			return c.Comment
		}
	}
	return ""
}

// digestWanted is digestOf for a table that is not in the kernel yet.
func digestWanted(t *ruleset.Table) string {
	for _, c := range t.Chains {
		if isDigest(c.Comment) {
			return c.Comment
		}
	}
	return ""
}

// isDigest reports whether a chain's comment is the digest of a policy. The
// compiler gives every table one chain for it, without rules.
func isDigest(comment string) bool { return strings.HasPrefix(comment, "sha256:") }

// leftoverNotes says what a table is that enforces nothing.
func leftoverNotes(t *apply.Table) []string {
	if t == nil {
		return nil
	}
	return []string{fmt.Sprintf("left over from an interrupted apply: the table inet sgc with %s and %s, which nothing uses; the next apply goes on from there",
		plural(len(t.Chains), "chain"), plural(len(t.Sets), "set"))}
}

// environment returns what the compiler must know of the host.
func environment(foreign apply.Foreign) map[flow.Family]string {
	conntrack := map[flow.Family]string{}
	if len(foreign.IPv4) > 0 {
		conntrack[flow.IPv4] = foreign.IPv4[0]
	}
	if len(foreign.IPv6) > 0 {
		conntrack[flow.IPv6] = foreign.IPv6[0]
	}
	return conntrack
}

// progress shows on a terminal how far a long reading is; what takes less than
// a moment stays silent.
type progress struct {
	s     *session
	what  string
	start time.Time
	shown time.Time
	wrote bool
}

const (
	patience = 400 * time.Millisecond
	redraw   = 100 * time.Millisecond
)

func (s *session) progress(what string) *progress {
	return &progress{s: s, what: what, start: time.Now()}
}

func (p *progress) step(done, total int) {
	now := time.Now()
	if !p.s.ErrTerminal || now.Sub(p.start) < patience || now.Sub(p.shown) < redraw {
		return
	}
	p.shown, p.wrote = now, true
	fmt.Fprintf(p.s.Err, "\r\x1b[K%s: %s of %s", p.what, thousands(done), thousands(total))
}

// end wipes the line.
func (p *progress) end() {
	if p.wrote {
		fmt.Fprint(p.s.Err, "\r\x1b[K")
	}
}
