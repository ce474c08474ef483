package cli

import (
	"context"
	"strings"
	"testing"

	"sgc/internal/lab/labtest"
)

// A speed that makes the kernel's whole seconds too coarse is warned of before
// anything is played, and again beside what fails.
func TestRoundedTimeoutsAreWarnedOf(t *testing.T) {
	labtest.Require(t)
	text := strings.Replace(pingScenario, "EXPECTED", "refused", 1)
	text = strings.Replace(text, "  expect", "  wait \"40s\" {}\n  expect", 1)
	file := writeScenario(t, "ping.lab.hcl", text)
	_, _, errout := runScenarios(t, context.Background(), "lab", "run", "--speed=100", file)
	if want := "Warning: " + file + ": at speed 100 an idle timeout outlasts a wait"; !strings.HasPrefix(errout, want) {
		t.Errorf("got %q, want %q …", errout, want)
	}
	if _, _, errout = runScenarios(t, context.Background(), "lab", "run", "--speed=30", file); strings.Contains(errout, "Warning") {
		t.Errorf("at speed 30: %q", errout)
	}
}
