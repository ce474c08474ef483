package scenario

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"sgc/policies"
)

func at(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }

// A window counts what was sent in it, and what of that passed in time.
func TestWindow(t *testing.T) {
	r := newRecorder(Lane{})
	for n, arrived := range []int{11, 0, 31, 90, 0} {
		sent := at(10 * (n + 1))
		seq := r.sending(Opener, sent, false)
		if seq != n+1 {
			t.Fatalf("packet %d has number %d", n, seq)
		}
		if arrived > 0 {
			r.arrived(Opener, seq, at(arrived))
			r.arrived(Opener, seq, at(arrived+500)) // a copy is no other packet
		}
	}
	r.failed(Opener, 5, fmt.Errorf("send: %w", syscall.EPERM))
	r.failed(Opener, 2, errNoAnswer)
	r.arrived(Opener, 77, at(1)) // nobody sent it
	r.sending(Responder, at(25), false)
	for _, tt := range []struct {
		name             string
		from, to, cutoff int
		want             string
	}{
		{"all", 0, 100, 1000, "sent 5 1, passed 3 0, failed 1, first 1 of 1, before false, lost 3, slowest 50ms"},
		{"behind the first", 20, 100, 1000, "sent 4 1, passed 2 0, failed 1, first 3 of 2, before true, lost 3, slowest 50ms"},
		{"one that came too late", 20, 45, 50, "sent 3 1, passed 1 0, failed 0, first 3 of 2, before true, lost 3, slowest 1ms"},
		{"nothing", 60, 100, 100, "sent 0 0, passed 0 0, failed 0, first 0 of 0, before true, lost 0, slowest 0s"},
	} {
		c := r.window(at(tt.from), at(tt.to), at(tt.cutoff))
		got := fmt.Sprintf("sent %d %d, passed %d %d, failed %d, first %d of %d, before %t, lost %d, slowest %s", c.sent[Opener], c.sent[Responder],
			c.passed[Opener], c.passed[Responder], c.failed[Opener], c.first, c.firstSent, c.before, c.lost(), c.slowest)
		if got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
	l := r.snapshot()
	if l.Packets[4].Failed != "refused by the sender's own rules" || l.Packets[1].Failed != "" {
		t.Errorf("got %+v", l.Packets)
	}
	l.Packets[0].Arrived = 0
	if r.snapshot().Packets[0].Arrived != at(11) {
		t.Error("a snapshot is the record itself")
	}
}

// Of a ping, a packet passed when it was answered, not when it arrived.
func TestPassed(t *testing.T) {
	l := Lane{Answered: true}
	p := Packet{Arrived: at(1)}
	if l.Passed(&p) != 0 {
		t.Error("a request that was not answered passed")
	}
	p.Answered = at(2)
	if l.Passed(&p) != at(2) {
		t.Errorf("it passed at %s", l.Passed(&p))
	}
}

func TestMessage(t *testing.T) {
	for _, m := range []message{{1, Opener, 1}, {7, Responder, 1 << 20}} {
		for _, size := range []int{0, headerSize, 1400} {
			b := m.marshal(size)
			got, ok := parseMessage(b)
			if !ok || got != m || len(b) != max(size, headerSize) {
				t.Errorf("%+v came back as %+v, %t, %d bytes", m, got, ok, len(b))
			}
		}
	}
	for _, b := range [][]byte{nil, make([]byte, headerSize), message{1, Opener, 1}.marshal(0)[:headerSize-1], {0x73, 0x67, 0x63, 0x6c, 0, 0, 0, 1, 9, 0, 0, 0, 0, 0, 0, 1}} {
		if m, ok := parseMessage(b); ok {
			t.Errorf("%x is %+v", b, m)
		}
	}
}

// Timeouts are divided and rounded up, those of the language included, and the
// policy that was loaded stays as it is.
func TestScalePolicy(t *testing.T) {
	p := &policies.Policy{
		Interfaces: []*policies.Interface{
			{Name: "eth0", AlwaysTrack: []*policies.AlwaysTrack{{ID: "a", UDPStream: 120 * time.Second}}},
			{Name: "eth1", Timeouts: &policies.Timeouts{TCPEstablished: 350 * time.Second, UDP: 31 * time.Second, UDPStream: 60 * time.Second}},
		},
		Host: policies.Host{Conntrack: &policies.HostConntrack{Max: 7, ICMPTimeout: 5 * time.Second}},
	}
	s := scalePolicy(p, 10)
	if got, want := *s.Interfaces[0].Timeouts, (policies.Timeouts{TCPEstablished: 43200 * time.Second, UDP: 3 * time.Second, UDPStream: 18 * time.Second}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := *s.Interfaces[1].Timeouts, (policies.Timeouts{TCPEstablished: 35 * time.Second, UDP: 4 * time.Second, UDPStream: 6 * time.Second}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if a := s.Interfaces[0].AlwaysTrack[0]; a.UDPStream != 12*time.Second || a.TCPEstablished != 0 {
		t.Errorf("got %+v", a)
	}
	if c := s.Host.Conntrack; c.ICMPTimeout != time.Second || c.GenericTimeout != 0 || c.Max != 7 {
		t.Errorf("got %+v", c)
	}
	if p.Interfaces[0].Timeouts != nil || p.Interfaces[0].AlwaysTrack[0].UDPStream != 120*time.Second || p.Host.Conntrack.ICMPTimeout != 5*time.Second {
		t.Error("the policy itself has changed")
	}
	if scalePolicy(p, 1) != p {
		t.Error("speed 1 changes the policy")
	}
}

// Every expectation that is not met says so, and one that is says nothing.
func TestJudgeOfNumbers(t *testing.T) {
	f := &Flow{From: "client", To: "server", Reaches: "server", Sends: [2]bool{true, true}}
	good := counts{sent: [2]int{10, 10}, passed: [2]int{10, 10}, firstSent: 1, first: 1, before: true, slowest: at(300)}
	lossy, dead, silent := good, good, good
	lossy.passed, dead.passed, silent.sent, silent.passed = [2]int{9, 10}, [2]int{}, [2]int{10, 0}, [2]int{10, 0}
	dead.first = 0
	five := 5
	for _, tt := range []struct {
		name string
		e    Expectation
		c    counts
		want string
	}{
		{"allowed", Expectation{Traffic: Allowed}, good, ""},
		{"one lost", Expectation{Traffic: Allowed}, lossy, "1 lost"},
		{"one may be lost", Expectation{Traffic: Allowed, Lost: 1}, lossy, ""},
		{"a twentieth may be lost", Expectation{Traffic: Allowed, LostPercent: 5}, lossy, ""},
		{"a hundredth may be lost", Expectation{Traffic: Allowed, LostPercent: 1}, lossy, "1 lost"},
		{"refused", Expectation{Traffic: Refused}, dead, ""},
		{"not refused", Expectation{Traffic: Refused}, lossy, "19 passed"},
		{"survives", Expectation{Traffic: Survives}, good, ""},
		{"one side is silent", Expectation{Traffic: Survives}, silent, "server sent nothing in that time, so nothing is shown"},
		{"cut", Expectation{Traffic: Cut}, dead, ""},
		{"not cut", Expectation{Traffic: Cut}, lossy, "19 passed"},
		{"the wrong number", Expectation{Passed: &five}, good, "10 passed"},
		{"none of them", Expectation{FirstPassed: &five}, dead, "none passed"},
		{"fast enough", Expectation{Within: at(500)}, good, ""},
		{"too slow", Expectation{Within: at(100)}, good, "one took 300ms"},
	} {
		if got := tt.e.judge(f, &tt.c); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
