package livetest

import (
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"sgc/internal/flow"
)

// What began while others had changed the rules has no entry if conntrack saw
// nothing of it. It goes on when the rules are as they were, whoever sends next.
func TestRulesAreRestored(t *testing.T) {
	t.Parallel()
	for _, change := range []struct {
		name string
		do   func(*nftables.Conn, *nftables.Chain)
	}{
		{"no rules are left", (*nftables.Conn).FlushChain},
		{"everything is let through, and kept out of conntrack", func(c *nftables.Conn, chain *nftables.Chain) {
			if chain.Hooknum == nil {
				return
			}
			rule := &nftables.Rule{Table: chain.Table, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
			if *chain.Priority == *nftables.ChainPriorityRaw {
				rule.Exprs = append([]expr.Any{&expr.Notrack{}}, rule.Exprs...)
			}
			c.InsertRule(rule)
		}},
	} {
		for _, d := range flow.Directions {
			t.Run(change.name+"/"+d.String(), func(t *testing.T) {
				t.Parallel()
				s := newStand(t, plain)
				p := narrowed(d, friends...)
				s.apply(p)
				s.tamper(change.do)
				talks := s.standing(d)
				s.haveNone("while the rules are others", talks...)
				mark(talks...)
				s.apply(p)
				s.smoothly("after the rules were restored", talks...)
				for _, k := range talks {
					if k.port != otherService { // which everybody may use
						s.haveEntries("after the rules were restored", k)
					}
				}
			})
		}
	}
}

// A flow that was cut has no entry either, and its ends still try: it stays cut.
func TestWhatWasCutStaysCutWhenRulesAreRestored(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			p := closed(d)
			s.apply(narrowed(d, friends...))
			talks := s.open(kinds(call{direction: d, connected: true})...)
			s.apply(p, "--flush", "revoked")
			s.areCut("revoked", talks...)
			s.tamper(func(c *nftables.Conn, chain *nftables.Chain) {
				if chain.Hooknum != nil {
					c.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}}})
				}
			})
			if r := s.apply(p); !strings.Contains(r.out, "drift") {
				t.Errorf("nothing was restored:\n%s", r.out)
			}
			s.areCut("after the rules were restored", talks...)
			s.haveNone("after the rules were restored", talks...)
		})
	}
}

// Routed flows that began while there were no rules go on from their next packet,
// as at the first apply.
func TestRoutedFlowsOutliveTheLossOfRules(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, routed)
			p := firstPolicies["tracked"](d)
			s.apply(p)
			s.endWindow()
			s.tamper((*nftables.Conn).FlushChain)
			talks := s.open(kinds(call{direction: d})...)
			s.haveNone("while there are no rules", talks...)
			mark(talks...)
			s.apply(p)
			s.smoothly("after the rules were restored", talks...)
		})
	}
}

// tamper changes the chains of sgc's table behind its back.
func (s *stand) tamper(do func(*nftables.Conn, *nftables.Chain)) {
	s.t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(s.host.FD()))
	if err != nil {
		s.t.Fatal(err)
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range chains {
		if c.Table.Name == "sgc" {
			do(conn, c)
		}
	}
	if err := conn.Flush(); err != nil {
		s.t.Fatal(err)
	}
}
