package compile

import (
	"fmt"
	"strings"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// cutPrefix begins the names of all chains, sets and maps that are there only
// because of Environment.Closing. No group can be called so.
const cutPrefix = "_cut."

// UntilDeleted is the comment of all that is temporary, and of the rules in the
// base chains that lead there.
const UntilDeleted = "until the flows that were cut are deleted"

// IsTemporary reports whether a chain or set of that name is there only until
// the entries of the flows are deleted that a commit cut (Environment.Closing).
func IsTemporary(name string) bool { return strings.HasPrefix(name, cutPrefix) }

// addClosing adds the rules that cut what the policy closes of the old one's
// open space: packets of flows that conntrack knows, and which the interface's
// own chains would therefore let through. They stand at the head of the base
// chains, behind one rule each, and all that they need beside is temporary as
// well: without them, the table is the one that is compiled in peace.
//
// What they do not drop, they either accept, where the chains behind them would
// accept it before any rule counts it, or leave to those chains.
func (c *compiler) addClosing() {
	if c.env.Closing == nil {
		return
	}
	closings := c.selectClosings(c.env.Closing)
	if len(closings) == 0 {
		return
	}
	for _, d := range flow.Directions {
		c.addClosingBase(d, closings)
	}
}

// addClosingBase adds the rules for one direction.
func (c *compiler) addClosingBase(d flow.Direction, closings []closingOn) {
	verdicts := map[*policies.Interface]ruleset.Verdict{}
	var blocks []*policies.Interface
	for _, on := range closings {
		v := ruleset.Verdict{Kind: ruleset.Return}
		if on.closing != nil {
			v = ruleset.Verdict{Kind: ruleset.Goto, Chain: c.addClosingChain(on.closing, d)}
		}
		blocks = append(blocks, on.iface)
		verdicts[on.iface] = v
	}
	chain := cutPrefix + d.String()
	byInterface := cutPrefix + "interfaces." + d.String()
	c.addChain(&ruleset.Chain{Name: chain, Comment: UntilDeleted, Rules: c.byBlocks(byInterface, d, blocks, func(i *policies.Interface) ruleset.Verdict {
		return verdicts[i]
	})})
	c.sets[byInterface].Comment = UntilDeleted
	base := c.chains[filterBase(d).Name]
	base.Rules = append([]ruleset.Rule{{
		Statements: []ruleset.Statement{ruleset.MatchState{State: ruleset.CtEstablished}, ruleset.Verdict{Kind: ruleset.Jump, Chain: chain}},
		Comment:    UntilDeleted,
	}}, base.Rules...)
}

// addClosingChain adds the chains of a closing for one direction of packets,
// and returns the first one's name.
func (c *compiler) addClosingChain(x *closing, d flow.Direction) string {
	name := fmt.Sprintf("%s.%s", x.name, d)
	if c.chains[name] != nil {
		return name
	}
	c.addDispatch(UntilDeleted, name, exemptPeers(d), func(f flow.Family, proto flow.Protocol) []ruleset.Rule {
		return c.closingRules(x, d, f, proto)
	})
	c.sets[name+".protocols"].Comment = UntilDeleted
	return name
}

// closingRules returns the rules for the packets of one direction, family and
// protocol: none where nothing closes. What conntrack says of the packet's
// direction tells which way the flow was opened, and so which rules are asked.
func (c *compiler) closingRules(x *closing, d flow.Direction, f flow.Family, proto flow.Protocol) []ruleset.Rule {
	var ways []ruleset.Rule
	for _, way := range []struct {
		reply  bool
		opened flow.Direction
		name   string
	}{{false, d, "original"}, {true, d.Opposite(), "reply"}} {
		closed := x.closed[opening{f, proto, way.opened}]
		if closed.empty() {
			continue
		}
		chain := fmt.Sprintf("%s.%s.%s.%s", x.name, d, protoName(proto, f), way.name)
		c.addClosingSpace(chain, x, d, opening{f, proto, way.opened}, closed)
		ways = append(ways, ruleset.Rule{
			Statements: []ruleset.Statement{ruleset.MatchDirection{Reply: way.reply}, ruleset.Verdict{Kind: ruleset.Goto, Chain: chain}},
			Comment:    fmt.Sprintf("flows that were opened %s", map[flow.Direction]string{flow.Ingress: "inwards", flow.Egress: "outwards"}[way.opened]),
		})
	}
	if len(ways) == 0 {
		return nil
	}
	rules := c.exemptRules(d, f, proto)
	if tracked := mergePrefixes(x.old.alwaysTrack, f); len(tracked) > 0 {
		set := fmt.Sprintf("%s.always_track.%s", x.name, familySuffix(f))
		c.addAddressSet(set, UntilDeleted, f, tracked)
		rules = append(rules, ruleset.Rule{
			Statements: []ruleset.Statement{lookup(set, ruleset.Peer(f, d)), ruleset.Verdict{Kind: ruleset.Return}},
			Comment:    "always_track: its flows were not open",
		})
	}
	return append(rules, ways...)
}

// addClosingSpace adds the chain that judges packets of direction d which belong
// to flows that were opened as of says. The rules of the opening's direction are
// asked as the packet was that opened the flow: where d is the other direction,
// its destination port is the source port here, and its peer still the far
// side.
//
// What was open and no rule allows is dropped by a map, not by a rule at the
// chain's end: when all of this is lifted, the kernel takes the elements of maps
// away at one moment, and a packet that is on its way in that moment and finds
// none that allows it must find none that drops it either.
func (c *compiler) addClosingSpace(chain string, x *closing, d flow.Direction, of opening, closed openSpace) {
	byKey, byOther := closed.ports(of.direction), closed.ports(of.direction.Opposite())
	var rules []keyedRule
	for _, r := range c.portRules(x.new, of.direction, of.family, of.protocol) {
		// Rules for other ports cannot decide where the key is what was open.
		if len(byOther) == 0 && !isWhole(r.spans, 65535) {
			if r.spans = both(r.spans, byKey); len(r.spans) == 0 {
				continue
			}
		}
		rules = append(rules, r)
	}
	out := c.spaceRules(&keySpace{
		name: chain, of: "ports", direction: d, family: of.family,
		field: openedPort(of.direction, d), keyType: ruleset.InetService, last: 65535,
		allowed: accept, temporary: true,
	}, rules)
	for _, opened := range flow.Directions {
		ports := closed.ports(opened)
		if len(ports) == 0 {
			continue
		}
		m := &ruleset.Set{
			Name: fmt.Sprintf("%s.closed.%s", chain, opened), Comment: UntilDeleted,
			Key: []ruleset.Type{ruleset.InetService}, Map: true, Interval: true,
		}
		for _, p := range ports {
			v := c.refused(d, byGroups)
			m.Elements = append(m.Elements, ruleset.Element{First: ruleset.PortKey(p.first), Last: ruleset.PortKey(p.last), Verdict: &v})
		}
		c.addSet(m)
		out = append(out, ruleset.Rule{
			Statements: []ruleset.Statement{ruleset.VerdictMap{Fields: []ruleset.Field{openedPort(opened, d)}, Map: m.Name}},
			Comment:    "was open, and no rule allows it",
		})
	}
	c.addChain(&ruleset.Chain{Name: chain, Comment: UntilDeleted, Rules: out})
}

// temporarySet returns the name under which a temporary space finds a list of
// peers: its own if the table has it anyway, else a temporary one.
func (c *compiler) temporarySet(name string, f flow.Family, ranges []flow.Range) string {
	first := name
	if len(ranges) > maxSet {
		first += "/" + shards(ranges, f)[0].name()
	}
	if c.sets[first] != nil || IsTemporary(name) {
		return name
	}
	return shorten(cutPrefix + name)
}
