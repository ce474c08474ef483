package scenario

import (
	"context"
	"strings"
	"testing"
	"time"

	"sgc/internal/lab/labtest"
)

// twoHosts is the beginning of scenarios that an enforcer plays that enforces
// nothing.
const twoHosts = `
host "server" {
  managed   = true
  addresses = ["192.0.2.10/24"]
}
host "client" {
  addresses = ["192.0.2.77/24"]
}
policy "p" {
  security_group "web" {}
  interface "eth0" {
    security_groups = [security_group.web]
  }
}
`

// mostRepeats bounds for how long a scenario is played again that a machine was too
// slow for to show anything.
const mostRepeats = 2 * time.Minute

// playText plays a scenario whose changes do nothing but what apply does.
func playText(t *testing.T, text string, apply func()) *Result {
	t.Helper()
	labtest.Require(t)
	l := LoadText("played.lab.hcl", []byte(twoHosts+text))
	if l.Scenario == nil {
		t.Fatal(l.Report.Diagnostics)
	}
	result := Start(context.Background(), l.Scenario, Options{StateDir: t.TempDir(), Enforcer: stub(apply)}).Wait()
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	return result
}

// An expectation is not held against a time in which the flow had no occasion to
// send: a change that took long, a wait that was shorter than its interval.
func TestExpectationsWaitForPackets(t *testing.T) {
	r := playText(t, `
step "before" {
  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    interval = "300ms"
  }
  wait {
    flow = "ping"
    sent = 1
  }
}
step "a change, and no wait" {
  apply "p" {}
  expect "ping" { traffic = "allowed" }
}
step "nothing" {
  expect "ping" { traffic = "survives" }
}
`, func() {})
	for _, s := range r.Steps {
		for _, v := range s.Verdicts {
			if !v.Met || strings.Contains(v.Seen, "sent 0") {
				t.Errorf("step %q: %s", s.Step.Name, v.Seen)
			}
		}
	}
}

// Who has sent all that it is to send is not waited for.
func TestExpectationsDoNotWaitInVain(t *testing.T) {
	for begun := time.Now(); ; {
		r := playText(t, `
step "one" {
  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    count    = 1
  }
  wait {
    flow   = "ping"
    passed = 1
  }
}
step "two" {
  expect "ping" { traffic = "allowed" }
}
`, func() {})
		two := r.Steps[1]
		if two.Verdicts[0].Met {
			t.Fatal(two.Verdicts[0].Seen)
		}
		if two.Took < patience {
			return
		}
		// Or the machine stood still for so long.
		if time.Since(begun) > mostRepeats {
			t.Fatalf("it took %s: %s", two.Took, two.Verdicts[0].Seen)
		}
	}
}

// A wait may count from the step's change on, however much was sent before.
func TestWaitCountsFromTheChange(t *testing.T) {
	r := playText(t, `
step "before" {
  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    interval = "50ms"
  }
  wait {
    flow   = "ping"
    passed = 5
  }
}
step "behind" {
  apply "p" {}
  wait {
    flow   = "ping"
    passed = 5
    over   = "step"
  }
  expect "ping" { traffic = "allowed" }
}
`, func() {})
	changed, passed := r.Timeline.Marks[0].Ended, 0
	for _, p := range r.Timeline.Lanes[0].Packets {
		if p.Sent >= changed && p.Answered != 0 && p.Sent <= r.Timeline.Steps[1].Ended {
			passed++
		}
	}
	if passed < 5 {
		t.Errorf("%d passed since the change", passed)
	}
}

// A failure says if the machine was too slow for the flow's idle timeout, and for
// which speed it is not.
func TestFailureNamesASlowMachine(t *testing.T) {
	r := playText(t, `
speed = 30
step "before" {
  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
  }
  wait {
    flow   = "ping"
    passed = 3
  }
}
step "a change that takes long" {
  apply "p" { hold = true }
  wait {
    flow   = "ping"
    passed = 1
    over   = "step"
  }
  expect "ping" { traffic = "refused" }
}
`, func() { time.Sleep(1500 * time.Millisecond) })
	v := r.Steps[1].Verdicts[0]
	if v.Met || !strings.HasPrefix(v.Pace, "the flow was silent for ") || !strings.Contains(v.Pace, " s, and its idle timeout is 1s here: this machine is too slow for speed 30; try --speed ") {
		t.Errorf("got %q", v.Pace)
	}
	if text := v.Diagnostic().Detail; !strings.HasSuffix(text, "But "+v.Pace+".") {
		t.Errorf("got %q", text)
	}
}

// Of a machine that was not late, nothing is said.
func TestPace(t *testing.T) {
	r := &Run{speed: 10, began: time.Now().Add(-time.Minute), clock: clock{stalls: []stall{{at: 20 * time.Second, took: 1300 * time.Millisecond}}},
		marks: []Mark{{Begun: 40 * time.Second, Ended: 44200 * time.Millisecond}}}
	p := &player{run: r, spec: &Flow{}, interval: 100 * time.Millisecond, recorder: newRecorder(Lane{})}
	for at := time.Duration(0); at < time.Minute; at += 100 * time.Millisecond {
		p.sending(Opener, at, false)
	}
	for _, tt := range []struct {
		from, idle time.Duration
		want       string
	}{
		{44*time.Second + 500*time.Millisecond, 30 * time.Second, ""},
		{44200 * time.Millisecond, 30 * time.Second, "a change took 4.2 s, which is 42.0 s of the scenario: this machine is too slow for speed 10; try --speed 2"},
		{20 * time.Second, 30 * time.Second, "the machine stood still for 1.3 s, and a change took 4.2 s, which is 42.0 s of the scenario: this machine is too slow for speed 10; try --speed 2"},
	} {
		j := &judgement{run: r, p: p, from: tt.from, end: 59 * time.Second, idle: tt.idle}
		if got := j.pace(); got != tt.want {
			t.Errorf("from %s: got %q, want %q", tt.from, got, tt.want)
		}
	}
	// The silence that an interval means is none of the machine's.
	p.interval = 5 * time.Second
	p.sending(Opener, 64200*time.Millisecond, false)
	if got := (&judgement{run: r, p: p, from: 50 * time.Second, end: 65 * time.Second, idle: 30 * time.Second}).pace(); got != "" {
		t.Errorf("got %q", got)
	}
	p.interval = 100 * time.Millisecond
	want := "the flow was silent for 4.3 s, and its idle timeout is 3s here: this machine is too slow for speed 10; try --speed 3"
	if got := (&judgement{run: r, p: p, from: 50 * time.Second, end: 65 * time.Second, idle: 30 * time.Second}).pace(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	listed := &judgement{run: r, p: p, from: 44500 * time.Millisecond, end: 59 * time.Second, idle: 0, looked: true, read: 62400 * time.Millisecond}
	if got, want := listed.pace(), "the kernel took 3.4 s to list conntrack's entries, which is 34.0 s of the scenario: this machine is too slow for speed 10; try --speed 2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.speed = 1
	p.interval = time.Minute
	if got := (&judgement{run: r, p: p, from: 44200 * time.Millisecond, end: 59 * time.Second, idle: 30 * time.Second}).pace(); got != "" {
		t.Errorf("at full speed, a change: %q", got)
	}
	if got := r.slower(0); got != "this machine was too slow for it; try again when it has less to do" {
		t.Errorf("got %q", got)
	}
}

// A count is kept, of TCP too: the attempt to connect is of the number.
func TestCountOfAConnection(t *testing.T) {
	for begun := time.Now(); ; {
		r := playText(t, `
step "one" {
  start "attempt" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
    count    = 1
    sends    = "from"
  }
  start "three" {
    protocol = "tcp"
    from     = "client"
    to       = "server"
    port     = 22
    count    = 3
    interval = "10ms"
  }
  wait {
    flow   = "three"
    passed = 3
  }
  wait "300ms" {}
  expect "attempt" {
    sent   = 1
    passed = 1
  }
  expect "three" {
    sent   = 3
    passed = 3
  }
}
`, func() {})
		if lateAttempts(r) && time.Since(begun) < mostRepeats {
			continue
		}
		for _, v := range r.Steps[0].Verdicts {
			if !v.Met {
				t.Errorf("%s: %s", v.Flow, v.Seen)
			}
		}
		return
	}
}

// lateAttempts reports whether an attempt to connect did not pass. Nothing refuses
// any here, but a machine that stands still may not answer within attemptTime.
func lateAttempts(r *Result) bool {
	for _, l := range r.Timeline.Lanes {
		for i := range l.Packets {
			if p := &l.Packets[i]; p.Open && p.Arrived == 0 {
				return true
			}
		}
	}
	return false
}

// A timeout that the speed leaves too little of is not compared with anything.
func TestCheckSpeed(t *testing.T) {
	l := LoadText("base.lab.hcl", []byte(base))
	l.Scenario.Steps[0].Expects[0].Timeout = 300 * time.Second
	for speed, want := range map[int]string{
		1: "", 60: "",
		100: "At speed 100 the timeout of 5m is 3s. What is left of it is known in whole seconds, give or take two, so that it could not be told from another one below 5s. Play it at speed 60 at most, or leave the timeout out.",
	} {
		got := ""
		for _, d := range l.Scenario.CheckSpeed(speed) {
			got += d.Detail
		}
		if got != want {
			t.Errorf("speed %d: %q", speed, got)
		}
	}
}

// Numbers that are not as expected say what they count.
func TestNumbersSayWhatTheyCount(t *testing.T) {
	three := 3
	r := &Run{options: Options{Enforcer: stub(func() {})}}
	v, err := r.judgeCounter(&Counter{Rule: "x", Packets: &three})
	if err != nil || v.Met || !strings.Contains(v.Diagnostic().Detail, "Of a tracked flow a rule counts only the packet that opened it") {
		t.Errorf("%v, %+v", err, v)
	}
	v, err = r.judgeAllowance(&Allowance{Available: &three})
	if err != nil || v.Met || !strings.Contains(v.Diagnostic().Detail, "untracked flows need none") {
		t.Errorf("%v, %+v", err, v)
	}
	var none int
	if v, err = r.judgeAllowance(&Allowance{Available: &none}); err != nil || !v.Met || v.Note != "" {
		t.Errorf("%v, %+v", err, v)
	}
}
