package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

func TestChangeOfTheOwnTableMakesTheCommitFail(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.apply(webTable())
	want := webTable()
	want.Sets[0].Elements = want.Sets[0].Elements[:1]
	d := l.diff(want)
	l.nft(`add chain inet sgc other; delete chain inet sgc other`)
	before := l.list()
	if err := l.kernel.Commit(context.Background(), d); !errors.Is(err, ErrChanged) {
		t.Fatalf("commit after somebody else's change: %v, want ErrChanged", err)
	}
	if after := l.list(); after != before {
		t.Errorf("the refused commit changed the table to\n%s", after)
	}
	// The same delta from a new snapshot goes through, and has the same digest.
	again := l.diff(want)
	if again.Digest() != d.Digest() || again.Generation() == d.Generation() {
		t.Errorf("digests %s and %s, generations %d and %d", again.Digest(), d.Digest(), again.Generation(), d.Generation())
	}
	if err := l.kernel.Commit(context.Background(), again); err != nil {
		t.Fatal(err)
	}
	l.wantSame(want)
}

func TestCommittedDeltaIsRefusedTheSecondTime(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	d := l.apply(webTable())
	if err := l.kernel.Commit(context.Background(), d); !errors.Is(err, ErrChanged) {
		t.Fatalf("the same delta twice: %v, want ErrChanged", err)
	}
}

func TestRefusedTransactionNamesTheObjectAndChangesNothing(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(*ruleset.Table)
		want  []string
		errno error
	}{
		{"a rule that refers to no set", func(w *ruleset.Table) {
			c := w.Chains[4]
			c.Rules[0].Statements = []ruleset.Statement{ruleset.Lookup{Fields: []ruleset.Field{ruleset.IPSource}, Set: "missing"}}
		}, []string{"add rule web.ingress.tcp4.ssh #1 (security_group.web.ingress.ssh): ", "no such file or directory"}, unix.ENOENT},
		{"a rule that jumps nowhere", func(w *ruleset.Table) {
			w.Chains[0].Rules[1].Statements = []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Jump, Chain: "missing"}}
		}, []string{"add rule prerouting #2 (interface.veth*): "}, unix.ENOENT},
		{"a map that goes nowhere", func(w *ruleset.Table) {
			w.Sets[6].Elements[2].Verdict = &ruleset.Verdict{Kind: ruleset.Goto, Chain: "missing"}
		}, []string{"add element 8000 of set web.ingress.tcp4.ports: no such file or directory"}, unix.ENOENT},
		{"two faults", func(w *ruleset.Table) {
			w.Sets[6].Elements[2].Verdict = &ruleset.Verdict{Kind: ruleset.Goto, Chain: "missing"}
			w.Chains[0].Rules[1].Statements = []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Jump, Chain: "missing"}}
		}, []string{"add element 8000 of set web.ingress.tcp4.ports", "add rule prerouting #2"}, unix.ENOENT},
		{"a loop of chains", func(w *ruleset.Table) {
			w.Chains[4].Rules[3].Statements = []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Jump, Chain: "web.ingress.tcp4"}}
		}, []string{"add rule ", "too many links"}, unix.EMLINK},
		{"a jump to a base chain", func(w *ruleset.Table) {
			w.Chains[4].Rules[3].Statements = []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Jump, Chain: "prerouting"}}
		}, []string{"add rule web.ingress.tcp4.ssh #4"}, unix.EOPNOTSUPP},
		{"a lookup of the wrong length", func(w *ruleset.Table) {
			c := w.Chains[4]
			c.Rules[2].Statements[0] = ruleset.Lookup{Fields: []ruleset.Field{ruleset.IP6Source}, Set: "web.ingress.tcp4.ports"}
		}, []string{"add rule ", "too many links"}, unix.EMLINK},
	}
	for _, test := range tests {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, first apply %t", test.name, first), func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				before := ""
				if !first {
					l.apply(webTable())
					before = l.list()
				}
				want := webTable()
				test.spoil(want)
				err := l.kernel.Commit(context.Background(), l.diff(want))
				var refused *RefusedError
				if !errors.As(err, &refused) || test.errno != nil && !errors.Is(err, test.errno) {
					t.Fatalf("got %v, want a refusal with %v", err, test.errno)
				}
				for _, part := range test.want {
					if !contains(err.Error(), part) {
						t.Errorf("%q does not say %q", err, part)
					}
				}
				if first {
					if s := l.snapshot(); s.Table != nil {
						t.Error("the refused transaction left a table")
					}
				} else if after := l.list(); after != before {
					t.Errorf("the refused transaction changed the table to\n%s", after)
				}
			})
		}
	}
}

func TestManyRefusalsAreAllRead(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	want := webTable()
	c := want.Chains[4]
	for range 3000 {
		c.Rules = append(c.Rules, ruleset.Rule{Statements: []ruleset.Statement{
			ruleset.Lookup{Fields: []ruleset.Field{ruleset.IPSource}, Set: "missing"},
		}})
	}
	err := l.kernel.Commit(context.Background(), l.diff(want))
	var refused *RefusedError
	if !errors.As(err, &refused) || len(refused.Refusals) != 3000 {
		t.Fatalf("got %v", err)
	}
	if len(err.Error()) > 1000 {
		t.Errorf("the message has %d bytes", len(err.Error()))
	}
}

func TestImpossibleTablesAreErrorsBeforeTheKernel(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(*ruleset.Table)
		want  string
	}{
		{"another name", func(w *ruleset.Table) { w.Name = "other" }, `only "sgc" can be committed`},
		{"a chain twice", func(w *ruleset.Table) { w.Chains = append(w.Chains, w.Chains[0]) }, "there are two of chain prerouting"},
		{"a set twice", func(w *ruleset.Table) { w.Sets = append(w.Sets, w.Sets[0]) }, "there are two of set exempt.ipv4"},
		{"a long name", func(w *ruleset.Table) { w.Chains[0].Name = strings.Repeat("x", 256) }, "256 bytes: 1 to 255 are possible"},
		{"a long comment", func(w *ruleset.Table) { w.Chains[0].Rules[0].Comment = strings.Repeat("x", 255) }, "the comment of rule prerouting #1 has 255 bytes"},
		{"elements out of order", func(w *ruleset.Table) {
			e := w.Sets[4].Elements
			e[0], e[1] = e[1], e[0]
		}, "element 0.0.0.0/8 of set pl.partners.ipv4 is not above the one before it"},
		{"ranges that overlap", func(w *ruleset.Table) { w.Sets[4].Elements[1].Last = w.Sets[4].Elements[3].Last }, "element 11.0.0.0/29 of set pl.partners.ipv4 is not above"},
		{"a range backwards", func(w *ruleset.Table) {
			e := &w.Sets[4].Elements[1]
			e.First, e.Last = e.Last, e.First
		}, "ends before it begins"},
		{"a key of the wrong length", func(w *ruleset.Table) { w.Sets[4].Elements[1].First = "\x0a" }, "element 2 of set pl.partners.ipv4 has a key of the wrong length: 4 bytes"},
		{"a map without verdict", func(w *ruleset.Table) { w.Sets[3].Elements[0].Verdict = nil }, "maps hold verdicts, sets hold none"},
		{"a set with a verdict", func(w *ruleset.Table) { w.Sets[0].Elements[0].Verdict = &ruleset.Verdict{} }, "maps hold verdicts, sets hold none"},
		{"a set without a key", func(w *ruleset.Table) { w.Sets[0].Key = nil }, "set exempt.ipv4 has no key"},
		{"elements in a dynamic set", func(w *ruleset.Table) { w.Sets[2].Elements = keys(strings.Repeat("\x00", 24)) }, "dynamic set flows.ipv4 must hold neither"},
		{"a value of the wrong length", func(w *ruleset.Table) {
			w.Chains[0].Rules[0].Statements[0] = ruleset.Match{Field: ruleset.L4Protocol, Value: "xx"}
		}, "encode rule prerouting #1 (interfaces)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := webTable()
			test.spoil(want)
			_, err := Diff(&Snapshot{}, want)
			if err == nil || !contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error that says %q", err, test.want)
			}
		})
	}
}

func TestCancelledCommitSendsNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	d := l.diff(webTable())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.kernel.Commit(ctx, d); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if _, err := l.kernel.Snapshot(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if l.snapshot().Table != nil {
		t.Error("a table was made")
	}
}

func TestNamespacesThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ netns, want string }{
		{"no-such-namespace", `no network namespace is called "no-such-namespace"`},
		{"/proc/self/nothing", "no such file or directory"},
		{"/proc/self/ns/mnt", "is no network namespace: it is a namespace of another kind"},
		{"/etc/passwd", "is no network namespace: it is an ordinary file"},
	} {
		if _, err := Open(test.netns); err == nil || !contains(err.Error(), test.want) {
			t.Errorf("Open(%q): %v, want %q", test.netns, err, test.want)
		}
	}
	if _, err := Open("no-such-namespace"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v is not os.ErrNotExist", err)
	}
}
