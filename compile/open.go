package compile

import (
	"fmt"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// openSpace is what a scope leaves open in one family and protocol (2.3).
type openSpace struct {
	// in are the ports on which anybody may open a flow to the host, if
	// anything may go out to anybody in return; out are the peers' ports to
	// which the host may open one, if anything may come in from anybody.
	// Both are sorted and disjoint.
	in, out []span
}

func (o openSpace) empty() bool { return len(o.in) == 0 && len(o.out) == 0 }

// ports returns the ports of flows that were opened in direction d.
func (o openSpace) ports(d flow.Direction) []span {
	if d == flow.Ingress {
		return o.in
	}
	return o.out
}

// open returns the open space of a scope. Only literal any-addresses count;
// the address space put together from halves does not.
func (c *compiler) open(s *scope, f flow.Family, proto flow.Protocol) openSpace {
	var ports [2][]keyedRule
	var all [2]bool
	for _, d := range flow.Directions {
		for _, r := range c.portRules(s, d, f, proto) {
			if isAny(r.rule, f) {
				ports[d] = append(ports[d], r)
				all[d] = all[d] || r.spans[0] == span{0, 65535}
			}
		}
	}
	var o openSpace
	if all[flow.Egress] {
		o.in = union(ports[flow.Ingress])
	}
	if all[flow.Ingress] {
		o.out = union(ports[flow.Egress])
	}
	return o
}

// union returns the keys that any of the rules covers.
func union(rules []keyedRule) []span {
	var out []span
	for _, a := range cut(rules) {
		if n := len(out); n > 0 && int(out[n-1].last)+1 == int(a.first) {
			out[n-1].last = a.last
			continue
		}
		out = append(out, a.span)
	}
	return out
}

// notrackRules returns nft rules that take a profile's open flows of one
// protocol out of conntrack; none where nothing is open, or where another table
// needs conntrack.
func (c *compiler) notrackRules(p *profile, d flow.Direction, f flow.Family, proto flow.Protocol) []ruleset.Rule {
	o := c.open(p.scope, f, proto)
	if p.notrackOff || c.env.Conntrack[f] != "" || o.empty() {
		return nil
	}
	var rules []ruleset.Rule
	if set := c.addAlwaysTrack(p, f); set != "" {
		rules = append(rules, ruleset.Rule{
			Statements: []ruleset.Statement{lookup(set, ruleset.Peer(f, d)), accept},
			Comment:    "always_track",
		})
	}
	for _, opened := range flow.Directions {
		if len(o.ports(opened)) == 0 {
			continue
		}
		statements := []ruleset.Statement{lookup(c.addOpenPorts(p.scope, opened, f, proto, o), openedPort(opened, d))}
		if d == flow.Ingress {
			// Forwarded packets stay in conntrack. What goes out through the
			// output hook begins on the host.
			statements = append(statements, ruleset.MatchEndsHere{})
		}
		rules = append(rules, ruleset.Rule{
			Statements: append(statements, ruleset.Notrack{}),
			Comment:    fmt.Sprintf("open flows, %s", opened),
		})
	}
	return rules
}

// addAlwaysTrack adds the set of a profile's always_track peers, and returns
// its name, or "" if there are none of the family.
func (c *compiler) addAlwaysTrack(p *profile, f flow.Family) string {
	ranges := mergePrefixes(p.alwaysTrack, f)
	if len(ranges) == 0 {
		return ""
	}
	name := p.name + ".always_track." + familySuffix(f)
	c.addAddressSet(name, "always_track", f, ranges)
	return name
}

// openedPort returns the port that tells whether a packet that goes in
// direction d belongs to a flow that was opened in direction opened: the near
// side's for flows that came in, the far side's for those that went out.
func openedPort(opened, d flow.Direction) ruleset.Field {
	if opened == flow.Ingress {
		return ruleset.LocalPort(d)
	}
	return ruleset.PeerPort(d)
}

// addOpenPorts adds the set of the ports of flows that were opened in one
// direction, and returns its name.
func (c *compiler) addOpenPorts(s *scope, opened flow.Direction, f flow.Family, proto flow.Protocol, o openSpace) string {
	return c.addPortSet(fmt.Sprintf("%s.open.%s.%s", s.name, opened, protoName(proto, f)), ruleset.InetService, o.ports(opened))
}

func (c *compiler) addPortSet(name string, typ ruleset.Type, ports []span) string {
	if c.sets[name] != nil {
		return name
	}
	set := &ruleset.Set{Name: name, Key: []ruleset.Type{typ}, Interval: true, Comment: "open to everybody, and so not tracked"}
	for _, p := range ports {
		set.Elements = append(set.Elements, ruleset.Element{First: ruleset.PortKey(p.first), Last: ruleset.PortKey(p.last)})
	}
	c.addSet(set)
	return name
}

// The quoted packet of an ICMP error begins 8 bytes into it. Offsets are in
// bits. Headers with options are not looked into, nor are extension headers but
// that of a fragment.
type quote struct {
	version, versionValue uint32
	protocol              uint32
	ports                 uint32
	source, dest          ruleset.Field
}

func quoteOf(f flow.Family) quote {
	if f == flow.IPv4 {
		return quote{version: 64, versionValue: 0x45, protocol: 136, ports: 224, source: ruleset.Raw(160, 32), dest: ruleset.Raw(192, 32)}
	}
	return quote{protocol: 112, ports: 384, source: ruleset.Raw(128, 128), dest: ruleset.Raw(256, 128)}
}

// errorRules lets ICMP errors through that belong to a flow: to a tracked one,
// as conntrack says, or to an open one, as the ports of the quoted packet say
// (2.5).
func (c *compiler) errorRules(p *profile, d flow.Direction, f flow.Family) []ruleset.Rule {
	if c.policy.Host.ICMPErrorsByRules {
		return nil
	}
	errors := ruleset.Statement(lookup("icmp.errors", ruleset.ICMPTypeOf4))
	if f == flow.IPv6 {
		errors = ruleset.MatchRange{Field: ruleset.ICMPTypeOf6, First: "\x01", Last: "\x04"}
	} else {
		c.addSet(&ruleset.Set{
			Name: "icmp.errors", Comment: "destination unreachable, time exceeded, parameter problem",
			Key: []ruleset.Type{ruleset.ICMPType}, Interval: true,
			Elements: []ruleset.Element{{First: "\x03", Last: "\x03"}, {First: "\x0b", Last: "\x0c"}},
		})
	}
	rules := []ruleset.Rule{{
		Statements: []ruleset.Statement{errors, ruleset.MatchState{State: ruleset.CtRelated}, accept},
		Comment:    "errors of tracked flows",
	}}
	if chain := c.addErrorChain(p, d, f); chain != "" {
		rules = append(rules, ruleset.Rule{
			Statements: []ruleset.Statement{errors, ruleset.MatchState{State: ruleset.CtInvalid}, ruleset.Verdict{Kind: ruleset.Jump, Chain: chain}},
			Comment:    "errors of open flows",
		})
	}
	return rules
}

// firstFragmentRule accepts errors that quote the first fragment of a datagram.
// In IPv6 the sender cuts large ones itself, and only they tell it that the
// path is narrower than its own link. The other fragments have no ports.
func firstFragmentRule(q quote, set string, ports uint32, proto flow.Protocol, why string) ruleset.Rule {
	const fragmentHeader, headerBits = 44, 64
	at := q.ports // where the transport header would be
	return ruleset.Rule{
		Statements: []ruleset.Statement{
			ruleset.Match{Field: ruleset.Raw(q.protocol, 8), Value: ruleset.ProtoKey(fragmentHeader)},
			ruleset.Match{Field: ruleset.Raw(at, 8), Value: ruleset.ProtoKey(proto)},
			// Offset 0, and more fragments follow.
			ruleset.Match{Field: ruleset.Raw(at+16, 16), Value: "\x00\x01"},
			lookup(set, ruleset.Raw(ports+headerBits, 16)),
			accept,
		},
		Comment: "quotes a fragment " + why,
	}
}

// addErrorChain adds the chain that accepts errors whose quoted packet is in
// the open space, and returns its name, or "" where nothing is open.
func (c *compiler) addErrorChain(p *profile, d flow.Direction, f flow.Family) string {
	q := quoteOf(f)
	var rules []ruleset.Rule
	for _, proto := range []flow.Protocol{flow.TCP, flow.UDP} {
		o := c.open(p.scope, f, proto)
		for _, opened := range flow.Directions {
			if len(o.ports(opened)) == 0 {
				continue
			}
			// The quoted packet went the other way.
			offset := q.ports
			if openedPort(opened, d.Opposite()) == ruleset.DestPort {
				offset += 16
			}
			set := c.addPortSet(fmt.Sprintf("%s.open.%s.%s.quoted", p.scope.name, opened, protoName(proto, f)), ruleset.QuotedPort, o.ports(opened))
			why := fmt.Sprintf("of an open %s flow, %s", proto, opened)
			rules = append(rules, ruleset.Rule{
				Statements: []ruleset.Statement{
					ruleset.Match{Field: ruleset.Raw(q.protocol, 8), Value: ruleset.ProtoKey(proto)},
					lookup(set, ruleset.Raw(offset, 16)),
					accept,
				},
				Comment: "quotes a packet " + why,
			})
			if f == flow.IPv6 && proto == flow.UDP {
				rules = append(rules, firstFragmentRule(q, set, offset, proto, why))
			}
		}
	}
	if len(rules) == 0 {
		return ""
	}
	if ranges := mergePrefixes(p.alwaysTrack, f); len(ranges) > 0 {
		// The quoted packet went the other way: its peer is where it went to
		// if the error came in, and where it came from if the error goes out.
		field, typ := q.dest, ruleset.QuotedAddr4
		if d == flow.Egress {
			field = q.source
		}
		if f == flow.IPv6 {
			typ = ruleset.QuotedAddr6
		}
		name := p.name + ".always_track." + familySuffix(f) + ".quoted"
		c.addRanges(name, "always_track", typ, ranges)
		rules = append([]ruleset.Rule{{
			Statements: []ruleset.Statement{lookup(name, field), ruleset.Verdict{Kind: ruleset.Return}},
			Comment:    "always_track: its flows are not open",
		}}, rules...)
	}
	if q.versionValue != 0 {
		rules = append([]ruleset.Rule{{
			Statements: []ruleset.Statement{
				ruleset.Match{Field: ruleset.Raw(q.version, 8), Value: string([]byte{byte(q.versionValue)}), Negate: true},
				ruleset.Verdict{Kind: ruleset.Return},
			},
			Comment: "the quoted header has options",
		}}, rules...)
	}
	name := fmt.Sprintf("%s.%s.errors%d", p.name, d, f)
	c.addChain(&ruleset.Chain{Name: name, Comment: c.attached(p), Rules: rules})
	return name
}
