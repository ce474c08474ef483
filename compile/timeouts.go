package compile

import (
	"fmt"
	"slices"
	"time"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// Idle timeouts (2.7). Flows have the host's defaults, which an apply sets, unless
// a rule gives them others while their first packet is on its way. Of several
// such rules the last one counts.
//
// A routed flow passes two interfaces. It gets the shorter of their timeouts: where
// a flow leaves, the rules look at the interface that it came in by. The peers of
// an always_track block with timeouts get those where they are the last: where
// the flow leaves, or where the interface that it leaves by has the host's
// defaults.

// timeoutNames begins the names of chains and maps for timeouts. No group can be
// called so.
const timeoutNames = "_timeout."

// timeoutsFor returns the part of an interface's timeouts that flows of a
// protocol have, by the states of the kernel, sorted.
func timeoutsFor(t policies.Timeouts, proto flow.Protocol) []ruleset.StateTimeout {
	if proto == flow.TCP {
		return []ruleset.StateTimeout{{State: ruleset.TCPEstablished, Timeout: t.TCPEstablished}}
	}
	return []ruleset.StateTimeout{{State: ruleset.UDPUnreplied, Timeout: t.UDP}, {State: ruleset.UDPReplied, Timeout: t.UDPStream}}
}

// timeoutsName is what the names of chains have of timeouts, "350s.30s.180s".
func timeoutsName(t policies.Timeouts) string {
	return fmt.Sprintf("%ds.%ds.%ds", t.TCPEstablished/time.Second, t.UDP/time.Second, t.UDPStream/time.Second)
}

// shorter returns the shorter timeout of each state.
func shorter(a, b []ruleset.StateTimeout) []ruleset.StateTimeout {
	out := slices.Clone(a)
	for i := range out {
		out[i].Timeout = min(out[i].Timeout, b[i].Timeout)
	}
	return out
}

// timeoutName names an object, "udp6.30s.180s": the kernel changes none in place.
func timeoutName(states []ruleset.StateTimeout, f flow.Family, proto flow.Protocol) string {
	name := protoName(proto, f)
	for _, s := range states {
		name += fmt.Sprintf(".%ds", s.Timeout/time.Second)
	}
	return name
}

// readable returns timeouts of which nft can read back what it lists. It leaves out
// of an object what it takes for the kernel's default, and refuses to read an
// object of which nothing is left: such a one gets a second less.
//
// Source: nftables 1.0.6, src/rule.c, print_proto_timeout_policy, and
// src/parser_bison.y, timeout_states; include/rule.h has the defaults.
func readable(states []ruleset.StateTimeout) []ruleset.StateTimeout {
	for _, s := range states {
		if s.Timeout != nftDefaults[s.State] {
			return states
		}
	}
	out := slices.Clone(states)
	out[len(out)-1].Timeout -= time.Second
	return out
}

var nftDefaults = map[ruleset.TimeoutState]time.Duration{
	ruleset.TCPEstablished: 432000 * time.Second,
	ruleset.UDPUnreplied:   30 * time.Second,
	ruleset.UDPReplied:     120 * time.Second,
}

// setTimeout adds the object of these timeouts and returns the statement that
// gives it to a flow.
func (c *compiler) setTimeout(states []ruleset.StateTimeout, f flow.Family, proto flow.Protocol) ruleset.Statement {
	states = readable(states)
	name := timeoutName(states, f, proto)
	if c.timeouts[name] == nil {
		c.timeouts[name] = &ruleset.Timeout{Name: name, Family: f, Protocol: proto, States: states}
	}
	return ruleset.SetTimeout{Object: name}
}

// timeoutRules returns the nft rules that give a flow its timeouts where they are
// not the host's defaults.
func (c *compiler) timeoutRules(p *profile, d flow.Direction, f flow.Family, proto flow.Protocol) []ruleset.Rule {
	host, own := timeoutsFor(c.hostTimeouts, proto), timeoutsFor(p.timeouts, proto)
	isNew := ruleset.MatchState{State: ruleset.CtNew}
	var rules []ruleset.Rule
	if chain := c.addForwardedTimeouts(own, d, f, proto); chain != "" {
		rules = append(rules, ruleset.Rule{
			Statements: []ruleset.Statement{isNew, ruleset.Verdict{Kind: ruleset.Jump, Chain: chain}},
			Comment:    "timeouts: the shorter of two interfaces",
		})
	} else if !slices.Equal(own, host) {
		rules = append(rules, ruleset.Rule{
			Statements: []ruleset.Statement{isNew, c.setTimeout(own, f, proto)}, Comment: "connection_tracking",
		})
	}
	for _, peers := range trackedTimeouts(p, f, proto) {
		set := fmt.Sprintf("%s.always_track.%s", p.name, timeoutName(peers.states, f, proto))
		c.addAddressSet(set, "always_track", f, peers.ranges)
		rules = append(rules, ruleset.Rule{
			Statements: []ruleset.Statement{isNew, lookup(set, ruleset.Peer(f, d)), c.setTimeout(peers.states, f, proto)},
			Comment:    "timeouts of always_track",
		})
	}
	return rules
}

// addForwardedTimeouts adds the chain that gives a flow which leaves by an
// interface with these timeouts the shorter of them and those of the interface
// that it came in by, and returns its name; or "" if it need not be asked which
// that was.
func (c *compiler) addForwardedTimeouts(own []ruleset.StateTimeout, d flow.Direction, f flow.Family, proto flow.Protocol) string {
	host := timeoutsFor(c.hostTimeouts, proto)
	asks := false
	for _, t := range c.interfaceTimeouts {
		came := timeoutsFor(t, proto)
		// Without asking, own would count, or what is set already if own is what
		// the host has anyway.
		last := own
		if slices.Equal(own, host) {
			last = came
		}
		asks = asks || !slices.Equal(shorter(own, came), last)
	}
	if d == flow.Ingress || !asks {
		return ""
	}
	name := timeoutNames + "forwarded." + timeoutName(own, f, proto)
	if c.chains[name] != nil {
		return name
	}
	verdict := func(i *policies.Interface) ruleset.Verdict {
		came := timeoutsFor(i.EffectiveTimeouts(), proto)
		if best := shorter(own, came); !slices.Equal(best, came) {
			return ruleset.Verdict{Kind: ruleset.Goto, Chain: c.addTimeoutChain(best, f, proto)}
		}
		return ruleset.Verdict{Kind: ruleset.Return}
	}
	var mine []ruleset.Statement
	if !slices.Equal(own, host) {
		mine = append(mine, c.setTimeout(own, f, proto))
	}
	// What begins on the host has no name to look up: a wildcard would match it.
	rules := []ruleset.Rule{{
		Statements: append([]ruleset.Statement{ruleset.MatchForwarded{Negate: true}}, append(mine, ruleset.Verdict{Kind: ruleset.Return})...),
		Comment:    "begins on the host",
	}}
	rules = append(rules, c.byName(name, ruleset.IIFName, c.policy.Interfaces, verdict)...)
	if len(mine) > 0 {
		rules = append(rules, ruleset.Rule{Statements: mine, Comment: "from an interface that is not managed"})
	}
	c.addChain(&ruleset.Chain{Name: name, Comment: "connection_tracking, by the interface that a routed flow came in by", Rules: rules})
	return name
}

// addTimeoutChain adds a chain that gives flows an object, for maps to go to.
func (c *compiler) addTimeoutChain(states []ruleset.StateTimeout, f flow.Family, proto flow.Protocol) string {
	name := timeoutNames + timeoutName(states, f, proto)
	c.addChain(&ruleset.Chain{Name: name, Comment: "connection_tracking", Rules: []ruleset.Rule{
		{Statements: []ruleset.Statement{c.setTimeout(states, f, proto)}, Comment: "connection_tracking"},
	}})
	return name
}

// timeoutPeers are the peers of always_track blocks that have timeouts of their own.
type timeoutPeers struct {
	states []ruleset.StateTimeout
	ranges []flow.Range
}

// trackedTimeouts returns the peers of each timeout, disjoint, in the order of the
// timeouts' names. Of several prefixes that hold a peer the longest decides; those
// whose timeouts are the interface's are left out.
func trackedTimeouts(p *profile, f flow.Family, proto flow.Protocol) []timeoutPeers {
	var entries []*policies.ACLEntry
	var states [][]ruleset.StateTimeout
	for bits := f.Bits(); bits >= 0; bits-- {
		for _, a := range p.trackTimeouts {
			for _, prefix := range a.prefixes {
				if flow.FamilyOf(prefix.Addr()) == f && prefix.Bits() == bits {
					entries = append(entries, &policies.ACLEntry{Prefix: prefix})
					states = append(states, timeoutsFor(a.timeouts, proto))
				}
			}
		}
	}
	byName := map[string]*timeoutPeers{}
	for _, at := range decide(entries) {
		is := states[at.entry]
		if slices.Equal(is, timeoutsFor(p.timeouts, proto)) {
			continue
		}
		name := timeoutName(is, f, proto)
		if byName[name] == nil {
			byName[name] = &timeoutPeers{states: is}
		}
		byName[name].ranges = append(byName[name].ranges, at.Range)
	}
	var out []timeoutPeers
	for _, peers := range byName {
		peers.ranges = flow.MergeRanges(peers.ranges)
		out = append(out, *peers)
	}
	slices.SortFunc(out, func(a, b timeoutPeers) int {
		return compareNames(timeoutName(a.states, f, proto), timeoutName(b.states, f, proto))
	})
	return out
}
