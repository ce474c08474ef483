package conntrack

import (
	"net/netip"

	"sgc/internal/flow"
	"sgc/policies"
)

// opening is what the rules tell of who opened a flow whose ports do not; ok is
// false if they tell nothing either.
type opening func(*Socket) (opened flow.Direction, ok bool)

// heeding returns openers that also ask the rules.
func (o *Openers) heeding(rules opening) *Openers {
	if o == nil {
		return nil
	}
	with := *o
	with.rules = rules
	return &with
}

// byRules returns what the rules tell of a flow.
func (o *Openers) byRules(s *Socket) (flow.Direction, bool) {
	if o.rules == nil || !o.unclear(s.Local.Port(), s.Remote.Port()) {
		return flow.Ingress, false
	}
	return o.rules(s)
}

// unclear reports whether two ports leave open who connected: a client may have
// either.
func (o *Openers) unclear(local, remote uint16) bool {
	return remote >= firstUser && local >= firstReserved && (o.ephemeral.Contains(local) || !o.ephemeral.Contains(remote))
}

// byRules tells who opened a flow by the rules that name its ports: who writes a
// rule for a port knows of somebody who waits there. Rules that let everything
// pass, and those that name all the ephemeral ports, say nothing of one of them.
//
// Where the peer's port is none that the kernel would have given it, it may well be
// that of a service: the rule has to be about few ports then, so that hardly any of
// the host's own clients gets one of them by chance.
func (c *Change) byRules(s *Socket) (flow.Direction, bool) {
	name, err := c.routes.socketLink(s)
	if err != nil || name == "" {
		return flow.Ingress, false // who asks where the flow is gets the error
	}
	judge := c.new.judge
	if c.old != nil && c.old.judge.Interface(name) != nil {
		judge = c.old.judge
	}
	in := s.opening(name)
	out := in.Reply()
	most := c.openers.count(c.openers.ephemeral) - 1
	if c.openers.ephemeral.Contains(in.DestPort) && !c.openers.ephemeral.Contains(in.SourcePort) {
		most /= chance
	}
	here, there := c.openers.named(judge.Allowing(&in), most), c.openers.named(judge.Allowing(&out), most)
	switch {
	case here && !there:
		return flow.Ingress, true
	case there && !here:
		return flow.Egress, true
	}
	return flow.Ingress, false
}

// chance is one in how many of the host's own clients may have a port that a rule
// is about.
const chance = 100

// opening is the packet with which the peer would have opened the flow.
func (s *Socket) opening(link string) flow.Packet {
	p := flow.Packet{
		Interface: link, Direction: flow.Ingress, Protocol: s.Protocol, HopLimit: hopLimit, State: flow.New,
		Source: s.Remote.Addr(), SourcePort: s.Remote.Port(), Dest: s.Local.Addr(), DestPort: s.Local.Port(),
	}
	if s.Protocol == flow.TCP {
		p.TCPFlags = flow.SYN
	}
	return p
}

// named reports whether one of the rules that allow a port is about it: the rule
// names no more than so many ephemeral ports.
func (o *Openers) named(rules []*policies.Rule, most int) bool {
	for _, r := range rules {
		if r.AllProtocols {
			continue
		}
		ephemeral := 0
		for _, ports := range r.Ports {
			ephemeral += o.count(ports)
		}
		if ephemeral <= most {
			return true
		}
	}
	return false
}

// count returns how many of the ports are ephemeral.
func (o *Openers) count(ports flow.PortRange) int {
	first, last := max(ports.First, o.ephemeral.First), min(ports.Last, o.ephemeral.Last)
	return max(0, int(last)-int(first)+1)
}

// reversedByPorts reports whether ports or rules tell that dest opened the
// connection of an entry which a segment of source has begun.
func (r *Routes) reversedByPorts(source, dest netip.AddrPort) bool {
	s := Socket{Protocol: flow.TCP, State: Established, Local: source, Remote: dest}
	isOwn := r.isOwn(source.Addr())
	if !isOwn {
		s.Local, s.Remote = dest, source
	}
	if isOwn || r.hears(dest.Addr()) {
		if opened, ok := r.openers.byRules(&s); ok {
			return (opened == flow.Egress) != isOwn
		}
	}
	return r.openers.ephemeral.Contains(dest.Port()) && !r.openers.ephemeral.Contains(source.Port())
}
