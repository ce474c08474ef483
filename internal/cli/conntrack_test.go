package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"sgc/conntrack"
)

func TestConntrackWithoutTheRight(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	for _, command := range [][]string{{"stats"}, {"stats", s.dir}, {"list", s.dir}, {"list", "--verbose", s.dir}, {"explain", s.dir}, {"flush", "--all", "--auto-approve", s.dir}, {"tune", "--auto-approve", s.dir}} {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, append([]string{"conntrack", "--state-dir=" + s.state()}, command...)...)
		cmd.Env = append(os.Environ(), asSGC+"=1")
		// Root of a user namespace of its own has no right over the network
		// namespace that it is in.
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		}
		if err := s.ns.Do(func() error {
			s.mustFail(outcome(t, cmd), "not permitted", "run as root")
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConntrackOfNoNamespace(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	s.ns = nil
	for _, command := range []string{"stats", "list", "explain", "tune"} {
		s.mustFail(s.sgc(context.Background(), nil, "conntrack", command, s.dir, "--netns=no-such-namespace"), `"no-such-namespace"`)
		s.mustFail(s.sgc(context.Background(), nil, "conntrack", command, s.dir, "--netns="+s.dir+"/web.hcl"), "no network namespace")
	}
}

func TestConntrackOutputThatCannotBeWritten(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("SKIP: %v", err)
	}
	defer full.Close()
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	conntrackTool(t, s, "-I", "-p", "udp", "-s", "192.0.2.1", "-d", "192.0.2.10", "--sport", "1", "--dport", "2", "-t", "300")
	for _, command := range [][]string{{"stats"}, {"stats", "--prometheus"}, {"list", "--count", s.dir}, {"tune", "--auto-approve", s.dir}} {
		cmd := s.child(append([]string{"conntrack"}, command...)...)
		cmd.Stdout = full
		s.mustFail(outcome(t, cmd), "write the output")
	}
}

func conntrackTool(t *testing.T, s *stage, args ...string) {
	t.Helper()
	if err := s.ns.Do(func() error { return exec.Command("conntrack", args...).Run() }); err != nil {
		t.Fatalf("conntrack %s: %v", strings.Join(args, " "), err)
	}
}

// An apply that was killed after its commit is the one whose policy counts.
func TestConntrackKnowsAPendingPolicy(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	s.mustRun("apply", "--auto-approve", s.dir)
	_, dir := s.open()
	applied, err := dir.Applied()
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.WriteAhead(applied); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir.Path() + "/applied.json"); err != nil {
		t.Fatal(err)
	}
	r := s.mustRun("conntrack", "stats")
	if !strings.Contains(r.out, "flows\n") || !strings.Contains(r.err, "between its commit and its record") {
		t.Errorf("%s%s", r.out, r.err)
	}
}

// prometheusLine is the form of a sample without a timestamp.
var prometheusLine = regexp.MustCompile(`^[a-z_]+(\{[a-z]+="([^"\\\n]|\\["\\n])*"(,[a-z]+="([^"\\\n]|\\["\\n])*")*\})? (\+Inf|[0-9]+)$`)

func TestPrometheusText(t *testing.T) {
	max, available := uint64(100), uint64(90)
	v := statsView{Entries: 10, Max: &max, Available: &available, Exceeded: 3, Flows: &flowsView{
		Count:      conntrack.Count{Tracked: 5, Open: 2, Exempt: 1, Revoked: 4},
		Elsewhere:  2,
		Interfaces: []conntrack.InterfaceCount{{Name: `a"b\c`, Count: conntrack.Count{Tracked: 5}}, {Name: "\xff", Count: conntrack.Count{Open: 2}}},
	}}
	text := string(v.prometheus())
	if !strings.HasSuffix(text, "\n") {
		t.Error("the last line has no end")
	}
	described, seen := map[string]bool{}, map[string]bool{}
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(name, " ")
			if described[name] || kind != "gauge" && kind != "counter" {
				t.Errorf("%s", line)
			}
			described[name] = true
			continue
		}
		if strings.HasPrefix(line, "# HELP ") {
			continue
		}
		name, _, _ := strings.Cut(strings.Replace(line, "{", " ", 1), " ")
		if !prometheusLine.MatchString(line) || !described[name] {
			t.Errorf("%q", line)
		}
		if series, _, _ := strings.Cut(line, "} "); seen[series] {
			t.Errorf("%q comes again", line)
		} else {
			seen[series] = true
		}
	}
	for _, want := range []string{
		"conntrack_allowance_available 90\n", "conntrack_allowance_exceeded 3\n", "conntrack_flows{class=\"open\"} 2\n",
		`conntrack_interface_flows{interface="a\"b\\c",class="tracked"} 5` + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	// A table without a limit.
	v.Max, v.Available = nil, nil
	if text := string(v.prometheus()); !strings.Contains(text, "conntrack_allowance_available +Inf\n") {
		t.Error(text)
	}
	if text := v.text(paint{}); !strings.Contains(text, "10, without a limit") || !strings.Contains(text, "no limit") {
		t.Error(text)
	}
	b, err := json.Marshal(v)
	if err != nil || !bytes.Contains(b, []byte(`"conntrack_allowance_available":null`)) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestShortTimes(t *testing.T) {
	for seconds, want := range map[int]string{
		0: "0s", 1: "1s", 59: "59s", 60: "1m", 61: "1m1s", 3599: "59m59s", 3600: "1h", 3659: "1h", 3660: "1h1m", 86400: "1d", 431999: "4d23h", 432000: "5d",
	} {
		if got := shortTime(time.Duration(seconds) * time.Second); got != want {
			t.Errorf("%d: %s, want %s", seconds, got, want)
		}
	}
	for seconds, want := range map[uint32]string{0: "0s", 40: "40s", 350: "350s", 120: "2m", 3600: "1h", 432000: "5d"} {
		if got := valueText(conntrack.TimeoutUDP, seconds); got != want {
			t.Errorf("%d: %s, want %s", seconds, got, want)
		}
	}
}

// Every flag of the command belongs to one of its commands, or it would be read
// by none.
func TestEveryConntrackFlagHasItsPlace(t *testing.T) {
	s := &session{}
	command := s.conntrackCommand()
	for _, f := range command.Flags {
		if name := f.Names()[0]; len(conntrackFlags[name]) == 0 {
			t.Errorf("--%s belongs to no command", name)
		}
	}
	if len(command.Flags) != len(conntrackFlags) {
		t.Errorf("%d flags, of which %d have a place", len(command.Flags), len(conntrackFlags))
	}
}
