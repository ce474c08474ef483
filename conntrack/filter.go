package conntrack

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"sgc/internal/flow"
	"sgc/policies"
)

// Filter chooses among judged entries. Its zero value takes every entry that
// crosses an interface of the policy. What it names must be true of one leg,
// all at once; an entry that crosses none is never taken.
type Filter struct {
	// Interface is the name of an interface, or of several with a "*" at its
	// end.
	Interface string
	// Group is the name of a group whose rule allows the flow today, Rule a rule
	// of the judge's policy that does.
	Group string
	Rule  *policies.Rule
	// Classes are those to take; none are all.
	Classes []Class
	// Protocol is nil for all.
	Protocol *flow.Protocol
	// Peer is where the peer is; the zero value is anywhere.
	Peer netip.Prefix
	// Ports are those of the flow's destination; nil are all, and flows of all
	// protocols.
	Ports *flow.PortRange
	// Revoked takes only flows that no rule allows any more.
	Revoked bool
}

// TakesOthers reports whether the filter may take flows of protocols other than
// TCP, UDP and ICMP.
func (f *Filter) TakesOthers() bool {
	if f.Ports != nil || len(f.Classes) > 0 && !slices.ContainsFunc(f.Classes, func(c Class) bool { return c != ClassOpen }) {
		return false
	}
	// ICMP of the wrong family is another protocol.
	return f.Protocol == nil || f.Protocol.IsOther(flow.IPv4) || f.Protocol.IsOther(flow.IPv6)
}

// Matches reports whether the filter takes an entry.
func (f *Filter) Matches(j *Judged) bool {
	for i := range j.Legs {
		if f.matchesLeg(&j.Legs[i]) {
			return true
		}
	}
	return false
}

func (f *Filter) matchesLeg(l *Leg) bool {
	p := &l.Packet
	switch {
	case f.Revoked && !l.Revoked(),
		f.Interface != "" && !matchesName(f.Interface, p.Interface),
		f.Group != "" && (l.Rule == nil || l.Rule.Group != f.Group),
		f.Rule != nil && l.Rule != f.Rule,
		f.Protocol != nil && p.Protocol != *f.Protocol,
		f.Peer.IsValid() && !f.Peer.Contains(p.Peer()),
		f.Ports != nil && (!p.Protocol.HasPorts() || !f.Ports.Contains(p.DestPort)):
		return false
	}
	if len(f.Classes) == 0 {
		return true
	}
	for _, c := range f.Classes {
		if c == l.Class() {
			return true
		}
	}
	return false
}

func matchesName(pattern, name string) bool {
	if stem, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, stem)
	}
	return pattern == name
}

// Select calls each with every entry that the filter takes; both arguments are
// valid during the call. It ends as Entries does.
func (t *Table) Select(ctx context.Context, judge *Judge, f *Filter, each func(*Entry, *Judged) error) error {
	var judged Judged
	return t.narrowed(ctx, f, func(e *Entry) error {
		if err := judge.Entry(e, &judged); err != nil {
			return err
		}
		if !f.Matches(&judged) {
			return nil
		}
		return each(e, &judged)
	})
}

// Flush deletes every entry that the filter takes. That ends a tracked TCP flow,
// since none of its segments is a SYN. Another flow begins a new entry with its
// next packet, if the rules let it; of a protocol that sgc tracks by itself (2.2),
// they do for as long as sgc remembers the flow.
func (t *Table) Flush(ctx context.Context, judge *Judge, f *Filter) (Result, error) {
	return t.inBatches(func(b *Batch) error {
		return t.Select(ctx, judge, f, func(e *Entry, _ *Judged) error { return b.Delete(e) })
	})
}
