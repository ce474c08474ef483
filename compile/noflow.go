package compile

import (
	"fmt"
	"time"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// AdoptionWindow is how long after the first apply routed flows that conntrack
// does not know go on from whatever packet comes next (2.4).
const AdoptionWindow = 300 * time.Second

// adoptionSet holds the families for which the window is open.
const adoptionSet = "adoption"

// Adoption returns what opens the window: the timed elements that the first apply
// puts into a set, which end by themselves. An apply that cuts flows takes
// them away.
func Adoption() (set string, elements []ruleset.TimedElement) {
	for _, f := range flow.Families {
		key := ruleset.NFProtoKey(f)
		elements = append(elements, ruleset.TimedElement{
			First: key, Last: key, Timeout: AdoptionWindow, Comment: "routed flows without an entry go on",
		})
	}
	return adoptionSet, elements
}

// openingFlags are the flags that tell which segment begins a connection: it has
// SYN alone of them.
const openingFlags = flow.FIN | flow.SYN | flow.RST | flow.ACK

// noFlowRules refuse packets that belong to no flow and cannot open one: those
// that conntrack calls invalid, such as segments outside of the window, and TCP
// in the middle of a connection. Open flows are judged by the rules alone, also
// where they stay in conntrack.
func (c *compiler) noFlowRules(p *profile, d flow.Direction, f flow.Family, proto flow.Protocol) []ruleset.Rule {
	notOpen := c.notOpen(p, d, f, proto)
	if len(notOpen) == 0 {
		return nil
	}
	invalid := []ruleset.Statement{ruleset.MatchState{State: ruleset.CtInvalid}}
	if proto != flow.TCP {
		var rules []ruleset.Rule
		for _, match := range notOpen {
			rules = append(rules, ruleset.Rule{
				Statements: concat(invalid, match, c.refused(d, byGroups)), Comment: "belongs to no flow",
			})
		}
		return rules
	}
	midstream := []ruleset.Statement{
		ruleset.MatchState{State: ruleset.CtNew},
		ruleset.MatchFlags{Mask: openingFlags, Value: flow.SYN, Negate: true},
	}
	refuseInvalid, refuseMidstream := c.refused(d, byGroups), ruleset.Verdict{Kind: ruleset.Jump, Chain: c.addMidstream(d)}
	match := notOpen[0]
	if len(notOpen) > 1 {
		// Both kinds take the same way, so that what opens a flow passes no more
		// rules than it has to.
		chain := fmt.Sprintf("%s.%s.%s.noflow", p.name, d, protoName(proto, f))
		var rules []ruleset.Rule
		for _, match := range notOpen {
			rules = append(rules, ruleset.Rule{
				Statements: concat(match, nil, ruleset.Verdict{Kind: ruleset.Goto, Chain: refuseMidstream.Chain}), Comment: "the flow is not open",
			})
		}
		c.addChain(&ruleset.Chain{Name: chain, Comment: c.attached(p), Rules: rules})
		refuseInvalid = ruleset.Verdict{Kind: ruleset.Jump, Chain: chain}
		refuseMidstream, match = refuseInvalid, nil
	}
	return []ruleset.Rule{
		{Statements: concat(invalid, match, refuseInvalid), Comment: "belongs to no flow"},
		{Statements: concat(midstream, match, refuseMidstream), Comment: "no SYN: in the middle of a flow that nobody knows"},
	}
}

func concat(first, second []ruleset.Statement, last ruleset.Statement) []ruleset.Statement {
	out := make([]ruleset.Statement, 0, len(first)+len(second)+1)
	return append(append(append(out, first...), second...), last)
}

// notOpen returns what a packet is asked to find out that its flow is not in the
// open space of the profile: it matches one of the alternatives, of which there
// are at most two, or none matches. One without statements matches everything.
func (c *compiler) notOpen(p *profile, d flow.Direction, f flow.Family, proto flow.Protocol) [][]ruleset.Statement {
	o := c.open(p.scope, f, proto)
	if o.empty() {
		return [][]ruleset.Statement{nil}
	}
	var out [][]ruleset.Statement
	if set := c.addAlwaysTrack(p, f); set != "" {
		out = append(out, []ruleset.Statement{lookup(set, ruleset.Peer(f, d))})
	}
	var outside []ruleset.Statement
	for _, opened := range flow.Directions {
		ports := o.ports(opened)
		if isWhole(ports, 65535) {
			return out
		}
		if len(ports) > 0 {
			outside = append(outside, ruleset.Lookup{
				Fields: []ruleset.Field{openedPort(opened, d)}, Set: c.addOpenPorts(p.scope, opened, f, proto, o), Negate: true,
			})
		}
	}
	return append(out, outside)
}

// addMidstream adds the chain for TCP of flows that are not open, in the middle
// of a connection that conntrack does not know, and returns its name. It refuses
// all but what is routed while the window is open: the rules judge that, as if
// it were a SYN. The chain gets invalid segments, too.
func (c *compiler) addMidstream(d flow.Direction) string {
	routed := ruleset.Statement(ruleset.MatchEndsHere{Negate: true})
	if d == flow.Egress {
		routed = ruleset.MatchForwarded{}
	}
	name := fmt.Sprintf("refused.%s.midstream", d)
	c.addChain(&ruleset.Chain{Name: name, Comment: "TCP that belongs to no flow", Rules: []ruleset.Rule{
		{
			Statements: []ruleset.Statement{
				// Where the window is closed, the first look-up ends the rule.
				lookup(adoptionSet, ruleset.NFProtocol), ruleset.MatchState{State: ruleset.CtNew}, routed,
				ruleset.Verdict{Kind: ruleset.Return},
			},
			Comment: "routed flows go on after the first apply",
		},
		{Statements: []ruleset.Statement{c.refused(d, byGroups)}, Comment: "belongs to no flow"},
	}})
	return name
}
