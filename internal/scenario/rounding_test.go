package scenario

import (
	"strings"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/policies"
)

// silences is a scenario with a ping and waits.
const silences = twoHosts + `
step "s" {
  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    count    = 3
  }
  WAITS
}
`

// A timeout that is rounded up is named where a silence of the scenario lies between
// what it is and what it lasts, and nowhere else.
func TestSpeedWarning(t *testing.T) {
	for _, tt := range []struct {
		name, waits string
		speed       int
		want        string
	}{
		{"40 s of silence end it at 30 s", `wait "40s" {}`, 1, ""},
		{"and at speed 30", `wait "40s" {}`, 30, ""},
		{"not at 100", `wait "40s" {}`, 100, "at speed 100 an idle timeout outlasts a wait that should outlast it, since the kernel counts whole seconds: " +
			"icmp 30s is 1s, as long as 1m40s of the scenario; try --speed 39"},
		{"nor where two waits are that long", "wait \"20s\" {}\nwait \"20s\" {}", 100, "icmp 30s is 1s"},
		{"of 20 s it is longer anyway", `wait "20s" {}`, 100, ""},
		{"of 200 s it is shorter anyway", `wait "200s" {}`, 100, ""},
		{"a real wait is not divided", "wait \"40s\" {\nreal = true\n}", 100, ""},
		{"an interval is a silence, too", "start \"slow\" {\nprotocol = \"icmp\"\nfrom = \"client\"\nto = \"server\"\ninterval = \"40s\"\n}", 100, "icmp 30s is 1s"},
	} {
		l := LoadText("speed.lab.hcl", []byte(strings.Replace(silences, "WAITS", tt.waits, 1)))
		if l.Scenario == nil {
			t.Fatal(l.Report.Diagnostics)
		}
		got := l.Scenario.SpeedWarning(tt.speed)
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if _, after, found := strings.Cut(got, "--speed "); found && after == "39" && l.Scenario.SpeedWarning(39) != "" {
			t.Error("at the speed that it names it warns as well")
		}
	}
}

// Timeouts of flows that the scenario does not have are nobody's concern.
func TestSpeedWarningIsOfTheScenariosFlows(t *testing.T) {
	text := strings.NewReplacer("WAITS", `wait "200s" {}`, `"icmp"`, "\"udp\"\nport = 53").Replace(silences)
	l := LoadText("speed.lab.hcl", []byte(text))
	if l.Scenario == nil {
		t.Fatal(l.Report.Diagnostics)
	}
	if got := l.Scenario.SpeedWarning(250); !strings.Contains(got, "udp_stream 3m is 1s, as long as 4m10s of the scenario; try") || strings.Contains(got, "icmp") {
		t.Errorf("got %q", got)
	}
}

// An expectation that is not met says it as well.
func TestFailureNamesARoundedTimeout(t *testing.T) {
	r, p := paused(t, flow.ICMP)
	p.interval = time.Hour // so that it is not the machine that lets it be silent
	r.scenario.Steps = []*Step{{Name: "step", Actions: []Action{&Begin{p.spec}, &Wait{For: 40 * time.Second}}}}
	j := &judgement{run: r, p: p}
	j.idleName, j.idle = idleTimeout(&policies.Policy{}, &Host{Name: "server"}, p.spec)
	for speed, want := range map[int]string{
		10: "", 30: "",
		100: "the kernel counts timeouts in whole seconds: the idle timeout icmp 30s is 1s, as long as 1m40s of the scenario; try --speed 39",
	} {
		r.speed = speed
		if got := j.pace(); got != want {
			t.Errorf("at speed %d: %q, want %q", speed, got, want)
		}
	}
}

// The examples mean at their own speed what they say.
func TestExamplesNeedNoSpeedWarning(t *testing.T) {
	files, err := Find("../../examples/lab")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		l := Load(file)
		if l.Scenario == nil {
			t.Fatal(l.Report.Diagnostics)
		}
		if got := l.Scenario.SpeedWarning(l.Scenario.Speed); got != "" {
			t.Errorf("%s: %s", file, got)
		}
	}
	l := Load("../../examples/lab/removing-a-rule/scenario.lab.hcl")
	if got := l.Scenario.SpeedWarning(60); !strings.Contains(got, "icmp 30s is 1s, as long as 1m of the scenario") {
		t.Errorf("got %q", got)
	}
}
