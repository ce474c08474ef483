package conntrack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	ct "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/internal/nlmsg"
	"sgc/policies"
)

// bareReceive reads the table as fast as anybody can: it looks for the end of
// the dump and at nothing else.
func bareReceive(table *Table) error {
	c, err := table.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	if err := c.request(messageGet, unix.NLM_F_DUMP, func(m *nlmsg.Message) { m.Netfilter(unix.AF_UNSPEC, 0) }); err != nil {
		return err
	}
	for {
		if _, err := c.receive(c.buf, true); err != nil {
			return err
		}
		if binary.NativeEndian.Uint16(c.buf[4:]) == unix.NLMSG_DONE {
			return c.close()
		}
	}
}

// judgeAll judges every entry, all of which the policy allows.
func judgeAll(table *Table, p *policies.Policy, want int) error {
	routes, err := table.Routes()
	if err != nil {
		return err
	}
	judge := NewJudge(policies.NewJudge(p), routes)
	var judged Judged
	n := 0
	err = table.Entries(context.Background(), func(e *Entry) error {
		if err := judge.Entry(e, &judged); err != nil {
			return err
		}
		if judged.Class() >= ClassTracked && !judged.Revoked() {
			n++
		}
		return nil
	})
	if err == nil && n != want {
		err = fmt.Errorf("%d of %d entries are allowed", n, want)
	}
	return errors.Join(err, routes.Close())
}

// contest runs ways to do the same in turns, so that all of them meet the same
// noise. It reports the least processor time of each, that of the programs they
// start included, and the median of the ratios within each turn. On a machine
// that does nothing else, time on the clock is the same.
type contest struct {
	names []string
	times map[string][]time.Duration
}

// try runs one way once.
func (c *contest) try(b *testing.B, name string, way func() error) {
	begin := processorTime(b)
	err := way()
	d := processorTime(b) - begin
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	if c.times == nil {
		c.times = map[string][]time.Duration{}
	}
	if c.times[name] == nil {
		c.names = append(c.names, name)
	}
	c.times[name] = append(c.times[name], d)
}

func processorTime(b *testing.B) time.Duration {
	var total time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		total += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return total
}

// ratio reports how much longer one way takes than another.
func (c *contest) ratio(b *testing.B, name, of string) {
	var ratios []float64
	for i, d := range c.times[name] {
		ratios = append(ratios, float64(d)/float64(c.times[of][i]))
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], name+"/"+of)
}

func (c *contest) report(b *testing.B) {
	for _, name := range c.names {
		b.ReportMetric(float64(slices.Min(c.times[name]))/float64(time.Millisecond), name+"-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// requireConntrack skips where there is no conntrack to compare with.
func requireConntrack(b *testing.B) {
	labtest.Command(b, "conntrack")
}

// tool runs conntrack in the namespace.
func tool(ns *lab.Namespace, args ...string) func() error {
	return func() error {
		return ns.Do(func() error { return exec.Command("conntrack", args...).Run() })
	}
}

// BenchmarkJudge reads 100,000 entries: of one open rule, of a rule among 1,000
// with prefixes of their own, and of flows that others send through the host,
// each to a peer of its own, with and without NAT. Those without need a question
// to the kernel each.
func BenchmarkJudge(b *testing.B) {
	requireConntrack(b)
	for _, tc := range []struct {
		name, policy string
		next         func(int) seed
	}{
		{"open", webPolicy, clients},
		{"tracked", manyRules(1000), clients},
		{"masqueraded", bothPolicy, masqueraded},
		{"routed", bothPolicy, routed},
	} {
		b.Run(tc.name, func(b *testing.B) {
			ns := hostNamespace(b)
			table := openTable(b, ns)
			const all = 100_000
			create(b, table, all, tc.next)
			policy := load(b, tc.policy)
			var c contest
			for b.Loop() {
				c.try(b, "bare", func() error { return bareReceive(table) })
				c.try(b, "parse", func() error { return table.Entries(context.Background(), func(*Entry) error { return nil }) })
				c.try(b, "judge", func() error { return judgeAll(table, policy, all) })
				c.try(b, "conntrack-L", tool(ns, "-L"))
			}
			c.report(b)
			for _, name := range c.names[1:] {
				c.ratio(b, name, "bare")
			}
		})
	}
}

// masqueraded returns connections of clients inside to many servers.
func masqueraded(i int) seed {
	s := clients(i)
	server := s.original.Source
	s.original = Tuple{Protocol: flow.TCP, Source: netip.MustParseAddr("172.17.0.2"), SourcePort: uint16(1024 + i%60000), Dest: server, DestPort: 443}
	s.reply = reversed(s.original)
	s.reply.Dest = netip.MustParseAddr("192.0.2.10")
	return s
}

// routed returns the same without NAT.
func routed(i int) seed {
	s := masqueraded(i)
	s.reply = reversed(s.original)
	return s
}

// manyRules is a policy in which the rule that allows the clients stands among
// many others.
func manyRules(n int) string {
	text := "security_group \"web\" {\n"
	for i := range n {
		text += fmt.Sprintf("  ingress \"r%d\" {\n    protocol = \"tcp\"\n    ports = [%d]\n    cidr_blocks = [\"198.%d.0.0/16\", \"10.%d.%d.0/24\"]\n  }\n", i, 443+i*7, i%256, i/256, i%256)
	}
	text += "  ingress \"clients\" {\n    protocol = \"tcp\"\n    ports = [443]\n    cidr_blocks = [\"198.0.0.0/7\"]\n  }\n"
	return text + "  egress \"dns\" {\n    protocol = \"udp\"\n    ports = [53]\n    cidr_blocks = [\"0.0.0.0/0\"]\n  }\n}\n\ninterface \"eth0\" {\n  security_groups = [security_group.web]\n}\n"
}

// some returns clients, every tenth of which uses another port.
func some(i int) seed {
	s := clients(i)
	if i%10 == 0 {
		s.original.DestPort = 444
		s.reply = reversed(s.original)
	}
	return s
}

// BenchmarkDelete deletes 10,000 of 100,000 entries. The floor sends messages
// that were made before.
func BenchmarkDelete(b *testing.B) {
	requireConntrack(b)
	ns := hostNamespace(b)
	table := openTable(b, ns)
	const all, few = 100_000, 10_000
	policy := load(b, webPolicy)
	create(b, table, all, some)
	isChosen := func(e *Entry) bool { return e.Original.DestPort == 444 }
	var chosen []Entry
	collect := func() {
		chosen = chosen[:0]
		if err := table.Entries(context.Background(), func(e *Entry) error {
			if isChosen(e) {
				chosen = append(chosen, keep(e))
			}
			return nil
		}); err != nil || len(chosen) != few {
			b.Fatal(len(chosen), err)
		}
	}
	var c contest
	try := func(name string, way func() error) {
		c.try(b, name, way)
		size, err := table.Size()
		if err != nil || size.Entries != all-few {
			b.Fatalf("%s: %d entries are left, %v", name, size.Entries, err)
		}
		create(b, table, few, func(i int) seed { return some(i * 10) })
	}
	conn, err := ct.Dial(&netlink.Config{NetNS: ns.FD()})
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	for b.Loop() {
		collect()
		floor := deletions(b, table, chosen)
		try("floor", floor)
		collect()
		try("batch", func() error {
			batch, err := table.Batch()
			if err != nil {
				return err
			}
			for i := range chosen {
				if err := batch.Delete(&chosen[i]); err != nil {
					return err
				}
			}
			return errors.Join(batch.Flush(), batch.Close())
		})
		collect()
		flows := make([]ct.Flow, len(chosen))
		for i, e := range chosen {
			o := e.Original
			flows[i] = ct.NewFlow(uint8(o.Protocol), 0, o.Source, o.Dest, o.SourcePort, o.DestPort, 0, 0)
		}
		try("Conn.Delete", func() error {
			for _, f := range flows {
				if err := conn.Delete(f); err != nil {
					return err
				}
			}
			return nil
		})
		// These also read the table to find what to delete: the first two let
		// the kernel leave out the rest, or not.
		tcp := flow.TCP
		flush := func(f Filter) func() error {
			return func() error {
				routes, err := table.Routes()
				if err != nil {
					return err
				}
				_, err = table.Flush(context.Background(), NewJudge(policies.NewJudge(policy), routes), &f)
				return errors.Join(err, routes.Close())
			}
		}
		try("flush", flush(Filter{Protocols: []flow.Protocol{tcp}, Ports: []flow.PortRange{{First: 444, Last: 444}}}))
		try("flush-revoked", flush(Filter{Revoked: true}))
		try("conntrack-D", tool(ns, "-D", "-p", "tcp", "--orig-port-dst", "444"))
	}
	c.report(b)
	c.ratio(b, "batch", "floor")
	c.ratio(b, "Conn.Delete", "batch")
	c.ratio(b, "conntrack-D", "flush")
	c.ratio(b, "conntrack-D", "flush-revoked")
}

// deletions returns a function that does nothing but send messages which are
// ready, and read the answers.
func deletions(b *testing.B, table *Table, entries []Entry) func() error {
	batch := openBatch(b, table)
	type burst struct {
		bytes []byte
		first uint32
		count int
	}
	var bursts []burst
	s := &script{}
	ready := &Batch{conn: newConn(s)}
	for i := range entries {
		s.answers = []any{refused(0, ready.conn.sequence+1)}
		if err := ready.Delete(&entries[i]); err != nil {
			b.Fatal(err)
		}
	}
	s.answers = []any{refused(0, ready.conn.sequence)}
	if err := ready.Flush(); err != nil {
		b.Fatal(err)
	}
	first := uint32(1)
	for _, sent := range s.sent {
		n := 0
		if err := nlmsg.Split(sent, func(nlmsg.Reply) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
		bursts = append(bursts, burst{sent, first, n})
		first += uint32(n)
	}
	return func() error {
		for _, x := range bursts {
			if err := batch.conn.send(x.bytes); err != nil {
				return err
			}
			if r, err := batch.answers(x.first, x.count); err != nil || r.Done != x.count {
				return fmt.Errorf("%+v: %w", r, err)
			}
		}
		return nil
	}
}

func BenchmarkParse(b *testing.B) {
	for _, s := range []seed{clients(0), tcpSeed("[2001:db8::1]:1", "[2001:db8::2]:2"), pingSeed("192.0.2.1", "192.0.2.2", 1)} {
		sample := answer(messageNew, 0, 1, s.appendTo)[nlmsg.HeaderSize:]
		b.Run(s.original.Protocol.Name(s.original.Family())+"-"+s.original.Family().String(), func(b *testing.B) {
			var e Entry
			for b.Loop() {
				if err := e.parse(sample); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
