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
// all at once, where several of a kind mean any of them; an entry that crosses no
// interface of the policy is never taken.
type Filter struct {
	// Interfaces are the names of interfaces, or of several with a "*" at the end.
	Interfaces []string
	// Groups are the names of groups whose rules allow the flow today, Rules the
	// rules of the judge's policy that do.
	Groups []string
	Rules  []*policies.Rule
	// Classes, Protocols and Peers are those to take; none are all.
	Classes   []Class
	Protocols []flow.Protocol
	Peers     []netip.Prefix
	// Ports are those of the flow's destination; none are all, and flows of all
	// protocols.
	Ports []flow.PortRange
	// Revoked takes only flows that no rule allows any more.
	Revoked bool
}

// TakesOthers reports whether the filter may take flows of protocols other than
// TCP, UDP and ICMP.
func (f *Filter) TakesOthers() bool {
	if len(f.Ports) > 0 || len(f.Classes) > 0 && !slices.ContainsFunc(f.Classes, func(c Class) bool { return c != ClassOpen }) {
		return false
	}
	// ICMP of the wrong family is another protocol.
	return anyOf(f.Protocols, func(p flow.Protocol) bool { return p.IsOther(flow.IPv4) || p.IsOther(flow.IPv6) })
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
	return (!f.Revoked || l.Revoked()) &&
		anyOf(f.Interfaces, func(pattern string) bool { return matchesName(pattern, p.Interface) }) &&
		anyOf(f.Groups, func(name string) bool { return l.Rule != nil && l.Rule.Group == name }) &&
		anyOf(f.Rules, func(r *policies.Rule) bool { return r == l.Rule }) &&
		anyOf(f.Protocols, func(protocol flow.Protocol) bool { return protocol == p.Protocol }) &&
		anyOf(f.Peers, func(peer netip.Prefix) bool { return peer.Contains(p.Peer()) }) &&
		anyOf(f.Ports, func(ports flow.PortRange) bool { return p.Protocol.HasPorts() && ports.Contains(p.DestPort) }) &&
		anyOf(f.Classes, func(c Class) bool { return c == l.Class() })
}

// anyOf reports whether one of the list is as is says, or there is none.
func anyOf[T comparable](list []T, is func(T) bool) bool {
	return len(list) == 0 || slices.ContainsFunc(list, is)
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
