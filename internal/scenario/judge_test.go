package scenario

import (
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// Where something has to pass, it is not enough that nothing took too long, or that
// no more was lost than may be.
func TestNothingPassedIsNotEnough(t *testing.T) {
	f := &Flow{From: "client", To: "server", Reaches: "server", Sends: [2]bool{true, false}}
	dead := counts{sent: [2]int{10, 0}, firstSent: 1, before: true}
	one := dead
	one.passed[Opener], one.first, one.slowest = 1, 1, time.Millisecond
	none := counts{before: true}
	for _, tt := range []struct {
		name string
		e    Expectation
		c    counts
		want string
	}{
		{"allowed, all may be lost", Expectation{Traffic: Allowed, LostPercent: 100}, dead, "nothing passed"},
		{"allowed, as many may be lost", Expectation{Traffic: Allowed, Lost: 10}, dead, "nothing passed"},
		{"allowed, and all but one are lost", Expectation{Traffic: Allowed, LostPercent: 100}, one, ""},
		{"survives, all may be lost", Expectation{Traffic: Survives, LostPercent: 100}, dead, "nothing passed"},
		{"survives, and all but one are lost", Expectation{Traffic: Survives, Lost: 9}, one, ""},
		{"within, all lost", Expectation{Within: time.Second}, dead, "nothing passed"},
		{"within, nothing sent", Expectation{Within: time.Second}, none, "client sent nothing in that time, so nothing is shown"},
		{"within", Expectation{Within: time.Second}, one, ""},
		{"refused, of course", Expectation{Traffic: Refused}, dead, ""},
	} {
		if got := tt.e.judge(f, &tt.c); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// What was expected of an entry's timeout is not taken for what the entry has.
func TestTimeoutsThatAreNotAsExpected(t *testing.T) {
	r, p := paused(t, flow.TCP)
	p.sending(Opener, 10*time.Second, false)
	for _, tt := range []struct {
		left uint32
		want time.Duration
		text string
	}{
		{215997, 48 * time.Hour, "the entry ends in 59h59m57s, and not in 47h59m57s to 2d"},
		{300, 350 * time.Second, "the entry ends in 5m, and not in 5m47s to 5m50s"},
		{9, 2 * time.Second, "the entry ends in 9s, and not in 0s to 2s"},
	} {
		j := &judgement{
			run: r, e: &Expectation{Flow: "flow", Timeout: tt.want}, p: p, end: 11 * time.Second, looked: true,
			read: 11*time.Second + 100*time.Millisecond, entry: &lab.Entry{Seconds: tt.left},
		}
		if got := j.entryProblem(); got != tt.text {
			t.Errorf("got %q, want %q", got, tt.text)
		}
	}
}
