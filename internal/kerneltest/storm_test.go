package kerneltest

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// The source ports of packets that both policies of a change let through, and of
// those that both refuse.
const (
	allowedPort = 1001
	refusedPort = 1002
)

// storm is a host under a flood of packets while two policies take turns.
type storm struct {
	stand   *lab.Stand
	kernel  *apply.Kernel
	judges  [2]*policies.Judge
	tables  [2]*ruleset.Table
	packets [][]byte
	// changes, and transactions for them, are counted.
	changes, transactions int
}

// newStorm makes the first of the policies the host's. The packets come in at
// eth0 from a peer for a port each; they get their source ports here.
func newStorm(t *testing.T, texts [2]string, allowed, refused []flow.Packet) *storm {
	t.Helper()
	s := &storm{stand: labtest.Stand(t, standLocal, "eth0")}
	s.kernel = openKernel(t, s.stand.Host)
	for i, text := range texts {
		p := load(t, text)
		s.tables[i], s.judges[i] = compile.Compile(p, compile.Environment{}), policies.NewJudge(p)
	}
	for i, list := range [2][]flow.Packet{allowed, refused} {
		for _, p := range list {
			p.SourcePort = [2]uint16{allowedPort, refusedPort}[i]
			for _, judge := range s.judges {
				if d := judge.Decide(&p); d.Allow != (i == 0) {
					t.Fatalf("%s: a policy says %t: %s", &p, d.Allow, d.Reason)
				}
			}
			b, err := lab.Marshal(&p, lab.Envelope{ID: 1})
			if err != nil {
				t.Fatal(err)
			}
			s.packets = append(s.packets, b)
		}
	}
	commit(t, s.kernel, snapshot(t, s.kernel), s.tables[0])
	return s
}

// fewest packets must meet the changes.
const fewest = 1000

// run lets the policies take turns for a time, and fails the test if any packet
// is judged otherwise than by both of them.
func (s *storm) run(t *testing.T, d time.Duration) {
	t.Helper()
	count := countPackets(t, s.stand.Host)
	var stop atomic.Bool
	var sent atomic.Int64
	flooded := make(chan error, 1)
	go func() {
		wire := s.stand.Wire("eth0")
		var err error
		for !stop.Load() && err == nil {
			for _, b := range s.packets {
				err = errors.Join(err, wire.Send(b))
			}
			sent.Add(int64(len(s.packets)))
		}
		flooded <- err
	}()
	// On a machine that stalls, the time may be over before it has begun.
	const enough = 4 * fewest
	err := s.alternate(time.Now().Add(d), func() bool { return sent.Load() >= enough })
	stop.Store(true)
	if err := errors.Join(err, <-flooded); err != nil {
		t.Fatal(err)
	}
	n := count.read(t)
	for was := n; ; was = n {
		rest(50 * time.Millisecond)
		labtest.Settle(t)
		if n = count.read(t); n == was {
			break // what was on its way has come
		}
	}
	t.Logf("%d changes in %d transactions; %d packets to let through, %d to refuse", s.changes, s.transactions, n.arrived[0], n.arrived[1])
	if missing := n.arrived[0] - n.passed[0]; missing != 0 {
		t.Errorf("%d of %d packets were wrongly refused", missing, n.arrived[0])
	}
	if n.passed[1] != 0 {
		t.Errorf("%d of %d packets were wrongly let through", n.passed[1], n.arrived[1])
	}
	if n.arrived[0]+n.arrived[1] < fewest || s.changes == 0 {
		t.Errorf("%d packets met %d changes", n.arrived[0]+n.arrived[1], s.changes)
	}
}

// alternate applies the two policies in turn until a time, and until there was
// enough to see, for which the test does not wait for ever.
func (s *storm) alternate(until time.Time, enough func() bool) error {
	ctx := context.Background()
	var known apply.Known
	last := until.Add(patience)
	for now := time.Now(); now.Before(until) || !enough() && now.Before(last); now = time.Now() {
		have, err := s.kernel.SnapshotKnowing(ctx, nil, known)
		if err != nil {
			return err
		}
		s.changes++
		delta, err := apply.Diff(have, s.tables[s.changes%2])
		if err != nil {
			return err
		}
		if delta.Empty() {
			return errors.New("the two policies are one")
		}
		if err := s.kernel.Commit(ctx, delta); err != nil {
			return err
		}
		s.transactions += delta.Transactions()
		if known.Identity, err = s.kernel.Identity(delta.After()); err != nil {
			return err
		}
		known.Table = s.tables[s.changes%2]
	}
	return nil
}

// counted are packets by what is to become of them: let through, or refused.
type counted struct{ arrived, passed [2]uint64 }

// counter counts packets before sgc's chains and after them, where it drops them
// so that no entry of conntrack comes about.
type counter struct {
	conn            *nftables.Conn
	table           *nftables.Table
	arrived, passed *nftables.Chain
}

func countPackets(t *testing.T, ns *lab.Namespace) *counter {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{conn: conn}
	c.table = conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "count"})
	chain := func(name string, priority nftables.ChainPriority, end ...expr.Any) *nftables.Chain {
		chain := conn.AddChain(&nftables.Chain{
			Name: name, Table: c.table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: &priority,
		})
		for _, port := range []uint16{allowedPort, refusedPort} {
			conn.AddRule(&nftables.Rule{Table: c.table, Chain: chain, Exprs: append([]expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(flow.TCP)}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
				&expr.Counter{},
			}, end...)})
		}
		return chain
	}
	c.arrived = chain("arrived", -400)
	c.passed = chain("passed", -149, &expr.Verdict{Kind: expr.VerdictDrop})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *counter) read(t *testing.T) counted {
	t.Helper()
	var n counted
	for chain, to := range map[*nftables.Chain]*[2]uint64{c.arrived: &n.arrived, c.passed: &n.passed} {
		rules, err := c.conn.GetRules(c.table, chain)
		if err != nil || len(rules) != 2 {
			t.Fatalf("read the counters: %v, %d rules", err, len(rules))
		}
		for i, r := range rules {
			at := slices.IndexFunc(r.Exprs, func(e expr.Any) bool { _, ok := e.(*expr.Counter); return ok })
			to[i] = r.Exprs[at].(*expr.Counter).Packets
		}
	}
	return n
}
