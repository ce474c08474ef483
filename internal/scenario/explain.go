package scenario

import (
	"fmt"
	"net/netip"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/policies"
)

// policyOf says what the policy that is enforced means for the packet that
// opened the flow, wherever it crosses the managed host.
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
	crossings, _ := r.topology.path(r.scenario.Host(p.spec.From), packet)
	if len(crossings) == 0 {
		return []string{"the flow does not cross the managed host"}
	}
	judge := policies.NewJudge(r.policy)
	var lines []string
	for i := range crossings {
		d := judge.Decide(&crossings[i])
		lines = append(lines, fmt.Sprintf("%s %s, a new %s is %s", crossings[i].Interface, crossings[i].Direction, packetText(&crossings[i]), decisionText(&d)))
	}
	return lines
}

var echoRequest = map[flow.Family]uint8{flow.IPv4: 8, flow.IPv6: 128}

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

// isOf reports whether an entry is that of the flow, opened by either side.
func (p *player) isOf(e *lab.Entry, view lab.Tuple) bool {
	if e.Original.Protocol != p.spec.Protocol {
		return false
	}
	if p.spec.IsPing() && e.Original.ICMPID != p.id || p.spec.Message != nil && e.Original.ICMPType != p.spec.Message.Type {
		return false
	}
	ports := p.spec.Protocol.HasPorts()
	same := func(a, b netip.AddrPort) bool {
		return a.Addr() == b.Addr() && (!ports || a.Port() == b.Port())
	}
	for _, t := range []lab.Tuple{e.Original, e.Reply} {
		if same(t.Source, view.Source) && same(t.Dest, view.Dest) || same(t.Source, view.Dest) && same(t.Dest, view.Source) {
			return true
		}
	}
	return false
}
