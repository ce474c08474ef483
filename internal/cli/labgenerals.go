package cli

import (
	"net/netip"
	"slices"

	"sgc/internal/flow"
	"sgc/policies"
)

// unlistedPorts are services that nobody wants to find open; the first that
// the policy does not allow is shown.
var unlistedPorts = []uint16{3306, 6379, 25, 8081, 1433, 11211, 65000}

// addGenerals shows what no rule is about: a port that none names, a ping, and
// what is never filtered.
func (g *gallery) addGenerals(i labInterface, d flow.Direction) {
	rules := rulesOf(g.policy, i.block, d)
	for n, f := range flow.Families {
		high := rankMore
		switch {
		case g.mentions(rules, f), len(rules) == 0 && n == 0:
			high = rankAlways
		case len(rules) == 0:
			high = rankBorder
		}
		g.addUnlisted(i, d, rules, flow.TCP, f, high)
		g.addUnlisted(i, d, rules, flow.UDP, f, rankMore)
		ping := service{protocol: flow.ICMPOf(f), icmpType: echoRequest(f)}
		g.add(example{packet: g.packet(i, d, g.world[f], ping), rank: max(high, rankBorder), shows: "ping"})
	}
	if d == flow.Ingress {
		return
	}
	for _, exempt := range []struct {
		prefixes []netip.Prefix
		service  service
	}{
		{g.policy.Host.DNSResolvers, service{protocol: flow.UDP, port: 53}},
		{g.policy.Host.Exempt, service{protocol: flow.TCP, port: 443}},
	} {
		if len(exempt.prefixes) > 0 {
			g.add(example{packet: g.packet(i, d, g.candidates(exempt.prefixes[0])[0], exempt.service), rank: rankPort})
		}
	}
}

// mentions reports whether one of the rules has peers of the family.
func (g *gallery) mentions(rules []*policies.Rule, f flow.Family) bool {
	return slices.ContainsFunc(rules, func(r *policies.Rule) bool {
		return slices.ContainsFunc(peersOf(g.policy, r), func(kind rulePeers) bool {
			return slices.ContainsFunc(kind.prefixes, func(p netip.Prefix) bool { return flow.FamilyOf(p.Addr()) == f })
		})
	})
}

// addUnlisted shows a port that no rule names, or else one that none allows
// for everybody.
func (g *gallery) addUnlisted(i labInterface, d flow.Direction, rules []*policies.Rule, protocol flow.Protocol, f flow.Family, rank rank) {
	named := func(port uint16) bool {
		return slices.ContainsFunc(rules, func(r *policies.Rule) bool {
			return r.AllProtocols || r.Protocol == protocol && slices.ContainsFunc(r.Ports, func(x flow.PortRange) bool { return x.Contains(port) })
		})
	}
	for _, port := range unlistedPorts {
		if named(port) {
			continue
		}
		e := example{packet: g.packet(i, d, g.world[f], service{protocol: protocol, port: port}), rank: rank, shows: "unlisted port"}
		if g.addDropped(e) {
			return
		}
	}
	for _, port := range unlistedPorts {
		e := example{packet: g.packet(i, d, g.world[f], service{protocol: protocol, port: port}), rank: rank, shows: "not for everybody"}
		// What the network ACL denies says nothing about the rules.
		entry := g.judge.Decide(&e.packet).ACLEntry
		if i.block.ACL == "" || entry != nil && entry.Allow {
			if g.addDropped(e) {
				return
			}
		}
	}
}

// addAnswers shows the answers to the first tracked and the first untracked
// flow of TCP or UDP that the examples open and to the first ping, and that an
// answer which nobody asked for does not pass as one.
func (g *gallery) addAnswers(opened []*example) {
	done := map[string]bool{}
	for _, e := range opened {
		p := &e.packet
		kind := e.meaning.Class.String()
		rank, least := rankAlways, rankRule
		if p.Protocol.IsICMP(p.Family()) {
			kind, rank, least = "ping", rankMore, rankMore
			if p.ICMPType != echoRequest(p.Family()) {
				continue
			}
		}
		if e.answers != nil || done[kind] || e.rank > least || !e.meaning.Allow {
			continue
		}
		switch {
		case p.Protocol.IsOther(p.Family()), e.meaning.Class != policies.Tracked && e.meaning.Class != policies.Untracked:
			continue
		}
		done[kind] = true
		answer := p.Reply()
		if e.meaning.Class == policies.Tracked {
			answer.State = flow.Established
		}
		switch p.Protocol {
		case flow.TCP:
			answer.TCPFlags = flow.SYN | flow.ACK
		case flow.ICMP:
			answer.ICMPType = 0
		case flow.ICMPv6:
			answer.ICMPType = 129
		}
		g.add(example{packet: answer, answers: e, rank: rank, shows: "answer"})
		if p.Protocol == flow.TCP && e.meaning.Class == policies.Tracked {
			// To a port from which nobody has asked.
			answer.DestPort = unaskedPort
			answer.State = flow.Invalid
			g.addDropped(example{packet: answer, rank: rankBorder, shows: "an answer nobody asked for"})
		}
	}
}
