package conntrack

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// Messages of ctnetlink.
//
// Source: linux/netfilter/nfnetlink_conntrack.h, enum cntl_msg_types.
const (
	messageNew         = unix.NFNL_SUBSYS_CTNETLINK << 8
	messageGet         = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	messageDelete      = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2
	messageGetCounters = unix.NFNL_SUBSYS_CTNETLINK<<8 | 4
	messageGetStats    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5
)

// ErrTorn says that the table changed while it was read: entries may be
// missing, or have come twice. All that came was handed over all the same.
var ErrTorn = errors.New("the conntrack table changed while it was read: some entries may be missing, or come twice")

// Entries calls each with every entry of the namespace, of both families and
// all zones, in the kernel's order. The entry is valid during the call, which
// may delete or change entries. Entries ends with the context's error, with
// the first error of each, or with ErrTorn.
//
// The kernel's hash table is shared by all network namespaces, so the time it
// takes grows with everybody's entries.
func (t *Table) Entries(ctx context.Context, each func(*Entry) error) error {
	return t.dumpEntries(ctx, wholeTable, each)
}

// wholeTable asks for all entries.
func wholeTable(m *nlmsg.Message) { m.Netfilter(unix.AF_UNSPEC, 0) }

// dumpEntries is Entries for what fill asks for.
func (t *Table) dumpEntries(ctx context.Context, fill func(*nlmsg.Message), each func(*Entry) error) error {
	c, err := t.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	return errors.Join(entries(ctx, c, fill, each), c.close())
}

func entries(ctx context.Context, c *conn, fill func(*nlmsg.Message), each func(*Entry) error) error {
	// stopped is an error of the caller's, which the reading passes on unchanged.
	var stopped error
	var e Entry
	n := 0
	torn, err := c.dump(messageGet, fill, func(payload []byte) error {
		if n++; n%256 == 0 {
			if stopped = ctx.Err(); stopped != nil {
				return stopped
			}
		}
		if err := e.parse(payload); err != nil {
			return err
		}
		stopped = each(&e)
		return stopped
	})
	switch {
	case stopped != nil:
		return stopped
	case err != nil:
		return fmt.Errorf("read the conntrack table: %w", explain(err))
	case torn:
		return ErrTorn
	}
	return ctx.Err()
}
