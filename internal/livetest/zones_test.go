package livetest

import (
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"sgc/internal/flow"
)

// Where another table divides conntrack into zones, before notrack or behind it,
// open flows are in conntrack: the plan knows them, the commit cuts them, and
// nothing of them is left.
func TestOpenFlowsInZones(t *testing.T) {
	t.Parallel()
	for name, priority := range map[string]nftables.ChainPriority{"before notrack": -350, "behind notrack": -250} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			s.divide(priority)
			s.apply(open(flow.Ingress))
			cut := s.open(kinds(call{direction: flow.Ingress})...)
			other := s.open(kinds(call{direction: flow.Ingress, port: otherService})...)
			own := s.open(kinds(call{direction: flow.Egress, port: unnamed})...)
			flows := append(append([]*talk{}, cut...), append(other, own...)...)
			s.haveEntries("open", flows...)

			s.mark(flows...)
			s.apply(narrowed(flow.Ingress, friends...))
			s.smoothly("narrowed", flows...)
			s.apply(open(flow.Ingress))
			s.smoothly("open again", flows...)

			s.mark(append(other, own...)...)
			s.says("the plan", s.plan(closed(flow.Ingress)).out, "2 will be cut: security_group.a.ingress.service_udp was untracked")
			s.apply(closed(flow.Ingress))
			s.areCut("closed", cut...)
			s.haveNone("closed", cut...)
			s.smoothly("closed", append(other, own...)...)
			s.opens("closed", kinds(call{direction: flow.Ingress, port: otherService})...)
		})
	}
}

// divide adds a table of another tool that puts everything on eth0 into a zone.
func (s *stand) divide(priority nftables.ChainPriority) {
	s.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(s.host.FD()))
	if err != nil {
		s.t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "other_tool"})
	for name, hook := range map[string]struct {
		number *nftables.ChainHook
		key    expr.MetaKey
	}{
		"in":  {nftables.ChainHookPrerouting, expr.MetaKeyIIFNAME},
		"out": {nftables.ChainHookOutput, expr.MetaKeyOIFNAME},
	} {
		chain := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook.number, Priority: &priority})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: hook.key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("eth0\x00")},
			&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint16(5)},
			&expr.Ct{Key: expr.CtKeyZONE, Register: 1, SourceRegister: true},
		}})
	}
	if err := c.Flush(); err != nil {
		s.t.Fatal(err)
	}
}
