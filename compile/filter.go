package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// linkLocalServices are the cloud's services that are never filtered (2.6).
var linkLocalServices = []string{
	"169.254.169.123", "169.254.169.250", "169.254.169.251", "169.254.169.253", "169.254.169.254", "169.254.170.2",
	"fd00:ec2::123", "fd00:ec2::253", "fd00:ec2::254",
}

// otherTimeout is how long a flow of another protocol lives without traffic
// (2.2), and otherFlows how many of them there may be; more are still judged
// by the rules alone.
const (
	otherTimeout = 600 * time.Second
	otherFlows   = 65536
)

// addFilter adds the chains that judge the packets of a profile's interfaces,
// and returns the first one's name.
func (c *compiler) addFilter(p *profile, d flow.Direction) string {
	name := c.addDispatch(c.attached(p), fmt.Sprintf("%s.%s", p.name, d), exemptPeers(d), func(f flow.Family, proto flow.Protocol) []ruleset.Rule {
		return c.protocolRules(p, d, f, proto)
	})
	c.chains[name].Rules = append(c.chains[name].Rules,
		ruleset.Rule{
			Statements: []ruleset.Statement{
				ruleset.Match{Field: ruleset.NFProtocol, Value: ruleset.NFProtoKey(flow.IPv4)},
				ruleset.Verdict{Kind: ruleset.Goto, Chain: c.addOtherChain(p, d, flow.IPv4)},
			},
			Comment: "other protocols",
		},
		ruleset.Rule{
			Statements: []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Goto, Chain: c.addOtherChain(p, d, flow.IPv6)}},
			Comment:    "other protocols",
		})
	return name
}

// exemptPeers accept what goes to or comes from peers that are never filtered.
func exemptPeers(d flow.Direction) []ruleset.Rule {
	var rules []ruleset.Rule
	for _, f := range flow.Families {
		rules = append(rules, ruleset.Rule{
			Statements: []ruleset.Statement{lookup("exempt."+familySuffix(f), ruleset.Peer(f, d)), accept},
			Comment:    "never filtered: services and host.exempt",
		})
	}
	return rules
}

// attached says whose chain it is: the groups of the profile.
func (c *compiler) attached(p *profile) string {
	addresses := make([]string, len(p.scope.groups))
	for i, g := range p.scope.groups {
		addresses[i] = g.Address()
	}
	if len(addresses) == 0 {
		return "no security group"
	}
	return comment(addresses)
}

// protocolRules returns the rules of the chain for TCP, UDP or the family's
// ICMP: what is exempt, what conntrack knows, then the policy's rules.
func (c *compiler) protocolRules(p *profile, d flow.Direction, f flow.Family, proto flow.Protocol) []ruleset.Rule {
	space := fmt.Sprintf("%s.%s.%s", p.scope.name, d, protoName(proto, f))
	rules := c.exemptRules(d, f, proto)
	rules = append(rules, ruleset.Rule{
		Statements: []ruleset.Statement{ruleset.MatchState{State: ruleset.CtEstablished}, accept},
		Comment:    "tracked flows",
	})
	if proto.IsICMP(f) {
		rules = append(rules, c.errorRules(p, d, f)...)
		return append(rules, c.decideSpace(c.icmpSpace(space, d, f), c.icmpRules(p.scope, d, f))...)
	}
	rules = append(rules, c.noFlowRules(p, d, f, proto)...)
	if proto == flow.UDP {
		rules = append(rules, c.refusedRules(d, f)...)
	}
	allowed := c.portRules(p.scope, d, f, proto)
	if len(allowed) > 0 {
		rules = append(rules, c.timeoutRules(p, d, f, proto)...)
	}
	return append(rules, c.decideSpace(&keySpace{
		name: space, of: "ports", direction: d, family: f,
		field: ruleset.DestPort, keyType: ruleset.InetService, last: 65535,
		allowed: accept,
	}, allowed)...)
}

// exemptRules accept what is never filtered within one protocol (2.6).
func (c *compiler) exemptRules(d flow.Direction, f flow.Family, proto flow.Protocol) []ruleset.Rule {
	var rules []ruleset.Rule
	exempt := func(comment string, statements ...ruleset.Statement) {
		rules = append(rules, ruleset.Rule{Statements: append(statements, accept), Comment: "never filtered: " + comment})
	}
	if proto == flow.ICMPv6 {
		hops := func(n byte) ruleset.Match {
			return ruleset.Match{Field: ruleset.IP6HopLimit, Value: string([]byte{n})}
		}
		types := func(first, last byte) ruleset.Statement {
			return ruleset.MatchRange{Field: ruleset.ICMPTypeOf6, First: string([]byte{first}), Last: string([]byte{last})}
		}
		exempt("neighbour discovery", types(133, 136), hops(255))
		exempt("multicast listeners", types(130, 132), hops(1))
		exempt("multicast listeners", ruleset.Match{Field: ruleset.ICMPTypeOf6, Value: string([]byte{143})}, hops(1))
	}
	if proto == flow.UDP {
		client, server := uint16(68), uint16(67)
		if f == flow.IPv6 {
			client, server = 546, 547
		}
		ports := ruleset.MatchUDPPorts{Source: server, Dest: client}
		if d == flow.Egress {
			ports = ruleset.MatchUDPPorts{Source: client, Dest: server}
		}
		exempt("DHCP client", ports)
	}
	if proto.HasPorts() && c.sets["resolvers."+familySuffix(f)] != nil {
		exempt("host.dns_resolvers",
			ruleset.Match{Field: ruleset.PeerPort(d), Value: ruleset.PortKey(53)},
			lookup("resolvers."+familySuffix(f), ruleset.Peer(f, d)))
	}
	return rules
}

// icmpRules returns the rules for the family's ICMP by type.
func (c *compiler) icmpRules(s *scope, d flow.Direction, f flow.Family) []keyedRule {
	var out []keyedRule
	proto := flow.ICMPOf(f)
	for _, r := range c.rules(s, d, f, func(r *policies.Rule) bool { return r.AllProtocols || r.Protocol == proto }) {
		n := -1
		if !r.AllProtocols {
			n = r.ICMPType
		}
		out = append(out, keyedRule{r, []span{codeSpan(n)}})
	}
	return out
}

// addOtherChain adds the chain for all protocols but TCP, UDP and the family's
// ICMP. They are tracked here and not by the kernel, which would track some of
// them by ports or keys: a live flow is an element of a dynamic set (2.2).
func (c *compiler) addOtherChain(p *profile, d flow.Direction, f flow.Family) string {
	name := fmt.Sprintf("%s.%s.other%d", p.name, d, f)
	flows := otherFlowsSet(f)
	key := []ruleset.Field{ruleset.InterfaceName(d), ruleset.L4Protocol, ruleset.Peer(f, d)}
	open := flows + "." + d.String()
	// Two rules each: a full set must not refuse the packet.
	c.addChain(&ruleset.Chain{Name: open, Comment: "other protocols: a packet that a rule allows opens the flow", Rules: []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.Update{Fields: key, Set: flows, Timeout: otherTimeout}}, Comment: "open the flow"},
		{Statements: []ruleset.Statement{accept}, Comment: "allowed by a rule"},
	}})
	rules := []ruleset.Rule{
		{Statements: []ruleset.Statement{
			ruleset.Lookup{Fields: key, Set: flows},
			ruleset.Update{Fields: key, Set: flows, Timeout: otherTimeout},
		}, Comment: "traffic keeps a flow alive"},
		{Statements: []ruleset.Statement{ruleset.Lookup{Fields: key, Set: flows}, accept}, Comment: "tracked flows"},
	}
	var keyed []keyedRule
	for _, r := range c.rules(p.scope, d, f, func(r *policies.Rule) bool { return r.AllProtocols || isOther(r.Protocol) }) {
		n := -1
		if !r.AllProtocols {
			n = int(r.Protocol)
		}
		keyed = append(keyed, keyedRule{r, []span{codeSpan(n)}})
	}
	rules = append(rules, c.decideSpace(&keySpace{
		name: fmt.Sprintf("%s.%s.other%d", p.scope.name, d, f), of: "protocols", direction: d, family: f,
		field: ruleset.L4Protocol, keyType: ruleset.InetProto, last: 255,
		allowed: ruleset.Verdict{Kind: ruleset.Goto, Chain: open},
	}, keyed)...)
	c.addChain(&ruleset.Chain{Name: name, Comment: c.attached(p), Rules: rules})
	return name
}

// isOther reports whether a rule for the protocol is for other protocols. A
// rule for ICMP is none even in the family whose ICMP is another: nothing but
// "-1" stands for ICMP in IPv6 or ICMPv6 in IPv4.
func isOther(p flow.Protocol) bool { return p.IsOther(flow.IPv4) && p.IsOther(flow.IPv6) }

// addHostSets adds the sets that every interface uses.
func (c *compiler) addHostSets() {
	exempt := slices.Clone(c.policy.Host.Exempt)
	for _, s := range linkLocalServices {
		a := netip.MustParseAddr(s)
		exempt = append(exempt, netip.PrefixFrom(a, a.BitLen()))
	}
	c.addSet(&ruleset.Set{
		Name: adoptionSet, Comment: "families whose routed flows go on without an entry",
		Key: []ruleset.Type{ruleset.NFProto}, Timed: true,
	})
	for _, f := range flow.Families {
		suffix := familySuffix(f)
		c.addAddressSet("exempt."+suffix, "never filtered: services and host.exempt", f, mergePrefixes(exempt, f))
		if ranges := mergePrefixes(c.policy.Host.DNSResolvers, f); len(ranges) > 0 {
			c.addAddressSet("resolvers."+suffix, "host.dns_resolvers", f, ranges)
		}
		c.addRefusedSets(f)
		c.addSet(otherFlowsIn(f))
	}
}

func lookup(set string, field ruleset.Field) ruleset.Lookup {
	return ruleset.Lookup{Fields: []ruleset.Field{field}, Set: set}
}
