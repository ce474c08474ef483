package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"sgc/internal/scenario"
	"sgc/policies"
)

// showScenario prints what a scenario found: a line for each step, and below
// it one for each expectation.
func (s *session) showScenario(r *scenario.Result) error {
	var b strings.Builder
	p := s.outPaint()
	head := p.bold(clean(scenarioName(r.Scenario.File)))
	if r.Scenario.Title != "" {
		head += ": " + clean(r.Scenario.Title)
	}
	fmt.Fprintln(&b, head)
	for _, line := range speedLines(r) {
		fmt.Fprintln(&b, "  "+p.dim(line))
	}
	for i := range r.Steps {
		step := &r.Steps[i]
		mark := p.green("✓")
		if step.Failed() {
			mark = p.red("✗")
		}
		fmt.Fprintf(&b, "  %s %s\n", mark, clean(step.Step.Name))
		width := 0
		for j := range step.Verdicts {
			width = max(width, utf8.RuneCountInString(step.Verdicts[j].Flow))
		}
		for j := range step.Verdicts {
			v := &step.Verdicts[j]
			expected, _, _ := strings.Cut(v.Expected, ":")
			line := fmt.Sprintf("%-*s  %s: %s", width, clean(v.Flow), expected, clean(v.Seen))
			if v.Met {
				line = p.dim(line)
			} else {
				line = p.red(line)
			}
			fmt.Fprintln(&b, "      "+line)
		}
	}
	if r.Skipped != "" {
		fmt.Fprintf(&b, "  %s this machine cannot play the rest: %s\n", p.bold("–"), clean(r.Skipped))
	}
	if r.Err != nil {
		fmt.Fprintf(&b, "  %s the scenario could not be played to its end\n", p.red("✗"))
	}
	b.WriteByte('\n')
	if _, err := io.WriteString(s.Out, b.String()); err != nil {
		return err
	}
	if err := s.writeVerdicts(s.Err, r); err != nil {
		return err
	}
	if r.Err != nil {
		s.complain(fmt.Sprintf("%s: %s", r.Scenario.File, r.Err))
		fmt.Fprintln(s.Err)
	}
	return nil
}

// writeVerdicts writes the expectations that were not met, each with its place.
func (s *session) writeVerdicts(w io.Writer, r *scenario.Result) error {
	report := &policies.Loaded{Files: map[string]*hcl.File{}}
	for name, f := range r.Scenario.Texts {
		report.Files[name] = f
	}
	for i := range r.Steps {
		for j := range r.Steps[i].Verdicts {
			if v := &r.Steps[i].Verdicts[j]; !v.Met {
				report.Diagnostics = append(report.Diagnostics, v.Diagnostic())
			}
		}
	}
	if len(report.Diagnostics) == 0 {
		return nil
	}
	if err := policies.WriteDiagnostics(w, report, s.Width, s.errPaint().on); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// shownTimeouts are the timeouts that policies and people speak of.
var shownTimeouts = []string{"tcp_established", "udp", "udp_stream", "icmp", "icmpv6", "generic"}

// speedLines say by how much everything was divided.
func speedLines(r *scenario.Result) []string {
	if r.Timeline.Speed <= 1 {
		return nil
	}
	lines := []string{fmt.Sprintf("%d times faster: waits, intervals and idle timeouts are divided by %d. Timeouts in whole seconds:", r.Timeline.Speed, r.Timeline.Speed)}
	var parts []string
	for _, name := range shownTimeouts {
		for _, t := range r.Timeouts {
			if t.Name == name {
				parts = append(parts, fmt.Sprintf("%s %d → %d", name, t.Was, t.Is))
			}
		}
	}
	if len(parts) == 0 {
		return lines
	}
	return append(lines, strings.Join(parts, ", "))
}

// showScenarioSummary prints how many scenarios were as expected.
func (s *session) showScenarioSummary(results []*scenario.Result) error {
	p := s.outPaint()
	passed, failed, broken, skipped := 0, 0, 0, 0
	var longest time.Duration
	for _, r := range results {
		switch {
		case r.Err != nil:
			broken++
		case r.Failed():
			failed++
		case r.Skipped != "":
			skipped++
		default:
			passed++
		}
		longest = max(longest, r.Timeline.Length)
	}
	text := fmt.Sprintf("%s: %s", plural(len(results), "scenario"), p.green(fmt.Sprintf("%d as expected", passed)))
	if failed > 0 {
		text += ", " + p.red(fmt.Sprintf("%d not as expected", failed))
	}
	if broken > 0 {
		text += ", " + p.red(fmt.Sprintf("%d could not be played", broken))
	}
	if skipped > 0 {
		text += ", " + p.bold(fmt.Sprintf("%d not to be played on this machine", skipped))
	}
	_, err := fmt.Fprintln(s.Out, text+".")
	return err
}
