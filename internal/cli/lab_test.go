package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

const webExample = "../../examples/web"

// runLab runs the lab in the test's process. The error is that of the command.
func runLab(t *testing.T, ctx context.Context, o labOptions, asJSON bool) (out string, err error) {
	t.Helper()
	labtest.Require(t)
	var stdout, stderr bytes.Buffer
	s := &session{Streams: Streams{Out: &stdout, Err: &stderr}, globals: globals{JSON: asJSON}}
	err = s.labRun(ctx, o)
	if stderr.Len() > 0 {
		t.Error(stderr.String())
	}
	return stdout.String(), err
}

// inHost runs a command of nft in the lab's host.
func inHost(t *testing.T, command string) func(*lab.Namespace) error {
	requireNft(t)
	return func(host *lab.Namespace) error {
		return host.Do(func() error {
			if out, err := exec.Command("sh", "-c", "nft "+command).CombinedOutput(); err != nil {
				return fmt.Errorf("nft %s: %w: %s", command, err, out)
			}
			return nil
		})
	}
}

func TestLabExplainsAKernelThatDiffers(t *testing.T) {
	for _, tt := range []struct {
		name, nft string
		// want are parts of the output.
		want []string
	}{
		{
			"a rule that drops", "'insert rule inet sgc prerouting tcp dport 22 drop'",
			[]string{
				"\n✗ tcp              203.0.113.1      → 192.0.2.10:22         allow, tracked    dropped  none       security_group.web.ingress.ssh\n",
				"\nThe kernel does not do what the policy says.\n",
				"\n✗ eth0 ingress: tcp 203.0.113.1:40018 → 192.0.2.10:22\n",
				"\n    the policy  lets it through, tracked: security_group.web.ingress.ssh (../../examples/web/groups.hcl:11:3)\n",
				"\n    the kernel  dropped it, which conntrack called new\n",
				// The answer to what did not come through is no answer.
				"\n✗ eth0 egress: tcp 192.0.2.10:22 → 203.0.113.1:40018\n",
				"\n    the kernel  dropped it, which conntrack called invalid\n",
				"\nThe kernel's table is not the one that was loaded:\n  - a rule that no policy asks for: tcp dport 22 drop  (chain prerouting, added by hand)\n",
				"\n22 packets: 11 passed, 11 dropped, 2 not as the policy says.\n",
			},
		},
		{
			"a rule that lets through", "'insert rule inet sgc prerouting udp dport 123 accept ; insert rule inet sgc prerouting tcp dport 3306 accept'",
			[]string{
				"\n✗ tcp              198.51.100.7     → 192.0.2.10:3306       drop              passed   entry      no rule (unlisted port)\n",
				"\n    the policy  drops it: no ingress rule of the groups of interface.eth0 allows it\n    the kernel  let it through, with a conntrack entry\n",
				"22 packets: 15 passed, 7 dropped, 2 not as the policy says.\n",
			},
		},
		{
			"no notrack", "'flush chain inet sgc web.raw.ingress.tcp4'",
			[]string{
				"\n✗ tcp              198.51.100.7     → 192.0.2.10:80         allow, untracked  passed   entry      security_group.web.ingress.http\n",
				"\n    the kernel  let it through, with a conntrack entry\n",
				"is missing: th dport @web.open.ingress.tcp4",
				", 2 not as the policy says.\n",
			},
		},
		{
			"another table", "'add table inet other { chain c { type filter hook prerouting priority -340; icmpv6 type echo-request drop; }; }'",
			[]string{
				"\n✗ eth0 ingress: icmpv6 type 128 2001:db8:77::7 → 2001:db8::10\n",
				"\n    the kernel  dropped it before conntrack saw it\n",
				"\nThe kernel's table is the one that was loaded, so the fault is in sgc or in this kernel.\nPlease report it, with the output of sgc lab run --json --table.\n",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := runLab(t, context.Background(), labOptions{Path: webExample, meddle: inHost(t, tt.nft)}, false)
			if !errors.Is(err, errDifferent) {
				t.Errorf("got %v, want exit 2", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("not there: %q", want)
				}
			}
			if t.Failed() {
				t.Log("\n" + out)
			}
		})
	}
}

// What never came to the host was not tried, and the tour says so.
func TestLabMissesLostPackets(t *testing.T) {
	lose := inHost(t, "'add table inet other { chain c { type filter hook prerouting priority -400; icmp type echo-request drop; }; }'")
	out, err := runLab(t, context.Background(), labOptions{Path: webExample, meddle: lose}, false)
	if err == nil || err.Error() != "1 packet could not be tried" {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{
		"\n✗ icmp type 8      198.51.100.7     → 192.0.2.10            allow, tracked    lost                security_group.web.ingress.ping\n",
		"\n✗ eth0 ingress: icmp type 8 198.51.100.7 → 192.0.2.10 was not tried: it never came to the host\n",
		"\n21 packets: 12 passed, 9 dropped, as the policy says.\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

func TestLabTellsProgramsOfAKernelThatDiffers(t *testing.T) {
	o := labOptions{Path: webExample, meddle: inHost(t, "'insert rule inet sgc prerouting tcp dport 22 drop'")}
	out, err := runLab(t, context.Background(), o, true)
	if !errors.Is(err, errDifferent) {
		t.Errorf("got %v, want exit 2", err)
	}
	var v labView
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if v.Summary.Disagreements != 2 || len(v.Packets) != v.Summary.Packets || len(v.Drift) != 1 || v.Drift[0].Action != actionRemove {
		t.Errorf("got %+v, drift %+v", v.Summary, v.Drift)
	}
	for _, p := range v.Packets {
		ssh := p.DestinationPort == 22 && p.Source == "203.0.113.1" || p.SourcePort == 22 && p.Answers != nil
		if p.Agrees == ssh {
			t.Errorf("agrees %t: %+v", p.Agrees, p)
		}
		if p.Answers != nil && v.Packets[*p.Answers].Destination != p.Source {
			t.Errorf("%+v does not answer %+v", p, v.Packets[*p.Answers])
		}
	}
}

// The tour ends in order, wherever it is interrupted, and keeps nothing open.
func TestLabEndsInOrder(t *testing.T) {
	open := func() int {
		t.Helper()
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if _, err := runLab(t, context.Background(), labOptions{Path: webExample}, false); err != nil {
		t.Fatal(err)
	}
	before := open()
	ctx, cancel := context.WithCancel(context.Background())
	out, err := runLab(t, ctx, labOptions{Path: webExample, meddle: func(*lab.Namespace) error { cancel(); return nil }}, false)
	if !errors.Is(err, context.Canceled) || out != "" {
		t.Errorf("got %v, %q", err, out)
	}
	broken := errors.New("broken")
	if _, err := runLab(t, context.Background(), labOptions{Path: webExample, meddle: func(*lab.Namespace) error { return broken }}, false); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if _, err := runLab(t, context.Background(), labOptions{Path: webExample, All: true}, false); err != nil {
		t.Error(err)
	}
	if after := open(); after > before {
		t.Errorf("%d descriptors were open, now %d", before, after)
	}
}

// A terminal gets colour, and nothing but colour is added to the text.
func TestLabInColour(t *testing.T) {
	labtest.Require(t)
	run := func(terminal bool, environ ...string) string {
		var out bytes.Buffer
		code := Run(context.Background(), []string{"sgc", "lab", "run", webExample}, Streams{
			In: strings.NewReader(""), Out: &out, Err: &out, OutTerminal: terminal, Environ: environ,
		})
		if code != 0 {
			t.Fatalf("exit %d: %s", code, out.String())
		}
		return out.String()
	}
	plain, colour := run(false), run(true)
	if strings.Contains(plain, "\x1b") || !strings.Contains(colour, "\x1b[32mpassed ") || !strings.Contains(colour, "\x1b[33mdropped") {
		t.Errorf("plain:\n%q\ncolour:\n%q", plain, colour)
	}
	if got := regexp.MustCompile(`\x1b\[\d+m`).ReplaceAllString(colour, ""); got != plain {
		t.Error(unified("plain", "colour", plain, got))
	}
	if got := run(true, "NO_COLOR=1"); got != plain {
		t.Error(unified("plain", "NO_COLOR", plain, got))
	}
}

// Of many interfaces a few are tried, unless all are asked for.
func TestLabOfManyInterfaces(t *testing.T) {
	s := newStage(t, false)
	var text strings.Builder
	text.WriteString("security_group \"g\" {\n  ingress {\n    protocol    = \"tcp\"\n    ports       = [22]\n    cidr_blocks = [\"10.0.0.0/8\"]\n  }\n  egress {\n    protocol    = \"tcp\"\n    ports       = [22]\n    cidr_blocks = [\"10.0.0.0/8\"]\n  }\n}\n")
	const all = maxLabInterfaces + 3
	for n := range all {
		fmt.Fprintf(&text, "interface \"eth%d\" { security_groups = [security_group.g] }\n", n)
	}
	s.write("many.hcl", text.String())
	for _, o := range []labOptions{{}, {All: true}} {
		o.Path = filepath.Join(s.dir, "many.hcl")
		out, err := runLab(t, context.Background(), o, true)
		if err != nil {
			t.Fatal(err)
		}
		var v labView
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for _, p := range v.Packets {
			seen[p.Interface+" "+p.Direction]++
		}
		want := maxLabInterfaces
		if o.All {
			want = all
		}
		if len(v.Interfaces) != want || v.Summary.MoreInterfaces != all-want || len(seen) != 2*want {
			t.Errorf("all %t: %d interfaces, %d more, packets %v", o.All, len(v.Interfaces), v.Summary.MoreInterfaces, seen)
		}
		if o.All != (v.Summary.MorePackets == 0) || !o.All && len(v.Packets) > maxLabLines+2 {
			t.Errorf("all %t: %d packets, %d more", o.All, len(v.Packets), v.Summary.MorePackets)
		}
	}
}

// What a second run is told means the same as what the first was.
func TestLabArgumentsOfASecondRun(t *testing.T) {
	o := labOptions{Path: "-x", All: true, Table: true}
	g := globals{JSON: true, NoColor: true, Vars: []string{`ports=[80, "x"]`, "a=b"}, VarFiles: []string{"f g"}}
	s := &session{}
	l, err := arrange(o.arguments(g), s.commands())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"lab", "--all=true", "--table=true", `--var=ports=[80, "x"]`, "--var=a=b", "--var-file=f g", "--json=true", "--no-color=true", "--", "run", "-x"}
	if l.command.Name != "lab" || !slices.Equal(l.words, want) {
		t.Errorf("got  %q\nwant %q", l.words, want)
	}
}
