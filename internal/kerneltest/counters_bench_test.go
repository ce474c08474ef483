package kerneltest

import (
	"slices"
	"testing"

	"sgc/compile"
	"sgc/internal/ruleset"
)

// BenchmarkCounters says what the counters of rules cost: the same policy with
// and without them, every packet passing one counter. Where a table and its
// namespace come to lie in memory differs by more than a counter costs; so
// there are several tracks of each kind, which take turns. "control" compares
// tracks of the same kind: what it differs from 1 by is noise.
func BenchmarkCounters(b *testing.B) {
	p := manyRules(1000)
	with := func() *ruleset.Table { return compile.Compile(p, compile.Environment{}) }
	tables := map[string]*ruleset.Table{"with": with(), "without": withoutCounters(b, with())}
	const each = 4
	tracks := map[string][]*track{}
	for range each {
		for _, kind := range []string{"with", "without"} {
			tracks[kind] = append(tracks[kind], newTrack(b, tables[kind]))
		}
	}
	pinned(b, func() {
		for b.Loop() {
			for i := range each {
				tracks["with"][i].turn(b)
				tracks["without"][i].turn(b)
			}
		}
	})
	median := func(tracks ...*track) float64 {
		var all []float64
		for _, t := range tracks {
			all = append(all, t.packets...)
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	counted, plain := median(tracks["with"]...), median(tracks["without"]...)
	b.ReportMetric(0, "ns/op") // a turn means nothing
	b.ReportMetric(1e9/counted, "packets/s-with")
	b.ReportMetric(1e9/plain, "packets/s-without")
	b.ReportMetric(counted/plain, "with/without")
	b.ReportMetric(median(tracks["without"][:each/2]...)/median(tracks["without"][each/2:]...), "control")
}

// withoutCounters takes the counters out of a table, which has some.
func withoutCounters(b *testing.B, t *ruleset.Table) *ruleset.Table {
	b.Helper()
	found := 0
	for _, c := range t.Chains {
		for i, r := range c.Rules {
			c.Rules[i].Statements = slices.DeleteFunc(slices.Clone(r.Statements), func(s ruleset.Statement) bool {
				_, counter := s.(ruleset.Counter)
				if counter {
					found++
				}
				return counter
			})
		}
	}
	if found == 0 {
		b.Fatal("the table counts nothing")
	}
	return t
}
