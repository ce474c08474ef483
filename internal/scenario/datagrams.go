package scenario

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

const protocolTCP = flow.TCP

// serviceKey tells the listening sockets of a run apart: several flows may go
// to one, as to any server.
type serviceKey struct {
	host     string
	protocol flow.Protocol
	local    netip.AddrPort
}

// serve makes the service of a key, unless it is there.
func (r *Run) serve(k serviceKey, open func() (interface{ Close() error }, error)) error {
	if r.services[k] != nil {
		return nil
	}
	s, err := open()
	if err != nil {
		return err
	}
	r.services[k] = s
	return nil
}

// player returns the flow of a number, or nil.
func (r *Run) player(number uint32) *player {
	r.mu.Lock()
	defer r.mu.Unlock()
	if number == 0 || int(number) > len(r.players) {
		return nil
	}
	return r.players[number-1]
}

// openUDP opens a connected socket for the opener, and an unconnected one for
// all who send to the port.
func (p *player) openUDP(from, reaches *lab.Namespace) error {
	local := netip.AddrPortFrom(p.spec.ReachesAddress, p.spec.ReachesPort)
	err := p.run.serve(serviceKey{p.spec.Reaches, flow.UDP, local}, func() (interface{ Close() error }, error) {
		conn, err := reaches.ListenUDP(local)
		if err != nil {
			return nil, err
		}
		p.run.background(func() { p.run.serveUDP(conn) })
		return conn, nil
	})
	if err != nil {
		return err
	}
	conn, err := from.DialUDP(netip.AddrPortFrom(p.spec.Source, p.sourcePort), netip.AddrPortFrom(p.spec.Dest, p.spec.Port))
	if err != nil {
		return err
	}
	p.keep(conn)
	if err := lab.QueueErrors(conn); err != nil {
		return err
	}
	p.background(func() {
		b := make([]byte, 1<<16)
		for {
			n, err := conn.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Any other error tells of an ICMP message.
			if err != nil {
				p.takeErrors(conn)
			}
			if m, ok := parseMessage(b[:n]); err == nil && ok && m.flow == p.number && m.side == Responder {
				p.received(m, netip.AddrPort{})
			}
		}
	})
	p.background(func() {
		p.pace(Opener, p.openerCount(), false, p.datagram(func(m message) error {
			b := m.marshal(p.spec.Size)
			_, err := conn.Write(b)
			for n := 0; n < writeTries && err != nil && !errors.Is(err, syscall.EPERM); n++ {
				// It may be about an earlier packet; this one was not sent.
				p.takeErrors(conn)
				_, err = conn.Write(b)
			}
			return err
		}))
	})
	return nil
}

// datagram returns a sender whose errors end the run, but for those of the sender's
// own rules: all others say that nothing was sent, which is nobody's refusal.
func (p *player) datagram(send func(message) error) func(message) error {
	return func(m message) error {
		err := send(m)
		if err != nil && !errors.Is(err, syscall.EPERM) {
			p.unable(m.side, err)
		}
		return err
	}
}

// unable ends the run, since a side of the flow cannot send; unless the flow has
// ended, which closes its sockets.
func (p *player) unable(side Side, err error) {
	if p.ctx.Err() == nil {
		p.run.abort(fmt.Errorf("the flow %q: %s cannot send: %w", p.spec.Name, p.spec.host(side), err))
	}
}

// writeTries is how often a datagram is sent again for an error that tells of
// another one: as many as may be under way may each have one.
const writeTries = 100

// takeErrors records what ICMP messages say of the opener's packets.
func (p *player) takeErrors(conn *net.UDPConn) {
	messages, err := lab.TakeErrors(conn)
	if err != nil {
		p.unable(Opener, err)
	}
	for _, e := range messages {
		if m, ok := parseMessage(e.Payload); ok && e.PortUnreachable && m.flow == p.number && m.side == Opener {
			p.unheard(m.seq, p.run.now())
		}
	}
}

// serveUDP reads what comes to a port, until it is closed.
func (r *Run) serveUDP(conn *net.UDPConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		m, ok := parseMessage(b[:n])
		if err != nil || !ok || m.side != Opener {
			continue
		}
		if p := r.player(m.flow); p != nil {
			p.received(m, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
			p.respond(p.datagram(func(m message) error {
				_, err := conn.WriteToUDPAddrPort(m.marshal(p.spec.Size), p.seenFrom())
				return err
			}))
		}
	}
}

// openPing opens a raw socket for the opener, and one that watches what
// requests come to the other side, whose kernel answers them.
func (p *player) openPing(from, reaches *lab.Namespace) error {
	family := flow.FamilyOf(p.spec.Dest)
	any := netip.AddrPortFrom(family.Any().Addr(), 0)
	err := p.run.serve(serviceKey{p.spec.Reaches, p.spec.Protocol, any}, func() (interface{ Close() error }, error) {
		raw, err := reaches.OpenRaw(p.spec.Protocol, family, netip.Addr{})
		if err != nil {
			return nil, err
		}
		p.run.background(func() {
			p.run.receive(raw, func(from netip.Addr, body []byte) {
				reply, _, payload, ok := lab.ParseEcho(family, body)
				if m, mine := parseMessage(payload); ok && !reply && mine {
					if p := p.run.player(m.flow); p != nil {
						p.received(m, netip.AddrPortFrom(from, 0))
					}
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
	p.background(func() {
		p.run.receive(raw, func(_ netip.Addr, body []byte) {
			reply, _, payload, ok := lab.ParseEcho(family, body)
			if m, mine := parseMessage(payload); ok && reply && mine && m.flow == p.number {
				p.answered(m.seq, p.run.now())
			}
		})
	})
	p.background(func() {
		p.pace(Opener, p.openerCount(), false, p.datagram(func(m message) error {
			return raw.Send(p.spec.Dest, lab.EchoRequest(family, p.id, uint16(m.seq), m.marshal(p.spec.Size)))
		}))
	})
	return nil
}

// otherHeader is what precedes the message in protocols that are neither TCP,
// UDP nor ICMP: zeros that long are a sound header of GRE, and long enough for
// whatever conntrack looks into.
const otherHeader = 32

// openOther opens raw sockets on both sides.
func (p *player) openOther(from, reaches *lab.Namespace) error {
	family := flow.FamilyOf(p.spec.Dest)
	body := func(m message) []byte { return append(make([]byte, otherHeader), m.marshal(p.spec.Size)...) }
	parse := func(body []byte) (message, bool) { return parseMessage(body[min(otherHeader, len(body)):]) }
	local := netip.AddrPortFrom(p.spec.ReachesAddress, 0)
	err := p.run.serve(serviceKey{p.spec.Reaches, p.spec.Protocol, local}, func() (interface{ Close() error }, error) {
		raw, err := reaches.OpenRaw(p.spec.Protocol, family, p.spec.ReachesAddress)
		if err != nil {
			return nil, err
		}
		p.run.background(func() {
			p.run.receive(raw, func(from netip.Addr, b []byte) {
				m, ok := parse(b)
				if p := p.run.player(m.flow); ok && p != nil && m.side == Opener {
					p.received(m, netip.AddrPortFrom(from, 0))
					p.respond(p.datagram(func(m message) error { return raw.Send(p.seenFrom().Addr(), body(m)) }))
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
	p.background(func() {
		p.run.receive(raw, func(_ netip.Addr, b []byte) {
			if m, ok := parse(b); ok && m.flow == p.number && m.side == Responder {
				p.received(m, netip.AddrPort{})
			}
		})
	})
	p.background(func() {
		p.pace(Opener, p.openerCount(), false, p.datagram(func(m message) error { return raw.Send(p.spec.Dest, body(m)) }))
	})
	return nil
}

// receive hands over what comes to a raw socket until that is closed.
func (r *Run) receive(raw *lab.Raw, take func(from netip.Addr, body []byte)) {
	b := make([]byte, 1<<16)
	for {
		from, body, err := raw.Receive(r.ctx, b)
		if err != nil {
			// The socket is closed, or an ICMP message says that a packet did
			// not arrive, which its record says as well.
			if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EBADF) || r.ctx.Err() != nil {
				return
			}
			continue
		}
		take(from, body)
	}
}
