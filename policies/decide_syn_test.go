package policies_test

import (
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

// TestWhichSegmentsBeginAConnection tries all flags: those of urgent data, pushing
// and congestion mean nothing here.
func TestWhichSegmentsBeginAConnection(t *testing.T) {
	judge := policies.NewJudge(documentation())
	for flags := range 256 {
		p := segment(uint8(flags), in(flow.TCP, "203.0.113.1", 40000, 22))
		want := p.TCPFlags&flow.SYN != 0 && p.TCPFlags&(flow.FIN|flow.RST|flow.ACK) == 0
		if got := judge.Decide(&p); got.Allow != want {
			t.Errorf("%s: allow %t (%s), want %t", &p, got.Allow, got.Reason, want)
		}
		if got := judge.Standing(&p); got.Class != policies.Tracked {
			t.Errorf("%s: standing %s: flags do not count there", &p, got.Class)
		}
		exempt := segment(uint8(flags), in(flow.TCP, "169.254.169.254", 80, 40000))
		if got := judge.Decide(&exempt); !got.Allow {
			t.Errorf("%s: %s; it is exempt", &exempt, got.Reason)
		}
	}
}
