package cli

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sgc/internal/lab/labtest"
)

// Whatever is expected wrongly is told, each in its own words.
func TestScenarioThatIsAllWrong(t *testing.T) {
	t.Parallel()
	labtest.Require(t)
	text := strings.Replace(pingScenario, `protocol    = "tcp"
      ports       = [22]`, `protocol    = "icmp"
      from_port   = 8
      to_port     = -1`, 1)
	head, _, _ := strings.Cut(text, "step \"closed\"")
	flow := func(kind, name, more string) string {
		return fmt.Sprintf("  %s %q {\n    protocol = \"icmp\"\n    from     = \"client\"\n    to       = \"server\"\n%s  }\n", kind, name, more)
	}
	expect := func(name, what string) string { return fmt.Sprintf("  expect %q {\n    %s\n  }\n", name, what) }
	path := writeScenario(t, "wrong.lab.hcl", head+`step "all wrong" {
  apply "closed" {}
`+flow("start", "ping", "    interval = \"20ms\"\n    count    = 5\n")+
		flow("start", "late", "    interval = \"1h\"\n")+`
  wait {
    flow   = "ping"
    passed = 5
  }
  wait {
    flow = "late"
    sent = 1
  }
`+flow("check", "passes", "    traffic = \"refused\"\n    tracked = false\n")+
		strings.Replace(flow("check", "does not pass", "    traffic = \"allowed\"\n    tracked = true\n    port = 23\n"), "icmp", "tcp", 1)+
		expect("ping", `traffic = "refused"`)+
		expect("ping", `traffic = "cut"`)+
		expect("ping", `traffic = "survives"`)+
		expect("ping", `tracked = false`)+
		expect("ping", `timeout = "300s"`)+
		expect("ping", `sent = 6`)+
		expect("ping", `passed = 4`)+
		expect("ping", `first_passed = 2`)+
		expect("ping", "traffic = \"allowed\"\n    within = \"1ms\"\n    passed = 99")+`
  counter "security_group.web.ingress.ssh" {
    packets = 99
  }
}
step "nothing more is sent" {
  apply "closed" {}
  wait "10ms" {}
`+expect("ping", `traffic = "allowed"`)+expect("ping", `traffic = "refused"`)+expect("ping", `traffic = "survives"`)+expect("ping", `traffic = "cut"`)+"}\n")
	code, out, errout := runScenarios(t, context.Background(), "lab", "run", "--json", path)
	if code != exitDifferent {
		t.Fatalf("exit %d: %s%s", code, out, errout)
	}
	var v struct {
		Scenarios []struct {
			Steps []stepView `json:"steps"`
		} `json:"scenarios"`
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, step := range v.Scenarios[0].Steps {
		for _, e := range step.Expectations {
			if e.Met {
				t.Errorf("met: %+v", e)
			}
			if e.Flow != "security_group.web.ingress.ssh" && (len(e.Policy) != 1 || e.Conntrack == "") {
				t.Errorf("not explained: %+v", e)
			}
			_, problem, _ := strings.Cut(e.Seen, "; ")
			got = append(got, e.Flow+": "+problem)
		}
	}
	// It looks again and again, and a second one may have passed before it does.
	if len(got) > 0 {
		got[0] = regexp.MustCompile(`^passes: [123] passed`).ReplaceAllString(got[0], "passes: N passed")
	}
	want := []string{
		"passes: N passed; conntrack has an entry of it",
		"does not pass: server sent 0, 0 arrived; none passed; conntrack has no entry of it",
		"security_group.web.ingress.ssh: ",
		"ping: 5 passed",
		"ping: nothing had passed before, so there is nothing to cut",
		"ping: nothing had passed before, so there is nothing to survive",
		"ping: conntrack has an entry of it",
		"ping: the entry ends in",
		"ping: 5 sent",
		"ping: 5 passed",
		"ping: the first that passed is number 1",
		"ping: 5 passed",
		"ping: nothing was sent in that time",
		"ping: client sent nothing in that time, so nothing is shown",
		"ping: client sent nothing in that time, so nothing is shown",
		"ping: client sent nothing in that time, so nothing is shown",
	}
	if len(got) != len(want) {
		t.Fatalf("got %d expectations: %q", len(got), got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("got %q, want %q", got[i], want[i])
		}
	}
}

// What programs read says the same, packet by packet.
func TestScenarioForPrograms(t *testing.T) {
	t.Parallel()
	labtest.Require(t)
	good := writeScenario(t, "good.lab.hcl", strings.Replace(pingScenario, "EXPECTED", "refused", 1))
	bad := writeScenario(t, "bad.lab.hcl", strings.Replace(pingScenario, "EXPECTED", "survives", 1))
	junit := filepath.Join(t.TempDir(), "junit.xml")
	code, out, errout := runScenarios(t, context.Background(), "lab", "run", "--json", "--speed=2", "--parallel=2", "--junit="+junit, good, bad)
	if code != exitDifferent || errout != "" {
		t.Errorf("exit %d: %s", code, errout)
	}
	var v labScenariosView
	if err := json.Unmarshal([]byte(strings.ReplaceAll(strings.ReplaceAll(out, `"side": "opener"`, `"side": 0`), `"side": "responder"`, `"side": 1`)), &v); err != nil {
		t.Fatal(err)
	}
	if v.FormatVersion != formatVersion || len(v.Scenarios) != 2 || !v.Scenarios[0].Passed || v.Scenarios[1].Passed {
		t.Fatalf("got %+v", v)
	}
	for i, sc := range v.Scenarios {
		tl := sc.Timeline
		if sc.Name != []string{"good", "bad"}[i] || len(sc.Steps) != 2 || len(sc.Steps[0].Expectations) != 2 || len(sc.Timeouts) == 0 {
			t.Errorf("got %+v", sc)
		}
		if tl.Speed != 2 || len(tl.Lanes) != 1 || len(tl.Marks) != 1 || len(tl.Steps) != 2 {
			t.Fatalf("got %+v", tl)
		}
		l := tl.Lanes[0]
		if l.Name != "ping" || l.Title != "ping client → server, id 7" || !l.Answered || l.Source.String() != "192.0.2.77:0" || len(l.Packets) < 3 {
			t.Errorf("got %+v", l)
		}
		for n, p := range l.Packets {
			if p.Seq != n+1 || p.Answered != 0 || p.Arrived != 0 || p.Sent < tl.Marks[0].Ended || p.Sent > l.Ended {
				t.Errorf("packet %d is %+v", n, p)
			}
		}
	}
	e := v.Scenarios[1].Steps[0].Expectations[1]
	if e.Met || e.Flow != "ping" || e.Line != 42 || e.File != bad || len(e.Policy) != 1 || e.Conntrack != "no entry of it" {
		t.Errorf("got %+v", e)
	}
	checkJUnit(t, junit)
}

func checkJUnit(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var suites junitSuites
	if err := xml.Unmarshal(text, &suites); err != nil {
		t.Fatal(err)
	}
	if suites.Tests != 4 || suites.Failures != 1 || suites.Errors != 0 || len(suites.Suites) != 2 {
		t.Errorf("got %+v", suites)
	}
	bad := suites.Suites[1]
	if bad.Name != "bad" || bad.Tests != 2 || bad.Failures != 1 || len(bad.Cases) != 2 || len(bad.Cases[1].Failures) != 0 {
		t.Fatalf("got %+v", bad)
	}
	failures := bad.Cases[0].Failures
	if len(failures) != 1 || failures[0].Message != "Not as expected: ping" ||
		!strings.Contains(failures[0].Text, "bad.lab.hcl:42\nExpected: survives") || !strings.Contains(failures[0].Text, "nothing had passed before") {
		t.Errorf("got %+v", failures)
	}
}
