package apply

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/nlmsg"
	"sgc/internal/ruleset"
)

// everything is a table with timed sets, timeouts, and what asks for them, as
// compiled policies hold them.
func everything() *ruleset.Table {
	want := timedTable()
	want.Timeouts = timeoutTable().Timeouts
	drop, accept := ruleset.Verdict{Kind: ruleset.Drop}, ruleset.Verdict{Kind: ruleset.Accept}
	rule := func(s ...ruleset.Statement) ruleset.Rule {
		return ruleset.Rule{Statements: s, Comment: "interface.eth0"}
	}
	// In the order in which nft asks for them when it loads its own listing, which
	// leaves them out.
	six := ruleset.Match{Field: ruleset.NFProtocol, Value: ruleset.NFProtoKey(flow.IPv6)}
	udp := ruleset.Match{Field: ruleset.L4Protocol, Value: ruleset.ProtoKey(flow.UDP)}
	want.Sets = append(want.Sets,
		&ruleset.Set{Name: "refused.egress.ipv6", Timed: true, Key: []ruleset.Type{ruleset.IfName, ruleset.IPv6Addr, ruleset.IPv6Addr, ruleset.InetService, ruleset.InetService}},
		&ruleset.Set{Name: "refused.egress.ports.ipv6", Timed: true, Interval: true, Key: []ruleset.Type{ruleset.IPv6Addr, ruleset.InetService, ruleset.InetService, ruleset.IfName}},
	)
	want.Chains = append(want.Chains, timeoutTable().Chains[1], &ruleset.Chain{
		Name: "eth0.egress", Rules: []ruleset.Rule{
			rule(ruleset.MatchDirection{}, ruleset.MatchState{State: ruleset.CtEstablished}, ruleset.MatchForwarded{}, accept),
			rule(ruleset.MatchDirection{Reply: true}, ruleset.MatchState{State: ruleset.CtEstablished}, ruleset.MatchForwarded{Negate: true}, accept),
			rule(ruleset.MatchState{State: ruleset.CtNew}, ruleset.MatchFlags{Mask: 0x17, Value: 0x02, Negate: true}, drop),
			rule(ruleset.MatchState{State: ruleset.CtNew}, ruleset.MatchEndsHere{Negate: true}, ruleset.SetTimeout{Object: "eth0.tcp4"}),
			rule(six, udp,
				ruleset.Lookup{Fields: []ruleset.Field{ruleset.OIFName, ruleset.OriginalSource(flow.IPv6), ruleset.IP6Dest, ruleset.SourcePort, ruleset.DestPort}, Set: "refused.egress.ipv6"}, drop),
			rule(ruleset.MatchForwarded{Negate: true}, six, udp,
				ruleset.Lookup{Fields: []ruleset.Field{ruleset.IP6Dest, ruleset.SourcePort, ruleset.DestPort, ruleset.OIFName}, Set: "refused.egress.ports.ipv6"}, drop),
		},
	})
	return want
}

// elementsOfEverything are timed elements of every set.
func elementsOfEverything() []TimedChange {
	exact := ruleset.Concat(ruleset.IfNameKey("eth0"), ruleset.AddrKey(netip.MustParseAddr("2001:db8::1")), ruleset.AddrKey(netip.MustParseAddr("2001:db8::2")), ruleset.PortKey(53), ruleset.PortKey(4000))
	ports := func(address string, first, last uint16) string {
		return ruleset.Concat(ruleset.AddrKey(netip.MustParseAddr(address)), ruleset.PortKey(first), ruleset.PortKey(last), ruleset.IfNameKey("eth0"))
	}
	out := put(exactName, tuple(1, time.Hour), tuple(2, 90*time.Minute))
	out = append(out, put(rangesName, ranged("10.0.0.0/8", 5, 9, time.Hour), ranged("0.0.0.0/5", 0, 65535, time.Hour))...)
	out = append(out, put(windowName, window(time.Hour))...)
	out = append(out, put("refused.egress.ipv6", ruleset.TimedElement{First: exact, Timeout: time.Hour, Comment: "a comment"})...)
	return append(out, put("refused.egress.ports.ipv6",
		ruleset.TimedElement{First: ports("2001:db8::", 1, 2), Last: ports("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 3, 4), Timeout: time.Hour},
		ruleset.TimedElement{First: ports("2001:db9::", 1, 2), Last: ports("2001:db9::7", 1, 2), Timeout: time.Hour, Comment: "another"})...)
}

// nft 1.0.6 lists an object of timeouts that are all its own defaults in a way
// that it cannot load ("policy = { }"); there is none here.
func TestListingCanBeLoadedAgain(t *testing.T) {
	t.Parallel()
	l, loaded, other := newLab(t), newLab(t), newLab(t)
	l.commit(everything(), elementsOfEverything()...)
	l.wantSame(everything())
	listing, err := l.run("", "nft", "list", "table", "inet", "sgc")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loaded.run(listing, "nft", "-c", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, listing)
	}
	loaded.nft(listing)
	loaded.wantSame(everything())
	for _, set := range l.snapshot().Table.Sets {
		if want, got := l.timed(set.Name), loaded.timed(set.Name); !slices.Equal(got, want) || len(want) == 0 {
			t.Errorf("set %s: loaded %q, want %q", set.Name, got, want)
		}
	}
	// The script of the table has no elements, but is the same table.
	if _, err := other.run(scriptOf(t, everything()), "nft", "-c", "-f", "-"); err != nil {
		t.Error(err)
	}
	other.nft(scriptOf(t, everything()))
	other.wantSame(everything())
	empty := newLab(t)
	empty.apply(everything())
	if got, want := other.list(), empty.list(); got != want {
		t.Errorf("loaded by nft:\n%s\ncommitted over netlink:\n%s", got, want)
	}
}

func TestFailureAtEveryStepOfTimedChanges(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	elements := elementsOfEverything()
	l.commit(everything(), elements[:4]...)
	// Timeouts and a set are made anew, and elements come and go.
	want := everything()
	want.Timeouts[0].States[0].Timeout *= 2
	want.Timeouts[1] = udpTimeout("eth0.udp6.new", 31, 121)
	want.Chains[1].Rules[0].Statements[3] = ruleset.SetTimeout{Object: "eth0.udp6.new"}
	want.Sets[2].Comment = "another"
	timed := append(takeOut(exactName, elements[0].Element), elements[4:]...)
	before := func() (*Snapshot, map[[3]string]time.Duration) { s := l.snapshot(); return s, timedElements(s) }
	s, had := before()
	diff := func() *Delta {
		d, err := Diff(s, want, timed...)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	// The range comes first, and by itself.
	d := diff()
	if first := d.batches[0]; first.part != preparing || !slices.ContainsFunc(first.operations, func(o operation) bool { return o.name == "refused.egress.ports.ipv6" }) {
		t.Fatalf("%d transactions, and the first one does not put in the range", d.Transactions())
	}
	changes := changesText(d)
	kinds := map[string]bool{}
	for n, b := range d.batches {
		if b.part == cleaning {
			break
		}
		for i, o := range b.operations {
			kinds[o.action.String()+" "+o.kind.String()] = true
			spoilt := spoil(diff(), n)
			spoilt.batches[n].message.Buf[o.start+nlmsg.HeaderSize+nlmsg.NetfilterSize+nlmsg.AttributeSize] = 'x'
			err := l.kernel.Commit(context.Background(), spoilt)
			var refused *RefusedError
			if o.destroys && err == nil {
				t.Fatalf("transaction %d, step %d, %s: nothing was refused", n, i, o)
			}
			if !errors.As(err, &refused) || refused.Refusals[0].Object != o.String() || refused.Leftovers != nil {
				t.Fatalf("transaction %d, step %d, %s: %v", n, i, o, err)
			}
			now, has := before()
			was := s.Generation
			s = now
			if n == 0 && now.Generation != was || !maps.Equal(has, had) || changesText(diff()) != changes {
				t.Fatalf("transaction %d, step %d, %s: something changed", n, i, o)
			}
		}
	}
	d = diff()
	for _, kind := range []string{"remove object", "add object", "add element", "remove element"} {
		if !kinds[kind] {
			t.Errorf("no step is %q", kind)
		}
	}
	if err := l.kernel.Commit(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	l.wantSame(want)
	l.wantTimed(exactName, elements[1].Element)
	l.wantTimed(rangesName, elements[3].Element, elements[2].Element)
	l.wantTimed(windowName, elements[4].Element)
}
