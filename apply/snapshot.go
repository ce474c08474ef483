package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// Snapshot is what nf_tables held at one moment.
type Snapshot struct {
	// Generation is the number of the last transaction before the snapshot.
	Generation uint32
	// Table is table inet sgc; nil if there is none.
	Table *Table
	// Foreign says what other tables need of conntrack.
	Foreign Foreign
	// Around says what other tables do to the packets that sgc lets through.
	Around Surroundings
}

// Attempts to read a consistent state. Somebody who changes nf_tables several
// times a second for longer than all of them is a fault of its own.
const (
	snapshotAttempts = 20
	snapshotPause    = 50 * time.Millisecond
)

// Snapshot reads table inet sgc, all of it as it was at one generation, and
// looks through the other tables. Somebody else's transaction in
// between makes it begin again.
//
// Progress, if not nil, is called now and then with the number of rules and
// set elements that were read and the number that the kernel announced; the
// latter is an estimate until the last call, in which both are equal. A call
// with a smaller done than the one before means that the reading began again.
func (k *Kernel) Snapshot(ctx context.Context, progress func(done, total int)) (*Snapshot, error) {
	return k.SnapshotKnowing(ctx, progress, Known{})
}

// SnapshotKnowing is Snapshot for somebody who remembers what was committed
// last. If nothing changed since then, by the identity, the elements of sets
// are taken from memory and not from the kernel; everything else is read all
// the same. The kernel needs about a second for 100,000 ranges, and a hundred
// times as long for ten times as many.
func (k *Kernel) SnapshotKnowing(ctx context.Context, progress func(done, total int), known Known) (*Snapshot, error) {
	c, err := k.dial()
	if err != nil {
		return nil, err
	}
	defer c.close() // nothing was written: there is nothing to lose
	for attempt := 1; ; attempt++ {
		r := reader{conn: c, ctx: ctx, progress: progress, known: known}
		s, err := r.snapshot()
		if err == nil {
			s.Foreign, err = k.addLegacy(&r.foreign)
			s.Around = r.foreign.around
			return s, err
		}
		if !errors.Is(err, errInterrupted) && !errors.Is(err, unix.ENOENT) || attempt == snapshotAttempts {
			return nil, fmt.Errorf("read nf_tables: %w", explain(err))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("read nf_tables: %w", ctx.Err())
		case <-time.After(snapshotPause):
		}
	}
}

// A reader makes one attempt at a snapshot.
type reader struct {
	conn     *conn
	ctx      context.Context
	progress func(done, total int)
	done     int
	total    int
	reported int
	foreign  foreignReasons
	// known holds no table if it is not what the kernel holds now.
	known Known
}

func (r *reader) snapshot() (*Snapshot, error) {
	generation, err := r.conn.generation(r.ctx)
	if err != nil {
		return nil, err
	}
	if r.known.Identity != "" {
		id, err := r.conn.identity(generation)
		if err != nil {
			return nil, err
		}
		if id != r.known.Identity {
			r.known = Known{}
		}
	}
	own, others, err := r.tables()
	if err != nil {
		return nil, err
	}
	if own != nil {
		if err := r.read(own); err != nil {
			return nil, fmt.Errorf("table inet %s: %w", own.Name, err)
		}
	}
	for _, t := range others {
		if err := r.foreignTable(t); err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
	}
	now, err := r.conn.generation(r.ctx)
	if err != nil {
		return nil, err
	}
	if now != generation {
		return nil, errInterrupted
	}
	r.finish()
	return &Snapshot{Generation: generation, Table: own}, nil
}

// read reads everything in table t.
func (r *reader) read(t *Table) error {
	for _, c := range t.Chains {
		r.total += int(c.use)
	}
	if err := r.sets(t); err != nil {
		return fmt.Errorf("sets: %w", err)
	}
	for _, s := range t.Sets {
		r.total += int(s.count)
	}
	if err := r.rules(t); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	for _, s := range t.Sets {
		if err := r.elements(t, s); err != nil {
			return fmt.Errorf("elements of set %s: %w", s.Name, err)
		}
	}
	if err := r.others(t); err != nil {
		return fmt.Errorf("objects: %w", err)
	}
	return nil
}

// report counts n more rules or elements as read.
func (r *reader) report(n int) {
	const step = 4096
	r.done += n
	if r.progress != nil && r.done-r.reported >= step {
		r.reported = r.done
		r.progress(r.done, max(r.total, r.done))
	}
}

func (r *reader) finish() {
	if r.progress != nil {
		r.progress(r.done, r.done)
	}
}

// tables lists all tables and chains: sgc's own, and those that are somebody
// else's.
func (r *reader) tables() (own *Table, others []*foreignTable, err error) {
	err = r.conn.dump(r.ctx, unix.NFT_MSG_GETTABLE, unix.NFPROTO_UNSPEC, nil, func(family uint8, b []byte) error {
		t, err := decodeTable(b)
		if err != nil {
			return err
		}
		switch {
		case family == unix.NFPROTO_INET && t.Name == tableName:
			own = t
		case foreignFamilies[family] != "":
			others = append(others, newForeignTable(family, t))
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("tables: %w", err)
	}
	err = r.conn.dump(r.ctx, unix.NFT_MSG_GETCHAIN, unix.NFPROTO_UNSPEC, nil, func(family uint8, b []byte) error {
		table, c, err := decodeChain(b)
		if err != nil {
			return err
		}
		if own != nil && family == unix.NFPROTO_INET && table == tableName {
			own.Chains = append(own.Chains, c)
			return nil
		}
		for _, t := range others {
			if t.family == family && t.name == table {
				return t.addChain(c, b)
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("chains: %w", err)
	}
	if own != nil {
		slices.SortFunc(own.Chains, func(a, b *Chain) int { return cmp.Compare(a.Name, b.Name) })
	}
	return own, others, nil
}

func (r *reader) sets(t *Table) error {
	err := r.conn.dump(r.ctx, unix.NFT_MSG_GETSET, unix.NFPROTO_INET,
		func(m *nlmsg.Message) { m.CString(unix.NFTA_SET_TABLE, t.Name) },
		func(_ uint8, b []byte) error {
			s, err := decodeSet(b)
			if err == nil && s.flags&unix.NFT_SET_ANONYMOUS == 0 {
				t.Sets = append(t.Sets, s)
			}
			return err
		})
	slices.SortFunc(t.Sets, func(a, b *Set) int { return cmp.Compare(a.Name, b.Name) })
	return err
}

func (r *reader) rules(t *Table) error {
	chains := make(map[string]*Chain, len(t.Chains))
	for _, c := range t.Chains {
		chains[c.Name] = c
	}
	return r.conn.dump(r.ctx, unix.NFT_MSG_GETRULE, unix.NFPROTO_INET,
		func(m *nlmsg.Message) { m.CString(unix.NFTA_RULE_TABLE, t.Name) },
		func(_ uint8, b []byte) error {
			name, rule, err := decodeRule(b)
			if err != nil {
				return err
			}
			c := chains[name]
			if c == nil {
				// The chain came after the chains were listed.
				return errInterrupted
			}
			c.Rules = append(c.Rules, rule)
			r.report(1)
			return nil
		})
}

// others lists stateful objects and flowtables.
func (r *reader) others(t *Table) error {
	return r.conn.objects(r.ctx, t.Name, func(o Other) { t.Others = append(t.Others, o) })
}

// objects calls each with every object and flowtable of a table.
func (c *conn) objects(ctx context.Context, table string, each func(Other)) error {
	for _, kind := range []struct {
		get         int
		table       uint16
		isFlowtable bool
	}{
		{unix.NFT_MSG_GETOBJ, objectTable, false},
		{unix.NFT_MSG_GETFLOWTABLE, flowtableTable, true},
	} {
		err := c.dump(ctx, kind.get, unix.NFPROTO_INET,
			func(m *nlmsg.Message) { m.CString(kind.table, table) },
			func(_ uint8, b []byte) error {
				o, err := decodeOther(b, kind.isFlowtable)
				if err == nil {
					each(o)
				}
				return err
			})
		if err != nil {
			return err
		}
	}
	return nil
}
