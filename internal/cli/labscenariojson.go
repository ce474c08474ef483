package cli

import (
	"context"
	"errors"
	"time"

	"sgc/internal/scenario"
)

// labScenariosView is the JSON form of lab run with scenarios.
type labScenariosView struct {
	FormatVersion int `json:"format_version"`
	// Interrupted says that the run was ended before all scenarios had.
	Interrupted bool           `json:"interrupted,omitempty"`
	Scenarios   []scenarioView `json:"scenarios"`
}

type scenarioView struct {
	Name  string `json:"name"`
	File  string `json:"file"`
	Title string `json:"title,omitempty"`
	// Passed says that everything was as expected.
	Passed bool `json:"passed"`
	// Error says why the scenario could not be played to its end, and Skipped
	// why this machine cannot play it. Interrupted says that the run was ended
	// before it; its steps are those that had ended.
	Error       string  `json:"error,omitempty"`
	Skipped     string  `json:"skipped,omitempty"`
	Interrupted bool    `json:"interrupted,omitempty"`
	Seconds     float64 `json:"seconds"`
	// Timeouts are what the speed made of conntrack's, in seconds.
	Timeouts []timeoutView      `json:"timeouts"`
	Steps    []stepView         `json:"steps"`
	Timeline *scenario.Timeline `json:"timeline"`
}

type timeoutView struct {
	Name   string `json:"name"`
	Real   int    `json:"seconds"`
	Scaled int    `json:"scaled_seconds"`
}

type stepView struct {
	Name         string            `json:"name"`
	Description  string            `json:"description,omitempty"`
	Passed       bool              `json:"passed"`
	Seconds      float64           `json:"seconds"`
	Expectations []expectationView `json:"expectations"`
}

type expectationView struct {
	// Flow is a flow of the scenario, or a rule whose counter is looked at.
	Flow     string `json:"flow"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Expected string `json:"expected"`
	Seen     string `json:"seen"`
	Met      bool   `json:"met"`
	// Policy and Conntrack are there where it was not met.
	Policy    []string `json:"policy,omitempty"`
	Conntrack string   `json:"conntrack,omitempty"`
	Note      string   `json:"note,omitempty"`
	// Pace is there where the machine may have been too slow for the scenario.
	Pace string `json:"pace,omitempty"`
}

func scenariosView(results []*scenario.Result) *labScenariosView {
	v := &labScenariosView{FormatVersion: formatVersion, Scenarios: []scenarioView{}}
	for _, r := range results {
		view := newScenarioView(r)
		v.Scenarios = append(v.Scenarios, view)
		v.Interrupted = v.Interrupted || view.Interrupted
	}
	return v
}

func newScenarioView(r *scenario.Result) scenarioView {
	v := scenarioView{
		Name: scenarioName(r.Scenario.File), File: r.Scenario.File, Title: r.Scenario.Title,
		Passed: r.Err == nil && !r.Failed() && r.Skipped == "", Skipped: r.Skipped, Seconds: scenarioSeconds(r.Timeline.Length),
		Timeouts: []timeoutView{}, Steps: []stepView{}, Timeline: r.Timeline,
	}
	switch {
	case r.Err == nil:
	case errors.Is(r.Err, context.Canceled):
		v.Interrupted = true
	default:
		v.Error = r.Err.Error()
	}
	for _, t := range r.Timeouts {
		v.Timeouts = append(v.Timeouts, timeoutView{t.Name, t.Was, t.Is})
	}
	for i := range r.Steps {
		s := &r.Steps[i]
		step := stepView{
			Name: s.Step.Name, Description: s.Step.Description, Passed: !s.Failed(), Seconds: scenarioSeconds(s.Took),
			Expectations: []expectationView{},
		}
		for _, e := range s.Verdicts {
			step.Expectations = append(step.Expectations, expectationView{
				Flow: e.Flow, File: e.At.Filename, Line: e.At.Start.Line, Expected: e.Expected, Seen: e.Seen, Met: e.Met,
				Policy: e.Policy, Conntrack: e.Entry, Note: e.Note, Pace: e.Pace,
			})
		}
		v.Steps = append(v.Steps, step)
	}
	return v
}

// scenarioSeconds rounds to milliseconds.
func scenarioSeconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
