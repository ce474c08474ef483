package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sgc/internal/scenario"
)

// heldUp is how long a machine that plays a scenario may stand still, or take
// for an apply. Beyond that the waits of a scenario that is played several times
// faster no longer are what it says: a timeout of 3 s ends during an apply of 4.
const heldUp = 200 * time.Millisecond

// A scenario is played again as often as this, and for so long, before it is given up:
// on a machine that is very slow a single time may take minutes.
const (
	oftenPlayed = 4
	longPlayed  = 3 * time.Minute
)

// playOnAnyMachine plays a scenario that is to go as it expects. If it did not,
// and the machine did not keep its pace, it is played again at half the speed,
// which expects the same.
func playOnAnyMachine(t *testing.T, file string) {
	t.Helper()
	loaded := scenario.Load(file)
	if loaded.Scenario == nil {
		t.Fatal(loaded.Report.Diagnostics)
	}
	speed := loaded.Scenario.Speed
	begun := time.Now()
	for attempt := 1; ; attempt++ {
		late := watchClock()
		code, out, errout := runScenarios(t, context.Background(), "lab", "run", "--json", fmt.Sprintf("--speed=%d", speed), file)
		stood := late()
		if code == exitOK {
			return
		}
		wrong, slowest := readPlayed(t, out)
		if code != exitDifferent || attempt >= oftenPlayed && time.Since(begun) > longPlayed || max(stood, slowest) < heldUp {
			t.Errorf("at speed %d: exit %d\n%s%s(the machine stood still for %s, and an apply took %s)", speed, code, wrong, errout, stood, slowest)
			return
		}
		t.Logf("at speed %d the machine stood still for %s, and an apply took %s; half as fast once more. What was seen:\n%s", speed, stood, slowest, wrong)
		speed = max(speed/2, 1)
	}
}

// readPlayed reads a run in JSON: what was not as expected, and the longest time
// that an apply took.
func readPlayed(t *testing.T, text string) (wrong string, slowest time.Duration) {
	t.Helper()
	var v struct {
		Scenarios []struct {
			Error    string     `json:"error"`
			Steps    []stepView `json:"steps"`
			Timeline struct {
				Marks []scenario.Mark `json:"marks"`
			} `json:"timeline"`
		} `json:"scenarios"`
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var b strings.Builder
	for _, s := range v.Scenarios {
		if s.Error != "" {
			b.WriteString(s.Error + "\n")
		}
		for _, m := range s.Timeline.Marks {
			slowest = max(slowest, m.Ended-m.Begun)
		}
		for _, step := range s.Steps {
			for _, e := range step.Expectations {
				if !e.Met {
					fmt.Fprintf(&b, "%s:%d, in step %q, of %s: expected %s; seen: %s. %s. Conntrack: %s\n",
						e.File, e.Line, step.Name, e.Flow, e.Expected, e.Seen, strings.Join(e.Policy, ". "), e.Conntrack)
				}
			}
		}
	}
	return b.String(), slowest
}

// watchClock watches how punctually the machine wakes up who sleeps. The
// function that it returns ends that, and returns the longest delay.
func watchClock() (late func() time.Duration) {
	const often = 10 * time.Millisecond
	stop, worst := make(chan struct{}), make(chan time.Duration)
	go func() {
		var longest time.Duration
		for last := time.Now(); ; {
			select {
			case <-stop:
				worst <- longest
				return
			case <-time.After(often):
				now := time.Now()
				longest = max(longest, now.Sub(last)-often)
				last = now
			}
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-worst
	}
}
