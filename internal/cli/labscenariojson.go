package cli

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"sgc/internal/scenario"
)

// labScenariosView is the JSON form of lab run with scenarios.
type labScenariosView struct {
	FormatVersion int            `json:"format_version"`
	Scenarios     []scenarioView `json:"scenarios"`
}

type scenarioView struct {
	Name  string `json:"name"`
	File  string `json:"file"`
	Title string `json:"title,omitempty"`
	// Passed says that everything was as expected.
	Passed bool `json:"passed"`
	// Error says why the scenario could not be played to its end, and Skipped
	// why this machine cannot play it.
	Error   string  `json:"error,omitempty"`
	Skipped string  `json:"skipped,omitempty"`
	Seconds float64 `json:"seconds"`
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
}

func scenariosView(results []*scenario.Result) *labScenariosView {
	v := &labScenariosView{FormatVersion: formatVersion, Scenarios: []scenarioView{}}
	for _, r := range results {
		v.Scenarios = append(v.Scenarios, newScenarioView(r))
	}
	return v
}

func newScenarioView(r *scenario.Result) scenarioView {
	v := scenarioView{
		Name: scenarioName(r.Scenario.File), File: r.Scenario.File, Title: r.Scenario.Title,
		Passed: r.Err == nil && !r.Failed() && r.Skipped == "", Skipped: r.Skipped, Seconds: scenarioSeconds(r.Timeline.Length),
		Timeouts: []timeoutView{}, Steps: []stepView{}, Timeline: r.Timeline,
	}
	if r.Err != nil {
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
				Policy: e.Policy, Conntrack: e.Entry,
			})
		}
		v.Steps = append(v.Steps, step)
	}
	return v
}

// scenarioSeconds rounds to milliseconds.
func scenarioSeconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// JUnit's elements: a suite for each scenario, a case for each step.
//
// Source: the schema of the Jenkins xUnit plugin, junit-10.xsd.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Skipped  int          `xml:"skipped,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		File     string      `xml:"file,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name      string         `xml:"name,attr"`
		ClassName string         `xml:"classname,attr"`
		Time      string         `xml:"time,attr"`
		Failures  []junitProblem `xml:"failure"`
		Errors    []junitProblem `xml:"error"`
		Skipped   *junitProblem  `xml:"skipped"`
	}
	junitProblem struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// createJUnit opens the file of a report before anything is played, so that one
// that cannot be written is known then; nil for no file.
func createJUnit(name string) (*os.File, error) {
	if name == "" {
		return nil, nil
	}
	// What an earlier run found stays until there is something new.
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("write the JUnit report: %w", err)
	}
	return f, nil
}

func writeJUnit(f *os.File, results []*scenario.Result) error {
	text, err := xml.MarshalIndent(junitOf(results), "", "  ")
	if info, statErr := f.Stat(); err == nil && statErr == nil && info.Mode().IsRegular() {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteString(xml.Header + string(text) + "\n")
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the JUnit report: %w", err)
	}
	return nil
}

func junitOf(results []*scenario.Result) junitSuites {
	var all junitSuites
	for _, r := range results {
		suite := junitSuite{Name: scenarioName(r.Scenario.File), File: r.Scenario.File, Time: junitTime(r.Timeline.Length)}
		for i := range r.Steps {
			s := &r.Steps[i]
			c := junitCase{Name: s.Step.Name, ClassName: suite.Name, Time: junitTime(s.Took)}
			for _, v := range s.Verdicts {
				if !v.Met {
					d := v.Diagnostic()
					c.Failures = append(c.Failures, junitProblem{Message: d.Summary, Text: fmt.Sprintf("%s:%d\n%s\n", v.At.Filename, v.At.Start.Line, d.Detail)})
				}
			}
			if len(c.Failures) > 0 {
				suite.Failures++
			}
			suite.Cases = append(suite.Cases, c)
		}
		if r.Err != nil {
			message, _, _ := strings.Cut(r.Err.Error(), "\n")
			suite.Errors++
			suite.Cases = append(suite.Cases, junitCase{
				Name: "played to its end", ClassName: suite.Name, Time: junitTime(0),
				Errors: []junitProblem{{Message: message, Text: r.Err.Error()}},
			})
		}
		if r.Skipped != "" {
			suite.Skipped++
			suite.Cases = append(suite.Cases, junitCase{
				Name: "played to its end", ClassName: suite.Name, Time: junitTime(0), Skipped: &junitProblem{Message: r.Skipped},
			})
		}
		suite.Tests = len(suite.Cases)
		all.Tests += suite.Tests
		all.Failures += suite.Failures
		all.Errors += suite.Errors
		all.Skipped += suite.Skipped
		all.Suites = append(all.Suites, suite)
	}
	return all
}

func junitTime(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
