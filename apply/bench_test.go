package apply

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// processorTime is what the calling thread has used so far, in the kernel and
// outside. Unlike the time on the clock it hardly depends on what else the
// machine does.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFirstApply measures snapshot, diff and commit of 100,000 prefixes
// into an empty namespace, and nft -f of the same text in another one. The
// metric nft/sgc is how many times more processor time nft takes.
func BenchmarkFirstApply(b *testing.B) {
	want := largeTable(100_000)
	file := filepath.Join(b.TempDir(), "table.nft")
	if err := os.WriteFile(file, []byte(scriptOf(b, want)), 0o600); err != nil {
		b.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var own, nft time.Duration
	for b.Loop() {
		b.StopTimer()
		l, other := newLab(b), newLab(b)
		b.StartTimer()
		start := processorTime(b)
		l.apply(want)
		own += processorTime(b) - start
		b.StopTimer()
		cmd := exec.Command("nft", "-f", file)
		if err := other.start(cmd); err != nil {
			b.Fatal(err)
		}
		nft += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		// Two namespaces with such a table are enough.
		l.apply(nil)
		other.apply(nil)
		b.StartTimer()
	}
	b.ReportMetric(nft.Seconds()/own.Seconds(), "nft/sgc")
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

// BenchmarkOneMorePrefix measures the commit of one prefix more in a set of
// 100,000. The metrics say how many times more bytes and processor time the
// first apply takes.
func BenchmarkOneMorePrefix(b *testing.B) {
	l := newLab(b)
	want := largeTable(100_000)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	first := l.diff(want)
	start := processorTime(b)
	if err := l.kernel.Commit(context.Background(), first); err != nil {
		b.Fatal(err)
	}
	whole := processorTime(b) - start
	large := want.Sets[len(want.Sets)-1]
	more := *large
	more.Elements = append(append([]ruleset.Element(nil), large.Elements...), ranges("255.0.0.0", "255.0.0.255")...)
	tables := [2]*ruleset.Table{largeTable(0), largeTable(0)}
	tables[0].Sets[len(tables[0].Sets)-1] = &more
	tables[1].Sets[len(tables[1].Sets)-1] = large
	var commits time.Duration
	n := 0
	var d *Delta
	for b.Loop() {
		b.StopTimer()
		d = l.diff(tables[n%2])
		b.StartTimer()
		start := processorTime(b)
		if err := l.kernel.Commit(context.Background(), d); err != nil {
			b.Fatal(err)
		}
		commits += processorTime(b) - start
		n++
	}
	b.ReportMetric(float64(first.Bytes())/float64(d.Bytes()), "bytes-ratio")
	b.ReportMetric(whole.Seconds()/(commits.Seconds()/float64(n)), "time-ratio")
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
