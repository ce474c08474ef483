package conntrack

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// changeAll judges every entry by two policies, all of which stay.
func changeAll(table *Table, old, new *Enforced, want int) error {
	routes, err := table.Routes()
	if err != nil {
		return err
	}
	openers, err := table.Openers(context.Background())
	if err != nil {
		return errors.Join(err, routes.Close())
	}
	change := NewChange(ChangeOptions{Old: old, New: new, Routes: routes, Openers: openers})
	var out Changed
	n := 0
	err = table.Entries(context.Background(), func(e *Entry) error {
		if err := change.Entry(e, &out); err != nil {
			return err
		}
		if out.Fate == Stays {
			n++
		}
		return nil
	})
	if err == nil && n != want {
		err = fmt.Errorf("%d of %d entries stay", n, want)
	}
	return errors.Join(err, routes.Close())
}

// BenchmarkChange judges 100,000 entries, all of which stay, by two policies: a
// policy that does not change, and one that gets another rule. BenchmarkJudge has
// the same flows.
func BenchmarkChange(b *testing.B) {
	requireConntrack(b)
	for _, tc := range []struct {
		name, policy, edited string
		next                 func(int) seed
	}{
		{"open", webPolicy, strings.Replace(webPolicy, "[22]", "[23]", 1), clients},
		{"tracked", manyRules(1000), strings.Replace(manyRules(1000), "ports = [53]", "ports = [54]", 1), clients},
		{"masqueraded", bothPolicy, strings.Replace(bothPolicy, "[22]", "[23]", 1), masqueraded},
		{"routed", bothPolicy, strings.Replace(bothPolicy, "[22]", "[23]", 1), routed},
	} {
		b.Run(tc.name, func(b *testing.B) {
			ns := hostNamespace(b)
			table := openTable(b, ns)
			const all = 100_000
			create(b, table, all, tc.next)
			// The environment keeps the entries.
			old, new := &Enforced{Policy: load(b, tc.policy)}, &Enforced{Policy: load(b, tc.edited)}
			var c contest
			for b.Loop() {
				c.try(b, "bare", func() error { return bareReceive(table) })
				c.try(b, "judge", func() error { return judgeAll(table, old.Policy, all) })
				c.try(b, "same", func() error { return changeAll(table, old, old, all) })
				c.try(b, "change", func() error { return changeAll(table, old, new, all) })
				c.try(b, "conntrack-L", tool(ns, "-L"))
			}
			c.report(b)
			for _, name := range c.names[1:] {
				c.ratio(b, name, "bare")
			}
		})
	}
}
