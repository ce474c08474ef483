package apply

import (
	"fmt"
	"net/netip"
	"testing"

	"sgc/internal/ruleset"
)

// largeTable is webTable with an interval set of n prefixes.
func largeTable(n int) *ruleset.Table {
	t := webTable()
	t.Sets = append(t.Sets, largeSet(n))
	return t
}

// rulesTable is webTable with n rules in chains of so many each.
func rulesTable(n, each int) *ruleset.Table {
	t := webTable()
	for i := range n / each {
		c := &ruleset.Chain{Name: fmt.Sprintf("leaf%d", i)}
		for j := range each {
			k := i*each + j
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k >> 16), byte(k >> 8), byte(k)}), 32)
			c.Rules = append(c.Rules, ruleset.Rule{
				Statements: []ruleset.Statement{ruleset.MatchPrefix{Field: ruleset.IPSource, Prefix: p}, ruleset.Verdict{Kind: ruleset.Accept}},
				Comment:    fmt.Sprintf("security_group.g%d.ingress.r%d", i, j),
			})
		}
		t.Chains = append(t.Chains, c)
	}
	return t
}

// BenchmarkNothingToDo measures snapshot and diff of a table that is already
// as it should be.
func BenchmarkNothingToDo(b *testing.B) {
	for name, want := range map[string]*ruleset.Table{
		"100000 prefixes":           largeTable(100_000),
		"10000 rules in 1000":       rulesTable(10_000, 10),
		"10000 rules in one chain":  rulesTable(10_000, 10_000),
		"a small table":             webTable(),
		"1000 prefixes, 1000 rules": func() *ruleset.Table { t := rulesTable(1000, 10); t.Sets = append(t.Sets, largeSet(1000)); return t }(),
	} {
		b.Run(name, func(b *testing.B) {
			l := newLab(b)
			l.apply(want)
			for b.Loop() {
				if !l.diff(want).Empty() {
					b.Fatal("something is to be done")
				}
			}
		})
	}
}

// BenchmarkDiff measures the comparison alone.
func BenchmarkDiff(b *testing.B) {
	l := newLab(b)
	want := largeTable(100_000)
	l.apply(want)
	have := l.snapshot()
	b.ReportAllocs()
	for b.Loop() {
		if d, err := Diff(have, want); err != nil || !d.Empty() {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncode measures how long it takes to write a transaction of a
// million prefixes, without a kernel.
func BenchmarkEncode(b *testing.B) {
	want := webTable()
	want.Sets = append(want.Sets, largeSet(1_000_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Diff(&Snapshot{}, want); err != nil {
			b.Fatal(err)
		}
	}
}
