package apply

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// elements reads the contents of a set. Those of dynamic sets belong to the
// packets and are left alone.
func (r *reader) elements(t *Table, s *Set) error {
	s.elements = elements{
		keyLen: int(s.keyLen), interval: s.flags&unix.NFT_SET_INTERVAL != 0, catchAll: -1,
	}
	if s.flags&unix.NFT_SET_EVAL != 0 {
		return nil
	}
	// Time takes the elements of timed sets out without a generation: they are
	// never remembered.
	if s.timed() {
		return r.conn.readTimed(r.ctx, t.Name, s, r.report)
	}
	if r.known.Identity != "" {
		if e, ok := knownElements(r.known.Table, s); ok {
			s.elements = e
			r.report(e.len())
			return nil
		}
	}
	return r.conn.whole(r.ctx, t.Name, s, r.report, func() (func([]byte) error, func() bool) {
		list := newElementReader(s)
		return list.element, func() bool {
			s.elements = list.elements()
			return !s.elements.torn && list.complete(s.count)
		}
	})
}

// Attempts to read a set whose elements move in the kernel meanwhile.
const (
	wholeAttempts = 10
	wholePause    = 10 * time.Millisecond
)

// whole reads all elements of a set. For every datagram of a dump the kernel walks
// over as many of them as it has sent, with those of transactions that it has not
// done yet: when these come or go, since the transaction is refused, no generation
// tells of it, and elements are found twice or not at all. So they are while the
// kernel enlarges a hash table, some time after elements came. So read begins a
// dump, which ends with a function that reports whether all that the set counts was
// there, each once; if it was not, there is another dump, up to a limit: what the
// set counts may have ended.
//
// Source: Linux net/netfilter/nft_set_rbtree.c, nft_rbtree_walk;
// net/netfilter/nft_set_hash.c, nft_rhash_walk; lib/rhashtable.c.
func (c *conn) whole(ctx context.Context, table string, s *Set, report func(int), read func() (element func([]byte) error, done func() bool)) error {
	for attempt := 1; ; attempt++ {
		element, done := read()
		if err := c.elements(ctx, table, s.Name, report, element); err != nil {
			return err
		}
		if done() || attempt == wholeAttempts {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wholePause):
		}
		// What it counted may have been part of such a transaction, too.
		now, err := c.set(ctx, table, s.Name)
		if err != nil {
			return err
		}
		s.count = now.count
	}
}

// elements calls f for every element of a set, and report with the number of
// those that a message held.
func (c *conn) elements(ctx context.Context, table, set string, report func(n int), f func(element []byte) error) error {
	return unlessTorn(c.dump(ctx, unix.NFT_MSG_GETSETELEM, unix.NFPROTO_INET,
		func(m *nlmsg.Message) {
			m.CString(unix.NFTA_SET_ELEM_LIST_TABLE, table)
			m.CString(unix.NFTA_SET_ELEM_LIST_SET, set)
		},
		func(_ uint8, b []byte) error {
			n, err := eachElement(b, f)
			report(n)
			return err
		}))
}
