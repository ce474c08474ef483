package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sgc/apply"
	"sgc/compile"
	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// The rules remember live flows of protocols other than TCP, UDP and ICMP in sets
// of their own (2.2). These, and not conntrack's entries, say which are alive.

// remembered is an element of such a set.
type remembered struct {
	set, key string
	policies.OtherFlow
	// left is how long it goes on without a packet.
	left time.Duration
}

// otherFlows returns what the kernel's table remembers.
func otherFlows(ctx context.Context, k *apply.Kernel) ([]remembered, error) {
	var flows []remembered
	for _, set := range compile.OtherFlows() {
		elements, err := k.DynamicElements(ctx, set.Name)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			if f, ok := compile.OtherFlow(set.Name, e.First); ok {
				flows = append(flows, remembered{set.Name, e.First, f, e.Expires})
			}
		}
	}
	return flows, nil
}

// otherFlowsOnce is otherFlows for a command that changes nothing.
func (s *session) otherFlowsOnce(ctx context.Context) (known rememberedFlows, err error) {
	k, err := apply.Open(s.Netns)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	flows, err := otherFlows(ctx, k)
	known = make(rememberedFlows, len(flows))
	for _, f := range flows {
		known[f.OtherFlow] = f
	}
	return known, err
}

// judgeOthers goes through the flows of other protocols.
func (w *liveWork) judgeOthers(ctx context.Context, k *apply.Kernel, pruner *policies.Pruner) error {
	flows, err := otherFlows(ctx, k)
	if err != nil || len(flows) == 0 {
		return err
	}
	c := w.change(nil, nil)
	var out conntrack.Changed
	for _, f := range flows {
		for _, d := range flow.Directions {
			p := f.Packet(d)
			pruner.See(&p)
		}
		c.Other(f.OtherFlow, &out)
		if out.Delete {
			w.others++
		}
		if leg := out.Leg(); leg != nil {
			w.addAs(out.Fate, out.Reason, leg, func() liveFlowView { return newOtherFlowView(f.OtherFlow) })
		}
	}
	return nil
}

// newOtherFlowView shows a flow of which nobody knows who opened it.
func newOtherFlowView(f policies.OtherFlow) liveFlowView {
	peer := f.Peer
	return liveFlowView{Interface: f.Interface, Protocol: f.Protocol.Name(flow.FamilyOf(peer)), Peer: &peer}
}

// forgettings is how often clearOthers goes through the sets at most, and
// forgetPause the time between: a packet that was on its way through the rules
// during the commit, or while its flow was forgotten, puts the flow in again. It
// is through by then.
const (
	forgettings = 4
	forgetPause = 10 * time.Millisecond
)

// clearOthers makes the rules, which are those of the step by now, forget the
// flows of other protocols that it cuts. No packet of them passes then: the rules
// let none open the flow anew.
func clearOthers(ctx context.Context, k *apply.Kernel, t *transition, table *ruleset.Table, done *cleared) error {
	c := t.change(nil, nil)
	for pass := 1; ; pass++ {
		flows, err := otherFlows(ctx, k)
		if err != nil {
			return err
		}
		var out conntrack.Changed
		flows = slices.DeleteFunc(flows, func(f remembered) bool {
			c.Other(f.OtherFlow, &out)
			return !out.Delete
		})
		if len(flows) == 0 {
			return nil
		}
		if err := forget(ctx, k, table, flows, done.follow); err != nil {
			return fmt.Errorf("forget flows that are cut: %w", err)
		}
		if pass == forgettings {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(forgetPause):
		}
	}
}

// forget takes flows out of the sets of the table, which the kernel holds, and
// tells follow of each transaction.
func forget(ctx context.Context, k *apply.Kernel, table *ruleset.Table, flows []remembered, follow func(apply.Generations)) error {
	for _, set := range compile.OtherFlows() {
		var keys []string
		for _, f := range flows {
			if f.set == set.Name {
				keys = append(keys, f.key)
			}
		}
		if len(keys) == 0 {
			continue
		}
		g, err := k.RemoveDynamic(ctx, table, set.Name, keys)
		if err != nil {
			return err
		}
		follow(g)
	}
	return nil
}

// remembers reports whether the table remembers the flow of another protocol that
// p belongs to.
func (x *explainer) remembers(p *flow.Packet) bool {
	_, known := x.others[policies.OtherFlowOf(p)]
	return known
}

// isOther reports whether sgc tracks the flow of p by itself.
func isOther(p *flow.Packet) bool { return p.Protocol.IsOther(p.Family()) }

// allowsBack returns what the policy says of a packet that goes the other way, if
// that opens the flow anew although the rules of p's direction do not: of other
// protocols, nobody knows who opened it.
func (x *explainer) allowsBack(p *flow.Packet) (policies.Standing, bool) {
	if !isOther(p) {
		return policies.Standing{}, false
	}
	back := x.index.Standing(reply(p))
	return back, back.Class != policies.None
}

// sayForgotten explains an entry of another protocol of which there is no flow.
func sayForgotten(protocol flow.Protocol, peer netip.Addr) string {
	return fmt.Sprintf("sgc remembers no flow of %s with %s: whatever is left of the entry, the next packet is judged as one that opens a flow, in either direction.",
		protocol.Name(flow.FamilyOf(peer)), peer)
}
