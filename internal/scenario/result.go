package scenario

import (
	"time"

	"sgc/internal/lab"
)

// Result is what a run found.
type Result struct {
	Scenario *Scenario
	Timeline *Timeline
	// Timeouts are those of conntrack that the speed has divided.
	Timeouts []lab.Timeout
	Steps    []StepResult
	// Skipped says why this machine cannot play the scenario to its end; "" where
	// it can.
	Skipped string
	// Err is nil, or why the scenario could not be played to its end.
	Err error
}

// StepResult is what a step found.
type StepResult struct {
	Step     *Step
	Begun    time.Duration
	Took     time.Duration
	Verdicts []Verdict
}

// Failed reports whether an expectation of the step was not met.
func (s *StepResult) Failed() bool {
	for i := range s.Verdicts {
		if !s.Verdicts[i].Met {
			return true
		}
	}
	return false
}

// Failed reports whether an expectation of any step was not met.
func (r *Result) Failed() bool {
	for i := range r.Steps {
		if r.Steps[i].Failed() {
			return true
		}
	}
	return false
}
