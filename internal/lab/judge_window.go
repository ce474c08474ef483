package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sgc/internal/flow"
	"sgc/internal/nflog"
)

// question is a probe that is on its way, and what is to become of it.
type question struct {
	probe   *Probe
	outcome *Outcome
}

// askWindow sends the probes, and those again that did not arrive.
func (j *Judge) askWindow(probes []Probe, outcomes []Outcome) error {
	for range judgeRounds {
		sent := map[uint16]question{}
		for i := range probes {
			if outcomes[i].Arrived || errors.Is(outcomes[i].Err, ErrImpossible) {
				continue
			}
			id := j.id()
			sent[id] = question{&probes[i], &outcomes[i]}
			outcomes[i].Err = j.send(&probes[i], id)
		}
		if len(sent) == 0 {
			return nil
		}
		if err := j.collect(sent); err != nil {
			return err
		}
	}
	return nil
}

// id returns the next identification. 0 is left out: the kernel would choose
// another.
func (j *Judge) id() uint16 {
	j.nextID++
	if j.nextID == 0 {
		j.nextID = 1
	}
	return j.nextID
}

func (j *Judge) send(probe *Probe, id uint16) error {
	p := probe.Packet
	if err := j.stand.Possible(&p); err != nil {
		return err
	}
	e := probe.Envelope
	e.ID, e.Class = id, classProbe
	if probe.GoOn {
		e.Class = classOpener
	}
	through := p.Forwarded && p.Direction == flow.Egress
	if through {
		// The host, as a router, lowers it by one.
		if p.HopLimit == 0 {
			p.HopLimit = defaultHopLimit
		}
		p.HopLimit++
	}
	packet, err := Marshal(&p, e)
	if err != nil {
		return err
	}
	port := j.stand.port(p.Interface)
	switch {
	case through:
		return port.back.Send(packet)
	case p.Direction == flow.Ingress:
		return port.wire.Send(packet)
	default:
		return port.sender.Send(packet)
	}
}

// endPacket is a packet that is reported and goes no further.
func endPacket(id uint16) ([]byte, error) {
	p := flow.Packet{Protocol: flow.UDP, Source: nextHops[flow.IPv4], Dest: nextHops[flow.IPv4]}
	return Marshal(&p, Envelope{ID: id, Class: classEnd})
}

// collect reads reports until that of a last packet, which the kernel sees
// after all others.
func (j *Judge) collect(sent map[uint16]question) error {
	last := j.id()
	packet, err := endPacket(last)
	if err != nil {
		return err
	}
	for until := time.Now().Add(judgePatience); ; {
		if err := j.stand.ports[0].wire.Send(packet); err != nil {
			return err
		}
		ended, err := j.reports(sent, last)
		if ended || err != nil {
			return err
		}
		if time.Now().After(until) {
			return fmt.Errorf("the last of %d packets did not arrive within %s", len(sent), judgePatience)
		}
	}
}

// reports reads reports until that of the last packet, for a while.
func (j *Judge) reports(sent map[uint16]question, last uint16) (ended bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), judgeEnd)
	defer cancel()
	for {
		copies, err := j.log.Receive(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for _, c := range copies {
			if c.Missed > 0 {
				return false, nflog.ErrLost
			}
			_, e, err := Parse(c.Payload)
			if err != nil {
				return false, err
			}
			if c.Prefix == reportEnd && e.ID == last {
				return true, nil
			}
			if q, ok := sent[e.ID]; ok {
				if err := j.report(q, c); err != nil {
					return false, err
				}
			}
		}
	}
}

// errElsewhere says that the host sent a packet out by another interface than
// it was said to cross.
var errElsewhere = errors.New("it left by another interface")

// report adds one report to the outcome of the question.
func (j *Judge) report(q question, c nflog.Copy) error {
	p, o := &q.probe.Packet, q.outcome
	crossed := c.In
	if p.Direction == flow.Egress {
		if c.Prefix == reportArrived {
			return nil // at the passive interface, on its way
		}
		crossed = c.Out
	}
	if crossed != j.stand.port(p.Interface).index {
		o.Err = errElsewhere
		return nil
	}
	o.Arrived, o.Err = true, nil
	state, isState := strings.CutPrefix(c.Prefix, reportState)
	switch {
	case c.Prefix == reportArrived:
	case c.Prefix == reportPassed:
		o.Passed = true
	case !isState:
		return fmt.Errorf("unknown report %q", c.Prefix)
	default:
		o.Classified = true
		for _, s := range [...]flow.State{flow.New, flow.Established, flow.Related, flow.Invalid} {
			if s.String() == state {
				o.State = s
				return nil
			}
		}
		o.Untracked = state == "untracked"
	}
	return nil
}
