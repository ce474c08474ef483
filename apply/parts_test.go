package apply

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
	"sgc/internal/ruleset"
)

// flipped is webTable with another way to say who may come by SSH: the leaf
// chain and its set have other names, and the list of partners is gone.
func flipped(n int) *ruleset.Table {
	t := webTable()
	t.Sets = slices.DeleteFunc(t.Sets, func(s *ruleset.Set) bool { return s.Name == "pl.partners.ipv4" })
	t.Sets = append(t.Sets, largeSet(n))
	leaf := *chainOf(t, "web.ingress.tcp4.ssh")
	leaf.Name = "web.ingress.tcp4.shell"
	leaf.Rules = []ruleset.Rule{{Statements: []ruleset.Statement{
		ruleset.Lookup{Fields: []ruleset.Field{ruleset.IPSource}, Set: "large"}, ruleset.Verdict{Kind: ruleset.Accept},
	}}}
	t.Chains[slices.IndexFunc(t.Chains, func(c *ruleset.Chain) bool { return c.Name == "web.ingress.tcp4.ssh" })] = &leaf
	setOf(t, "web.ingress.tcp4.ports").Elements[0].Verdict = &ruleset.Verdict{Kind: ruleset.Jump, Chain: leaf.Name}
	t.Chains = append(t.Chains, &ruleset.Chain{Name: "sgc.policy", Comment: "sha256:flipped"})
	return t
}

// started is webTable with jumps from the map of ports, as compiled tables have
// them, and a chain that carries a digest.
func started() *ruleset.Table {
	t := webTable()
	setOf(t, "web.ingress.tcp4.ports").Elements[0].Verdict = &ruleset.Verdict{Kind: ruleset.Jump, Chain: "web.ingress.tcp4.ssh"}
	t.Chains = append(t.Chains, &ruleset.Chain{Name: "sgc.policy", Comment: "sha256:started"})
	return t
}

func chainOf(t *ruleset.Table, name string) *ruleset.Chain {
	return t.Chains[slices.IndexFunc(t.Chains, func(c *ruleset.Chain) bool { return c.Name == name })]
}

func setOf(t *ruleset.Table, name string) *ruleset.Set {
	return t.Sets[slices.IndexFunc(t.Sets, func(s *ruleset.Set) bool { return s.Name == name })]
}

func lookupIn(set string) ruleset.Statement {
	return ruleset.Lookup{Fields: []ruleset.Field{ruleset.IPSource}, Set: set}
}

func TestDeltasAreOneTransactionUnlessAPacketCouldBeJudgedWrongly(t *testing.T) {
	t.Parallel()
	accept := ruleset.Verdict{Kind: ruleset.Accept}
	leaf := func(w *ruleset.Table) *ruleset.Chain { return chainOf(w, "web.ingress.tcp4.ssh") }
	ports := func(w *ruleset.Table) *ruleset.Set { return setOf(w, "web.ingress.tcp4.ports") }
	addLeaf := func(w *ruleset.Table, name string, rules ...ruleset.Rule) *ruleset.Verdict {
		w.Chains = append(w.Chains, &ruleset.Chain{Name: name, Rules: rules})
		return &ruleset.Verdict{Kind: ruleset.Jump, Chain: name}
	}
	port := func(first, last uint16, v *ruleset.Verdict) ruleset.Element {
		return ruleset.Element{First: ruleset.PortKey(first), Last: ruleset.PortKey(last), Verdict: v}
	}
	from := func(set string) ruleset.Rule {
		return ruleset.Rule{Statements: []ruleset.Statement{lookupIn(set), accept}}
	}
	dropRule := func(c *ruleset.Chain, i int) { c.Rules = slices.Delete(slices.Clone(c.Rules), i, i+1) }
	tests := []struct {
		name string
		// from is webTable with jumps, changed by before; nil for nothing.
		before func(*ruleset.Table)
		after  func(*ruleset.Table)
		first  bool
		want   string
	}{
		{name: "a first apply", first: true, after: func(*ruleset.Table) {}, want: "switch"},
		{name: "a first apply of a thousand elements", first: true, after: func(w *ruleset.Table) {
			w.Sets = append(w.Sets, largeSet(980))
			leaf(w).Rules[1] = from("large")
		}, want: "switch"},
		{name: "a first apply of more than a thousand elements", first: true, after: func(w *ruleset.Table) {
			w.Sets = append(w.Sets, largeSet(smallApply+1))
			leaf(w).Rules[1] = from("large")
		}, want: "prepare, switch"},
		{name: "a prefix more in a set", after: func(w *ruleset.Table) {
			s := setOf(w, "pl.partners.ipv4")
			s.Elements = slices.Delete(slices.Clone(s.Elements), 1, 2)
		}, want: "switch"},
		{name: "a prefix more in a chain", after: func(w *ruleset.Table) { dropRule(leaf(w), 0) }, want: "switch"},
		{name: "a port with a chain of its own", after: func(w *ruleset.Table) {
			v := addLeaf(w, "new", from("pl.partners.ipv4"))
			ports(w).Elements = append(ports(w).Elements[:3:3], port(9000, 9000, v), ports(w).Elements[3])
		}, want: "switch"},
		{name: "a port with a chain and a set of its own", after: func(w *ruleset.Table) {
			w.Sets = append(w.Sets, largeSet(5000))
			v := addLeaf(w, "new", from("large"))
			ports(w).Elements = append(ports(w).Elements[:3:3], port(9000, 9000, v), ports(w).Elements[3])
		}, want: "switch"},
		{name: "a port in the middle of others, with a chain and a set of its own", after: func(w *ruleset.Table) {
			w.Sets = append(w.Sets, largeSet(5000))
			v := addLeaf(w, "new", from("large"))
			e := ports(w).Elements
			ports(w).Elements = append(e[:2:2], port(8000, 8049, &accept), port(8050, 8050, v), port(8051, 8099, &accept), e[3])
		}, want: "switch"},
		{name: "a port less, and its chain", after: func(w *ruleset.Table) {
			ports(w).Elements = ports(w).Elements[1:]
			w.Chains = slices.DeleteFunc(w.Chains, func(c *ruleset.Chain) bool { return c.Name == "web.ingress.tcp4.ssh" })
		}, want: "switch"},
		{name: "a port less, and its chain, which was gone to", before: func(w *ruleset.Table) {
			ports(w).Elements[0].Verdict = &ruleset.Verdict{Kind: ruleset.Goto, Chain: "web.ingress.tcp4.ssh"}
		}, after: func(w *ruleset.Table) {
			ports(w).Elements = ports(w).Elements[1:]
			w.Chains = slices.DeleteFunc(w.Chains, func(c *ruleset.Chain) bool { return c.Name == "web.ingress.tcp4.ssh" })
		}, want: "switch, clean up"},
		{name: "a port in the middle of others that goes back to them", before: func(w *ruleset.Table) {
			v := addLeaf(w, "new", from("pl.partners.ipv4"))
			e := ports(w).Elements
			ports(w).Elements = append(e[:2:2], port(8000, 8049, &accept), port(8050, 8050, v), port(8051, 8099, &accept), e[3])
		}, after: func(*ruleset.Table) {}, want: "switch, clean up"},
		{name: "a chain of another name", after: func(w *ruleset.Table) {
			leaf(w).Name = "another"
			ports(w).Elements[0].Verdict = &ruleset.Verdict{Kind: ruleset.Jump, Chain: "another"}
		}, want: "prepare, switch, clean up"},
		{name: "a set instead of rules", after: func(w *ruleset.Table) {
			w.Sets = append(w.Sets, largeSet(9))
			leaf(w).Rules = append([]ruleset.Rule{from("large")}, leaf(w).Rules[2:]...)
		}, want: "prepare, switch"},
		{name: "rules instead of a set", before: func(w *ruleset.Table) {
			w.Sets = append(w.Sets, largeSet(9))
			leaf(w).Rules = append([]ruleset.Rule{from("large")}, leaf(w).Rules[2:]...)
		}, after: func(*ruleset.Table) {}, want: "switch"},
		{name: "another set", after: func(w *ruleset.Table) {
			w.Sets = append(w.Sets, largeSet(9))
			w.Sets = slices.DeleteFunc(w.Sets, func(s *ruleset.Set) bool { return s.Name == "pl.partners.ipv4" })
			leaf(w).Rules[2] = from("large")
		}, want: "prepare, switch, clean up"},
		{name: "a set that a new element of a hash map leads to", after: func(w *ruleset.Table) {
			w.Sets = append(w.Sets, largeSet(9))
			v := addLeaf(w, "new", from("large"))
			s := setOf(w, "web.ingress.protocols")
			s.Elements = append(s.Elements, ruleset.Element{First: ruleset.Concat("\x02", "\x11"), Verdict: v})
		}, want: "prepare, switch"},
		{name: "a chain without sets that a new element of a hash map leads to", after: func(w *ruleset.Table) {
			v := addLeaf(w, "new", ruleset.Rule{Statements: []ruleset.Statement{accept}})
			s := setOf(w, "web.ingress.protocols")
			s.Elements = append(s.Elements, ruleset.Element{First: ruleset.Concat("\x02", "\x11"), Verdict: v})
		}, want: "switch"},
		{name: "an empty set", after: func(w *ruleset.Table) {
			w.Sets = append(w.Sets, largeSet(0))
			leaf(w).Rules = append([]ruleset.Rule{from("large")}, leaf(w).Rules...)
		}, want: "switch"},
		{name: "a set that nothing uses", after: func(w *ruleset.Table) { w.Sets = append(w.Sets, largeSet(9)) }, want: "switch"},
		{name: "a new base chain with a set", after: func(w *ruleset.Table) {
			w.Sets = append(w.Sets, largeSet(9))
			w.Chains = append(w.Chains, &ruleset.Chain{Name: "acl", Hook: &ruleset.Hook{Point: ruleset.Prerouting, Priority: -301}, Rules: []ruleset.Rule{from("large")}})
		}, want: "prepare, switch"},
		{name: "a table made anew", after: func(w *ruleset.Table) {
			w.Comment = "another"
			w.Sets = append(w.Sets, largeSet(5000))
			leaf(w).Rules[1] = from("large")
		}, want: "switch"},
		{name: "everything at once", after: func(w *ruleset.Table) { *w = *flipped(9) }, want: "prepare, switch, clean up"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			if !test.first {
				before := started()
				if test.before != nil {
					test.before(before)
				}
				l.apply(before)
			}
			want := started()
			test.after(want)
			d := l.diff(want)
			if got := transactions(d); got != test.want {
				t.Errorf("the transactions are %q, want %q", got, test.want)
			}
			if err := l.kernel.Commit(context.Background(), d); err != nil {
				t.Fatal(err)
			}
			l.wantSame(want)
			if now := l.snapshot().Generation; now != d.After() {
				t.Errorf("generation %d, want %d", now, d.After())
			}
			if test.first {
				return
			}
			// The same as one transaction, and apart as far as it goes.
			for _, apart := range []bool{false, true} {
				l := newLab(t)
				before := started()
				if test.before != nil {
					test.before(before)
				}
				l.apply(before)
				d, err := diff(l.snapshot(), want, apart, nil)
				if err == nil {
					err = l.kernel.Commit(context.Background(), d)
				}
				if err != nil {
					t.Fatal(err)
				}
				l.wantSame(want)
			}
		})
	}
}

// transactions names the transactions of a delta.
func transactions(d *Delta) string {
	var names []string
	if d.Prepares() {
		names = append(names, "prepare")
	}
	names = append(names, "switch")
	if d.CleansUp() {
		names = append(names, "clean up")
	}
	if len(names) != d.Transactions() {
		return fmt.Sprintf("%v of %d", names, d.Transactions())
	}
	return strings.Join(names, ", ")
}

// TestFailureAtEveryStepOfEveryTransaction spoils each message in turn. Where
// the policy was not switched, the kernel is as it was; where it was, the next
// delta does the rest.
func TestFailureAtEveryStepOfEveryTransaction(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{false, true} {
		t.Run(fmt.Sprintf("first apply %t", first), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			list := func() string { return "nothing" }
			wantParts := []part{preparing, switching}
			if !first {
				l.apply(started())
				list = l.list
				wantParts = []part{preparing, switching, cleaning}
			}
			want := flipped(1500)
			before := list()
			for n := 0; ; n++ {
				d := l.diff(want)
				var got []part
				var of, at int
				left := n
				for i, b := range d.batches {
					got = append(got, b.part)
					if left >= 0 && left < len(b.operations) {
						of, at = i, left
					}
					left -= len(b.operations)
				}
				if !slices.Equal(got, wantParts) {
					t.Fatalf("parts %v, want %v", got, wantParts)
				}
				if left >= 0 {
					break
				}
				o := d.batches[of].operations[at]
				spoilt := spoil(d, of)
				name := spoilt.batches[of].message.Buf[o.start+nlmsg.HeaderSize+nlmsg.NetfilterSize+nlmsg.AttributeSize:]
				errno := unix.ENOENT
				if o.kind == TableKind {
					// Any name can be added, and the rest does not find it.
					name[0] = 'x'
				} else {
					name[n%3] = 'x'
				}
				err := l.kernel.Commit(context.Background(), spoilt)
				var refused *RefusedError
				var unclean *CleanUpError
				if !errors.As(err, &refused) || !errors.Is(err, errno) || refused.Leftovers != nil {
					t.Fatalf("transaction %d, %s: %v", of, o, err)
				}
				if errors.As(err, &unclean) != (d.batches[of].part == cleaning) {
					t.Fatalf("transaction %d, %s: %v", of, o, err)
				}
				if d.batches[of].part != cleaning {
					if s := l.snapshot(); first && s.Table != nil || list() != before {
						t.Fatalf("transaction %d, %s: the table is now\n%s", of, o, l.list())
					}
					continue
				}
				rest := l.diff(want)
				if !rest.Leftovers() || rest.Transactions() != 1 {
					t.Fatalf("after %s: what is left is not leftovers:\n%s", o, changesText(rest))
				}
				for c := range rest.Changes() {
					if !c.Unused {
						t.Errorf("%s %s is used", c.Kind, c.Name)
					}
				}
				if err := l.kernel.Commit(context.Background(), rest); err != nil {
					t.Fatal(err)
				}
				l.wantSame(want)
				l.apply(started())
				if list() != before {
					t.Fatalf("the way back leads to\n%s", list())
				}
			}
			l.apply(want)
			l.wantSame(want)
		})
	}
}

// TestSomebodyElseBetweenTheTransactions commits in another table, or in our
// own, between two transactions.
func TestSomebodyElseBetweenTheTransactions(t *testing.T) {
	t.Parallel()
	const other, own = "add table ip other", "add counter inet sgc mine; delete counter inet sgc mine"
	wantDone := func(t *testing.T, _ *lab, err error) {
		if err != nil {
			t.Error(err)
		}
	}
	tests := []struct {
		name   string
		before part
		nft    string
		first  bool
		// check looks at what Commit said.
		check func(t *testing.T, l *lab, err error)
		// enforced is the table that is enforced after that.
		enforced *ruleset.Table
		left     bool
	}{
		{name: "another table, before the switch", before: switching, nft: other, enforced: flipped(9), check: wantDone},
		{name: "another table, before the switch of a first apply", first: true, before: switching, nft: other, enforced: flipped(1500), check: wantDone},
		{name: "another table, before the clean-up", before: cleaning, nft: other, enforced: flipped(9), check: wantDone},
		{name: "the own table, before the switch", before: switching, nft: own, enforced: started(), check: wantChanged},
		{name: "the own table, before the switch of a first apply", first: true, before: switching, nft: own, check: wantChanged},
		{name: "the own table, before the clean-up", before: cleaning, nft: own, enforced: flipped(9), left: true, check: func(t *testing.T, l *lab, err error) {
			var unclean *CleanUpError
			if !errors.As(err, &unclean) || !errors.Is(err, ErrChanged) || !contains(err.Error(), "the new policy is enforced") {
				t.Errorf("got %v, want a CleanUpError", err)
			}
		}},
		{name: "a rule that uses what was prepared", before: switching,
			nft:      "add rule inet sgc web.ingress.tcp4.ssh ip saddr @large accept",
			enforced: started(), left: true, check: func(t *testing.T, l *lab, err error) {
				var left *LeftoversError
				if !errors.As(err, &left) || !errors.Is(err, ErrChanged) || !errors.Is(err, unix.EBUSY) || !contains(err.Error(), "the next apply removes them") {
					t.Errorf("got %v, want ErrChanged with leftovers", err)
				}
			}},
		{name: "what was prepared is taken away in part", before: switching, nft: "delete rule inet sgc web.ingress.tcp4.shell handle $large; delete set inet sgc large", enforced: started(), check: wantChanged},
		{name: "a flush", before: switching, nft: "flush ruleset", check: wantChanged},
		{name: "a flush at a first apply", first: true, before: switching, nft: "flush ruleset", check: wantChanged},
		{name: "something in the new table", first: true, before: switching, nft: "add chain inet sgc mine", left: true, check: wantChanged},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			want := flipped(9)
			if test.first {
				want = flipped(1500)
			} else {
				l.apply(started())
			}
			d := l.diff(want)
			l.kernel.between = func(next part) {
				if next != test.before {
					return
				}
				script := test.nft
				if contains(script, "$large") {
					s := l.snapshot()
					script = strings.ReplaceAll(script, "$large", fmt.Sprint(s.Table.Chain("web.ingress.tcp4.shell").Rules[0].Handle))
				}
				l.nft(script)
			}
			test.check(t, l, l.kernel.Commit(context.Background(), d))
			l.kernel.between = nil
			s := l.snapshot()
			switch {
			case test.enforced != nil:
				rest, err := Diff(s, test.enforced)
				if err != nil || test.left != (!rest.Empty()) {
					t.Errorf("%v: left:\n%s", err, changesText(rest))
				}
			case test.left != (s.Table != nil):
				t.Error("a table is left")
			}
			// The next apply does it, whatever is there.
			l.apply(want)
			l.wantSame(want)
		})
	}
}

func wantChanged(t *testing.T, _ *lab, err error) {
	t.Helper()
	var left *LeftoversError
	if !errors.Is(err, ErrChanged) || errors.As(err, &left) {
		t.Errorf("got %v, want ErrChanged and nothing else", err)
	}
}

// visible is the part of the table that packets come to, as text.
func visible(s *Snapshot) string {
	if s.Table == nil {
		return ""
	}
	p := planner{have: s.Table, want: &ruleset.Table{}}
	p.pairChains()
	p.pairSets()
	g := p.graph()
	var lines []string
	for n := range g.reach(g.have, func(c *chainPlan) bool { return c.have.Base != nil }) {
		switch n.kind {
		case ChainKind:
			c := s.Table.Chain(n.name)
			line := chainText(c)
			for _, r := range c.Rules {
				form, _, err := canonical(r.expressions)
				line += fmt.Sprintf("\n\t%q %q %v", r.Comment, form, err)
			}
			lines = append(lines, line)
		case SetKind:
			set := s.Table.Set(n.name)
			line := setText(set)
			for e := range set.Elements() {
				line += fmt.Sprintf("\n\t%x-%x %v", e.First, e.Last, e.Verdict)
			}
			lines = append(lines, line)
		case ObjectKind:
			for _, o := range s.Table.Others {
				if o.Name == n.name {
					lines = append(lines, o.timeoutText(nil))
				}
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestPacketsSeeOneTableOrTheOther walks through random tables with each part
// in a transaction of its own: what packets can come to is the old table up to
// the switch, and the new one from then on, wherever the walk is interrupted.
func TestPacketsSeeOneTableOrTheOther(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	l, fresh := newLab(t), newLab(t)
	steps := 200
	if testing.Short() {
		steps = 40
	}
	ctx := context.Background()
	count := map[part]int{}
	a := randomTable(r)
	l.apply(a)
	for step := range steps {
		b := randomTable(r)
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("step %d: %s\nfrom\n%s\nto\n%s", step, fmt.Sprintf(format, args...), textOrNothing(t, a), textOrNothing(t, b))
		}
		fresh.apply(nil)
		fresh.apply(b)
		before, after := visible(l.snapshot()), visible(fresh.snapshot())
		d, err := diff(l.snapshot(), b, true, nil)
		if err != nil {
			fail("%v", err)
		}
		interrupted := false
		for i, s := range d.Steps() {
			if err := l.kernel.Commit(ctx, s); err != nil {
				fail("transaction %d: %v", i, err)
			}
			done := s.batches[0].part
			count[done]++
			want := after
			if done == preparing && d.Transactions() > 1 {
				want = before
			}
			now := l.snapshot()
			if got := visible(now); got != want {
				fail("after transaction %d of %d packets see\n%s\nwant\n%s", i+1, d.Transactions(), got, want)
			}
			rest, err := Diff(now, b)
			if err != nil {
				fail("%v", err)
			}
			if last := i+1 == d.Transactions(); last != rest.Empty() || rest.Leftovers() != (!last && done == switching) {
				fail("after transaction %d of %d there is to do\n%s", i+1, d.Transactions(), changesText(rest))
			}
			if interrupted = r.IntN(4) == 0; interrupted {
				break
			}
		}
		if interrupted {
			continue // the next table comes on top of what is left
		}
		a = b
	}
	for _, p := range parts {
		if count[p] < steps/20 {
			t.Errorf("only %d transactions of part %d", count[p], p)
		}
	}
}

// namesOf lists what there is.
func namesOf(s *Snapshot) []string {
	var names []string
	for _, c := range s.Table.Chains {
		names = append(names, "chain "+c.Name)
	}
	for _, set := range s.Table.Sets {
		names = append(names, "set "+set.Name)
	}
	for _, o := range s.Table.Others {
		names = append(names, o.String())
	}
	return names
}

// TestTakingBackLeavesWhatWasThere undoes the first transaction of random
// deltas.
func TestTakingBackLeavesWhatWasThere(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	l := newLab(t)
	ctx := context.Background()
	l.apply(randomTable(r))
	undone := 0
	for range 60 {
		b := randomTable(r)
		before := l.snapshot()
		d, err := diff(before, b, true, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !d.Prepares() {
			l.apply(b)
			continue
		}
		was, names := visible(before), namesOf(before)
		l.kernel.between = func(next part) {
			if next == switching {
				l.nft("add counter inet sgc mine; delete counter inet sgc mine")
			}
		}
		err = l.kernel.Commit(ctx, d)
		if !errors.Is(err, ErrChanged) {
			t.Fatal(err)
		}
		l.kernel.between = nil
		// What nobody used before may use what was prepared.
		var left *LeftoversError
		now := l.snapshot()
		if got := visible(now); got != was {
			t.Fatalf("packets saw\n%s\nand see\n%s", was, got)
		}
		if got := namesOf(now); !errors.As(err, &left) && slices.ContainsFunc(got, func(n string) bool { return !slices.Contains(names, n) }) {
			t.Fatalf("there were %v, and are %v", names, got)
		}
		if left == nil {
			undone++
		}
		l.apply(b)
	}
	if undone < 5 {
		t.Errorf("only %d of the deltas prepared anything", undone)
	}
}
