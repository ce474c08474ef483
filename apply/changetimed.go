package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
	"sgc/internal/ruleset"
)

// Generations are a time in which nobody else changed nf_tables: it had the
// generation From, and has the generation To after transactions of the caller's
// own. What is known of the table at From is true at To, but for the elements of
// timed sets. The zero value says nothing.
type Generations struct{ From, To uint32 }

// Attempts to change timed elements while others change nf_tables. The last one
// is made whatever the generation is.
const (
	timedAttempts = 10
	timedPause    = 20 * time.Millisecond
)

// ChangeTimed changes elements of timed sets of the table, which the kernel
// holds, and nothing else. Changes that remove come before those that add. It is
// one transaction unless the socket takes no such large one (without CAP_NET_ADMIN
// in the first user namespace); if it fails, the transactions before the last one
// were done.
//
// It returns which generations it led from and to; somebody who remembers the
// table at From may go on with To. They are zero if the kernel was changed by
// others all the time.
//
// A set that the kernel does not hold as the table has it is an error, as is an
// element that Diff would not take.
func (k *Kernel) ChangeTimed(ctx context.Context, table *ruleset.Table, changes []TimedChange) (Generations, error) {
	sets, err := bySet(table, changes)
	if err != nil {
		return Generations{}, err
	}
	return k.changeElements(ctx, table, sets)
}

// changeElements makes changes of elements that come and go by themselves.
func (k *Kernel) changeElements(ctx context.Context, table *ruleset.Table, sets map[*ruleset.Set][]TimedChange) (Generations, error) {
	c, err := k.dial()
	if err != nil {
		return Generations{}, err
	}
	defer c.close() // the kernel has answered, or the error says that it has not
	blind := true
	for attempt := 1; ; attempt++ {
		g, err := c.changeTimed(ctx, table, sets, attempt < timedAttempts, blind)
		if blind && errors.Is(err, unix.EEXIST) {
			blind = false
			continue
		}
		again := errors.Is(err, ErrChanged) || errors.Is(err, errInterrupted)
		if err == nil || !again || attempt >= timedAttempts {
			if err != nil {
				err = fmt.Errorf("change timed elements: %w", err)
			}
			return g, err
		}
		select {
		case <-ctx.Done():
			return Generations{}, fmt.Errorf("change timed elements: %w", ctx.Err())
		case <-time.After(timedPause):
		}
	}
}

// changeTimed makes one attempt; a bound one fails with ErrChanged if somebody
// else changes nf_tables meanwhile, a blind one with EEXIST if something that it
// puts in is in a large set already.
func (c *conn) changeTimed(ctx context.Context, table *ruleset.Table, sets map[*ruleset.Set][]TimedChange, bound, blind bool) (Generations, error) {
	var g Generations
	generation, err := c.generation(ctx)
	if err != nil {
		return g, explain(err)
	}
	live, err := c.timedSets(ctx, table.Name, sets, blind)
	if err != nil {
		return g, explain(err)
	}
	// The planner writes the messages of one transaction, which is cut to what the
	// socket takes.
	p := planner{delta: &Delta{generation: generation}, want: table, part: switching}
	for _, s := range table.Sets {
		if len(sets[s]) == 0 {
			continue
		}
		plan := planBlind(s, sets[s])
		if have := live[s]; have != nil {
			plan = planTimed(s, have, sets[s], false)
		}
		p.sets = append(p.sets, setPlan{want: s, timed: plan})
	}
	p.reserve(nil)
	p.emitPart()
	p.end()
	g.From, g.To = generation, generation
	for _, b := range p.delta.batches {
		room, err := c.room(len(b.message.Buf) + touchSize)
		if err != nil {
			return g, err
		}
		parts := b.cut(room, generation, bound)
		for _, part := range parts {
			if err := c.send(context.WithoutCancel(ctx), part); err != nil {
				return Generations{}, err
			}
			g.To = after(g.To)
		}
	}
	if !bound {
		return Generations{}, nil
	}
	return g, nil
}

// manyElements is how many elements a set has at least that is not read if it can
// be done without: the kernel walks over all of a hash table for every datagram.
const manyElements = 1000

// timedSets reads sets with their elements; there is none for dynamic sets, from
// which elements are only removed, and, with blind, for large sets of single keys.
func (c *conn) timedSets(ctx context.Context, table string, sets map[*ruleset.Set][]TimedChange, blind bool) (map[*ruleset.Set]*Set, error) {
	live := make(map[*ruleset.Set]*Set, len(sets))
	for want := range sets {
		have, err := c.set(ctx, table, want.Name)
		if err != nil {
			return nil, err
		}
		if !have.timed() && !want.Dynamic || !sameSet(have, want) {
			return nil, fmt.Errorf("set %s of table inet %s is not as it was made: the kernel holds %s", want.Name, table, setText(have))
		}
		if want.Dynamic || blind && !want.Interval && have.count >= manyElements {
			live[want] = nil
			continue
		}
		if err := c.readTimed(ctx, table, have, func(int) {}); err != nil {
			return nil, fmt.Errorf("elements of set %s: %w", want.Name, err)
		}
		live[want] = have
	}
	return live, nil
}

// set reads the declaration of a set.
func (c *conn) set(ctx context.Context, table, name string) (*Set, error) {
	b, err := c.get(ctx, unix.NFT_MSG_GETSET, unix.NFPROTO_INET, func(m *nlmsg.Message) {
		m.CString(unix.NFTA_SET_TABLE, table)
		m.CString(unix.NFTA_SET_NAME, name)
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("the kernel holds no set %s of table inet %s: %w", name, table, err)
	}
	if err != nil {
		return nil, err
	}
	return decodeSet(b)
}

// room makes the send buffer as large as a transaction of n bytes needs, and
// returns how much of that it takes at once.
func (c *conn) room(n int) (int, error) {
	err := c.reserve(n)
	if err == nil {
		return n, nil
	}
	size, serr := c.socket.WriteBuffer()
	if serr != nil {
		return 0, errors.Join(err, serr)
	}
	if size -= sendOverhead; size < 2*maxElements {
		return 0, err
	}
	return size, nil
}

// cut returns a transaction as several of at most so many bytes, each bound to
// the generation that the one before it leaves, or all to none.
func (b *batch) cut(room int, generation uint32, bound bool) []*batch {
	var out []*batch
	var at *batch
	for i, o := range b.operations {
		message := b.operation(i)
		if at != nil && len(at.message.Buf)+len(message)+markSize+touchSize > room {
			at.close()
			at = nil
		}
		if at == nil {
			at = &batch{part: b.part}
			at.message.Buf = make([]byte, 0, min(room, len(b.message.Buf)))
			if bound {
				at.open(generation)
			} else {
				at.openUnbound()
			}
			generation = after(generation)
			out = append(out, at)
		}
		at.append(o, message)
	}
	if at != nil {
		at.close()
	}
	return out
}
