package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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

// Values that a scenario names are not chosen for other flows, whether they come
// before or after.
func TestChosenValuesAreThoseThatNobodyNames(t *testing.T) {
	t.Parallel()
	named := map[uint16]bool{40002: true, 40003: true, 7: true}
	var got []uint16
	for number := uint32(1); number <= 4; number++ {
		got = append(got, choose(firstSourcePort, number, named))
	}
	if want := []uint16{40001, 40004, 40005, 40006}; !slices.Equal(got, want) {
		t.Errorf("got %d, want %d", got, want)
	}
	if got := choose(65533, 3, map[uint16]bool{65535: true}); got != 65534 {
		t.Errorf("behind the last comes %d", got)
	}
	text := pair + "step \"s\" {\n"
	for i, rest := range []string{
		"protocol = \"tcp\"\nport = 80\nsource_port = 40002", "protocol = \"tcp\"\nport = 80", "protocol = \"tcp\"\nport = 80",
		"protocol = \"tcp\"\nport = 80\nsource_port = 40001", "protocol = \"icmp\"\nid = 106", "protocol = \"icmp\"", "protocol = \"icmp\"\nid = \"new\"",
		"protocol = \"udp\"\nport = 80", "protocol = \"udp\"\nport = 40010",
	} {
		text += flowText("start", fmt.Sprint(i), rest) + fmt.Sprintf("expect \"%d\" {\ntraffic = \"allowed\"\n}\n", i)
	}
	text += flowText("check", "named", "protocol = \"tcp\"\nport = 80\nsource_port = 40009\ntraffic = \"allowed\"") + "wait \"5s\" {}\n}\n"
	result := played(t, text)
	if result.Err != nil || result.Failed() {
		t.Errorf("got %v, %+v", result.Err, result.Steps)
	}
	tuples := map[string]string{}
	for _, l := range result.Timeline.Lanes {
		key := l.Protocol + l.Source.String()
		if l.Answered {
			key = l.Title
		}
		if tuples[key] != "" {
			t.Errorf("%q and %q are both %s", tuples[key], l.Name, key)
		}
		tuples[key] = l.Name
		if l.Source.Port() == 40010 {
			t.Errorf("%q has a port that the scenario names", l.Name)
		}
	}
}

// A flow may have the addresses and ports of one that has ended, at once.
func TestFlowsWithTheTupleOfAnEarlierOne(t *testing.T) {
	t.Parallel()
	text := pair + "step \"s\" {\n"
	for _, rest := range []string{
		"protocol = \"tcp\"\nport = 80\nsource_port = 4000", "protocol = \"tcp\"\nport = 80\nsource_port = 4000\nfamily = \"ipv6\"",
		"protocol = \"udp\"\nport = 53\nsource_port = 4000", "protocol = \"icmp\"\nid = 9",
	} {
		for _, kind := range []string{"check", "start", "start", "check"} {
			name := fmt.Sprintf("%d", strings.Count(text, "protocol"))
			if kind == "check" {
				text += flowText(kind, name, rest+"\ntraffic = \"allowed\"")
				continue
			}
			text += flowText(kind, name, rest) + "wait \"3s\" {}\n" + fmt.Sprintf("stop %q {}\n", name) +
				fmt.Sprintf("expect %q {\ntraffic = \"allowed\"\nover = \"flow\"\n}\n", name)
		}
	}
	for _, v := range verdicts(t, text+"}\n") {
		if !v.Met {
			t.Errorf("%s: %s; %s", v.Flow, v.Seen, v.Entry)
		}
	}
}

// Two flows that run at once are told apart by what they are made of.
func TestFlowsWithOneTuple(t *testing.T) {
	for _, tt := range []struct{ name, first, second, want string }{
		{"TCP", "protocol = \"tcp\"\nport = 80\nsource_port = 4000", "", "source_port"},
		{"UDP", "protocol = \"udp\"\nport = 80\nsource_port = 4000", "", "source_port"},
		{"ping", "protocol = \"icmp\"\nid = 7", "", "id"},
		{"ping of IPv6", "protocol = \"icmp\"\nid = 7\nfamily = \"ipv6\"", "", "id"},
		{"another port", "protocol = \"tcp\"\nport = 80\nsource_port = 4000", "protocol = \"tcp\"\nport = 81\nsource_port = 4000", "-"},
		{"another protocol", "protocol = \"tcp\"\nport = 80\nsource_port = 4000", "protocol = \"udp\"\nport = 80\nsource_port = 4000", "-"},
		{"another family", "protocol = \"icmp\"\nid = 7", "protocol = \"icmp\"\nid = 7\nfamily = \"ipv6\"", "-"},
		{"chosen ports", "protocol = \"tcp\"\nport = 80", "", "-"},
		{"new identifiers", "protocol = \"icmp\"\nid = \"new\"", "", "-"},
		{"no ports at all", "protocol = \"gre\"", "", "-"},
	} {
		second := tt.second
		if second == "" {
			second = tt.first
		}
		starts := flowText("start", "one", tt.first)
		for _, other := range []struct {
			text  string
			wrong bool
		}{
			{starts + flowText("start", "two", second), true},
			{starts + flowText("check", "two", second+"\ntraffic = \"allowed\""), true},
			{starts + "stop \"one\" {}\n" + flowText("start", "two", second), false},
			{flowText("check", "two", second+"\ntraffic = \"allowed\"") + starts, false},
		} {
			l := LoadText("senders.lab.hcl", []byte(pair+"step \"s\" {\n"+other.text+"}\n"))
			wrong := other.wrong && tt.want != "-"
			switch {
			case wrong && (len(l.Report.Diagnostics) != 1 || !strings.Contains(l.Report.Diagnostics[0].Detail, "another "+tt.want) || !strings.Contains(l.Report.Diagnostics[0].Detail, `"one"`)):
				t.Errorf("%s: got %v of\n%s", tt.name, l.Report.Diagnostics, other.text)
			case !wrong && l.Scenario == nil:
				t.Errorf("%s: got %v of\n%s", tt.name, l.Report.Diagnostics, other.text)
			}
		}
	}
}

// What never left the machine was not refused by anybody: the run ends.
func TestErrorsBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	result := played(t, pair+"step \"s\" {\n"+flowText("start", "in", "protocol = \"tcp\"\nport = 80")+`
  check "out" {
    protocol    = "tcp"
    from        = "server"
    to          = "client"
    port        = 22
    source_port = 80
    traffic     = "refused"
  }
}
`)
	if result.Err == nil || !errors.Is(result.Err, syscall.EADDRINUSE) || !strings.Contains(result.Err.Error(), `the flow "out"`) {
		t.Errorf("got %v, %+v", result.Err, result.Steps)
	}
	for _, tt := range []struct {
		err  error
		ends bool
	}{{nil, false}, {syscall.EPERM, false}, {syscall.ENETUNREACH, true}, {syscall.EADDRNOTAVAIL, true}} {
		r, p := paused(t, flow.UDP)
		r.ctx, r.cancel = context.WithCancelCause(context.Background())
		p.ctx = r.ctx
		err := p.datagram(func(message) error { return tt.err })(message{1, Opener, 1})
		if !errors.Is(err, tt.err) || (r.ctx.Err() != nil) != tt.ends || tt.ends && !errors.Is(context.Cause(r.ctx), tt.err) {
			t.Errorf("%v: got %v, and the run ends with %v", tt.err, err, context.Cause(r.ctx))
		}
	}
}
