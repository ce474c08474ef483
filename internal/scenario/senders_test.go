package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab/labtest"
)

// pair are two hosts without any policy: whatever they send to each other passes.
const pair = `
speed = 10
host "server" {
  managed   = true
  addresses = ["192.0.2.10/24", "2001:db8::10/64"]
}
host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}
policy "none" {}
`

// published is a server that sends on what comes to two ports.
const published = `
speed = 10
host "server" {
  managed    = true
  forward    = true
  masquerade = ["eth0"]
  interface "eth0" {
    addresses = ["192.0.2.10/24", "2001:db8::10/64"]
  }
  interface "docker0" {
    network   = "containers"
    addresses = ["172.17.0.1/16", "2001:db8:17::1/64"]
  }
  publish {
    interface = "eth0"
    port      = 8080
    to        = "172.17.0.2:80"
  }
  publish {
    interface = "eth0"
    port      = 8080
    to        = "[2001:db8:17::2]:80"
  }
  publish {
    interface = "eth0"
    protocol  = "udp"
    port      = 5300
    to        = "172.17.0.2:53"
  }
}
host "container" {
  interface "eth0" {
    network   = "containers"
    addresses = ["172.17.0.2/16", "2001:db8:17::2/64"]
  }
}
host "client" {
  addresses = ["192.0.2.77/24", "2001:db8::77/64"]
}
policy "none" {}
`

// played plays a scenario with nothing enforced.
func played(t *testing.T, text string) *Result {
	t.Helper()
	labtest.Require(t)
	l := LoadText("senders.lab.hcl", []byte(text))
	if l.Scenario == nil {
		t.Fatal(l.Report.Diagnostics)
	}
	return Start(context.Background(), l.Scenario, Options{StateDir: t.TempDir(), Enforcer: stub(func() {})}).Wait()
}

// verdicts plays a scenario, and returns all that was found, in its order.
func verdicts(t *testing.T, text string) []Verdict {
	t.Helper()
	result := played(t, text)
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	var out []Verdict
	for i := range result.Steps {
		out = append(out, result.Steps[i].Verdicts...)
	}
	return out
}

// flowText is a block of a flow from the client to the server.
func flowText(kind, name, rest string) string {
	return fmt.Sprintf("%s %q {\nfrom = \"client\"\nto = \"server\"\n%s\n}\n", kind, name, rest)
}

// Who says that nobody listens has got the packet: no policy refused it.
func TestNobodyListensIsNotRefused(t *testing.T) {
	t.Parallel()
	reaches := "\nreaches = \"container\"\nreaches_port = %d"
	text := published + `step "s" {
` +
		flowText("check", "tcp", "protocol = \"tcp\"\nport = 8080\ntraffic = \"refused\"") +
		flowText("check", "tcp6", "protocol = \"tcp\"\nport = 8080\nfamily = \"ipv6\"\ntraffic = \"refused\"") +
		flowText("check", "udp", "protocol = \"udp\"\nport = 5300\ntraffic = \"refused\"") +
		flowText("check", "tcp elsewhere", "protocol = \"tcp\"\nport = 8080\ntraffic = \"refused\""+fmt.Sprintf(reaches, 81)) +
		flowText("check", "udp elsewhere", "protocol = \"udp\"\nport = 5300\ntraffic = \"refused\""+fmt.Sprintf(reaches, 54)) +
		flowText("check", "udp6 to no port", "protocol = \"udp\"\nport = 5300\nfamily = \"ipv6\"\ntraffic = \"refused\""+fmt.Sprintf(reaches, 53)) +
		flowText("start", "long tcp", "protocol = \"tcp\"\nport = 8080") +
		flowText("start", "long udp", "protocol = \"udp\"\nport = 5300") + `
  wait "10s" {}
  expect "long tcp" {
    traffic = "refused"
  }
  expect "long udp" {
    traffic = "refused"
  }
}
`
	for _, v := range verdicts(t, text) {
		if v.Met || !strings.Contains(v.Seen, "something answered that nobody listens there") || !strings.Contains(v.Seen, "reaches") {
			t.Errorf("%s: met %t, seen %q", v.Flow, v.Met, v.Seen)
		}
	}
}

// The record says of each packet that it came to where nobody listens.
func TestRecordOfWhereNobodyListens(t *testing.T) {
	t.Parallel()
	result := played(t, published+`step "s" {
`+
		flowText("start", "tcp", "protocol = \"tcp\"\nport = 8080\ncount = 3\nsends = \"from\"")+
		flowText("start", "udp", "protocol = \"udp\"\nport = 5300\ncount = 3")+`
  wait "5s" {}
  expect "tcp" {
    sent = 3
  }
  expect "udp" {
    sent = 3
  }
}
`)
	if result.Err != nil || result.Failed() {
		t.Fatalf("got %v, %+v", result.Err, result.Steps)
	}
	text, err := json.Marshal(result.Timeline)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), `"failed":"something answered that nobody listens there"`); n != 6 {
		t.Errorf("it says so of %d packets, want 6: %s", n, text)
	}
	for _, l := range result.Timeline.Lanes {
		for i := range l.Packets {
			if l.Packets[i].NotTaken() {
				t.Errorf("%s: the sender's kernel took packet %d", l.Name, i)
			}
		}
	}
}

// What a router says, or the sender's own rules, is no word of who got the packet;
// nor is it one as long as it has not come.
func TestWhatIsNoAnswerOfTheOtherSide(t *testing.T) {
	_, p := paused(t, flow.UDP)
	for _, err := range []error{errNoAnswer, syscall.EPERM, syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		p.failed(Opener, p.sending(Opener, at(1), true), err)
	}
	if c := p.window(0, at(10), at(10)); c.unheard != 0 || c.sent[Opener] != 4 || c.failed[Opener] != 3 {
		t.Errorf("got %+v", c)
	}
	seq := p.sending(Opener, at(2), false)
	p.unheard(seq, at(20))
	if c := p.window(0, at(10), at(10)); c.unheard != 0 {
		t.Errorf("it was said at 20 ms: %+v", c)
	}
	c := p.window(0, at(10), at(20))
	if c.unheard != 1 || c.failed[Opener] != 3 {
		t.Errorf("got %+v", c)
	}
	for _, traffic := range []Traffic{Refused, Cut} {
		c.before, c.sent[Responder] = true, 1
		if got := (&Expectation{Traffic: traffic}).judge(p.spec, &c); !strings.Contains(got, "nobody listens there") {
			t.Errorf("%s: got %q", traffic, got)
		}
	}
	// What arrived after all was not said of this one.
	p.arrived(Opener, seq, at(30))
	if c := p.window(0, at(10), at(30)); c.unheard != 0 || c.passed[Opener] != 1 {
		t.Errorf("got %+v", c)
	}
	if errors.Is(errNobodyListens, errNoAnswer) {
		t.Error("no answer is none")
	}
}
