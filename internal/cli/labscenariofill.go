package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/internal/scenario"
)

// What fills a conntrack table.
const (
	// mostFilled is the largest table that a scenario fills: an entry takes
	// about 320 bytes of the kernel's memory.
	mostFilled = 1 << 20
	// fillerMark tells the entries from those of real flows.
	fillerMark = 0x73676366 // "sgcf"
	// drainTries bounds the walks through a table that others change.
	drainTries = 5
	// fillerLife is longer than any scenario.
	fillerLife = 5 * 24 * time.Hour

	fillerPort, fillerDest = 50000, 443
)

// filler is the entry of the connection that the host of a number has with an
// address: one that the kernel does not give up for others.
func filler(to netip.Addr, n int) *conntrack.Entry {
	// Carriers' addresses, and those of documentation: nobody's.
	from := netip.AddrFrom4([4]byte{100, 64 + byte(n>>16), byte(n >> 8), byte(n)})
	if to.Is6() {
		b := netip.MustParseAddr("2001:db8:ffff::").As16()
		b[13], b[14], b[15] = byte(n>>16), byte(n>>8), byte(n)
		from = netip.AddrFrom16(b)
	}
	t := conntrack.Tuple{Source: from, Dest: to, Protocol: flow.TCP, SourcePort: fillerPort, DestPort: fillerDest}
	return &conntrack.Entry{
		Original: t, Reply: t.Reversed(), Status: conntrack.SeenReply | conntrack.Assured,
		Remaining: fillerLife, Mark: fillerMark, TCPState: conntrack.TCPEstablished,
	}
}

// Fill makes entries until the table has room for no more than leave others.
func (e labEnforcer) Fill(ctx context.Context, at scenario.Place, to netip.Addr, leave int) error {
	return e.at(at, io.Discard).withTable(func(table *conntrack.Table) (err error) {
		size, err := table.Size()
		if err != nil {
			return err
		}
		switch {
		case size.Max == 0:
			return &scenario.NotHereError{Reason: "its conntrack table has no limit (net.netfilter.nf_conntrack_max is 0)"}
		case size.Max > mostFilled:
			return &scenario.NotHereError{Reason: fmt.Sprintf("it would fill the conntrack table, and net.netfilter.nf_conntrack_max allows %s entries, of about 320 bytes each; up to %s are filled",
				thousands(int(size.Max)), thousands(mostFilled))}
		}
		batch, err := table.Batch()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, batch.Close()) }()
		for n := 0; size.Available() > uint64(leave); {
			for range size.Available() - uint64(leave) {
				if err := batch.Create(filler(to, n)); err != nil {
					return err
				}
				if n++; n > 2*mostFilled {
					return errors.New("fill the conntrack table: its entries end as fast as they are made")
				}
				if err := ctx.Err(); err != nil {
					return err
				}
			}
			if err := batch.Flush(); err != nil {
				return err
			}
			full := batch.Result().Full > 0
			if size, err = table.Size(); err != nil {
				return err
			}
			if full && size.Available() > uint64(leave) {
				return &scenario.NotHereError{Reason: fmt.Sprintf("the kernel made %s of %s conntrack entries", thousands(int(size.Entries)), thousands(int(size.Max)))}
			}
		}
		return nil
	})
}

// Drain deletes the entries of Fill.
func (e labEnforcer) Drain(ctx context.Context, at scenario.Place) error {
	return e.at(at, io.Discard).withTable(func(table *conntrack.Table) (err error) {
		batch, err := table.Batch()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, batch.Close()) }()
		for range drainTries {
			err = table.Entries(ctx, func(e *conntrack.Entry) error {
				if e.Mark != fillerMark {
					return nil
				}
				return batch.Delete(e)
			})
			// A walk in a table that changes may miss some.
			torn := errors.Is(err, conntrack.ErrTorn)
			if err != nil && !torn {
				return err
			}
			if err := batch.Flush(); err != nil || !torn {
				return err
			}
		}
		return err
	})
}

// Allowance is sgc conntrack stats.
func (e labEnforcer) Allowance(_ context.Context, at scenario.Place) (n scenario.AllowanceCounts, err error) {
	err = e.at(at, io.Discard).withTable(func(table *conntrack.Table) error {
		v, err := newStatsView(table)
		if err != nil {
			return err
		}
		n.Exceeded = v.Exceeded
		if v.Available != nil {
			n.Available = *v.Available
		}
		return nil
	})
	return n, err
}
