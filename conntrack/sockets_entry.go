package conntrack

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// FlowTimeouts are the host's current default timeouts of TCP, by state, and of
// UDP streams. Entries that are made for sockets begin with them.
type FlowTimeouts struct {
	tcp       map[TCPState]time.Duration
	udpStream time.Duration
}

// tcpTimeoutNames are the states that entries of sockets begin in, as sysctl
// names their timeouts.
var tcpTimeoutNames = map[TCPState]string{
	TCPSynSent: "syn_sent", TCPSynRecv: "syn_recv", TCPEstablished: "established", TCPFinWait: "fin_wait",
	TCPCloseWait: "close_wait", TCPLastAck: "last_ack",
}

// FlowTimeouts reads the namespace's timeouts.
func (t *Table) FlowTimeouts() (*FlowTimeouts, error) {
	c, err := t.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	f := &FlowTimeouts{tcp: map[TCPState]time.Duration{}}
	for state, name := range tcpTimeoutNames {
		// The kernel numbers timeouts as it numbers states.
		k := kernelSetting{unix.AF_INET, unix.IPPROTO_TCP, uint16(state), "net.netfilter.nf_conntrack_tcp_timeout_" + name}
		f.tcp[state], err = t.timeout(c, k)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	f.udpStream, err = t.timeout(c, kernelSettings[TimeoutUDPStream])
	return f, errors.Join(err, c.close())
}

// timeout reads a default timeout, of one second at least.
func (t *Table) timeout(c *conn, k kernelSetting) (time.Duration, error) {
	v, err := t.setting(c, k)
	if err != nil {
		return 0, fmt.Errorf("read the conntrack timeout %s: %w", k.sysctl, err)
	}
	return max(time.Duration(v)*time.Second, time.Second), nil
}

// Entry returns the entry that conntrack would hold had it seen the socket's
// flow, opened in the given direction, from its beginning; without NAT, and in
// no zone. There is none (false) for sockets without a peer and those in
// TimeWait.
//
// A connection that is being opened gets the entry of a handshake, which does
// not outlive it: its answer would be refused otherwise, and the peer of one in
// SynReceived believes that it is connected already. Half-closed connections
// get the state that conntrack has them in, with its timeout, which is refreshed
// as always by what the open side sends. Where data stands before the host's own
// end of the stream, the end may not be on the wire yet: conntrack would not
// know of it. What is in TimeWait has delivered everything in both directions;
// what may still come is a repeated FIN, whose sender gives up by itself.
func (s *Socket) Entry(opened flow.Direction, timeouts *FlowTimeouts) (Entry, bool) {
	e := Entry{Status: SeenReply | Assured | Confirmed}
	unfinished := s.Unacknowledged > 1
	switch s.State {
	case SynSent:
		e.TCPState, e.Status = TCPSynSent, Confirmed
	case SynReceived:
		// Not assured: anybody can send a SYN, and a full table lets it go first.
		e.TCPState, e.Status = TCPSynRecv, SeenReply|Confirmed
	case Established:
		e.TCPState = TCPEstablished
	case FinWait1:
		e.TCPState = TCPFinWait
		if unfinished {
			e.TCPState = TCPEstablished
		}
	case FinWait2, CloseWait:
		e.TCPState = TCPCloseWait
	case Closing, LastAck:
		e.TCPState = TCPLastAck
		if unfinished {
			e.TCPState = TCPCloseWait
		}
	case Connected:
		e.Remaining = timeouts.udpStream
	default:
		return Entry{}, false
	}
	if e.TCPState != TCPNone {
		e.Remaining = timeouts.tcp[e.TCPState]
	}
	e.Original = Tuple{
		Protocol: s.Protocol,
		Source:   s.Local.Addr(), SourcePort: s.Local.Port(),
		Dest: s.Remote.Addr(), DestPort: s.Remote.Port(),
	}
	if opened == flow.Ingress {
		e.Original = e.Original.Reversed()
	}
	e.Reply = e.Original.Reversed()
	return e, true
}
