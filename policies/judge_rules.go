package policies

import (
	"cmp"
	"net/netip"
	"slices"

	"sgc/internal/flow"
)

// judgedRule is a rule with its sources (or destinations) indexed.
type judgedRule struct {
	*Rule
	// peers are the inline CIDRs, the lists and the members of the groups.
	peers []*addressIndex
	// any says, for IPv4 and IPv6, whether the literal any-address is inline.
	any [2]bool
	// width is how many ports, or ICMP types and codes, the rule names.
	width int
}

// indexRules returns the rules of each group. An address list has one index,
// however many rules name it.
func indexRules(p *Policy) map[string][]*judgedRule {
	lists, members := map[string]*addressIndex{}, map[string]*addressIndex{}
	for _, l := range p.Lists {
		lists[l.Name] = newAddressIndex(l.Entries)
	}
	for _, g := range p.Groups {
		members[g.Name] = newAddressIndex(g.Members)
	}
	rules := map[string][]*judgedRule{}
	for _, g := range p.Groups {
		for _, r := range g.Rules {
			judged := &judgedRule{Rule: r, width: ruleWidth(r)}
			for i, family := range flow.Families {
				judged.any[i] = slices.Contains(r.Prefixes, family.Any())
			}
			if len(r.Prefixes) > 0 {
				judged.peers = append(judged.peers, newAddressIndex(r.Prefixes))
			}
			for _, name := range r.Lists {
				judged.peers = appendKnown(judged.peers, lists[name])
			}
			for _, name := range r.Groups {
				judged.peers = appendKnown(judged.peers, members[name])
			}
			rules[g.Name] = append(rules[g.Name], judged)
		}
	}
	return rules
}

func appendKnown(to []*addressIndex, x *addressIndex) []*addressIndex {
	if x == nil {
		return to
	}
	return append(to, x)
}

// ruleWidth orders rules of the same protocol: the fewer, the more specific.
func ruleWidth(r *Rule) int {
	width := 0
	switch {
	case r.AllProtocols:
		width = 1 << 24
	case r.Protocol.HasPorts():
		for _, ports := range r.Ports {
			width += int(ports.Last) - int(ports.First) + 1
		}
	case r.Protocol == flow.ICMP || r.Protocol == flow.ICMPv6:
		width = 1
		if r.ICMPType < 0 {
			width *= 256
		}
		if r.ICMPCode < 0 {
			width *= 256
		}
	}
	return width
}

// coversAllPorts says that the rule allows all ports 0–65535 of its protocol
// in one range. Protocol "-1" does.
func (r *judgedRule) coversAllPorts() bool {
	return r.AllProtocols || len(r.Ports) == 1 && r.Ports[0] == flow.AllPorts
}

// coversPort reports whether a TCP or UDP rule, or one of all protocols,
// allows the destination port.
func (r *judgedRule) coversPort(port uint16) bool {
	return r.AllProtocols || slices.ContainsFunc(r.Ports, func(x flow.PortRange) bool { return x.Contains(port) })
}

// matches reports whether the rule is for the packet's protocol and, as that
// protocol has them, destination port or ICMP type and code.
func (r *judgedRule) matches(p *flow.Packet) bool {
	family := p.Family()
	switch {
	case r.AllProtocols:
		return true
	case r.Protocol != p.Protocol:
		return false
	case p.Protocol.HasPorts():
		return r.coversPort(p.DestPort)
	case p.Protocol.IsICMP(family):
		return matchesICMP(p, r.ICMPType, r.ICMPCode)
	case p.Protocol == flow.ICMP || p.Protocol == flow.ICMPv6:
		// The other family's ICMP: a rule for icmp means IPv4's, and one for
		// icmpv6 means IPv6's.
		return false
	default:
		return true
	}
}

// matchesICMP compares type and code of an ICMP packet with those of a rule or
// an ACL entry, where -1 is any.
func matchesICMP(p *flow.Packet, icmpType, icmpCode int) bool {
	return (icmpType < 0 || icmpType == int(p.ICMPType)) && (icmpCode < 0 || icmpCode == int(p.ICMPCode))
}

// peerBits returns the length of the longest prefix by which the rule knows
// the peer, or -1 if it does not.
func (r *judgedRule) peerBits(peer netip.Addr) int {
	longest := -1
	for _, x := range r.peers {
		if prefix, ok := x.longest(peer); ok {
			longest = max(longest, prefix.Bits())
		}
	}
	return longest
}

// compareRules orders rules by how specific they are: a named protocol before
// all, then fewer ports or ICMP types, then the plan's order, so that one of
// several rules that allow a packet is always the same.
func compareRules(a, b *judgedRule) int {
	return cmp.Or(
		cmp.Compare(a.width, b.width),
		cmp.Compare(a.Group, b.Group),
		cmp.Compare(a.ID, b.ID),
	)
}

// ruleIndex holds the rules of one direction so that those that may be for a
// packet are found without a walk over all others.
type ruleIndex struct {
	// everyProtocol are the rules of protocol "-1".
	everyProtocol []*judgedRule
	// byProtocol are those of other protocols, and of TCP and UDP those with
	// many ports.
	byProtocol map[flow.Protocol][]*judgedRule
	// byPort are the TCP and UDP rules with few ports.
	byPort map[protocolPort][]*judgedRule
}

type protocolPort struct {
	protocol flow.Protocol
	port     uint16
}

// fewPorts is up to how many ports a rule is indexed by each of them.
const fewPorts = 64

func (x *ruleIndex) add(r *judgedRule) {
	switch {
	case r.AllProtocols:
		x.everyProtocol = append(x.everyProtocol, r)
	case r.Protocol.HasPorts() && r.width <= fewPorts:
		if x.byPort == nil {
			x.byPort = map[protocolPort][]*judgedRule{}
		}
		for _, ports := range r.Ports {
			for port := int(ports.First); port <= int(ports.Last); port++ {
				key := protocolPort{r.Protocol, uint16(port)}
				x.byPort[key] = append(x.byPort[key], r)
			}
		}
	default:
		if x.byProtocol == nil {
			x.byProtocol = map[flow.Protocol][]*judgedRule{}
		}
		x.byProtocol[r.Protocol] = append(x.byProtocol[r.Protocol], r)
	}
}

// candidates returns the rules that may be for a protocol and, for TCP and
// UDP, a destination port. Which of them really are, matches says.
func (x *ruleIndex) candidates(protocol flow.Protocol, port uint16) [3][]*judgedRule {
	c := [3][]*judgedRule{x.everyProtocol, x.byProtocol[protocol]}
	if protocol.HasPorts() {
		c[2] = x.byPort[protocolPort{protocol, port}]
	}
	return c
}

// allowing returns the rule that lets the packet through, or nil. Of several
// it is the most specific: see compareRules; among rules of one width, the one
// that knows the peer by the longest prefix.
func (x *ruleIndex) allowing(p *flow.Packet) *judgedRule {
	var best *judgedRule
	bestBits := -1
	peer := p.Peer()
	for _, rules := range x.candidates(p.Protocol, p.DestPort) {
		for _, r := range rules {
			if !r.matches(p) || best != nil && r.width > best.width {
				continue
			}
			bits := r.peerBits(peer)
			if bits < 0 {
				continue
			}
			if best == nil || r.width < best.width || bits > bestBits ||
				bits == bestBits && compareRules(r, best) < 0 {
				best, bestBits = r, bits
			}
		}
	}
	return best
}

// anyRule returns the most specific rule that names the family's literal
// any-address and allows the TCP or UDP port, or nil.
func (x *ruleIndex) anyRule(protocol flow.Protocol, family flow.Family, port uint16) *judgedRule {
	var best *judgedRule
	for _, rules := range x.candidates(protocol, port) {
		for _, r := range rules {
			if r.any[familyIndex(family)] && r.coversPort(port) && (best == nil || compareRules(r, best) < 0) {
				best = r
			}
		}
	}
	return best
}

// familyIndex is the family's place in flow.Families.
func familyIndex(f flow.Family) int {
	if f == flow.IPv4 {
		return 0
	}
	return 1
}
