package cli

import (
	"bytes"
	"encoding/xml"
	"strings"
	"testing"

	"sgc/internal/scenario"
)

// A scenario that the machine cannot play is neither as expected nor wrong, and
// everybody is told why.
func TestScenarioThatIsNotForThisMachine(t *testing.T) {
	step := &scenario.Step{Name: "there is room"}
	r := &scenario.Result{
		Scenario: &scenario.Scenario{File: "full.lab.hcl", Title: "A full table"},
		Timeline: &scenario.Timeline{Speed: 1},
		Steps:    []scenario.StepResult{{Step: step, Verdicts: []scenario.Verdict{{Flow: "ping", Expected: "allowed: all", Seen: "all", Met: true}}}},
		Skipped:  "its conntrack table has no limit",
	}
	var out, errout bytes.Buffer
	s := &session{Streams: Streams{Out: &out, Err: &errout}, globals: globals{NoColor: true}}
	if err := s.showScenario(r); err != nil {
		t.Fatal(err)
	}
	if err := s.showScenarioSummary([]*scenario.Result{r}); err != nil {
		t.Fatal(err)
	}
	want := `full: A full table
  ✓ there is room
      ping  allowed: all
  – this machine cannot play the rest: its conntrack table has no limit

1 scenario: 0 as expected, 1 not to be played on this machine.
`
	if out.String() != want || errout.Len() > 0 {
		t.Error(unified("want", "got", want, out.String()), errout.String())
	}
	if v := newScenarioView(r); v.Passed || v.Skipped != r.Skipped || v.Error != "" {
		t.Errorf("got %+v", v)
	}
	text, err := xml.Marshal(junitOf([]*scenario.Result{r}))
	if err != nil {
		t.Fatal(err)
	}
	if want := `<skipped message="its conntrack table has no limit"></skipped>`; !strings.Contains(string(text), want) || !strings.Contains(string(text), `tests="2" failures="0" errors="0" skipped="1"`) {
		t.Errorf("%q is not in %s", want, text)
	}
}
