package cli

import (
	"fmt"
	"net/netip"
	"time"

	"sgc/apply"
	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/policies"
)

// heldFlows finds what is refused of a flow because an apply cut it, or its port.
type heldFlows struct {
	exact map[heldKey][]heldUntil
	ports []heldUntil
}

// heldKey names a single flow that is held.
type heldKey struct {
	name  string
	peer  netip.AddrPort
	local uint16
}

type heldUntil struct {
	policies.Held
	expires time.Duration
}

func newHeldFlows(t *apply.Table) heldFlows {
	out := heldFlows{exact: map[heldKey][]heldUntil{}}
	for h, e := range heldIn(t) {
		until := heldUntil{h.held, e.Expires}
		if !h.held.Exact() {
			out.ports = append(out.ports, until)
			continue
		}
		key := heldKey{h.held.Interface, netip.AddrPortFrom(h.held.Peers.First, h.held.PeerPorts.First), h.held.LocalPort}
		out.exact[key] = append(out.exact[key], until)
	}
	return out
}

// of returns what refuses packets of the flow for the longest time, or nil. p is
// the packet that opened it.
func (h *heldFlows) of(p *flow.Packet) *heldUntil {
	if p.Protocol != flow.UDP {
		return nil
	}
	local, localPort := p.Dest, p.DestPort
	if p.Direction == flow.Egress {
		local, localPort = p.Source, p.SourcePort
	}
	var longest *heldUntil
	see := func(u *heldUntil) {
		if longest == nil || u.expires > longest.expires {
			longest = u
		}
	}
	single := h.exact[heldKey{p.Interface, netip.AddrPortFrom(p.Peer(), p.PeerPort()), localPort}]
	for i := range single {
		if single[i].Local == local {
			see(&single[i])
		}
	}
	for i := range h.ports {
		u := &h.ports[i]
		if u.Interface == p.Interface && u.LocalPort == localPort && u.Peers.Contains(p.Peer()) && u.PeerPorts.Contains(p.PeerPort()) {
			see(u)
		}
	}
	return longest
}

// classless reports whether a flow without an entry has no class: no rule that is
// enforced allows it, so that nothing but its sockets is left of it.
func (x *explainer) classless(f *socketFlow) bool {
	return f.leg.Revoked() && !f.keptOut && x.inForce != nil && x.planned == ""
}

// socket explains a flow without an entry.
func (x *explainer) socket(f *socketFlow) explanation {
	l := &f.leg
	out := explanation{}
	say := func(text string) { out.Sentences = append(out.Sentences, text) }
	switch open := l.Class() == conntrack.ClassOpen; {
	case f.keptOut:
		out.Legs = []legExplanation{x.leg(l, nil, false)}
		say("The kernel does not track it (notrack): conntrack has no entry of it, so it has no timeout. It lives as long as its sockets do.")
	case l.Class() == conntrack.ClassExempt:
		out.Legs = []legExplanation{x.leg(l, nil, false)}
		say("Conntrack has no entry of it, and it needs none.")
	case x.inForce == nil, x.planned != "" && f.seed:
		out.Legs = []legExplanation{x.leg(l, nil, false)}
		say("Conntrack has no entry of it at the moment; an apply makes one where the kernel is to track it.")
	case x.planned != "":
		out.Legs = []legExplanation{x.leg(l, nil, false)}
		say("Conntrack has no entry of it at the moment, and an apply makes none.")
	case open:
		out.Legs = []legExplanation{x.leg(l, nil, false)}
		say("Conntrack has no entry of it at the moment, and its next packet makes one.")
	default:
		out.Legs = []legExplanation{x.entryless(l)}
		out.sayEntryless(x, f)
	}
	if l.Class() == conntrack.ClassOpen {
		x.sayEnding(&out.Legs[0], l)
	}
	if x.planned != "" {
		fate, reason := f.fate, f.reason
		if fate == conntrack.Lingers && x.inForce != nil && !f.keptOut && !f.seed {
			fate, reason = conntrack.Stays, conntrack.NoReason // there is nothing that could go on
		}
		out.effect(fate, reason)
	}
	return out
}

// entryless is leg for a flow that would be tracked, had it an entry, under the
// policy that is enforced.
func (x *explainer) entryless(l *conntrack.Leg) legExplanation {
	p := &l.Packet
	out := legExplanation{Interface: p.Interface, AllowedBy: []string{}, CutBy: []string{}, Why: x.index.ByGroups(p).Reason}
	if !l.Revoked() {
		out.say("A flow of the kind is tracked: %s.", out.Why)
		x.sayAllowed(&out, l)
		x.sayDenied(&out, l, "")
		return out
	}
	out.say("No rule allows it: %s.", out.Why)
	if !x.sayHad(&out, p) {
		out.say("The record knows of no rule that allowed it before.")
	}
	return out
}

// sayEntryless says what becomes of the packets of a flow that has no entry and
// needs one, or a rule that lets it open.
func (out *explanation) sayEntryless(x *explainer, f *socketFlow) {
	const lost = "an apply cut it (as it does with untracked flows), it was idle for its timeout, or somebody deleted the entry"
	p := &f.leg.Packet
	say := func(format string, args ...any) { out.Sentences = append(out.Sentences, fmt.Sprintf(format, args...)) }
	revoked := f.leg.Revoked()
	if p.Protocol == flow.TCP {
		anew := x.midstream(p)
		switch {
		case f.socket.State == conntrack.SynSent && revoked:
			say("Conntrack has no entry of it: the host tries to open it, and none of its SYNs passes.")
			return
		case f.socket.State == conntrack.SynSent:
			say("Conntrack has no entry of it yet: the host is about to open it.")
			return
		case anew != "":
			say("Conntrack has no entry of it at the moment; its next segment passes as one of an open flow, by %s.", anew)
			return
		case revoked:
			say("Conntrack has no entry of it either, so no packet of it passes: %s.", lost)
		default:
			say("Conntrack has no entry of it: %s. None of its segments passes, since none is a SYN, and an apply makes an entry for it only when it begins to enforce: after sgc destroy, or after somebody flushed the ruleset.", lost)
		}
		say("Its socket is still there until it times out or its program closes it; ss -tK src %s dst %s closes it now.", f.socket.Local, f.socket.Remote)
		return
	}
	// Who may open the flow anew, and by which rule.
	forth, back := x.opens(p), x.opens(reply(p))
	if held := x.held.of(p); held != nil {
		v := newHeldView(&held.Held, held.expires)
		out.Held = &v
		refused := p
		if held.Refused() != p.Direction {
			refused = reply(p)
		}
		if other := x.opens(reply(refused)); other == "" {
			say("Conntrack has no entry of it, and no packet of it passes: what %s is refused for another %ds, so that what an apply cut does not come back (%s).", sends(refused), v.Expires, v.what())
		} else {
			say("Conntrack has no entry of it, and what %s is refused for another %ds, so that what an apply cut does not come back (%s).", sends(refused), v.Expires, v.what())
			say("What %s opens a flow, as %s allows.", sends(reply(refused)), other)
		}
		if anew := x.opens(refused); anew != "" {
			say("From then on the next packet that %s opens a flow of its own, as %s allows.", sends(refused), anew)
		} else {
			say("From then on no rule lets it open either.")
		}
		return
	}
	switch {
	case !revoked:
		say("Conntrack has no entry of it: it is idle. Its next packet is judged as one that opens a flow.")
	case back != "":
		say("Conntrack has no entry of it: %s. What %s does not pass; the next packet that %s opens a flow of its own, as %s allows.", lost, sends(p), sends(reply(p)), back)
	case forth == "":
		say("Conntrack has no entry of it either, so no packet of it passes: %s. Its socket is still there until its program closes it.", lost)
	}
}

// sends says who sends a packet.
func sends(p *flow.Packet) string {
	if p.Direction == flow.Egress {
		return "the host sends"
	}
	return "the peer sends"
}

// opens names the rule that lets a packet open a flow, or is "".
func (x *explainer) opens(p *flow.Packet) string {
	if d := x.index.Decide(p); d.Allow && d.Rule != nil {
		return d.Rule.Address()
	}
	return ""
}

// midstream names the rule that lets a segment pass that neither has an entry nor
// is a SYN, in either direction, or is "".
func (x *explainer) midstream(p *flow.Packet) string {
	for _, segment := range []*flow.Packet{p, reply(p)} {
		later := *segment
		later.TCPFlags = flow.ACK
		if rule := x.opens(&later); rule != "" {
			return rule
		}
	}
	return ""
}
