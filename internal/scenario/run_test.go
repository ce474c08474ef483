package scenario

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"sgc/internal/lab/labtest"
	"sgc/policies"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// stub applies nothing; it calls what it is.
type stub func()

func (s stub) Apply(context.Context, Place, string, *policies.Loaded, string) error { s(); return nil }
func (s stub) Destroy(context.Context, Place) error                                 { return nil }
func (s stub) Counts(context.Context, Place) (map[string]uint64, error)             { return nil, nil }
func (s stub) Fill(context.Context, Place, netip.Addr, int) error                   { return nil }
func (s stub) Drain(context.Context, Place) error                                   { return nil }
func (s stub) Allowance(context.Context, Place) (AllowanceCounts, error) {
	return AllowanceCounts{}, nil
}

// Of a step that had ended, but whose last packets were still waited for, an
// interrupted run says nothing: they may have been on their way.
func TestInterruptDuringAJudgement(t *testing.T) {
	labtest.Require(t)
	l := LoadText("interrupted.lab.hcl", []byte(`
host "server" {
  managed   = true
  addresses = ["192.0.2.10/24"]
}
host "client" {
  addresses = ["192.0.2.77/24"]
}
policy "none" {}
step "waits for what never comes" {
  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    interval = "1h"
  }
  wait {
    flow   = "ping"
    passed = 1
  }
  expect "ping" {
    passed = 2
  }
}
step "is interrupted" {
  apply "none" {}
}
`))
	if l.Scenario == nil {
		t.Fatal(l.Report.Diagnostics)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var interrupted time.Time
	run := Start(ctx, l.Scenario, Options{StateDir: t.TempDir(), Enforcer: stub(func() {
		cancel()
		interrupted = time.Now()
	})})
	result := run.Wait()
	if !errors.Is(result.Err, context.Canceled) {
		t.Errorf("the error is %v", result.Err)
	}
	// On a machine that took so long the step was judged before.
	if end := run.began.Add(result.Timeline.Steps[0].Ended); interrupted.Before(end.Add(goodGrace)) && len(result.Steps) != 0 {
		t.Errorf("a verdict that came too early: %+v", result.Steps[0])
	}
}

// An interrupt while the last step is judged is one before the scenario's end.
func TestInterruptDuringTheLastJudgement(t *testing.T) {
	labtest.Require(t)
	l := LoadText("interrupted.lab.hcl", []byte(base))
	if l.Scenario == nil {
		t.Fatal(l.Report.Diagnostics)
	}
	e := l.Scenario.Steps[0].Expects[0]
	e.Traffic, e.Passed = Any, new(int)
	*e.Passed = 99
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	run := Start(ctx, l.Scenario, Options{StateDir: t.TempDir(), Enforcer: stub(func() {})})
	for ended := false; !ended; time.Sleep(time.Millisecond) {
		tl := run.Timeline()
		ended = len(tl.Steps) == 1 && tl.Steps[0].Ended != 0
	}
	cancel()
	interrupted := time.Now()
	result := run.Wait()
	if end := run.began.Add(result.Timeline.Steps[0].Ended); interrupted.Before(end.Add(goodGrace)) && (!errors.Is(result.Err, context.Canceled) || len(result.Steps) != 0) {
		t.Errorf("got %v, %+v", result.Err, result.Steps)
	}
}
