package apply

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// Attempts to take out what was prepared, while somebody else takes parts of it
// out, or changes the lists of what there is, at the same time.
const takeBackAttempts = 10

// takeBack takes out again what a transaction prepared, in one transaction of
// its own, whatever the generation is. What is gone already is no error. Nothing
// uses what is taken out, not even what was there before and only changed: where
// that is not true, the kernel refuses.
func (c *conn) takeBack(ctx context.Context, prepared *batch) error {
	for attempt := 1; ; attempt++ {
		there, err := c.names(ctx)
		if err == nil {
			undo := there.without(prepared)
			if undo == nil {
				return nil
			}
			if err = c.send(ctx, undo); err == nil {
				return nil
			}
		}
		if attempt == takeBackAttempts {
			return err
		}
	}
}

// names are those of what table inet sgc holds.
type names struct {
	table        bool
	chains, sets map[string]bool
	// timeouts are the objects of timeouts; other says that there are others.
	timeouts map[string]bool
	other    bool
}

// names reads what there is in the table, without what it holds.
func (c *conn) names(ctx context.Context) (names, error) {
	n := names{chains: map[string]bool{}, sets: map[string]bool{}, timeouts: map[string]bool{}}
	table, err := c.ownTable(ctx)
	if err != nil || table == nil {
		return n, explain(err)
	}
	n.table = true
	// What is found is counted where others tear the lists of all tables.
	found, torn := 0, false
	list := func(err error) error {
		torn = torn || errors.Is(err, errTorn)
		return unlessTorn(err)
	}
	err = list(c.dump(ctx, unix.NFT_MSG_GETCHAIN, unix.NFPROTO_INET, nil, func(_ uint8, b []byte) error {
		table, chain, err := decodeChain(b)
		if err == nil && table == tableName && !n.chains[chain.Name] {
			n.chains[chain.Name] = true
			found++
		}
		return err
	}))
	if err == nil {
		own := func(m *nlmsg.Message) { m.CString(unix.NFTA_SET_TABLE, tableName) }
		err = unlessTorn(c.dump(ctx, unix.NFT_MSG_GETSET, unix.NFPROTO_INET, own, func(_ uint8, b []byte) error {
			s, err := decodeSet(b)
			if err == nil && s.flags&unix.NFT_SET_ANONYMOUS == 0 {
				n.sets[s.Name] = true
			}
			found++
			return err
		}))
	}
	if err == nil {
		seen := map[Other]bool{}
		err = list(c.objects(ctx, tableName, func(o Other) {
			if !seen[o] {
				seen[o] = true
				found++
			}
			if o.kind == timeoutType {
				n.timeouts[o.Name] = true
			} else {
				n.other = true
			}
		}))
	}
	if err == nil && torn && uint32(found) != table.use {
		err = errInterrupted
	}
	if errors.Is(err, unix.ENOENT) {
		return names{}, nil // the table went in the meantime
	}
	if err != nil {
		err = fmt.Errorf("read what is there: %w", explain(err))
	}
	return n, err
}

// without returns the transaction that removes what a batch prepared; nil if
// nothing of it is there any more. It is bound to no generation.
func (n names) without(prepared *batch) *batch {
	var table bool
	var chains, sets, timeouts []string
	seen := map[node]bool{}
	stays := map[string]bool{}
	for _, c := range prepared.ahead {
		stays[c.set.Name] = true
	}
	first := func(kind Kind, name string) bool {
		n := node{kind, name}
		defer func() { seen[n] = true }()
		return !seen[n]
	}
	for _, o := range prepared.operations {
		switch o.kind {
		case TableKind:
			table = n.table
		case ChainKind, RuleKind:
			if n.chains[o.name] && first(ChainKind, o.name) {
				chains = append(chains, o.name)
			}
		case ObjectKind:
			if n.timeouts[o.name] && first(ObjectKind, o.name) {
				timeouts = append(timeouts, o.name)
			}
		default:
			if n.sets[o.name] && !stays[o.name] && first(SetKind, o.name) {
				sets = append(sets, o.name)
			}
		}
	}
	if !table && len(chains)+len(sets)+len(timeouts)+len(stays) == 0 {
		return nil
	}
	b := &batch{}
	b.openUnbound()
	p := planner{batch: b}
	// A table that somebody else has put something into stays.
	if table && len(chains) == len(n.chains) && len(sets) == len(n.sets) && len(timeouts) == len(n.timeouts) && !n.other {
		p.have = &Table{Name: tableName}
		p.dropTableMessage()
		p.end()
		return b
	}
	for _, name := range chains {
		p.flushChain(name)
	}
	for _, name := range sets {
		p.deleteSet(name, "")
	}
	for _, c := range prepared.ahead {
		if n.sets[c.set.Name] {
			p.removeTimed(c)
		}
	}
	for _, name := range timeouts {
		p.deleteOther(Other{Name: name, kind: timeoutType})
	}
	for _, name := range chains {
		p.deleteChain(name, "")
	}
	if len(b.operations) == 0 {
		return nil // of a table that is to stay nothing is ours
	}
	p.end()
	return b
}
