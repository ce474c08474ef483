package conntrack

import (
	"context"
	"errors"

	"sgc/internal/flow"
	"sgc/policies"
)

// SeedChange makes entries for the sockets of the host whose flows the new
// policy's rules track and the old one's did not, as Change.Socket says. It ends
// as Seed does.
func (t *Table) SeedChange(ctx context.Context, c *Change) (Result, error) {
	var out Changed
	var failed error
	result, err := t.Seed(ctx, func(s *Socket) (flow.Direction, bool) {
		if err := c.Socket(s, &out); err != nil {
			failed = errors.Join(failed, err)
			return flow.Ingress, false
		}
		return out.Opened, out.Seed
	})
	return result, errors.Join(err, failed)
}

// clearings is how often Clear goes through the table to make sure that nothing
// is left: what a table that changes shows at one reading is not all.
const clearings = 4

// heldAtOnce is how many flows Clear has refused at once. They are kept in memory
// until then.
const heldAtOnce = 1 << 16

// Clear deletes the entries that the change is to delete, after its commit.
// Before the entries of UDP flows that are cut go, refuse is called with what is
// to be refused for them; an error of it ends the work.
//
// It goes through the table until it finds nothing more. Packets that the old
// rules let through must have left their entries before the call.
func (t *Table) Clear(ctx context.Context, c *Change, refuse func([]policies.Held) error) (Result, error) {
	b, err := t.Batch()
	if err != nil {
		return Result{}, err
	}
	work := clearing{table: t, change: c, batch: b, refuse: refuse, refused: map[policies.Held]bool{}}
	// A pass after which flows are left whose refusal came too late for it does
	// not count: they get fewer.
	for passes := 0; ; {
		before := b.Result()
		err = work.pass(ctx)
		torn := errors.Is(err, ErrTorn)
		if err != nil && !torn {
			break
		}
		if work.left > 0 && !torn {
			continue
		}
		passes++
		if !torn && (passes == clearings || b.Result() == before) || passes == attempts {
			break
		}
	}
	return b.Result(), errors.Join(err, b.Close())
}

// clearing is a Clear under way.
type clearing struct {
	table  *Table
	change *Change
	batch  *Batch
	refuse func([]policies.Held) error
	// refused is what has been refused, holds what is to be, left how many
	// entries stay until that is done.
	refused map[policies.Held]bool
	holds   []policies.Held
	left    int
}

// pass goes through the table once. The entries of UDP flows that are not
// refused yet stay for the next pass.
func (w *clearing) pass(ctx context.Context) error {
	w.left = 0
	var out Changed
	err := w.table.Entries(ctx, func(e *Entry) error {
		if err := w.change.Entry(e, &out); err != nil || !out.Delete {
			return err
		}
		if !w.ready(out.Held) {
			w.left++
			return nil
		}
		return w.batch.Delete(e)
	})
	flushed := w.batch.Flush()
	if err != nil && !errors.Is(err, ErrTorn) {
		return errors.Join(err, flushed)
	}
	return errors.Join(err, flushed, w.hold())
}

// ready reports whether everything that is to be refused is, and else remembers
// it.
func (w *clearing) ready(holds []policies.Held) bool {
	ready := true
	for _, h := range holds {
		if !w.refused[h] {
			ready = false
			if len(w.holds) < heldAtOnce {
				w.holds = append(w.holds, h)
			}
		}
	}
	return ready
}

// hold has refused what was remembered.
func (w *clearing) hold() error {
	if len(w.holds) == 0 {
		return nil
	}
	if err := w.refuse(w.holds); err != nil {
		return err
	}
	for _, h := range w.holds {
		w.refused[h] = true
	}
	w.holds = w.holds[:0]
	return nil
}
