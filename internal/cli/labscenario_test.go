package cli

import (
	"bytes"
	"context"
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
			playOnAnyMachine(t, file)
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
  wait {
    flow = "ping"
    sent = 3
  }

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
	t.Parallel()
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
  ping.lab.hcl:42:3, in step "closed":
    42 |   expect "ping" {
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
	// If the machine was late, that is said, too.
	got = regexp.MustCompile(`\n  But .*: this machine was too slow for it; .*`).ReplaceAllString(got, "")
	if got != wantErr {
		t.Error(unified("want", "got", wantErr, got))
	}
}

// A scenario that cannot be played to its end is an error, and the others are
// played all the same.
func TestScenarioThatCannotBePlayed(t *testing.T) {
	t.Parallel()
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
	if code != exitError || errout != "Error: interrupted; nothing was changed\n" || time.Since(begun) > time.Minute {
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
		{"speed 0", []string{"--speed=0", good}, "--speed is a whole number from 1 to 1000, not 0"},
		{"speed of letters", []string{"--speed=abc", good}, "--speed is a whole number from 1 to 1000, not abc"},
		{"a directory with nothing", []string{t.TempDir()}, "there is nothing to run in "},
		{"parallel 0", []string{"--parallel=0", good}, "--parallel is the number of scenarios to play at once, a whole number from 1, not 0"},
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
