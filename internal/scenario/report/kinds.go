package report

import (
	"time"

	"sgc/internal/scenario"
)

// kind is what became of a packet.
type kind uint8

const (
	passed kind = iota
	// opened is an attempt to open a connection that succeeded.
	opened
	// late packets passed long after they had been sent: TCP sent them again
	// until they did.
	late
	// unanswered requests arrived; it is the answer that is missing.
	unanswered
	lost
	// refused packets were not taken by the sender's own kernel.
	refused
	// pending packets were sent just now, or just before the flow was ended: nobody
	// was there any more to see what became of them.
	pending
	kinds
)

// words say what a kind is, in a legend.
var words = [kinds]string{
	passed:     "passed",
	opened:     "connection opened",
	late:       "passed late: the line ends where it arrived",
	unanswered: "arrived, but its answer did not",
	lost:       "lost",
	refused:    "not taken by the sender's own kernel",
	pending:    "under way when the flow was ended",
}

// classes are the names of the kinds in a style sheet.
var classes = [kinds]string{
	passed: "passed", opened: "opened", late: "late", unanswered: "unanswered", lost: "lost", refused: "refused", pending: "pending",
}

const (
	// lateAfter is less than the 0.2 seconds after which TCP first sends again.
	lateAfter = 150 * time.Millisecond
	// pendingFor is how long a packet is under way before it counts as lost in a
	// record that still grows.
	pendingFor = 500 * time.Millisecond
	// cutShort is how long before a flow's end a packet is sent that may have been
	// under way then: shorter than the intervals of most flows.
	cutShort = 50 * time.Millisecond
)

// kindOf returns what became of a packet of the lane. Until now, a time of the
// record, packets that were sent just before may be under way; 0 is for a
// record that is finished.
func kindOf(l *scenario.Lane, p *scenario.Packet, now time.Duration) kind {
	switch at := l.Passed(p); {
	case at != 0 && at-p.Sent > lateAfter:
		return late
	case at != 0 && p.Open:
		return opened
	case at != 0:
		return passed
	}
	switch {
	case p.NotTaken():
		return refused
	case now != 0 && now-p.Sent < pendingFor, l.Ended != 0 && l.Ended-p.Sent < cutShort:
		return pending
	case l.Answered && p.Arrived != 0:
		return unanswered
	}
	return lost
}

// tally counts the packets of a lane.
type tally struct {
	// sent and passed are those of the two sides.
	sent, passed [2]int
	kinds        [kinds]int
}

func tallyOf(l *scenario.Lane) tally {
	var t tally
	for i := range l.Packets {
		p := &l.Packets[i]
		t.sent[p.Side]++
		if l.Passed(p) != 0 {
			t.passed[p.Side]++
		}
		t.kinds[kindOf(l, p, 0)]++
	}
	return t
}

// verb is what a passing packet of the lane does.
func verb(l *scenario.Lane) string {
	if l.Answered {
		return "answered"
	}
	return "arrived"
}
