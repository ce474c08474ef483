package cli

import (
	"fmt"
	"net/netip"
	"slices"

	"sgc/internal/flow"
	"sgc/policies"
)

// example is a packet that shows one thing about a policy.
type example struct {
	packet flow.Packet
	// answers is the example whose packet this one answers, nil for none.
	answers *example
	// shows says to people why the packet was chosen, where the rule that
	// decides does not: "next to port 22".
	shows string
	rank  rank
	// meaning is what the policy says of the packet.
	meaning policies.Decision
}

// rank orders examples by how much a reader misses without them.
type rank int

const (
	// rankAlways is what every tour shows: a port that is closed, an answer.
	rankAlways rank = iota
	// rankRule is one packet of each rule.
	rankRule
	// rankBorder is the border of a rule's peers, and the other family.
	rankBorder
	// rankPort is the border of a rule's ports and further kinds of peers.
	rankPort
	// Examples of a lower rank are made only for those who ask for all.
	rankMore
	rankLast
)

// gallery makes the examples of a policy.
type gallery struct {
	policy *policies.Policy
	judge  *policies.Judge
	// possible returns why a packet could not be sent in the lab, or nil.
	possible func(*flow.Packet) error
	world    map[flow.Family]netip.Addr
	// own are the host's addresses, on all interfaces.
	own      map[netip.Addr]bool
	examples []*example
	// seen are the packets that are there already, flows those flows of
	// protocols that are tracked by address alone.
	seen, flows map[flow.Packet]bool
	// opened counts the examples that open a flow.
	opened int
}

// newGallery makes the examples for the interfaces, grouped by interface and
// direction in the order of the interfaces.
func newGallery(p *policies.Policy, interfaces []labInterface, possible func(*flow.Packet) error) *gallery {
	g := &gallery{
		policy: p, judge: policies.NewJudge(p), possible: possible,
		world: worldAddresses(p, interfaces), own: map[netip.Addr]bool{},
		seen: map[flow.Packet]bool{}, flows: map[flow.Packet]bool{},
	}
	for _, i := range interfaces {
		for _, a := range i.host {
			g.own[a] = true
		}
	}
	for _, i := range interfaces {
		var opened [len(flow.Directions)][]*example
		for _, d := range flow.Directions {
			start := len(g.examples)
			for _, r := range rulesOf(p, i.block, d) {
				g.addRule(i, r)
			}
			g.addGenerals(i, d)
			opened[d] = slices.Clone(g.examples[start:])
		}
		for _, d := range flow.Directions {
			g.addAnswers(opened[d])
		}
	}
	order := func(e *example) int {
		return 2*slices.IndexFunc(interfaces, func(i labInterface) bool { return i.name == e.packet.Interface }) + int(e.packet.Direction)
	}
	slices.SortStableFunc(g.examples, func(a, b *example) int { return order(a) - order(b) })
	return g
}

// rulesOf returns the rules of a direction in the groups of an interface.
func rulesOf(p *policies.Policy, block *policies.Interface, d flow.Direction) []*policies.Rule {
	var out []*policies.Rule
	for _, name := range block.Groups {
		if g := p.Group(name); g != nil {
			for _, r := range g.Rules {
				if r.Direction == d {
					out = append(out, r)
				}
			}
		}
	}
	return out
}

// add takes an example, unless its packet is there already or cannot be sent.
func (g *gallery) add(e example) *example {
	p := &e.packet
	what := *p
	what.SourcePort, what.State = 0, 0
	if e.answers != nil || p.State == flow.Invalid {
		// Flows differ by both of their ports.
		what.SourcePort = p.SourcePort
	}
	if g.seen[what] || g.own[p.Peer()] || g.possible(p) != nil {
		return nil
	}
	if p.Protocol.IsOther(p.Family()) && e.answers == nil {
		f := otherFlow(p)
		if g.flows[f] {
			return nil
		}
		g.flows[f] = true
	}
	g.seen[what] = true
	if e.answers == nil {
		g.opened++
	}
	e.meaning = g.judge.Decide(p)
	g.examples = append(g.examples, &e)
	return &e
}

// otherFlow returns what tells flows of protocols apart that are tracked by
// address alone: a second packet to or from the peer belongs to that of the
// first.
func otherFlow(p *flow.Packet) flow.Packet {
	return flow.Packet{Interface: p.Interface, Protocol: p.Protocol, Source: p.Peer()}
}

// addDropped takes an example if the policy lets its packet not through, and
// reports whether it does not.
func (g *gallery) addDropped(e example) bool {
	if g.judge.Decide(&e.packet).Allow {
		return false
	}
	return g.add(e) != nil
}

// service is what a packet asks for at its destination.
type service struct {
	protocol           flow.Protocol
	port               uint16
	icmpType, icmpCode uint8
}

// Source ports are taken one after the other from these.
const (
	firstSourcePort = 40001
	sourcePorts     = 20000
	// unaskedPort is one that no example has.
	unaskedPort = 60001
)

// packet makes a packet between the host and a peer that opens a flow. Its
// source port is the next that no example has.
func (g *gallery) packet(i labInterface, d flow.Direction, peer netip.Addr, s service) flow.Packet {
	p := flow.Packet{
		Interface: i.name, Direction: d, Protocol: s.protocol, HopLimit: 64,
		Source: peer, Dest: i.host[flow.FamilyOf(peer)],
		DestPort: s.port, ICMPType: s.icmpType, ICMPCode: s.icmpCode,
	}
	if d == flow.Egress {
		p.Source, p.Dest = p.Dest, p.Source
	}
	if s.protocol.HasPorts() {
		p.SourcePort = uint16(firstSourcePort + g.opened%sourcePorts)
	}
	if s.protocol == flow.TCP {
		p.TCPFlags = flow.SYN
	}
	return p
}

// addRule shows what a rule allows, and what stands beside it.
func (g *gallery) addRule(i labInterface, r *policies.Rule) {
	d := r.Direction
	peers := g.peerExamples(i, r)
	for n, peer := range peers {
		// An address is an example only where the rule has a service for it.
		s := g.services(i, r, peer.address)[0]
		p := g.packet(i, d, peer.address, s)
		g.add(example{packet: p, rank: peer.rank, shows: peer.name})
		if g.judge.Decide(&p).Allow {
			g.addAddressesBeside(i, d, s, peer, n == 0)
		}
	}
	for n, peer := range peers {
		services := g.services(i, r, peer.address)
		p := g.packet(i, d, peer.address, services[0])
		allowed := g.judge.Decide(&p).Allow
		if n == 0 && allowed {
			g.addBeside(i, r, peer.address, services[0])
		}
		rank := rankLast
		switch {
		case n == 0 && r.AllProtocols:
			rank = rankBorder
		case n == 0:
			rank = rankMore
		}
		for _, s := range services[1:] {
			g.add(example{packet: g.packet(i, d, peer.address, s), rank: rank, shows: peer.name})
			if n == 0 && allowed && !r.AllProtocols {
				g.addPortsBeside(i, r, peer.address, portRange(r, s.port), rankLast)
			}
		}
	}
	g.addOtherFamily(i, r, peers)
}

// tourPorts are tried where a rule leaves the choice of the port.
var tourPorts = [len(flow.Directions)][]uint16{
	flow.Ingress: {8080, 22, 443, 9000, 2222},
	flow.Egress:  {443, 80, 8080, 22, 9000},
}

// protocolGRE stands for all protocols that have rules of their own nowhere.
const protocolGRE flow.Protocol = 47

// services returns what a rule lets a peer ask for: the first port of each
// range, or a type of ICMP; of a rule for all protocols, one of each kind. The
// first is the most telling. It is empty for ICMP of the peer's other family.
func (g *gallery) services(i labInterface, r *policies.Rule, peer netip.Addr) []service {
	family := flow.FamilyOf(peer)
	echo := service{protocol: flow.ICMPOf(family), icmpType: echoRequest(family)}
	switch {
	case r.AllProtocols:
		tcp := service{protocol: flow.TCP, port: g.portOf(i, r, flow.AllPorts, peer)}
		return []service{tcp, {protocol: flow.UDP, port: 123}, echo, {protocol: protocolGRE}}
	case r.Protocol.HasPorts():
		var out []service
		for _, ports := range r.Ports {
			out = append(out, service{protocol: r.Protocol, port: g.portOf(i, r, ports, peer)})
		}
		return out
	case r.Protocol == flow.ICMP || r.Protocol == flow.ICMPv6:
		if !r.Protocol.IsICMP(family) {
			return nil
		}
		if r.ICMPType >= 0 {
			echo.icmpType = uint8(r.ICMPType)
		}
		if r.ICMPCode >= 0 {
			echo.icmpCode = uint8(r.ICMPCode)
		}
		return []service{echo}
	default:
		return []service{{protocol: r.Protocol}}
	}
}

// portOf chooses a port of a range: the first, but for ranges from 0 on, which
// nobody means, one about which the rule decides.
func (g *gallery) portOf(i labInterface, r *policies.Rule, ports flow.PortRange, peer netip.Addr) uint16 {
	if ports.First > 0 || ports.Last == 0 {
		return ports.First
	}
	protocol := r.Protocol
	if r.AllProtocols {
		protocol = flow.TCP
	}
	fallback := uint16(1)
	for n, candidate := range tourPorts[r.Direction] {
		if !ports.Contains(candidate) {
			continue
		}
		p := g.packet(i, r.Direction, peer, service{protocol: protocol, port: candidate})
		if g.judge.Decide(&p).Rule == r {
			return candidate
		}
		if n == 0 {
			fallback = candidate
		}
	}
	return fallback
}

// echoRequest is the ICMP type of a ping.
func echoRequest(f flow.Family) uint8 {
	if f == flow.IPv4 {
		return 8
	}
	return 128
}

// portRange returns the range of the rule that holds the port.
func portRange(r *policies.Rule, port uint16) flow.PortRange {
	n := slices.IndexFunc(r.Ports, func(x flow.PortRange) bool { return x.Contains(port) })
	if n < 0 {
		return flow.PortRange{First: port, Last: port}
	}
	return r.Ports[n]
}

// addBeside shows what stands next to the rule's first service.
func (g *gallery) addBeside(i labInterface, r *policies.Rule, peer netip.Addr, first service) {
	switch {
	case r.AllProtocols:
	case first.protocol.HasPorts():
		g.addPortsBeside(i, r, peer, portRange(r, first.port), rankPort)
	case first.protocol.IsICMP(flow.FamilyOf(peer)) && r.ICMPType >= 0:
		others := []uint8{13, 8, 17}
		if flow.FamilyOf(peer) == flow.IPv6 {
			others = []uint8{139, 128}
		}
		for _, other := range others {
			s := service{protocol: first.protocol, icmpType: other}
			if g.addDropped(example{packet: g.packet(i, r.Direction, peer, s), rank: rankPort, shows: "another type"}) {
				return
			}
		}
	}
}

// addPortsBeside shows the ports just outside a range, the upper one with the
// rank, and the range's last port.
func (g *gallery) addPortsBeside(i labInterface, r *policies.Rule, peer netip.Addr, ports flow.PortRange, upper rank) {
	beside := "next to port " + ports.String()
	if ports.First != ports.Last {
		beside = "next to ports " + ports.String()
		last := service{protocol: r.Protocol, port: ports.Last}
		g.add(example{packet: g.packet(i, r.Direction, peer, last), rank: rankLast})
	}
	try := func(port int, rank rank) bool {
		if port < 1 || port > 65535 {
			return false
		}
		s := service{protocol: r.Protocol, port: uint16(port)}
		return g.addDropped(example{packet: g.packet(i, r.Direction, peer, s), rank: rank, shows: beside})
	}
	if try(int(ports.Last)+1, upper) {
		upper = rankLast
	}
	try(int(ports.First)-1, upper)
}

// addOtherFamily shows that a rule for one family alone says nothing of the
// other.
func (g *gallery) addOtherFamily(i labInterface, r *policies.Rule, peers []peerExample) {
	for _, f := range flow.Families {
		if len(peers) == 0 || slices.ContainsFunc(peers, func(p peerExample) bool { return flow.FamilyOf(p.address) == f }) {
			continue
		}
		for _, s := range g.services(i, r, g.world[f]) {
			g.addDropped(example{
				packet: g.packet(i, r.Direction, g.world[f], s), rank: rankMore,
				shows: fmt.Sprintf("the rule is for %s alone", flow.FamilyOf(peers[0].address)),
			})
			break
		}
	}
}
