package scenario

import (
	"net/netip"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// ICMPMessage is a kind of ICMP that is neither an echo request nor its reply.
type ICMPMessage struct {
	Type, Code uint8
	// HopLimit is that of its packets, or their time to live.
	HopLimit uint8
}

// defaultHopLimit is what Linux sends with.
const defaultHopLimit = 64

// message reads the attributes of a flow that is one of ICMP messages.
func (t *steps) message(r *reader, f *Flow) {
	var m ICMPMessage
	var given []string
	for _, a := range []struct {
		name   string
		least  int64
		target *uint8
	}{
		{"icmp_type", 0, &m.Type},
		{"icmp_code", 0, &m.Code},
		{"hop_limit", 1, &m.HopLimit},
	} {
		if !r.has(a.name) {
			continue
		}
		given = append(given, a.name)
		if n, ok := r.number(a.name, a.least, 255); ok {
			*a.target = uint8(n)
		}
	}
	if given == nil {
		return
	}
	if family := flow.FamilyOf(f.Dest); !f.Dest.IsValid() || !f.Protocol.IsICMP(family) {
		for _, name := range given {
			t.errorAt(r.place(name), "No ICMP", "Only a flow of ICMP has %s; remove this line.", name)
		}
		return
	}
	if !r.has("icmp_type") {
		t.errorAt(r.header, "Missing icmp_type", "Say what the messages are: icmp_type = 135 is a neighbour solicitation. Without icmp_type, icmp_code and hop_limit, the flow is a ping.")
	}
	if r.has("id") {
		t.errorAt(r.place("id"), "No identifier", "Only a ping has an identifier; remove this line.")
	}
	if !r.has("hop_limit") {
		m.HopLimit = defaultHopLimit
	}
	f.Message = &m
}

// messageHeader precedes the lab's message in the body of an ICMP message: the
// second word of its header, and the address that neighbour discovery and
// multicast listeners speak of. Zeros mean nothing to the kernel that gets them.
const messageHeader = 4 + 16

// openMessages opens a raw socket on either side. The one that receives sees
// what passed all hooks, before its kernel makes anything of it.
func (p *player) openMessages(from, reaches *lab.Namespace) error {
	family, m := flow.FamilyOf(p.spec.Dest), p.spec.Message
	service := serviceKey{p.spec.Reaches + " messages", p.spec.Protocol, netip.AddrPortFrom(p.spec.ReachesAddress, 0)}
	err := p.run.serve(service, func() (interface{ Close() error }, error) {
		raw, err := reaches.OpenRaw(p.spec.Protocol, family, p.spec.ReachesAddress)
		if err != nil {
			return nil, err
		}
		p.run.background(func() {
			p.run.receive(raw, func(from netip.Addr, body []byte) {
				m, mine := parseMessage(body[min(4+messageHeader, len(body)):])
				if p := p.run.player(m.flow); mine && p != nil {
					p.received(m, netip.AddrPortFrom(from, 0))
				}
			})
		})
		return raw, nil
	})
	if err != nil {
		return err
	}
	raw, err := from.OpenRaw(p.spec.Protocol, family, p.spec.Source)
	if err != nil {
		return err
	}
	p.keep(raw)
	if err := raw.SetHopLimit(m.HopLimit); err != nil {
		return err
	}
	p.background(func() {
		p.pace(Opener, p.openerCount(), false, p.datagram(func(own message) error {
			rest := append(make([]byte, messageHeader), own.marshal(p.spec.Size)...)
			return raw.Send(p.spec.Dest, lab.ICMPMessage(family, m.Type, m.Code, rest))
		}))
	})
	return nil
}
