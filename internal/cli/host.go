package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"sgc/apply"
	"sgc/internal/ruleset"
)

// host is what a command that changes something holds: the kernel and, locked,
// the state directory.
type host struct {
	kernel *apply.Kernel
	dir    *apply.Dir
}

// change opens the kernel and the state directory, locks the latter against
// other runs of sgc (waiting for one for a while), and calls f.
func (s *session) change(ctx context.Context, wait time.Duration, f func(*host) error) (err error) {
	k, err := apply.Open(s.Netns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	path, err := s.stateDir()
	if err != nil {
		return err
	}
	if err := trust(s.StateDir, path); err != nil {
		return err
	}
	dir, err := apply.OpenDir(path)
	if err != nil {
		return err
	}
	lock, err := s.lock(ctx, dir, wait)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	return f(&host{k, dir})
}

const lockTimeout = "lock-timeout"

func lockTimeoutFlag() cli.Flag {
	return &cli.StringFlag{Name: lockTimeout, Value: "10s", Usage: "wait so long for another sgc to end, `DURATION` such as 5s or 1m (default 10s)"}
}

// lockWait reads the flag.
func lockWait(c *cli.Context) (time.Duration, error) {
	text := c.String(lockTimeout)
	wait, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("--%s is a duration with its unit, such as 5s or 1m, not %q", lockTimeout, text)
	}
	if wait < 0 {
		return 0, fmt.Errorf("--%s cannot be negative; 0s does not wait", lockTimeout)
	}
	return wait, nil
}

// lock takes the lock of the state directory, and says so when it has to wait
// for it.
func (s *session) lock(ctx context.Context, dir *apply.Dir, wait time.Duration) (*apply.Lock, error) {
	once, cancel := context.WithCancel(ctx)
	cancel()
	lock, err := dir.Lock(once)
	if !errors.Is(err, apply.ErrLocked) {
		return lock, err
	}
	if wait > 0 && ctx.Err() == nil {
		s.inform("Waiting up to %s for another sgc to end.", wait)
		waiting, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if lock, err = dir.Lock(waiting); !errors.Is(err, apply.ErrLocked) {
			return lock, err
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("%w. Nothing was changed", err)
}

// settle finishes what an apply left that was killed, and reports whether it
// changed what v has seen. Nobody else is at work: the directory is locked.
func (s *session) settle(ctx context.Context, h *host, v *sight) (changed bool, err error) {
	switch v.pending {
	case noPending:
		return false, nil
	case pendingCommitted:
		s.inform("An earlier run was cut off after its commit; the kernel enforces what it wanted, and the record now says so.")
		if v.destroyed {
			return false, h.dir.Remove()
		}
		return true, s.resume(context.WithoutCancel(ctx), h, v)
	case pendingNotCommitted:
		s.inform("An earlier run was cut off before its commit; nothing of it is enforced, and what it wrote down is dropped.")
		return false, h.dir.Discard()
	}
	return false, fmt.Errorf("a pending record in state %d", v.pending)
}

// transact writes r ahead, calls before, commits the delta, and then calls done
// to make the record. If the commit fails, what was written ahead is dropped,
// unless the kernel enforces it all the same. A *apply.CleanUpError is returned
// after all of this was done.
func (h *host) transact(ctx context.Context, r *apply.Record, delta *apply.Delta, before func() error, done func(*apply.Dir) error) error {
	if err := h.dir.WriteAhead(r); err != nil {
		return err
	}
	err := ctx.Err()
	if err == nil && before != nil {
		err = before()
	}
	if err != nil {
		return errors.Join(err, h.dir.Discard())
	}
	// From here on there is no way back: an interrupt waits for the answer.
	ctx = context.WithoutCancel(ctx)
	err = h.kernel.Commit(ctx, delta)
	var unclean *apply.CleanUpError
	switch {
	case err == nil || errors.As(err, &unclean):
	case errors.Is(err, apply.ErrChanged):
		return errors.Join(err, h.dir.Discard())
	default:
		committed, lookErr := h.holds(ctx, r)
		switch {
		case lookErr != nil:
			// What was written ahead stays: the next command finds out.
			return errors.Join(err, fmt.Errorf("find out whether the transaction took place: %w", lookErr))
		case !committed:
			return errors.Join(err, h.dir.Discard())
		}
	}
	if err := done(h.dir); err != nil {
		return fmt.Errorf("the kernel enforces the policy, but what comes after the commit could not be completed (the next sgc apply does it): %w", err)
	}
	if unclean != nil {
		return unclean
	}
	return nil
}

// remember writes down that the kernel holds the table since a generation, for
// commands that come later and need not read it all again. Without that they
// only take longer.
func (s *session) remember(h *host, generation uint32, table *ruleset.Table) {
	memory, err := h.dir.Recall()
	identity := ""
	if err == nil {
		identity, err = h.kernel.Identity(generation)
	}
	if err == nil && identity != memory.Identity {
		err = h.dir.Remember(identity, table)
	}
	if err != nil {
		s.inform("%s: %s. The next plan reads all of the table from the kernel.", s.errPaint().yellow("Warning"), err)
	}
}

// holds reports whether the kernel holds what r records.
func (h *host) holds(ctx context.Context, r *apply.Record) (bool, error) {
	applied, err := h.dir.Applied()
	if err != nil {
		return false, err
	}
	snapshot, err := h.kernel.Snapshot(ctx, nil)
	if err != nil {
		return false, err
	}
	return isCommitted(snapshot, applied, r)
}
