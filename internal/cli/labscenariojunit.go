package cli

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"sgc/internal/scenario"
	"sgc/policies"
)

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

const junitReport = "the JUnit report"

// checkJUnitName says what is wrong with the name of a report.
func checkJUnitName(name string) error {
	switch {
	case name == "":
		return errors.New("the value of --junit is empty; leave the flag out, or name a file")
	case strings.HasSuffix(name, ".hcl"):
		return fmt.Errorf("--junit names the file to write, and %s is a policy or a scenario: --junit report.xml %s", name, name)
	}
	return nil
}

// text is the report as the file holds it.
func (all *junitSuites) text() ([]byte, error) {
	text, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the JUnit report: %w", err)
	}
	return []byte(xml.Header + string(text) + "\n"), nil
}

// add counts what a suite found.
func (all *junitSuites) add(suite junitSuite) {
	for _, c := range suite.Cases {
		suite.Tests++
		switch {
		case len(c.Failures) > 0:
			suite.Failures++
		case len(c.Errors) > 0:
			suite.Errors++
		case c.Skipped != nil:
			suite.Skipped++
		}
	}
	all.Tests += suite.Tests
	all.Failures += suite.Failures
	all.Errors += suite.Errors
	all.Skipped += suite.Skipped
	all.Suites = append(all.Suites, suite)
}

// junitOf is the report of a run.
func junitOf(results []*scenario.Result) *junitSuites {
	all := &junitSuites{}
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
			suite.Cases = append(suite.Cases, c)
		}
		if r.Err != nil {
			suite.Cases = append(suite.Cases, junitCase{
				Name: "played to its end", ClassName: suite.Name, Time: junitTime(0),
				Errors: []junitProblem{newJUnitProblem(r.Err.Error())},
			})
		}
		if r.Skipped != "" {
			suite.Cases = append(suite.Cases, junitCase{
				Name: "played to its end", ClassName: suite.Name, Time: junitTime(0), Skipped: &junitProblem{Message: r.Skipped},
			})
		}
		all.add(suite)
	}
	return all
}

func junitTime(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// notBegun is called with the error of a run that has played nothing. It tells
// the JUnit report of it, too: else that of the run before would stand for this
// one. An interrupted run leaves it as it was.
func (s *session) notBegun(ctx context.Context, o scenarioOptions, all *junitSuites, err error) error {
	if o.JUnit == "" || checkJUnitName(o.JUnit) != nil || ctx.Err() != nil {
		return err
	}
	text, failed := all.text()
	if failed == nil {
		var file *resultFile
		if file, failed = openResult(junitReport, o.JUnit); failed == nil {
			failed = file.write(text)
		}
	}
	if failed != nil {
		s.complain(failed.Error())
	}
	return err
}

// junitOfError is the report of a run that could not begin: each of its scenarios
// has the error, or the run itself where it has none.
func junitOfError(files []string, err error) *junitSuites {
	problem := newJUnitProblem(err.Error())
	all := &junitSuites{}
	for _, file := range files {
		name := scenarioName(file)
		all.add(junitSuite{Name: name, File: file, Time: junitTime(0), Cases: []junitCase{{
			Name: "played to its end", ClassName: name, Time: junitTime(0), Errors: []junitProblem{problem},
		}}})
	}
	if len(files) == 0 {
		all.add(junitSuite{Name: "sgc lab run", Time: junitTime(0), Cases: []junitCase{{
			Name: "begun", ClassName: "sgc lab run", Time: junitTime(0), Errors: []junitProblem{problem},
		}}})
	}
	return all
}

// junitOfLoad is the report of a run that some scenarios with errors keep from
// beginning. The others have not been played.
func junitOfLoad(files []string, loads []*scenario.Loaded) *junitSuites {
	all := &junitSuites{}
	for i, file := range files {
		name := scenarioName(file)
		c := junitCase{Name: "loaded", ClassName: name, Time: junitTime(0)}
		report := loads[i].Report
		if n := slices.IndexFunc(report.Diagnostics, func(d *hcl.Diagnostic) bool { return d.Severity == hcl.DiagError }); n >= 0 {
			var text strings.Builder
			// A builder takes all that is written.
			_ = policies.WriteDiagnostics(&text, report, 0, false)
			c.Errors = []junitProblem{{Message: report.Diagnostics[n].Summary, Text: text.String()}}
		} else {
			c.Skipped = &junitProblem{Message: "not played, since another scenario has errors"}
		}
		all.add(junitSuite{Name: name, File: file, Time: junitTime(0), Cases: []junitCase{c}})
	}
	return all
}

// newJUnitProblem has the first line of a text for its message.
func newJUnitProblem(text string) junitProblem {
	message, _, _ := strings.Cut(text, "\n")
	return junitProblem{Message: message, Text: text}
}
