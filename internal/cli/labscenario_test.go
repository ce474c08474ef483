package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sgc/internal/lab/labtest"
	"sgc/internal/scenario"
)

// TestScenarios plays every scenario of the examples, and some of its own.
func TestScenarios(t *testing.T) {
	var files []string
	for _, dir := range []string{"../../examples/lab", "testdata/scenarios"} {
		found, err := scenario.Find(dir)
		if err != nil || len(found) == 0 {
			t.Fatalf("no scenarios in %s: %v", dir, err)
		}
		files = append(files, found...)
	}
	// They wait more than they work, but each has an apply or two at its heart.
	places := make(chan struct{}, 4)
	for _, file := range files {
		name := strings.TrimSuffix(file, scenario.Extension)
		t.Run(filepath.Base(filepath.Dir(name))+"/"+filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			labtest.Require(t)
			places <- struct{}{}
			defer func() { <-places }()
			code, out, errout := runScenarios(t, context.Background(), "lab", "run", file)
			if code != exitOK {
				t.Errorf("exit %d\n%s%s", code, out, errout)
			}
		})
	}
}

// runScenarios runs a command of the lab.
func runScenarios(t *testing.T, ctx context.Context, args ...string) (code int, out, errout string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = Run(ctx, append([]string{"sgc"}, args...), Streams{In: strings.NewReader(""), Out: &stdout, Err: &stderr, Environ: os.Environ()})
	return code, stdout.String(), stderr.String()
}

// pingScenario pings a server that lets nobody in, and expects something.
const pingScenario = `title = "a ping that is refused"

host "server" {
  managed   = true
  addresses = ["192.0.2.10/24"]
}

host "client" {
  addresses = ["192.0.2.77/24"]
}

policy "closed" {
  security_group "web" {
    ingress "ssh" {
      protocol    = "tcp"
      ports       = [22]
      cidr_blocks = ["192.0.2.77/32"]
    }
  }

  interface "eth0" {
    security_groups = [security_group.web]
  }
}

step "closed" {
  apply "closed" {}

  start "ping" {
    protocol = "icmp"
    from     = "client"
    to       = "server"
    id       = 7
    interval = "50ms"
  }
  wait "200ms" {}

  expect "ping" {
    traffic = "EXPECTED"
  }
  counter "security_group.web.ingress.ssh" {
    packets = 0
  }
}

step "nothing" {}
`

func writeScenario(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// numbers hides what differs from run to run.
var numbers = regexp.MustCompile(`\bsent [0-9]+, [0-9]+`)

// An expectation that is not met explains itself: where it stands, what was
// expected and seen, what the policy says of the flow, and its entry.
func TestScenarioThatFailsExplainsItself(t *testing.T) {
	labtest.Require(t)
	path := writeScenario(t, "ping.lab.hcl", strings.Replace(pingScenario, "EXPECTED", "allowed", 1))
	code, out, errout := runScenarios(t, context.Background(), "lab", "run", path)
	if code != exitDifferent {
		t.Errorf("exit %d", code)
	}
	mask := func(s string) string {
		return numbers.ReplaceAllString(strings.ReplaceAll(s, filepath.Dir(path)+"/", ""), "sent N, N")
	}
	wantOut := `ping: a ping that is refused
  ✗ closed
      security_group.web.ingress.ssh  the rule itself lets through 0: it let through 0
      ping                            allowed: client sent N, N answered; N lost
  ✓ nothing

1 scenario: 0 as expected, 1 not as expected.
`
	wantErr := `Error: Not as expected: ping
  ping.lab.hcl:38:3, in step "closed":
    38 |   expect "ping" {
       |   ^^^^^^^^^^^^^
  Expected: allowed: what is sent passes.
  Seen: client sent N, N answered; N lost.
  The policy: eth0 ingress, a new icmp 192.0.2.77 → 192.0.2.10 is dropped: no ingress rule of the groups of interface.eth0 allows it.
  Conntrack: no entry of it.

`
	got := regexp.MustCompile(`; [0-9]+ lost`).ReplaceAllString(mask(out), "; N lost")
	if got != wantOut {
		t.Error(unified("want", "got", wantOut, got))
	}
	got = regexp.MustCompile(`; [0-9]+ lost`).ReplaceAllString(mask(errout), "; N lost")
	if got != wantErr {
		t.Error(unified("want", "got", wantErr, got))
	}
}

// Whatever is expected wrongly is told, each in its own words.
func TestScenarioThatIsAllWrong(t *testing.T) {
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
  wait "500ms" {}
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
	want := []string{
		"passes: 1 passed; conntrack has an entry of it",
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
		"ping: client sent nothing in that time, so nothing is shown; wait longer",
		"ping: client sent nothing in that time, so nothing is shown; wait longer",
		"ping: client sent nothing in that time, so nothing is shown; wait longer",
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
			if p.Seq != n+1 || p.Answered != 0 || p.Arrived != 0 || p.Sent < tl.Marks[0].Ended || p.Sent > tl.Length+time.Second {
				t.Errorf("packet %d is %+v", n, p)
			}
		}
	}
	e := v.Scenarios[1].Steps[0].Expectations[1]
	if e.Met || e.Flow != "ping" || e.Line != 38 || e.File != bad || len(e.Policy) != 1 || e.Conntrack != "no entry of it" {
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
		!strings.Contains(failures[0].Text, "bad.lab.hcl:38\nExpected: survives") || !strings.Contains(failures[0].Text, "nothing had passed before") {
		t.Errorf("got %+v", failures)
	}
}

// A scenario that cannot be played to its end is an error, and the others are
// played all the same.
func TestScenarioThatCannotBePlayed(t *testing.T) {
	labtest.Require(t)
	refused := strings.Replace(pingScenario, "EXPECTED", "refused", 1)
	// The kernel takes a route once.
	route := "  route {\n    to  = \"10.0.0.0/8\"\n    via = \"192.0.2.10\"\n  }\n"
	broken := strings.Replace(refused, `host "client" {`, "host \"client\" {\n"+route+route, 1)
	junit := filepath.Join(t.TempDir(), "junit.xml")
	code, out, errout := runScenarios(t, context.Background(), "lab", "run", "--junit", junit, writeScenario(t, "broken.lab.hcl", broken), writeScenario(t, "good.lab.hcl", refused))
	if code != exitError {
		t.Errorf("exit %d\n%s%s", code, out, errout)
	}
	for _, want := range []string{
		"2 scenarios: 1 as expected, 1 could not be played.\n", "✗ the scenario could not be played to its end",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if want := `broken.lab.hcl: build the scenario's network: add route to 10.0.0.0/8 in client: file exists`; !strings.Contains(errout, want) {
		t.Errorf("%q is not in\n%s", want, errout)
	}
	text, err := os.ReadFile(junit)
	if err != nil || !strings.Contains(string(text), `<error message="build the scenario&#39;s network: add route`) {
		t.Errorf("%v:\n%s", err, text)
	}
}

// An interrupt ends all scenarios in order, and keeps nothing.
func TestScenariosEndInOrder(t *testing.T) {
	labtest.Require(t)
	t.Setenv("TMPDIR", t.TempDir())
	path := writeScenario(t, "long.lab.hcl", strings.Replace(strings.Replace(pingScenario, "EXPECTED", "refused", 1), `wait "200ms"`, `wait "1h"`, 1))
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(500*time.Millisecond, cancel)
	begun := time.Now()
	code, out, errout := runScenarios(t, ctx, "lab", "run", path, writeScenario(t, "other.lab.hcl", strings.Replace(pingScenario, "EXPECTED", "refused", 1)))
	if code != exitError || errout != "Error: interrupted; nothing was changed\n" || time.Since(begun) > 20*time.Second {
		t.Errorf("exit %d after %s\n%s%s", code, time.Since(begun), out, errout)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "*")); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
}

func TestScenarioOptions(t *testing.T) {
	good := writeScenario(t, "good.lab.hcl", strings.Replace(pingScenario, "EXPECTED", "refused", 1))
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"speed of a policy", []string{"--speed=2", "../../examples/web"}, "--speed is for scenarios (files whose names end in .lab.hcl), and none was named"},
		{"a table of a scenario", []string{"--table", good}, "--table is for trying a policy, and " + good + " is a scenario; leave it out"},
		{"a variable of a scenario", []string{"--var=a=b", good}, "--var is for trying a policy"},
		{"a scenario and a policy", []string{good, "../../examples/web"}, "there is no scenario in ../../examples/web"},
		{"speed 0", []string{"--speed=0", good}, "--speed is a number from 1 to 1000, not 0"},
		{"parallel 0", []string{"--parallel=0", good}, "--parallel is the number of scenarios to play at once, not 0"},
		{"no file", []string{"--junit=", good}, "the value of --junit is empty"},
		{"nowhere to write", []string{"--junit=/nowhere/x.xml", good}, "write the JUnit report: open /nowhere/x.xml"},
		{"a scenario that is not there", []string{"nowhere.lab.hcl"}, "look for scenarios in nowhere.lab.hcl: no such file or directory"},
		{"empty path", []string{""}, "the path is empty"},
		{"two policies", []string{"../../examples/web", "../../examples/web"}, "lab run takes one policy, not 2, or any number of scenarios"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.HasPrefix(tt.want, "write") {
				labtest.Require(t)
			}
			code, _, errout := runScenarios(t, context.Background(), append([]string{"lab", "run"}, tt.args...)...)
			if code != exitError || !strings.HasPrefix(errout, "Error: "+tt.want) {
				t.Errorf("exit %d: %s", code, errout)
			}
		})
	}
}

// What a second run is told means the same as what the first was.
func TestScenarioArgumentsOfASecondRun(t *testing.T) {
	o := scenarioOptions{Paths: []string{"-x", "y"}, Speed: 3, Parallel: 2, JUnit: "a b"}
	s := &session{}
	l, err := arrange(o.arguments(globals{JSON: true}), s.commands())
	if err != nil {
		t.Fatal(err)
	}
	want := "[lab --speed=3 --junit=a b --parallel=2 --json=true --no-color=false -- run -x y]"
	if got := fmt.Sprint(l.words); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A policy lies beside scenarios without being one of them.
func TestScenariosBesideAPolicy(t *testing.T) {
	labtest.Require(t)
	s := newStage(t, false)
	s.write("web.hcl", webPolicy)
	s.write("ping.lab.hcl", "this is no policy")
	s.mustRun("validate", s.dir)
	if code, out, errout := runScenarios(t, context.Background(), "lab", "run", "--table", s.dir); code != exitOK || !strings.Contains(out, "table inet sgc") {
		t.Errorf("exit %d: %s", code, errout)
	}
	if r := s.sgc(context.Background(), nil, "validate", filepath.Join(s.dir, "ping.lab.hcl")); r.code != exitError || !strings.Contains(r.err, "it is a scenario of the lab, which sgc lab run plays") {
		t.Errorf("got %+v", r)
	}
}
