package conntrack

import (
	"context"
	"fmt"
	"os/exec"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab/labtest"
)

// manyConnections opens connections of the host to a server that accepts none.
func manyConnections(t testing.TB, n neighbours, count int) {
	t.Helper()
	for _, name := range []string{"net/core/somaxconn", "net/ipv4/tcp_max_syn_backlog"} {
		if err := n.peer.SetSysctl(name, fmt.Sprint(2*count)); err != nil {
			t.Fatal(err)
		}
	}
	host, peer := newSocketMaker(t, n.host), newSocketMaker(t, n.peer)
	listener := peer.bind(tcp4, "0.0.0.0:443")
	peer.listenFor(listener, 2*count)
	for i := range count {
		host.connect(tcp4, fmt.Sprintf("192.0.2.10:%d", 10_000+i), "192.0.2.20:443")
	}
}

// BenchmarkSeed makes entries for 10,000 connections. Its parts are listing the
// sockets, with ss beside it, and making entries that are known beforehand.
func BenchmarkSeed(b *testing.B) {
	labtest.Command(b, "ss")
	n := newNeighbours(b)
	table := openTable(b, n.host)
	const all = 10_000
	manyConnections(b, n, all)
	timeouts, err := table.FlowTimeouts()
	if err != nil {
		b.Fatal(err)
	}
	var entries []Entry
	count := 0
	for _, s := range readSockets(b, table) {
		if e, ok := s.Entry(flow.Egress, timeouts); ok {
			entries = append(entries, e)
		}
	}
	forget := func() {
		r, err := table.inBatches(func(batch *Batch) error { return table.Entries(context.Background(), batch.Delete) })
		if err != nil || r.Done != all {
			b.Fatalf("%+v, %v", r, err)
		}
	}
	var c contest
	for b.Loop() {
		count = 0
		c.try(b, "list", func() error {
			return table.Sockets(context.Background(), func(*Socket) error { count++; return nil })
		})
		if count != all || len(entries) != all {
			b.Fatalf("%d sockets and %d entries, want %d", count, len(entries), all)
		}
		c.try(b, "ss", func() error { return n.host.Do(func() error { return exec.Command("ss", "-Hntua").Run() }) })
		c.try(b, "create", func() error {
			_, err := table.inBatches(func(batch *Batch) error {
				for i := range entries {
					if err := batch.Create(&entries[i]); err != nil {
						return err
					}
				}
				return nil
			})
			return err
		})
		forget()
		c.try(b, "seed", func() error {
			_, err := table.Seed(context.Background(), decideBy(b, table))
			return err
		})
		forget()
	}
	c.report(b)
	c.ratio(b, "ss", "list")
	c.ratio(b, "seed", "create")
}
