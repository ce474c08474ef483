package kerneltest

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// newChain is a policy whose port has a chain of another name when there is one
// rule more.
func newChain(rules string) string {
	return `
security_group "a" {
  ingress "one" {
    protocol    = "tcp"
    ports       = [22]
    cidr_blocks = ["203.0.113.0/25"]
  }
  ` + rules + `
}
interface "eth0" { security_groups = ["a"] }
`
}

const oneMore = `
  ingress "two" {
    protocol    = "tcp"
    ports       = [22]
    cidr_blocks = ["203.0.113.128/25"]
  }
`

// A packet that both policies refuse does not pass while one replaces the
// other, even if it is on its way through the old rules when the generation
// changes: it then finds the elements of the new one, and chains of the new one
// that are empty for it. Where such a chain was entered by a goto, the packet
// comes to the base chain's end, and passes; a jump from a rule that a drop
// follows refuses it. Such a packet is rare, one in some hundred changes under a
// flood, so the test runs only for as many seconds as SGC_KERNEL_RACE says.
//
// Source: Linux net/netfilter/nf_tables_core.c, nft_do_chain, which reads the
// generation once, and the set look-ups, which read it again.
func TestNoRefusedPacketSlipsThroughAChange(t *testing.T) {
	seconds := envNumber(t, "SGC_KERNEL_RACE", 0)
	if seconds == 0 {
		t.Skip("SKIP: a race that takes long to meet; set SGC_KERNEL_RACE to a number of seconds")
	}
	c := newChange(t, [2]string{newChain(""), newChain(oneMore)})
	if err := c.judge.Close(); err != nil {
		t.Fatal(err)
	}
	passed := countPort(t, c.stand.Host, 22)
	p := packet("eth0", flow.Ingress, flow.TCP, "198.51.100.7", ports(40000, 22))
	b, err := lab.Marshal(&p, lab.Envelope{ID: 1})
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	flooded := make(chan error, 1)
	go func() {
		var err error
		for !stop.Load() && err == nil {
			err = c.stand.Wire("eth0").Send(b)
		}
		flooded <- err
	}()
	changes := 0
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end) && err == nil; changes += 10 {
		err = c.alternate(10)
	}
	stop.Store(true)
	if err := <-flooded; err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := passed(); n > 0 {
		t.Errorf("%d packets slipped through %d changes", n, changes)
	}
}

// countPort counts the packets to a TCP port that come past sgc's chains, and
// drops them. The result tells how many there were.
func countPort(t *testing.T, ns *lab.Namespace, port uint16) func() uint64 {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "count"})
	chain := c.AddChain(&nftables.Chain{
		Name: "passed", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(-149),
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(flow.TCP)}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	return func() uint64 {
		t.Helper()
		rules, err := c.GetRules(table, chain)
		if err != nil || len(rules) != 1 {
			t.Fatalf("read the counter: %v, %d rules", err, len(rules))
		}
		for _, e := range rules[0].Exprs {
			if counter, ok := e.(*expr.Counter); ok {
				return counter.Packets
			}
		}
		t.Fatal("the rule has no counter")
		return 0
	}
}
