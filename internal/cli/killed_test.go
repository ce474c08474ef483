package cli

import (
	"bytes"
	"context"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An apply that is killed between two of its steps is finished, or forgotten,
// by the next command; a plan only understands it.
func TestKilledApply(t *testing.T) {
	for _, tc := range []struct {
		name string
		// first is applied before, if not empty.
		first     string
		committed bool
		// plan and apply are what the next commands say on standard error.
		plan, apply string
	}{
		{"the first apply, before its commit", "", false, "before its commit", "cut off before its commit"},
		{"the first apply, after its commit", "", true, "between its commit and its record", "cut off after its commit"},
		{"a later apply, before its commit", "web", false, "before its commit", "cut off before its commit"},
		{"a later apply, after its commit", "web", true, "between its commit and its record", "cut off after its commit"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t, true)
			s.write("web/web.hcl", webPolicy)
			s.write("db/db.hcl", dbPolicy)
			db := filepath.Join(s.dir, "db")
			if tc.first != "" {
				s.mustRun("apply", "--auto-approve", filepath.Join(s.dir, tc.first))
			}
			k, dir := s.open()
			p := s.begin(k, dir, db)
			if tc.committed {
				if err := k.Commit(context.Background(), p.delta); err != nil {
					t.Fatal(err)
				}
			}

			r := s.mustRun("plan", db)
			if !strings.Contains(r.err, tc.plan) {
				t.Errorf("plan says %q", r.err)
			}
			if got := noTransaction(r); got != tc.committed {
				t.Errorf("plan prints %q", r.out)
			}
			if pending, err := dir.Pending(); err != nil || pending == nil {
				t.Fatalf("plan changed the state directory: pending %v, %v", pending, err)
			}

			r = s.mustRun("apply", "--auto-approve", db)
			if !strings.Contains(r.err, tc.apply) {
				t.Errorf("apply says %q", r.err)
			}
			if got := noTransaction(r); got != tc.committed {
				t.Errorf("apply prints %q", r.out)
			}
			if pending, err := dir.Pending(); err != nil || pending != nil {
				t.Errorf("apply left a pending record: %v, %v", pending, err)
			}
			if r = s.mustRun("plan", db); r.err != "" || !strings.Contains(r.out, "No changes.") {
				t.Errorf("at the end plan says %q %q", r.err, r.out)
			}
		})
	}
}

// noTransaction reports whether a plan has nothing to commit; a killed apply may
// have left conntrack settings to be set.
func noTransaction(r result) bool {
	return strings.Contains(r.out, "No changes.") || strings.Contains(r.out, "No transaction, only conntrack settings.")
}

func TestKilledDestroy(t *testing.T) {
	requireNft(t)
	for _, committed := range []bool{false, true} {
		s := newStage(t, true)
		s.write("web.hcl", webPolicy)
		s.mustRun("apply", "--auto-approve", s.dir)
		_, dir := s.open()
		r, err := newRecord("", "", enforced{})
		if err != nil {
			t.Fatal(err)
		}
		if err := dir.WriteAhead(r); err != nil {
			t.Fatal(err)
		}
		if committed {
			s.nft("delete table inet sgc")
		}
		status := s.mustRun("status")
		if got := strings.Contains(status.out, "Nothing is enforced.\n"); got != committed {
			t.Errorf("committed %v: status prints %q", committed, status.out)
		}
		s.mustRun("destroy", "--auto-approve")
		if a, err := dir.Applied(); err != nil || a != nil {
			t.Errorf("committed %v: destroy left the record %v, %v", committed, a, err)
		}
		if a, err := dir.Pending(); err != nil || a != nil {
			t.Errorf("committed %v: destroy left the pending record %v, %v", committed, a, err)
		}
		if status := s.mustRun("status"); status.out != "Nothing is enforced.\n" || status.err != "" {
			t.Errorf("committed %v: at the end status prints %q %q", committed, status.out, status.err)
		}
	}
}

// killer kills children at any moment of their runs. How long a run takes depends
// on what else the machine does, and changes from one to the next.
type killer struct {
	random *rand.Rand
	// whole is how long a run of a command takes, as far as is known.
	whole map[string]time.Duration
	// killed counts the runs that did not come to their end.
	killed int
}

func newKiller(t *testing.T) *killer {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return &killer{random: rand.New(rand.NewPCG(seed, 0)), whole: map[string]time.Duration{}}
}

// start starts a child, and kills it unless it ends before.
func (k *killer) start(s *stage, command ...string) {
	s.t.Helper()
	whole, known := k.whole[command[0]]
	if !known {
		whole = 300 * time.Millisecond
	}
	var out bytes.Buffer
	cmd := s.child(command...)
	cmd.Stdout, cmd.Stderr = &out, &out
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			s.t.Fatalf("sgc %s: %v\n%s", strings.Join(command, " "), err, &out)
		}
		k.whole[command[0]] = time.Since(begun)
		return
	case <-time.After(time.Duration(k.random.Int64N(int64(whole)))):
	}
	_ = cmd.Process.Kill() // it may have ended just now
	if <-ended != nil {
		k.killed++
		// Who knows how long it would have gone on.
		k.whole[command[0]] = whole + whole/2
	}
}

// Wherever a real kill -9 hits: the kernel holds one policy or the other as a
// whole, status knows which, and the next apply goes on.
func TestKillAtAnyMoment(t *testing.T) {
	s := newStage(t, true)
	s.write("web/web.hcl", webPolicy)
	s.write("db/db.hcl", dbPolicy)
	paths := []string{filepath.Join(s.dir, "db"), filepath.Join(s.dir, "web")}
	s.mustRun("apply", "--auto-approve", paths[1])
	k := newKiller(t)
	for i := 0; i < 24 || k.killed == 0 && i < 240; i++ {
		k.start(s, "apply", "--auto-approve", paths[i%2])

		r := s.mustRun("status")
		if !strings.Contains(r.out, "drift\n  none\n") {
			t.Fatalf("round %d: status prints\n%s%s", i, r.out, r.err)
		}
		rules := s.mustRun("plan", paths[i%2]).out
		if !strings.Contains(rules, "No changes.") && !strings.Contains(rules, "Plan: 1 to add, 0 to change, 1 to remove.") {
			t.Fatalf("round %d: plan prints\n%s", i, rules)
		}
		if i%4 == 3 {
			s.mustRun("apply", "--auto-approve", paths[i%2])
			if r := s.mustRun("plan", paths[i%2]); !strings.Contains(r.out, "No changes.") || r.err != "" {
				t.Fatalf("round %d: after an apply plan prints\n%s%s", i, r.out, r.err)
			}
		}
	}
	t.Logf("%d runs were cut off", k.killed)
	if k.killed == 0 {
		t.Error("no kill hit a running apply")
	}
}
