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
	// needs are what Foreign is about.
	needs needs
}

// Attempts to read a consistent state. Somebody who changes sgc's own table
// several times a second for longer than all of them is a fault of its own.
const (
	snapshotAttempts = 20
	snapshotPause    = 50 * time.Millisecond
)

// Snapshot reads table inet sgc, all of it as it was at one generation, and
// looks through the other tables. Somebody else's change of table inet sgc in
// between makes it begin again. A change of other tables makes it look through
// these again; what changes faster than it can be read is taken to need conntrack
// if anything of it does.
//
// Progress, if not nil, is called now and then with the number of rules and
// set elements that were read and the number that the kernel announced; the
// latter is an estimate until the last call, in which both are equal. A call
// with a smaller done than the one before means that the reading began again.
func (k *Kernel) Snapshot(ctx context.Context, progress func(done, total int)) (*Snapshot, error) {
	return k.SnapshotKnowing(ctx, progress, Known{})
}

// SnapshotKnowing is Snapshot for somebody who remembers what was committed
// last. If nothing changed since then, by the identity, or nothing but tables of
// others while the kernel was watched, the elements of sets are taken from memory and not from the kernel; everything else is read all
// the same. The kernel needs about a second for 100,000 ranges, and a hundred
// times as long for ten times as many.
func (k *Kernel) SnapshotKnowing(ctx context.Context, progress func(done, total int), known Known) (*Snapshot, error) {
	c, err := k.dial()
	if err != nil {
		return nil, err
	}
	defer c.close() // nothing was written: there is nothing to lose
	w, err := k.watching(ctx, c)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		r := reader{conn: c, ctx: ctx, watch: w, progress: progress, known: known}
		s, err := r.snapshot()
		if err == nil {
			s.Foreign, err = k.addLegacy(&r.foreign)
			s.Around, s.needs = r.foreign.around, r.foreign.needs
			return s, err
		}
		switch {
		case !errors.Is(err, errInterrupted) && !errors.Is(err, unix.ENOENT):
			return nil, fmt.Errorf("read nf_tables: %w", explain(err))
		case attempt == snapshotAttempts:
			return nil, fmt.Errorf("another program keeps changing nf_tables: gave up reading table inet %s after %d attempts, in each of which it changed", tableName, attempt)
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
	watch    *watch
	progress func(done, total int)
	done     int
	total    int
	reported int
	foreign  foreignReasons
	// torn is set if something may be missing in the lists of all tables' chains
	// and objects.
	torn bool
	// known holds no table if it is not what the kernel holds now.
	known Known
}

func (r *reader) snapshot() (*Snapshot, error) {
	start, err := r.watch.sync(r.ctx, r.conn)
	if err != nil {
		return nil, err
	}
	if err := r.recall(); err != nil {
		return nil, err
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
	if err := r.unchanged(start); err != nil {
		return nil, err
	}
	generation, err := r.around(start, others)
	if err != nil {
		return nil, err
	}
	r.finish()
	return &Snapshot{Generation: generation, Table: own}, nil
}

// unchanged returns errInterrupted if table inet sgc changed since a generation.
func (r *reader) unchanged(since uint32) error {
	c, err := r.watch.until(r.ctx, r.conn, since)
	if err == nil && (!c.known || c.own) {
		err = errInterrupted
	}
	return err
}

// recall forgets what is known unless the kernel still holds it.
func (r *reader) recall() error {
	known := r.known
	r.known = Known{}
	generation, ok := generationOf(known.Identity)
	if !ok {
		return nil
	}
	if c := r.watch.since(generation); !c.known || c.own {
		return nil
	}
	id, err := r.conn.identity(generation)
	if err == nil && id == known.Identity {
		r.known = known
	}
	return err
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
	if r.torn && uint32(len(t.Chains)+len(t.Sets)+len(t.Others))+t.anonymous != t.use {
		return errInterrupted
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
// else's. Where others change tables at the same time, some of the latter may be
// missing, and chains of the former.
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
	if errors.Is(err, errTorn) && own == nil {
		own, err = r.conn.ownTable(r.ctx)
	}
	if unlessTorn(err) != nil {
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
	if r.unlessTorn(err) != nil {
		return nil, nil, fmt.Errorf("chains: %w", err)
	}
	if own != nil {
		slices.SortFunc(own.Chains, func(a, b *Chain) int { return cmp.Compare(a.Name, b.Name) })
		own.Chains = slices.CompactFunc(own.Chains, func(a, b *Chain) bool { return a.Name == b.Name })
	}
	return own, others, nil
}

// ownTable reads table inet sgc without what it holds; nil if there is none.
func (c *conn) ownTable(ctx context.Context) (*Table, error) {
	b, err := c.get(ctx, unix.NFT_MSG_GETTABLE, unix.NFPROTO_INET, func(m *nlmsg.Message) { m.CString(unix.NFTA_TABLE_NAME, tableName) })
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decodeTable(b)
}

func (r *reader) sets(t *Table) error {
	err := r.conn.dump(r.ctx, unix.NFT_MSG_GETSET, unix.NFPROTO_INET,
		func(m *nlmsg.Message) { m.CString(unix.NFTA_SET_TABLE, t.Name) },
		func(_ uint8, b []byte) error {
			s, err := decodeSet(b)
			switch {
			case err != nil:
			case s.flags&unix.NFT_SET_ANONYMOUS == 0:
				t.Sets = append(t.Sets, s)
			default:
				t.anonymous++
			}
			return err
		})
	slices.SortFunc(t.Sets, func(a, b *Set) int { return cmp.Compare(a.Name, b.Name) })
	return unlessTorn(err)
}

func (r *reader) rules(t *Table) error {
	chains := make(map[string]*Chain, len(t.Chains))
	for _, c := range t.Chains {
		chains[c.Name] = c
	}
	return unlessTorn(r.conn.dump(r.ctx, unix.NFT_MSG_GETRULE, unix.NFPROTO_INET,
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
		}))
}

// others lists stateful objects and flowtables.
func (r *reader) others(t *Table) error {
	seen := map[Other]bool{}
	return r.unlessTorn(r.conn.objects(r.ctx, t.Name, func(o Other) {
		if !seen[o] {
			seen[o] = true
			t.Others = append(t.Others, o)
		}
	}))
}

// unlessTorn is unlessTorn, and notes that the list was torn.
func (r *reader) unlessTorn(err error) error {
	r.torn = r.torn || errors.Is(err, errTorn)
	return unlessTorn(err)
}

// objects calls each with every object and flowtable of a table.
func (c *conn) objects(ctx context.Context, table string, each func(Other)) error {
	var torn error
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
		if errors.Is(err, errTorn) {
			torn, err = err, nil
		}
		if err != nil {
			return err
		}
	}
	return torn
}
