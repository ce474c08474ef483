package scenario

import (
	"fmt"
	"net/netip"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/policies"
)

// policyOf says what the policy that is enforced means for the packet that
// opened the flow, wherever it crosses the managed host, and what keeps the
// answers from passing.
func (r *Run) policyOf(p *player) []string {
	if r.policy == nil {
		return []string{"nothing is enforced"}
	}
	packet := flow.Packet{
		Protocol: p.spec.Protocol, Source: p.spec.Source, Dest: p.spec.Dest,
		SourcePort: p.sourcePort, DestPort: p.spec.Port, HopLimit: 64,
	}
	switch {
	case p.spec.IsPing():
		packet.SourcePort, packet.ICMPType = 0, echoRequest[packet.Family()]
	case p.spec.Message != nil:
		m := p.spec.Message
		packet.ICMPType, packet.ICMPCode, packet.HopLimit = m.Type, m.Code, m.HopLimit
	case p.spec.Protocol == flow.TCP:
		packet.TCPFlags = flow.SYN
	}
	crossings, end, arrived := r.topology.path(r.scenario.Host(p.spec.From), packet)
	judge := policies.NewJudge(r.policy)
	var lines []string
	untracked := false
	for i := range crossings {
		c := &crossings[i]
		d := judge.Decide(c)
		// What is routed has an entry whatever the policy calls it.
		untracked = untracked || d.Class == policies.Untracked && !c.Forwarded
		lines = append(lines, fmt.Sprintf("%s %s, a new %s is %s", c.Interface, c.Direction, packetText(c), decisionText(&d)))
	}
	if end != nil && p.spec.isAnswered() {
		for _, c := range r.answers(crossings, end, packet, arrived) {
			if d := decideAnswer(judge, &c, untracked); !d.Allow {
				lines = append(lines, fmt.Sprintf("%s %s, the answer %s is %s", c.Interface, c.Direction, packetText(&c), decisionText(&d)))
			}
		}
	}
	if len(lines) == 0 {
		return []string{"the flow does not cross the managed host"}
	}
	return lines
}

// isAnswered reports whether packets go both ways in the flow: those of TCP do
// even if only one side has something to say.
func (f *Flow) isAnswered() bool {
	return f.IsPing() || f.Message == nil && (f.Protocol == flow.TCP || f.Sends[Responder])
}

// answers returns the answer to a packet that was sent and has arrived at end,
// wherever it crosses the managed host: on its own way, which need not be that of
// the packet. Where addresses are translated it goes back as the packet came.
func (r *Run) answers(crossings []flow.Packet, end *Host, sent, arrived flow.Packet) []flow.Packet {
	answer := func(p *flow.Packet) flow.Packet {
		a := p.Reply()
		a.IsReply = true
		switch {
		case a.Protocol.IsICMP(a.Family()):
			a.ICMPType = echoReply[a.Family()]
		case a.Protocol == flow.TCP:
			a.TCPFlags = flow.SYN | flow.ACK
		}
		return a
	}
	if arrived.Source == sent.Source && arrived.Dest == sent.Dest && arrived.DestPort == sent.DestPort {
		back, _, _ := r.topology.path(end, answer(&arrived))
		return back
	}
	var back []flow.Packet
	for i := len(crossings) - 1; i >= 0; i-- {
		back = append(back, answer(&crossings[i]))
	}
	return back
}

// decideAnswer says what the policy means for an answer: the tracked flow lets it
// pass the groups, but no network ACL. Where the kernel does not track the flow,
// an interface that does not call it open takes the answer for a new packet.
func decideAnswer(judge *policies.Judge, p *flow.Packet, untracked bool) policies.Decision {
	answer := *p
	answer.State = flow.Established
	if !untracked {
		return judge.Decide(&answer)
	}
	answer.State = flow.New
	opening := answer
	opening.TCPFlags = flow.SYN
	if d := judge.Decide(&opening); !d.Allow {
		// No rule at all says more than a segment that cannot open a connection.
		return d
	}
	return judge.Decide(&answer)
}

var (
	echoRequest = map[flow.Family]uint8{flow.IPv4: 8, flow.IPv6: 128}
	echoReply   = map[flow.Family]uint8{flow.IPv4: 0, flow.IPv6: 129}
)

func packetText(p *flow.Packet) string {
	name := p.Protocol.Name(p.Family())
	if p.Protocol.HasPorts() {
		return fmt.Sprintf("%s %s → %s", name, netip.AddrPortFrom(p.Source, p.SourcePort), netip.AddrPortFrom(p.Dest, p.DestPort))
	}
	if p.Protocol.IsICMP(p.Family()) && p.ICMPType != echoRequest[p.Family()] {
		name = fmt.Sprintf("%s type %d", name, p.ICMPType)
	}
	return fmt.Sprintf("%s %s → %s", name, p.Source, p.Dest)
}

func decisionText(d *policies.Decision) string {
	if !d.Allow {
		text := "dropped: " + d.Reason
		if d.ACLEntry != nil {
			text += fmt.Sprintf(" (%s, %s)", d.ACLEntry.Address(), d.ACLEntry.Pos)
		}
		return text
	}
	text := "let through, " + d.Class.String()
	switch {
	case d.Rule != nil:
		text += fmt.Sprintf(", by %s (%s)", d.Rule.Address(), d.Rule.Pos)
	case d.Reason != "":
		text += ": " + d.Reason
	}
	return text
}

// entryIn returns the entry of the flow, nil for none: as the opener sends it,
// or as it arrives on the other side.
func (p *player) entryIn(entries []lab.Entry) *lab.Entry {
	views := []lab.Tuple{
		{Source: netip.AddrPortFrom(p.spec.Source, p.sourcePort), Dest: netip.AddrPortFrom(p.spec.Dest, p.spec.Port)},
	}
	if seen := p.seenFrom(); seen.IsValid() {
		views = append(views, lab.Tuple{Source: seen, Dest: netip.AddrPortFrom(p.spec.ReachesAddress, p.spec.ReachesPort)})
	}
	for i := range entries {
		for _, view := range views {
			if p.isOf(&entries[i], view) {
				return &entries[i]
			}
		}
	}
	return nil
}

// isOf reports whether an entry is that of the flow, opened by either side: of
// pings and messages, by the opener alone, since those of the other side have
// entries of their own. Its original tuple is the flow then, or, where addresses
// are translated, its reply tuple is the reverse of that.
func (p *player) isOf(e *lab.Entry, view lab.Tuple) bool {
	if e.Original.Protocol != p.spec.Protocol {
		return false
	}
	ports := p.spec.Protocol.HasPorts()
	same := func(t lab.Tuple, source, dest netip.AddrPort) bool {
		return t.Source.Addr() == source.Addr() && t.Dest.Addr() == dest.Addr() &&
			(!ports || t.Source.Port() == source.Port() && t.Dest.Port() == dest.Port())
	}
	forth := func(t lab.Tuple) bool { return same(t, view.Source, view.Dest) }
	back := func(t lab.Tuple) bool { return same(t, view.Dest, view.Source) }
	if want, ok := p.icmpTuple(); ok {
		o := e.Original
		return o.ICMPType == want.ICMPType && o.ICMPCode == want.ICMPCode && o.ICMPID == want.ICMPID && (forth(o) || back(e.Reply))
	}
	return forth(e.Original) || back(e.Original) || forth(e.Reply) || back(e.Reply)
}

// icmpTuple returns what conntrack knows the flow's pings or messages by, without
// their addresses; false for other flows.
func (p *player) icmpTuple() (lab.Tuple, bool) {
	switch m := p.spec.Message; {
	case m != nil:
		// The kernel takes the word behind the checksum, of which messageHeader
		// makes zeros, for an identifier.
		return lab.Tuple{ICMPType: m.Type, ICMPCode: m.Code}, true
	case p.spec.IsPing():
		return lab.Tuple{ICMPType: echoRequest[flow.FamilyOf(p.spec.Dest)], ICMPID: p.id}, true
	}
	return lab.Tuple{}, false
}
