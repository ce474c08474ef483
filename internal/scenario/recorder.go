package scenario

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"sgc/internal/flow"
)

// recorder keeps the lane of a flow while it runs. Its methods may be called
// from several goroutines.
type recorder struct {
	mu   sync.Mutex
	lane Lane
	// index finds packets by side and sequence number.
	index [2]map[int]int
	// observed is the opener's address as the other side sees it.
	observed netip.AddrPort
	// last is the number of the last packet that each side sent.
	last [2]int
}

func newRecorder(lane Lane) *recorder {
	return &recorder{lane: lane, index: [2]map[int]int{{}, {}}}
}

// sending records a packet that is about to be sent, and returns its number.
func (r *recorder) sending(side Side, at time.Duration, open bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last[side]++
	seq := r.last[side]
	r.index[side][seq] = len(r.lane.Packets)
	r.lane.Packets = append(r.lane.Packets, Packet{Seq: seq, Side: side, Open: open, Sent: at})
	return seq
}

// note changes the record of a packet; there is none of a number that nobody
// sent.
func (r *recorder) note(side Side, seq int, f func(*Packet)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, ok := r.index[side][seq]; ok {
		f(&r.lane.Packets[i])
	}
}

func (r *recorder) arrived(side Side, seq int, at time.Duration) {
	r.note(side, seq, func(p *Packet) {
		if p.Arrived == 0 {
			p.Arrived = at
		}
	})
}

func (r *recorder) answered(seq int, at time.Duration) {
	r.note(Opener, seq, func(p *Packet) {
		if p.Answered == 0 {
			p.Answered = at
		}
		if p.Arrived == 0 {
			// The answer overtook whoever watches the other side.
			p.Arrived = at
		}
	})
}

// unheard records that a packet of the opener came to where nobody listens, which
// something answered: a host, by a segment with RST or an ICMP message. No policy
// does that; sgc only drops.
func (r *recorder) unheard(seq int, at time.Duration) {
	r.note(Opener, seq, func(p *Packet) {
		if p.unheard == 0 {
			p.unheard, p.Failed = at, errNobodyListens.Error()
		}
	})
}

// refusedBySender is why a packet was not sent that the rules of its own host drop.
const refusedBySender = "refused by the sender's own rules"

// failed records why a packet was not sent. An attempt to connect that nobody
// answered was, and one at a port where nobody listens.
func (r *recorder) failed(side Side, seq int, err error) {
	if errors.Is(err, errNoAnswer) || errors.Is(err, errNobodyListens) {
		return
	}
	text := err.Error()
	if errors.Is(err, syscall.EPERM) {
		text = refusedBySender
	}
	r.note(side, seq, func(p *Packet) { p.Failed = text })
}

func (r *recorder) observe(from netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observed = from
}

func (r *recorder) seenFrom() netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.observed
}

// sentBy returns how many packets a side has sent.
func (r *recorder) sentBy(side Side) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[side]
}

func (r *recorder) end(at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lane.Ended == 0 {
		r.lane.Ended = at
	}
}

// snapshot returns a copy of the lane.
func (r *recorder) snapshot() Lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lane
	l.Packets = slices.Clone(l.Packets)
	return l
}

// counts are what a window of a lane holds.
type counts struct {
	// sent and passed count the packets of each side, failed those that were not
	// even sent, why being the reason of the last of them.
	sent, passed, failed [2]int
	why                  [2]string
	// unheard counts the opener's that came to where nobody listens.
	unheard int
	// firstSent is the number of the opener's first packet, and first that of the
	// first that passed; 0 for none.
	firstSent, first int
	// before says that a packet that was sent before the window passed.
	before bool
	// slowest is the longest that a packet took that passed.
	slowest time.Duration
	// lastSent is when the last packet of either side was sent, 0 for none.
	lastSent time.Duration
	// waiting is when each side sent the first of those packets that are still to
	// pass, behind the last that did; 0 for none. Attempts to connect are none of
	// them, nor is what was not sent.
	waiting [2]time.Duration
}

// window counts the packets that were sent from one time to another, and those
// of them that passed until the cutoff.
func (r *recorder) window(from, to, cutoff time.Duration) counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	var c counts
	for i := range r.lane.Packets {
		p := &r.lane.Packets[i]
		at := r.lane.Passed(p)
		passed := at != 0 && at <= cutoff
		switch {
		case p.Sent > to:
			continue
		case p.Sent < from:
			c.before = c.before || passed
			continue
		}
		c.sent[p.Side]++
		c.lastSent = p.Sent
		if p.Side == Opener && c.firstSent == 0 {
			c.firstSent = p.Seq
		}
		if passed {
			c.passed[p.Side]++
			c.slowest = max(c.slowest, at-p.Sent)
			c.waiting[p.Side] = 0
			if p.Side == Opener && c.first == 0 {
				c.first = p.Seq
			}
		} else if c.waiting[p.Side] == 0 && !p.Open && p.Failed == "" {
			c.waiting[p.Side] = p.Sent
		}
		switch {
		case p.unheard != 0:
			if !passed && p.unheard <= cutoff {
				c.unheard++
			}
		case p.Failed != "":
			c.failed[p.Side]++
			c.why[p.Side] = p.Failed
		}
	}
	return c
}

// lost is how many packets of the window did not pass.
func (c *counts) lost() int {
	return c.sent[Opener] - c.passed[Opener] + c.sent[Responder] - c.passed[Responder]
}

// laneTitle says in a few words what a flow is.
func laneTitle(f *Flow, sourcePort, id uint16) string {
	name := f.Protocol.Name(flow.FamilyOf(f.Dest))
	switch {
	case f.IsPing():
		return fmt.Sprintf("ping %s → %s, id %d", f.From, f.To, id)
	case f.Message != nil:
		return fmt.Sprintf("%s type %d %s → %s", name, f.Message.Type, f.From, f.To)
	case f.Protocol.HasPorts():
		return fmt.Sprintf("%s %s:%d → %s:%d", name, f.From, sourcePort, f.To, f.Port)
	}
	return fmt.Sprintf("%s %s → %s", name, f.From, f.To)
}
