package apply

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
	"sgc/internal/ruleset"
)

// Attempts to remove timed elements on kernels that refuse to remove what is
// gone. Only what ends between the reading of a set and the transaction, a few
// milliseconds later, fails one.
const destroyAttempts = 10

// send sends one transaction and reads what became of it. If the kernel is too
// old to remove elements whether they are there or not (Linux before 6.3), it
// reads which are there and sends the transaction with these alone. That is never
// empty: every transaction has something that is sure to be done.
func (c *conn) send(ctx context.Context, b *batch) error {
	err := c.sendOnce(ctx, b)
	if !refusedDestroy(err, unix.EINVAL) {
		return err
	}
	for attempt := 1; ; attempt++ {
		known, rerr := c.withoutDestroy(ctx, b)
		if rerr != nil {
			return errors.Join(err, rerr)
		}
		if err = c.sendOnce(ctx, known); !refusedDestroy(err, unix.ENOENT) || attempt == destroyAttempts {
			return err
		}
	}
}

// refusedDestroy reports whether err is the kernel's no to removing elements
// whether they are there or not.
func refusedDestroy(err error, errno unix.Errno) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && slices.ContainsFunc(refused.Refusals, func(r Refusal) bool {
		return r.destroys && errors.Is(r.Err, errno)
	})
}

// withoutDestroy returns the transaction with messages that every kernel knows,
// for the elements that are there now.
func (c *conn) withoutDestroy(ctx context.Context, b *batch) (*batch, error) {
	out := &batch{part: b.part}
	out.message.Buf = slices.Clone(b.message.Buf[:b.operations[0].start])
	live := map[*ruleset.Set]*Set{}
	for i, o := range b.operations {
		if !o.destroys {
			out.append(o, b.operation(i))
			continue
		}
		if live[o.set] == nil {
			have, err := c.set(ctx, tableName, o.set.Name)
			if err == nil {
				err = c.readTimed(ctx, tableName, have, func(int) {})
			}
			if err != nil {
				return nil, explain(err)
			}
			live[o.set] = have
		}
		message, err := live[o.set].only(b.operation(i))
		if err != nil {
			return nil, err
		}
		if message != nil {
			out.append(o, message)
		}
	}
	out.close()
	return out, nil
}

// operation returns the message of an operation.
func (b *batch) operation(i int) []byte {
	return nlmsg.First(b.message.Buf[b.operations[i].start:])
}

// append adds a message of another transaction to this one.
func (b *batch) append(o operation, message []byte) {
	o.start = len(b.message.Buf)
	b.operations = append(b.operations, o)
	b.message.Buf = append(b.message.Buf, message...)
	nlmsg.SetSequence(b.message.Buf[o.start:], uint32(len(b.operations)))
}

// only returns a message that removes those of the elements of another one that
// the set holds; nil if there are none.
func (s *Set) only(request []byte) ([]byte, error) {
	there := make(map[span]bool, len(s.Timed))
	for _, e := range s.Timed {
		there[span{e.First, e.Last}] = true
	}
	m := nlmsg.Message{Buf: slices.Clone(request[:nlmsg.HeaderSize+nlmsg.NetfilterSize])}
	nlmsg.SetType(m.Buf, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELSETELEM)
	found := false
	for a := nlmsg.Walk(request[nlmsg.HeaderSize+nlmsg.NetfilterSize:]); a.Next(); {
		if a.Type != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			m.Bytes(a.Type, a.Data)
			continue
		}
		list := m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for e := nlmsg.Walk(a.Data); e.Next(); {
			asked := timedReader{keyLen: int(s.keyLen), interval: s.flags&unix.NFT_SET_INTERVAL != 0}
			if err := asked.element(e.Data); err != nil {
				return nil, err
			}
			if asked.catchAll && s.timedCatchAll || len(asked.list) == 1 && there[span{asked.list[0].First, asked.list[0].Last}] {
				m.Bytes(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, e.Data)
				found = true
			}
		}
		m.End(list)
	}
	if !found {
		return nil, nil
	}
	m.Finish()
	return m.Buf, nil
}
