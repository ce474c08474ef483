package livetest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"sgc/internal/flow"
)

// What began while there were no rules has no entry, since conntrack saw nothing of
// it. It goes on when they are there again, whoever sends next.
func TestRulesAreRestored(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			p := narrowed(d, friends...)
			s.apply(p)
			s.dropRules()
			talks := s.standing(d)
			s.haveNone("while there are no rules", talks...)
			s.mark(talks...)
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

// Entries that conntrack made of open flows while nothing kept them out of it go
// when the rules are restored, and the flows end with their rule, whoever had sent
// first.
func TestNotrackIsRestored(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			s.apply(open(d))
			talks := s.open(s.serviceCalls(d)...)
			s.tamper(func(c *nftables.Conn, chain *nftables.Chain) {
				if chain.Hooknum != nil && *chain.Priority == *nftables.ChainPriorityRaw && *chain.Hooknum == *nftables.ChainHookOutput {
					c.FlushChain(chain)
				}
			})
			if !before(time.Now().Add(patience), func() bool {
				entries := s.entries()
				return !slices.ContainsFunc(talks, func(k *talk) bool { _, there := entryOf(entries, k); return !there })
			}) {
				t.Fatal("conntrack does not see what the host sends")
			}
			s.apply(open(d))
			s.haveNone("after the rules were restored", talks...)
			s.goOn("after the rules were restored", talks...)
			s.apply(closed(d))
			s.areCut("closed", talks...)
		})
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
			s.dropRules()
			talks := s.open(kinds(call{direction: d})...)
			s.haveNone("while there are no rules", talks...)
			s.mark(talks...)
			s.apply(p)
			s.smoothly("after the rules were restored", talks...)
		})
	}
}

// dropRules takes away all rules of sgc's table, and waits until conntrack sees
// nothing of the host any more: the kernel lets go of it some time after the last
// rule that needs it.
func (s *stand) dropRules() {
	s.t.Helper()
	s.tamper((*nftables.Conn).FlushChain)
	if !eventually(func() bool {
		var probes []*talk
		for _, d := range flow.Directions {
			probes = append(probes, s.open(kinds(call{direction: d, port: unnamed})...)...)
		}
		defer s.hangUp(probes...)
		entries := s.entries()
		return !slices.ContainsFunc(probes, func(k *talk) bool { _, there := entryOf(entries, k); return there })
	}) {
		s.t.Fatal("conntrack tracks although no rule needs it")
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
