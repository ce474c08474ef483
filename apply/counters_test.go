package apply

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sgc/internal/flow"
	"sgc/internal/netns"
	"sgc/internal/ruleset"
)

// countingTable lets UDP out to loopback addresses by rules that count for one
// address, for two, and for one in two chains.
func countingTable() *ruleset.Table {
	accept := ruleset.Verdict{Kind: ruleset.Accept}
	to := func(prefix string) ruleset.Statement {
		return ruleset.MatchPrefix{Field: ruleset.Peer(flow.IPv4, flow.Egress), Prefix: netip.MustParsePrefix(prefix)}
	}
	udp := ruleset.Match{Field: ruleset.L4Protocol, Value: ruleset.ProtoKey(flow.UDP)}
	rule := func(s ruleset.Statement, from ...string) ruleset.Rule {
		return ruleset.Rule{Statements: []ruleset.Statement{udp, s, ruleset.Counter{}, accept}, From: from, Comment: from[0]}
	}
	jump := func(s ruleset.Statement, chain string) ruleset.Rule {
		return ruleset.Rule{Statements: []ruleset.Statement{s, ruleset.Verdict{Kind: ruleset.Jump, Chain: chain}}}
	}
	return &ruleset.Table{Name: "sgc", Chains: []*ruleset.Chain{
		{Name: "output", Hook: &ruleset.Hook{Point: ruleset.Output}, Rules: []ruleset.Rule{
			jump(to("127.0.1.0/24"), "one"), jump(to("127.0.2.0/24"), "two"),
		}},
		{Name: "one", Rules: []ruleset.Rule{
			rule(to("127.0.1.1/32"), "b"),
			rule(to("127.0.1.2/32"), "a", "b"),
			rule(to("127.0.1.3/32"), "never"),
		}},
		{Name: "two", Rules: []ruleset.Rule{
			rule(to("127.0.2.1/32"), "b"),
			rule(to("127.0.2.2/32"), "a"),
		}},
	}}
}

// say sends empty datagrams, of 28 bytes each.
func (l *lab) say(to string, n int) {
	l.t.Helper()
	err := netns.Do(int(l.netns.Fd()), "", func() error {
		c, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return err
		}
		defer c.Close()
		for range n {
			if _, err := c.WriteToUDPAddrPort(nil, netip.AddrPortFrom(netip.MustParseAddr(to), 9)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) wantCounters(want *ruleset.Table, counters ...Counter) {
	l.t.Helper()
	got, err := Counters(l.snapshot(), want)
	if err != nil {
		l.t.Fatal(err)
	}
	if diff := cmp.Diff(counters, got); diff != "" {
		l.t.Fatalf("counters (-want +got):\n%s", diff)
	}
}

func TestCounters(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if _, err := l.run("", "ip", "link", "set", "lo", "up"); err != nil {
		t.Fatal(err)
	}
	table := countingTable()
	count := func(packets uint64, rules, missing int, from ...string) Counter {
		return Counter{From: from, Packets: packets, Bytes: 28 * packets, Rules: rules, Missing: missing}
	}
	// Before the first apply, nothing is there.
	l.wantCounters(table, count(0, 1, 1, "a"), count(0, 1, 1, "a", "b"), count(0, 2, 2, "b"), count(0, 1, 1, "never"))
	l.apply(table)
	l.wantCounters(table, count(0, 1, 0, "a"), count(0, 1, 0, "a", "b"), count(0, 2, 0, "b"), count(0, 1, 0, "never"))
	l.say("127.0.1.1", 1)
	l.say("127.0.1.2", 2)
	l.say("127.0.2.1", 4)
	l.say("127.0.2.2", 8)
	l.say("127.0.3.1", 16)
	l.wantCounters(table, count(8, 1, 0, "a"), count(2, 1, 0, "a", "b"), count(5, 2, 0, "b"), count(0, 1, 0, "never"))

	// An apply that changes the rules around one lets it count on.
	changed := countingTable()
	changed.Chains[1].Rules = changed.Chains[1].Rules[:2]
	changed.Chains[2].Rules[1].Comment = "another"
	l.apply(changed)
	l.say("127.0.1.1", 1)
	l.wantCounters(changed, count(0, 1, 0, "a"), count(2, 1, 0, "a", "b"), count(6, 2, 0, "b"))

	// A rule that was added by hand counts for nobody; one that was changed or
	// moved has no counter.
	l.nft(`insert rule inet sgc two ip daddr 127.0.2.1 counter accept comment "b"`)
	l.say("127.0.2.1", 32)
	l.wantCounters(changed, count(0, 1, 0, "a"), count(2, 1, 0, "a", "b"), count(6, 2, 0, "b"))
	l.nft("flush chain inet sgc two\nadd rule inet sgc two ip daddr 127.0.2.1 counter packets 99 bytes 99 accept comment \"b\"")
	l.wantCounters(changed, count(0, 1, 1, "a"), count(2, 1, 0, "a", "b"), count(2, 2, 1, "b"))

	// The apply that mends it leaves the rules that were right alone.
	l.apply(changed)
	l.wantCounters(changed, count(0, 1, 0, "a"), count(2, 1, 0, "a", "b"), count(2, 2, 0, "b"))
}
