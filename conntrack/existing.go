package conntrack

import (
	"context"
	"errors"
	"time"

	"sgc/internal/flow"
	"sgc/policies"
)

// Limits says how long an entry may live on without packets, by a policy.
type Limits struct {
	policy        *policies.Judge
	icmp, generic time.Duration
}

// NewLimits returns the limits of a policy; judge is that of the policy.
func NewLimits(p *policies.Policy, judge *policies.Judge) *Limits {
	l := &Limits{policy: judge}
	if c := p.Host.Conntrack; c != nil {
		l.icmp, l.generic = c.ICMPTimeout, c.GenericTimeout
	}
	return l
}

// The protocols that the kernel tracks in their own ways, with timeouts that no
// policy names.
const (
	protocolDCCP    flow.Protocol = 33
	protocolGRE     flow.Protocol = 47
	protocolSCTP    flow.Protocol = 132
	protocolUDPLite flow.Protocol = 136
)

// Of returns the timeout of the policy that holds for an entry in its present
// state, or 0 if none does: it crosses no interface of the policy, is never
// filtered where it does (no rule gives it a timeout there), or is in a state for
// which the language has no timeout. Of two legs the shorter counts: where the
// flow is forgotten first, it ends.
func (l *Limits) Of(e *Entry, j *Judged) time.Duration {
	if e.Status.Has(FixedTimeout) || e.Status.Has(Offload) || e.Status.Has(HardwareOffload) {
		return 0
	}
	var shortest time.Duration
	for i := range j.Legs {
		if j.Legs[i].Class() == ClassExempt {
			continue
		}
		if d := l.ofLeg(e, &j.Legs[i].Packet); d > 0 && (shortest == 0 || d < shortest) {
			shortest = d
		}
	}
	return shortest
}

func (l *Limits) ofLeg(e *Entry, p *flow.Packet) time.Duration {
	block := l.policy.Interface(p.Interface)
	if block == nil {
		return 0
	}
	timeouts := block.EffectiveTimeouts()
	if t := l.policy.AlwaysTrack(p); t != nil {
		timeouts = t.EffectiveTimeouts(block)
	}
	switch {
	case p.Protocol == flow.TCP:
		if e.TCPState == TCPEstablished {
			return timeouts.TCPEstablished
		}
		return 0
	case p.Protocol == flow.UDP:
		// The kernel marks a stream so, once it takes it for one.
		if e.Status.Has(Assured) {
			return timeouts.UDPStream
		}
		return timeouts.UDP
	case p.Protocol.IsICMP(p.Family()):
		return l.icmp
	case p.Protocol == protocolDCCP, p.Protocol == protocolGRE, p.Protocol == protocolSCTP, p.Protocol == protocolUDPLite:
		return 0
	default:
		return l.generic
	}
}

// Excess calls each with every entry that would live longer without packets
// than the policy lets it, and with the policy's timeout for it.
func (t *Table) Excess(ctx context.Context, judge *Judge, limits *Limits, each func(*Entry, time.Duration) error) error {
	var judged Judged
	return t.Entries(ctx, func(e *Entry) error {
		if err := judge.Entry(e, &judged); err != nil {
			return err
		}
		if limit := limits.Of(e, &judged); limit > 0 && e.Remaining > limit {
			return each(e, limit)
		}
		return nil
	})
}

// Shorten gives every entry that would live longer without packets than the
// policy lets it the policy's timeout. From its next packet on it has that of
// the host's or its own settings again.
func (t *Table) Shorten(ctx context.Context, judge *Judge, limits *Limits) (Result, error) {
	return t.inBatches(func(b *Batch) error {
		return t.Excess(ctx, judge, limits, b.SetTimeout)
	})
}

// inBatches calls f with a batch, flushes it, and returns what became of it. A
// torn reading is repeated: what was done once needs nothing the second time.
func (t *Table) inBatches(f func(*Batch) error) (Result, error) {
	b, err := t.Batch()
	if err != nil {
		return Result{}, err
	}
	for attempt := 1; ; attempt++ {
		err = f(b)
		// What was asked for before an error takes place all the same.
		flushed := b.Flush()
		if errors.Is(err, ErrTorn) && flushed == nil && attempt < attempts {
			continue
		}
		return b.Result(), errors.Join(err, flushed, b.Close())
	}
}
