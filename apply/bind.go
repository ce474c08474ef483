package apply

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A binding binds the transactions of a delta to generations: the first one to
// that of the snapshot, every further one to that which the one before it left,
// and each to a newer one if nothing happened since that matters to it.
type binding struct {
	conn  *conn
	watch *watch
	delta *Delta
	// generation is what the next transaction is bound to.
	generation uint32
	// kept is the generation at which the tables of others were last known to
	// need conntrack as the snapshot found, found is when that was found out.
	kept  uint32
	found time.Time
}

const (
	// bindTime is how long a transaction is sent again while others change their
	// tables.
	bindTime = 10 * time.Second
	// keptTime is how long nobody asks again whether the tables of others still
	// need conntrack, although rules go from them all the time. What was compiled
	// is right meanwhile, whether they do or not.
	keptTime = 100 * time.Millisecond
)

// send sends a transaction until the kernel takes it or refuses it for another
// reason than its generation. It returns ErrChanged if something happened that
// matters, or if others leave no room for too long.
func (b *binding) send(ctx context.Context, t *batch) error {
	deadline := time.Now().Add(bindTime)
	for {
		t.bind(b.generation)
		err := b.sendOnce(ctx, t)
		if err == nil {
			b.generation = after(b.generation)
			return nil
		}
		if !errors.Is(err, ErrChanged) {
			return err
		}
		again, renewErr := b.renew(ctx)
		if renewErr != nil {
			return errors.Join(err, renewErr)
		}
		if !again || time.Now().After(deadline) {
			return err
		}
	}
}

// What the kernel builds for those whom it tells of a transaction takes 4 kB for
// every element, at once and for as long as the commit lasts, whether they want it
// or not: a million of them would take all memory that many a host has. So nobody
// listens when a large transaction is committed, as far as that is up to sgc.
// That has to be later than the kernel looks at the generation, or what others did
// until then is not known: after more than it takes to copy the transaction, and
// much less than it takes to add the elements. Too early costs another look, too late
// memory for a moment. Nor is known what others do right after it, which the next
// transaction has to know.
//
// Source: Linux net/netfilter/nf_tables_api.c, nf_tables_setelem_notify and
// nft_commit_notify.
const (
	largeTransaction = 256 << 10 // bytes, of the last transaction
	largeAhead       = 1 << 20   // bytes, of those before it
	copyTime         = 8 * time.Millisecond
	copyTimePerByte  = 8 * time.Millisecond / (1 << 20)
)

// sendOnce sends the transaction one time.
func (b *binding) sendOnce(ctx context.Context, t *batch) error {
	size := len(t.message.Buf)
	large := largeTransaction
	if t != b.delta.batches[len(b.delta.batches)-1] {
		large = largeAhead
	}
	if b.watch == nil || size < large {
		return b.conn.send(ctx, t)
	}
	var leaveErr error
	left := make(chan struct{})
	timer := time.AfterFunc(copyTime+time.Duration(size)*copyTimePerByte, func() {
		leaveErr = b.watch.leave()
		close(left)
	})
	err := b.conn.send(ctx, t)
	if timer.Stop() {
		return err
	}
	<-left
	// Without the watch every change counts.
	if leaveErr == nil {
		var made uint32
		if err == nil {
			made = after(b.generation)
		}
		leaveErr = b.watch.join(ctx, b.conn, made)
	}
	if leaveErr != nil {
		b.watch = nil
	}
	return err
}

// renew moves on to the newest generation, and reports whether nothing that
// matters happened until then.
func (b *binding) renew(ctx context.Context) (bool, error) {
	if b.watch == nil {
		return false, nil
	}
	c := b.watch.since(b.generation)
	if !c.known || c.own {
		return false, nil
	}
	if !b.delta.free {
		if b.delta.needs.gained(c.others, b.generation) {
			return false, nil
		}
		if keep, err := b.keeps(ctx); !keep || err != nil {
			return false, err
		}
	}
	b.generation = c.now
	return true, nil
}

// keeps reports whether conntrack is still needed for all families for which it
// was, after tables that needed it lost something.
func (b *binding) keeps(ctx context.Context) (bool, error) {
	c := b.watch.since(b.kept)
	if !c.known {
		return false, nil
	}
	suspects := b.delta.needs.lost(c.others, b.kept)
	if suspects == nil || time.Since(b.found) < keptTime {
		return true, nil
	}
	r := reader{conn: b.conn, ctx: ctx, watch: b.watch}
	now, err := r.needs(suspects)
	if err != nil {
		return false, err
	}
	for _, ipv4 := range []bool{true, false} {
		if was := &b.delta.needs; was.has(ipv4, nil) && !was.has(ipv4, suspects) && !now.has(ipv4, nil) {
			return false, nil
		}
	}
	b.kept, b.found = c.now, time.Now()
	return true, nil
}

// needs looks through some tables of others for what needs conntrack.
func (r *reader) needs(of map[tableKey]bool) (*needs, error) {
	_, others, err := r.tables()
	if err != nil {
		return nil, fmt.Errorf("look through the tables of others: %w", err)
	}
	for _, t := range others {
		if !of[tableKey{t.family, t.name}] {
			continue
		}
		if err := r.foreignRules(t); err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("look through %s: %w", t, err)
		}
	}
	return &r.foreign.needs, nil
}

// bind makes the transaction one that the kernel takes at a generation alone.
func (b *batch) bind(generation uint32) {
	binary.BigEndian.PutUint32(b.message.Buf[beginSize-4:beginSize], generation)
}
