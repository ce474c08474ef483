package scenario

import (
	"net/netip"
	"time"
)

// Timeline is what a run recorded: every packet of every flow, and what was
// done to the hosts in between. All times are since the scenario began, and
// real: Speed says by how much the scenario's own are divided.
type Timeline struct {
	// Scenario is the file's name, Title what it says of itself.
	Scenario string `json:"scenario"`
	Title    string `json:"title,omitempty"`
	// Speed divides waits, intervals and timeouts; 1 is as written.
	Speed int `json:"speed"`
	// Length is when the last step ended, or the time of the snapshot while the
	// scenario runs.
	Length time.Duration `json:"length_ns"`
	// Lanes are the flows in the order in which they were started.
	Lanes []Lane `json:"flows"`
	// Marks are the changes of the policy, in order.
	Marks []Mark `json:"marks"`
	// Steps are those that have begun, in order.
	Steps []Span `json:"steps"`
}

// Lane is one flow.
type Lane struct {
	Name string `json:"name"`
	// Title says what the flow is: "ping client → server, id 7".
	Title    string `json:"title"`
	Protocol string `json:"protocol"`
	// From and To are the hosts of the two sides.
	From string `json:"from"`
	To   string `json:"to"`
	// Source and Dest are as the opener sends them; ports are 0 where the
	// protocol has none.
	Source netip.AddrPort `json:"source"`
	Dest   netip.AddrPort `json:"destination"`
	// Answered says that packets are answered one by one (ping): a packet
	// passed when its answer came. Those of other flows passed when they
	// arrived.
	Answered bool `json:"answered"`
	// Begun and Ended bound the flow; Ended is 0 while it runs.
	Begun time.Duration `json:"begun_ns"`
	Ended time.Duration `json:"ended_ns,omitempty"`
	// Packets are all that were sent, in the order of sending.
	Packets []Packet `json:"packets"`
}

// Packet is one packet of a flow, or of TCP, one message of a connection: the
// kernel sends that again until it arrives.
type Packet struct {
	// Seq counts the packets of its side from 1.
	Seq  int  `json:"seq"`
	Side Side `json:"side"`
	// Open marks an attempt to open a TCP connection.
	Open bool          `json:"open,omitempty"`
	Sent time.Duration `json:"sent_ns"`
	// Arrived is when the other side's program had it, 0 for never.
	Arrived time.Duration `json:"arrived_ns,omitempty"`
	// Answered is when the answer was back, 0 for never.
	Answered time.Duration `json:"answered_ns,omitempty"`
	// Failed says why the packet was not sent: the sender's own rules refused it,
	// or its connection is gone. Of one that was sent, it says that something
	// answered that nobody listens where it came to.
	Failed string `json:"failed,omitempty"`
	// unheard is when that answer was back, 0 for never.
	unheard time.Duration
}

// Side is one of the two ends of a flow.
type Side uint8

// The opener sends first.
const (
	Opener Side = iota
	Responder
)

func (s Side) String() string {
	if s == Opener {
		return "opener"
	}
	return "responder"
}

// MarshalText is the side's name, for JSON.
func (s Side) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Passed returns when the packet did what it was sent for, 0 for never: a
// request of a ping when it was answered, any other packet when it arrived.
func (l *Lane) Passed(p *Packet) time.Duration {
	if l.Answered {
		return p.Answered
	}
	return p.Arrived
}

// NotTaken reports whether the kernel of the sender did not take the packet. An
// attempt to open a connection that nobody answered was taken, and so was what came
// to where nobody listens.
func (p *Packet) NotTaken() bool {
	return p.Failed != "" && p.Failed != errNoAnswer.Error() && p.unheard == 0
}

// Mark is a change of the managed host's policy.
type Mark struct {
	// Begun and Ended are when sgc was called and returned: the commit lies in
	// between. Ended is 0 while it is at work.
	Begun time.Duration `json:"begun_ns"`
	Ended time.Duration `json:"ended_ns"`
	// Text says what was done: "apply closed".
	Text string `json:"text"`
}

// Span is a step in time.
type Span struct {
	Name        string        `json:"name"`
	Description string        `json:"description,omitempty"`
	Begun       time.Duration `json:"begun_ns"`
	// Ended is 0 while the step runs.
	Ended time.Duration `json:"ended_ns,omitempty"`
	// Failed says that an expectation was not met. It is known a little after the
	// step has ended.
	Failed bool `json:"failed,omitempty"`
}

// End is when the step ended: the time of the record while it runs.
func (s *Span) End(t *Timeline) time.Duration {
	if s.Ended == 0 {
		return t.Length
	}
	return s.Ended
}
