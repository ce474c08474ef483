package scenario

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// paused is a run of one flow that nobody plays: what becomes of its packets is the
// test's to say.
func paused(t *testing.T, protocol flow.Protocol) (*Run, *player) {
	t.Helper()
	r := &Run{
		scenario: &Scenario{}, speed: 1, began: time.Now(), ctx: context.Background(),
		windows: map[string]window{"step": {1, 1}}, steps: []Span{{Name: "step", Begun: 1}},
	}
	spec := &Flow{
		Name: "flow", Protocol: protocol, From: "client", To: "server", Reaches: "server", Sends: [2]bool{true, true},
		Source: netip.MustParseAddr("192.0.2.77"), Dest: netip.MustParseAddr("192.0.2.10"), Port: 22,
	}
	p := &player{run: r, spec: spec, interval: time.Second, ctx: r.ctx, sourcePort: 40001, recorder: newRecorder(Lane{Name: "flow"})}
	r.players = []*player{p}
	return r, p
}

// Time in which the machine stood still is none in which something did not come
// true.
func TestUntilCountsNoStandstill(t *testing.T) {
	r, _ := paused(t, flow.UDP)
	looks := 0
	if !r.until(5*lookTakes, func() bool {
		time.Sleep(3 * lookTakes)
		looks++
		return looks == 6
	}) {
		t.Errorf("it ended after %d looks", looks)
	}
	if r.until(5*lookTakes, func() bool { return false }) {
		t.Error("what never comes true did")
	}
}

// A step ends when nothing is under way of what should pass: a packet that is sent
// late, or delivered late, would meet the rules of the next one.
func TestStepsEndWhenNothingIsUnderWay(t *testing.T) {
	for _, traffic := range []Traffic{Allowed, Survives} {
		r, p := paused(t, flow.UDP)
		p.arrived(Opener, p.sending(Opener, 0, false), 1)
		for _, side := range []Side{Opener, Responder} {
			seq := p.sending(side, r.now(), false)
			time.AfterFunc(100*time.Millisecond, func() { p.arrived(side, seq, r.now()) })
		}
		s := &Step{Name: "step", Expects: []*Expectation{{Flow: "flow", Traffic: traffic, Over: overStep}}}
		end := r.await(s)
		c := p.window(1, end, end)
		if c.sent != [2]int{1, 1} || c.lost() != 0 {
			t.Errorf("%s: at the end %d of %d were under way", traffic, c.lost(), c.sent)
		}
	}
	// What is lost is not waited for for ever, nor is what should be lost.
	r, p := paused(t, flow.UDP)
	p.arrived(Opener, p.sending(Opener, 0, false), 1)
	p.sending(Opener, r.now(), false)
	p.sending(Responder, r.now(), false)
	begun := r.now()
	if end := r.await(&Step{Name: "step", Expects: []*Expectation{{Flow: "flow", Traffic: Allowed, Over: overStep}}}); end < begun+quietGrace {
		t.Errorf("it was waited for for %s", end-begun)
	}
	if e := (&Expectation{Flow: "flow", Traffic: Cut, Over: overFlow}); r.isUnderWay(e, &Step{Name: "step"}, r.now()) {
		t.Error("what should not pass is waited for")
	}
	p.arrived(Opener, p.sending(Opener, r.now(), false), r.now())
	if e := (&Expectation{Flow: "flow", Traffic: Allowed, Over: overStep, Lost: 2}); r.isUnderWay(e, &Step{Name: "step"}, r.now()) {
		t.Error("what may be lost is waited for")
	}
}

// What should not pass must not do so later either, until something changes.
func TestNothingPassesLate(t *testing.T) {
	r, p := paused(t, flow.UDP)
	p.arrived(Opener, p.sending(Opener, 0, false), 1)
	seq := p.sending(Opener, 2, false)
	p.sending(Responder, 2, false)
	j := r.judgement(&Expectation{Flow: "flow", Traffic: Cut, Over: overStep}, &Step{Name: "step"}, r.now())
	j.looked = true
	met := func() bool { v := j.verdict(); return v.Met }
	if !met() {
		t.Error("nothing passed")
	}
	time.Sleep(2 * badGrace)
	p.arrived(Opener, seq, r.now())
	if met() {
		t.Error("it passed, be it late")
	}
	// Behind a change it may.
	r.marks = append(r.marks, Mark{Begun: j.end, Ended: j.end + 1})
	if !met() {
		t.Error("it passed behind a change")
	}
}

// TCP sends again at each side's own time: that the answers pass says nothing of
// the questions.
func TestOutageIsThatOfASide(t *testing.T) {
	second := func(n int) time.Duration { return time.Duration(n) * time.Second }
	_, p := paused(t, flow.TCP)
	p.sending(Opener, second(1), true)
	if got := p.outage(second(2)); got != 0 {
		t.Errorf("nobody has answered an attempt to connect, and the outage is %s", got)
	}
	p.arrived(Opener, p.sending(Opener, second(2), true), second(2)+1)
	for n := 3; n < 10; n++ {
		p.arrived(Opener, p.sending(Opener, second(n), false), second(n)+1)
		p.arrived(Responder, p.sending(Responder, second(n), false), second(n)+1)
	}
	if got := p.outage(second(60)); got != 0 {
		t.Errorf("nothing is under way, and the outage is %s", got)
	}
	for n := 10; n < 40; n++ {
		p.sending(Opener, second(n), false)
		p.arrived(Responder, p.sending(Responder, second(n), false), second(39))
	}
	if got := p.outage(second(40)); got != second(30) {
		t.Errorf("nothing of the opener has passed since 10 s, and at 40 s the outage is %s", got)
	}
	p.failed(Opener, p.sending(Opener, second(40), false), context.DeadlineExceeded)
	for seq := 10; seq <= 39; seq++ {
		p.arrived(Opener, seq, second(41))
	}
	if got := p.outage(second(50)); got != 0 {
		t.Errorf("all has passed that was sent, and the outage is %s", got)
	}
	p.sending(Responder, second(50), false)
	if got := p.outage(second(500)); got != longOutage {
		t.Errorf("the longest outage is %s", got)
	}
	p.spec.Protocol = flow.UDP
	if got := p.outage(second(500)); got != 0 {
		t.Errorf("UDP has an outage of %s", got)
	}
}

// What is left of a timeout is less by the time that the kernel took to tell.
func TestTimeoutOfAnEntryThatWasReadLate(t *testing.T) {
	r, p := paused(t, flow.TCP)
	p.sending(Opener, 10*time.Second, false)
	e := &Expectation{Flow: "flow", Timeout: 350 * time.Second, Over: overStep}
	for _, tt := range []struct {
		left uint32
		read time.Duration
		want string
	}{
		{349, 11 * time.Second, ""},
		{347, 11 * time.Second, ""},
		{346, 11 * time.Second, "the entry ends in 5m46s, and not in 5m47s to 5m50s"},
		{346, 15 * time.Second, ""},
		{342, 15 * time.Second, "the entry ends in 5m42s, and not in 5m43s to 5m50s"},
		{351, 15 * time.Second, "the entry ends in 5m51s, and not in 5m43s to 5m50s"},
	} {
		j := &judgement{run: r, e: e, p: p, end: 11 * time.Second, looked: true, read: tt.read, entry: &lab.Entry{Seconds: tt.left}}
		if got := j.entryProblem(); got != tt.want {
			t.Errorf("%d s left at %s: got %q, want %q", tt.left, tt.read, got, tt.want)
		}
	}
	entries := []lab.Entry{{Original: lab.Tuple{
		Protocol: flow.TCP, Source: netip.MustParseAddrPort("192.0.2.77:40001"), Dest: netip.MustParseAddrPort("192.0.2.10:22"),
	}}}
	j := &judgement{run: r, e: e, p: p}
	if j.look(entries); j.entry == nil || !j.looked || j.read == 0 {
		t.Errorf("got %+v", j)
	}
	if text := j.entryProblem(); !strings.HasPrefix(text, "the entry ends in 0s") {
		t.Errorf("got %q", text)
	}
}

// narrow is a connection whose buffer has room for so many bytes.
type narrow struct {
	net.Conn
	room  int
	taken bytes.Buffer
}

func (n *narrow) SetWriteDeadline(time.Time) error { return nil }

func (n *narrow) Write(b []byte) (int, error) {
	size := min(n.room, len(b))
	n.room -= size
	n.taken.Write(b[:size])
	if size < len(b) {
		return size, os.ErrDeadlineExceeded
	}
	return size, nil
}

// What did not fit into a connection's buffer does not break up what comes behind
// it: all messages that were taken arrive, and no others.
func TestWriterKeepsMessagesWhole(t *testing.T) {
	const size = 100
	conn := &narrow{room: 2*size + 30}
	w := &writer{conn: conn, size: size}
	var want []int
	for seq, room := range []int{0, 0, 0, 0, 20, 50, 150, 0, 0, 300} {
		conn.room += room
		switch err := w.write(message{1, Opener, seq}); {
		case err == nil:
			want = append(want, seq)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatal(err)
		}
	}
	var got []int
	p := &player{spec: &Flow{Size: size}}
	for {
		m, err := readHeader(&conn.taken)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = p.skip(&conn.taken)
		}
		if err != nil {
			t.Fatalf("behind %v: %v", got, err)
		}
		got = append(got, m.seq)
	}
	if !slices.Equal(got, want) || !slices.Equal(want, []int{0, 1, 2, 6, 7, 9}) {
		t.Errorf("taken were %v, and %v arrived", want, got)
	}
}
