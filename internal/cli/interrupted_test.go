package cli

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"sgc/apply"
)

// networksPolicy lets n networks in by one port, under a name. Another name
// takes three transactions, and a first apply of many networks two.
func networksPolicy(name string, port, n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("10.%d.%d.0/24", i/128, i%128*2))
	}
	return fmt.Sprintf(`
security_group "web" {
  ingress "%s" {
    protocol    = "tcp"
    ports       = [%d]
    cidr_blocks = ["%s"]
  }
  egress "any" {
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

interface "eth0" {
  security_groups = [security_group.web]
}
`, name, port, strings.Join(list, `", "`))
}

// An apply that is killed between two of its transactions leaves one policy or
// the other in force; what it left beside that is said, used or removed.
func TestKilledBetweenTransactions(t *testing.T) {
	requireNft(t)
	for _, tc := range []struct {
		name  string
		first bool
		// steps is how many transactions were committed.
		steps     int
		committed bool
	}{
		{"a first apply, before it enforces anything", true, 1, false},
		{"a first apply, before its record", true, 2, true},
		{"a later apply, before the switch", false, 1, false},
		{"a later apply, before it cleans up", false, 2, true},
		{"a later apply, before its record", false, 3, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t, true)
			s.write("one/one.hcl", networksPolicy("one", 22, 20))
			s.write("two/two.hcl", networksPolicy("two", 22, 1200))
			one, two := filepath.Join(s.dir, "one"), filepath.Join(s.dir, "two")
			if !tc.first {
				s.mustRun("apply", "--auto-approve", one)
			}
			k, dir := s.open()
			p := s.begin(k, dir, two)
			steps := p.delta.Steps()
			if want := map[bool]int{true: 2, false: 3}[tc.first]; len(steps) != want {
				t.Fatalf("%d transactions, want %d", len(steps), want)
			}
			for _, d := range steps[:tc.steps] {
				if err := k.Commit(context.Background(), d); err != nil {
					t.Fatal(err)
				}
			}

			status := s.mustRun("status")
			left := tc.steps < len(steps)
			said := strings.Contains(status.out, "left over from an interrupted apply")
			if strings.Contains(status.out, "added by hand)") || said != left {
				t.Errorf("status prints\n%s", status.out)
			}
			switch {
			case tc.first && !tc.committed:
				if !strings.HasPrefix(status.out, "Nothing is enforced.\n") {
					t.Errorf("status prints\n%s", status.out)
				}
			case !strings.HasPrefix(status.out, "Enforced since "), strings.Contains(status.out, two) != tc.committed:
				t.Errorf("status prints\n%s", status.out)
			}

			// Forward, or back: both ways lead out.
			for _, path := range []string{two, one} {
				r := s.mustRun("apply", "--auto-approve", path)
				if cut := strings.Contains(r.err, "was cut off"); cut != (path == two) {
					t.Errorf("apply says %q", r.err)
				}
				if r := s.mustRun("plan", path); !strings.Contains(r.out, "No changes.") || strings.Contains(r.err, "An apply or destroy ended") {
					t.Errorf("then plan prints\n%s%s", r.out, r.err)
				}
				if r := s.mustRun("status"); !strings.Contains(r.out, "drift\n  none\n") {
					t.Errorf("then status prints\n%s", r.out)
				}
			}
		})
	}
}

// Wherever a kill hits an apply of three transactions: one policy or the other
// is enforced as a whole, and the next apply goes on.
func TestKillAtAnyMomentOfThreeTransactions(t *testing.T) {
	s := newStage(t, true)
	s.write("one/one.hcl", networksPolicy("one", 22, 300))
	s.write("two/two.hcl", networksPolicy("two", 22, 300))
	paths := []string{filepath.Join(s.dir, "one"), filepath.Join(s.dir, "two")}
	s.mustRun("apply", "--auto-approve", paths[0])
	k, _ := s.open()
	generation := func() uint32 {
		t.Helper()
		n, err := k.Generation(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	leftovers := 0
	// The moment between two transactions is a short one.
	for i := 0; i < 24 || leftovers == 0 && i < 240; i++ {
		// The child is killed some moment after one of its transactions.
		cmd := s.child("apply", "--auto-approve", paths[(i+1)%2])
		wanted := generation() + uint32(random.IntN(4))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cmd.Wait() // it was killed, or was faster
		}()
		for waiting := true; waiting && generation() < wanted; {
			select {
			case <-ended:
				waiting = false // it has nothing to do
			case <-time.After(50 * time.Microsecond):
			}
		}
		time.Sleep(time.Duration(random.IntN(5)) * time.Millisecond)
		_ = cmd.Process.Kill()
		<-ended

		r := s.mustRun("status")
		_, drift, _ := strings.Cut(r.out, "drift\n")
		if strings.Contains(drift, "left over") {
			leftovers++
		}
		for line := range strings.Lines(drift) {
			if !strings.Contains(line, "left over from an interrupted apply") && line != "  none\n" {
				t.Fatalf("round %d: status prints\n%s%s", i, r.out, r.err)
			}
		}
		if i%4 == 3 {
			s.mustRun("apply", "--auto-approve", paths[(i+1)%2])
			if r := s.mustRun("plan", paths[(i+1)%2]); !strings.Contains(r.out, "No changes.") || strings.Contains(r.err, "An apply or destroy ended") {
				t.Fatalf("round %d: after an apply plan prints\n%s%s", i, r.out, r.err)
			}
		}
	}
	t.Logf("%d kills left something", leftovers)
	if leftovers == 0 {
		t.Error("no kill hit the moment between two transactions")
	}
}

// meddle waits until so many transactions were committed, and commits one of its
// own before the next, in the table of sgc or in another one.
func meddle(t *testing.T, s *stage, k *apply.Kernel, after uint32, own bool) (wait func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	conn, err := nftables.New(nftables.WithNetNSFd(s.ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	start, err := k.Generation(ctx)
	if err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		met bool
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		for ctx.Err() == nil {
			now, err := k.Generation(context.Background())
			if err == nil && now < start+after {
				continue
			}
			if err == nil {
				table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: fmt.Sprintf("other%d", start)}
				if own {
					table = &nftables.Table{Family: nftables.TableFamilyINet, Name: "sgc"}
					conn.AddObj(&nftables.CounterObj{Table: table, Name: fmt.Sprintf("mine%d", start)})
				} else {
					conn.AddTable(table)
				}
				err = conn.Flush()
			}
			mine, genErr := k.Generation(context.Background())
			done <- outcome{mine == start+after+1, errors.Join(err, genErr)}
			return
		}
		done <- outcome{}
	}()
	return func() bool {
		cancel()
		o := <-done
		if o.err != nil {
			t.Fatal(o.err)
		}
		return o.met
	}
}

func nothingHappened(t *testing.T, s *stage, r result) {
	if strings.Contains(r.err, "looking again") || strings.Contains(r.err, "Warning") {
		t.Errorf("apply says %q", r.err)
	}
	if r := s.mustRun("plan", filepath.Join(s.dir, "two")); !strings.Contains(r.out, "No changes.") {
		t.Errorf("plan prints\n%s", r.out)
	}
}

func TestSomebodyElseBetweenTheTransactions(t *testing.T) {
	for _, tc := range []struct {
		name  string
		after uint32
		own   bool
		check func(t *testing.T, s *stage, r result)
	}{
		{"in another table, before the switch", 1, false, nothingHappened},
		{"in another table, before the clean-up", 2, false, nothingHappened},
		{"before the switch", 1, true, func(t *testing.T, s *stage, r result) {
			if !strings.Contains(r.err, "Another program changed the kernel's nftables at the same moment; looking again.") {
				t.Errorf("apply says %q", r.err)
			}
			if r := s.mustRun("status"); !strings.Contains(r.out, "drift\n  none\n") {
				t.Errorf("status prints\n%s", r.out)
			}
		}},
		{"before the clean-up", 2, true, func(t *testing.T, s *stage, r result) {
			if !strings.Contains(r.err, "Warning: the new policy is enforced, but chains and sets of the old one") {
				t.Errorf("apply says %q", r.err)
			}
			if r := s.mustRun("status"); !strings.Contains(r.out, "drift") || !strings.Contains(r.out, "/two") {
				t.Errorf("status prints\n%s", r.out)
			}
			// What is left was never remembered as what the kernel holds.
			if r := s.mustRun("plan", filepath.Join(s.dir, "two")); !strings.Contains(r.out, "drift") || !strings.Contains(r.out, "Plan: no change of the policy, ") {
				t.Errorf("plan prints\n%s", r.out)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t, true)
			s.write("one/one.hcl", networksPolicy("one", 22, 20))
			s.write("two/two.hcl", networksPolicy("two", 22, 20))
			two := filepath.Join(s.dir, "two")
			k, _ := s.open()
			// The moment is a short one.
			for range 100 {
				s.mustRun("apply", "--auto-approve", filepath.Join(s.dir, "one"))
				s.mustRun("plan", two)
				met := meddle(t, s, k, tc.after, tc.own)
				r := s.mustRun("apply", "--auto-approve", two)
				if !met() {
					continue
				}
				tc.check(t, s, r)
				s.mustRun("apply", "--auto-approve", two)
				if r := s.mustRun("plan", two); !strings.Contains(r.out, "No changes.") {
					t.Errorf("at the end plan prints\n%s", r.out)
				}
				return
			}
			t.Error("the moment was never met")
		})
	}
}
