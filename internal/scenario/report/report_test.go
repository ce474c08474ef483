package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"

	"sgc/internal/lab"
	"sgc/internal/scenario"
)

var update = flag.Bool("update", false, "rewrite the goldens in testdata")

const ms = time.Millisecond

// every sends a packet each interval, and lets become of it what f says.
func every(l *scenario.Lane, side scenario.Side, from, to, interval time.Duration, f func(*scenario.Packet)) {
	seq := 0
	for _, p := range l.Packets {
		if p.Side == side {
			seq++
		}
	}
	for at := from; at < to; at += interval {
		seq++
		p := scenario.Packet{Seq: seq, Side: side, Sent: at}
		f(&p)
		l.Packets = append(l.Packets, p)
	}
}

func pass(p *scenario.Packet) { p.Arrived, p.Answered = p.Sent+ms/2, p.Sent+ms }
func lose(*scenario.Packet)   {}
func hear(p *scenario.Packet) { p.Arrived = p.Sent + ms/2 }
func bar(p *scenario.Packet)  { p.Failed = "refused by the sender's own rules" }

// fixture is a run with a mark of every kind, and names that want to be more
// than text.
func fixture() Picture {
	ping := scenario.Lane{
		Name: `ping <script>alert("1")</script> & more`, Title: "ping client → server, id 7", From: "client", To: "server", Answered: true, Begun: 100 * ms,
	}
	every(&ping, scenario.Opener, 100*ms, 1000*ms, 100*ms, pass)
	every(&ping, scenario.Opener, 1000*ms, 1500*ms, 100*ms, lose)
	every(&ping, scenario.Opener, 1500*ms, 1800*ms, 100*ms, hear)
	every(&ping, scenario.Opener, 1800*ms, 2000*ms, 100*ms, bar)
	every(&ping, scenario.Opener, 2000*ms, 3000*ms, ms, pass)
	every(&ping, scenario.Opener, 3000*ms, 3100*ms, ms, lose)
	ssh := scenario.Lane{Name: "ssh\x1b[31m\u202e", Title: "tcp client:40001 → server:22", From: "client", To: "server", Begun: 200 * ms, Ended: 3500 * ms}
	every(&ssh, scenario.Opener, 200*ms, 201*ms, ms, func(p *scenario.Packet) { p.Open, p.Arrived = true, p.Sent+ms })
	every(&ssh, scenario.Opener, 300*ms, 1500*ms, 100*ms, hear)
	every(&ssh, scenario.Opener, 1500*ms, 2000*ms, 100*ms, func(p *scenario.Packet) { p.Arrived = 2200 * ms })
	every(&ssh, scenario.Responder, 250*ms, 1500*ms, 100*ms, hear)
	every(&ssh, scenario.Responder, 1500*ms, 3500*ms, 100*ms, lose)
	every(&ssh, scenario.Responder, 3490*ms, 3491*ms, ms, lose) // under way when the flow ended
	at := hcl.Range{Filename: "a&b.lab.hcl", Start: hcl.Pos{Line: 12, Column: 3}}
	steps := []*scenario.Step{
		{Name: "both run"}, {Name: "the rule is <removed>", Description: "Nobody is let in any more, and what is open goes on or is cut, as its class says."}, {Name: "nothing"},
	}
	return Picture{Name: "fixture", Result: &scenario.Result{
		Scenario: &scenario.Scenario{File: "dir/a&b.lab.hcl", Texts: map[string]*hcl.File{"dir/a&b.lab.hcl": {Bytes: []byte("title = 1\n")}}, Steps: steps},
		Timeline: &scenario.Timeline{
			Scenario: "dir/a&b.lab.hcl", Title: "Every kind of mark & more", Speed: 10, Length: 4 * time.Second,
			Lanes: []scenario.Lane{ping, ssh},
			Marks: []scenario.Mark{
				{Begun: 10 * ms, Ended: 60 * ms, Text: "apply open"},
				{Begun: 1010 * ms, Ended: 1050 * ms, Text: "apply closed --flush revoked"},
				{Begun: 1200 * ms, Ended: 1260 * ms, Text: "destroy"},
				{Begun: 3900 * ms, Ended: 3990 * ms, Text: "apply open again"},
			},
			Steps: []scenario.Span{
				{Name: "both run", Begun: 1, Ended: 1000 * ms},
				{Name: "the rule is <removed>", Begun: 1000 * ms, Ended: 3900 * ms, Failed: true},
				{Name: "nothing", Begun: 3900 * ms, Ended: 4000 * ms},
			},
		},
		Timeouts: []lab.Timeout{{Name: "icmp", Was: 30, Is: 3}},
		Steps: []scenario.StepResult{
			{Step: steps[0], Begun: 1, Took: 1000 * ms, Verdicts: []scenario.Verdict{
				{At: at, Flow: ping.Name, Expected: "allowed: what is sent passes", Seen: "client sent 9, 9 answered", Met: true},
				{At: at, Flow: "security_group.web.ingress.ssh", Expected: "the rule itself lets through 1", Seen: "it let through 1", Met: true},
			}},
			{Step: steps[1], Begun: 1000 * ms, Took: 2900 * ms, Verdicts: []scenario.Verdict{
				{At: at, Flow: ssh.Name, Expected: "cut: nothing passes any more", Seen: "client sent 10, 7 arrived", Policy: []string{"eth0 ingress: no rule <allows> it"}, Entry: "tcp 192.0.2.77 → 192.0.2.10"},
				{At: at, Flow: ping.Name, Expected: "survives", Seen: "client sent 1110, 1000 answered", Met: true},
			}},
			{Step: steps[2], Begun: 3900 * ms, Took: 100 * ms},
		},
		Err: errors.New("step \"nothing\": \x00 <it broke>"),
	}}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); d != "" {
		t.Errorf("%s (-want +got; rewrite it with -update):\n%s", path, d)
	}
}

// wellFormed reads all of an XML text.
func wellFormed(t *testing.T, text []byte) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// foreign is what would make a picture need something else, or do something.
var foreign = regexp.MustCompile(`(?i)<script|<foreignobject|<image|<img|<link|<iframe|\son[a-z]+=|\shref="[^#]|url\(|@import|javascript:`)

func TestPicturesOfTheFixture(t *testing.T) {
	p := fixture()
	for name, text := range map[string][]byte{"fixture.svg": SVG(p), "fixture.html": HTML([]Picture{p, {Name: "empty", Result: &scenario.Result{
		Scenario: &scenario.Scenario{File: "empty.lab.hcl"}, Timeline: &scenario.Timeline{Speed: 1}, Skipped: "its table of flows is everybody's",
	}}})} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, text)
			wellFormed(t, text)
			if found := foreign.Find(text); found != nil {
				t.Errorf("the picture holds %q", found)
			}
			if bytes.ContainsAny(text, "\x00\x1b\u202e") {
				t.Error("the picture holds control characters")
			}
			ids := map[string]bool{}
			for _, m := range regexp.MustCompile(`\sid="([^"]+)"`).FindAllSubmatch(text, -1) {
				if ids[string(m[1])] {
					t.Errorf("two elements are called %s", m[1])
				}
				ids[string(m[1])] = true
			}
			for _, m := range regexp.MustCompile(`(?:aria-labelledby="|href="#)([^"]+)"`).FindAllSubmatch(text, -1) {
				for _, id := range strings.Fields(string(m[1])) {
					if !ids[id] {
						t.Errorf("no element is called %s", id)
					}
				}
			}
		})
	}
}

func TestDigestIsThatOfTheScenario(t *testing.T) {
	p := fixture()
	digest := Digest(p.Result.Scenario)
	got, err := DigestIn(bytes.NewReader(SVG(p)))
	if err != nil || got != digest {
		t.Errorf("%q in the picture, %v; want %q", got, err, digest)
	}
	s := *p.Result.Scenario
	s.File = "/elsewhere/a&b.lab.hcl"
	s.Texts = map[string]*hcl.File{s.File: {Bytes: []byte("title = 1\n")}}
	if got := Digest(&s); got != digest {
		t.Error("the digest depends on where the scenario lies")
	}
	s.Texts = map[string]*hcl.File{s.File: {Bytes: []byte("title = 2\n")}}
	if got := Digest(&s); got == digest {
		t.Error("another scenario has the same digest")
	}
	if _, err := DigestIn(strings.NewReader("<svg/>")); err == nil {
		t.Error("a picture of nothing has a digest")
	}
}
