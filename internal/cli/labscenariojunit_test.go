package cli

import (
	"context"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sgc/internal/lab/labtest"
)

// readJUnit reads a report.
func readJUnit(t *testing.T, file string) (suites junitSuites) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(text, &suites); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return suites
}

// green is what a run before may have left.
const green = `<testsuites tests="1" failures="0" errors="0"></testsuites>`

// A run that does not begin tells the JUnit report, where that of the run before
// would else stand for it.
func TestJUnitOfARunThatDoesNotBegin(t *testing.T) {
	good := writeScenario(t, "good.lab.hcl", pingScenarioOf("refused"))
	bad := writeScenario(t, "bad.lab.hcl", strings.Replace(pingScenarioOf("refused"), `to       = "server"`, `to       = "sevrer"`, 1))
	for _, tt := range []struct {
		name string
		args []string
		// suites are the names of the suites, and of these that have an error.
		suites, broken, message, text string
		kernel                        bool
	}{
		{"a scenario with errors", []string{bad, good}, "bad good", "bad", "Unknown host", `There is no host "sevrer". Did you mean "server"?`, false},
		{"one that is not there", []string{"nowhere.lab.hcl"}, "sgc lab run", "sgc lab run", "look for scenarios in nowhere.lab.hcl: no such file or directory", "", false},
		{"no scenario at all", []string{"../../examples/web"}, "sgc lab run", "sgc lab run", "--junit is for scenarios (files whose names end in .lab.hcl), and none was named", "", false},
		{"a flag that is wrong", []string{"--speed=0", good}, "good", "good", "--speed is a whole number from 1 to 1000, not 0", "", false},
		{"a picture that cannot be written", []string{"--report=/nowhere/x.svg", good}, "good", "good", "write the picture: open /nowhere/x.svg: no such file or directory", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.kernel {
				labtest.Require(t)
			}
			junit := filepath.Join(t.TempDir(), "junit.xml")
			if err := os.WriteFile(junit, []byte(green), 0o600); err != nil {
				t.Fatal(err)
			}
			code, out, errout := runScenarios(t, context.Background(), append([]string{"lab", "run", "--junit", junit}, tt.args...)...)
			if code != exitError || out != "" || strings.Count(errout, "Error:") != 1 {
				t.Errorf("exit %d\n%s%s", code, out, errout)
			}
			all := readJUnit(t, junit)
			var names, broken []string
			for _, s := range all.Suites {
				names = append(names, s.Name)
				if len(s.Cases) != 1 || s.Tests != 1 || s.Failures != 0 {
					t.Fatalf("got %+v", s)
				}
				c := s.Cases[0]
				if len(c.Errors) == 0 {
					if c.Skipped == nil || s.Skipped != 1 {
						t.Errorf("what was not played looks green: %+v", s)
					}
					continue
				}
				broken = append(broken, s.Name)
				if s.Errors != 1 || c.Errors[0].Message != tt.message || !strings.Contains(c.Errors[0].Text, tt.text) {
					t.Errorf("got %+v", s)
				}
			}
			if strings.Join(names, " ") != tt.suites || strings.Join(broken, " ") != tt.broken || all.Errors != len(broken) || all.Tests != len(names) {
				t.Errorf("got %+v", all)
			}
		})
	}
}

// So does one that the system gives no namespaces.
func TestJUnitOfARunWithoutNamespaces(t *testing.T) {
	cmd := asNobody(t, "lab", "run", "--junit", "junit.xml", "web/ping.lab.hcl")
	for name, text := range map[string]string{"web/ping.lab.hcl": pingScenarioOf("refused"), "junit.xml": green} {
		if err := os.WriteFile(filepath.Join(cmd.Dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(cmd.Dir, "junit.xml"), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	// The process takes itself for the second one, which has got no rights.
	cmd.Env = append(cmd.Env, "SGC_LAB_USER_NAMESPACE=1")
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != exitError {
		t.Errorf("%s\n%s", cmd.ProcessState, out)
	}
	all := readJUnit(t, filepath.Join(cmd.Dir, "junit.xml"))
	if all.Errors != 1 || !strings.HasPrefix(all.Suites[0].Cases[0].Errors[0].Message, "the lab needs network namespaces") {
		t.Errorf("got %+v", all)
	}
}

// A report goes to no file that is a policy or a scenario: somebody has left its
// name out.
func TestJUnitIsNoScenario(t *testing.T) {
	text := pingScenarioOf("refused")
	path := writeScenario(t, "good.lab.hcl", text)
	code, _, errout := runScenarios(t, context.Background(), "lab", "run", "--junit", path)
	if want := "Error: --junit names the file to write, and " + path + " is a policy or a scenario: --junit report.xml " + path + "\n"; code != exitError || errout != want {
		t.Errorf("exit %d: %s", code, errout)
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != text {
		t.Errorf("%v: the scenario is\n%s", err, now)
	}
}

// A scenario whose name does not say that it is one is not taken for a policy.
func TestScenarioOfAnotherName(t *testing.T) {
	path := writeScenario(t, "ping.hcl", pingScenarioOf("refused"))
	good := writeScenario(t, "good.lab.hcl", pingScenarioOf("refused"))
	want := "Error: " + path + " looks like a scenario, but its name does not say so: the file of a scenario is named ping.lab.hcl\n"
	for _, args := range [][]string{{path}, {filepath.Dir(path)}, {good, path}, {"--junit=" + t.TempDir() + "/x.xml", path}, {"--table", path}} {
		if code, _, errout := runScenarios(t, context.Background(), append([]string{"lab", "run"}, args...)...); code != exitError || errout != want {
			t.Errorf("%v: exit %d: %s", args, code, errout)
		}
	}
}
