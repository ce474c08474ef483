package conntrack

import (
	"net/netip"
	"slices"

	"sgc/internal/flow"
	"sgc/policies"
)

// Socket says what becomes of the flow of a socket of the host; the result is
// valid until the next call with the same out. Sockets without a peer have no
// flow, nor have those in TimeWait or with which the host talks to itself: they
// are Elsewhere.
//
// A flow may have an entry and a socket. Count the sockets that are KeptOut,
// and the entries that are not. Of the other sockets, those to Seed and those that
// are Unsure may have an entry or not: count them if no entry with their SocketKey
// comes. The rest of the sockets have entries.
func (c *Change) Socket(s *Socket, out *Changed) error {
	out.reset()
	if s.State == TimeWait || !c.routes.crosses(s) {
		return nil
	}
	l := &out.room[0]
	l.Packet = s.opening("")
	if c.openers.Opened(s) == flow.Egress {
		l.Packet = l.Packet.Reply()
	}
	w, err := c.routes.socketWay(s, l.Packet.Direction)
	name := c.routes.names[w.link]
	if err != nil || name == "" {
		return err
	}
	l.Packet.Interface = name
	if w.open || w.twins != nil {
		c.among(c.routes, w, &l.Packet)
		name = l.Packet.Interface
	}
	c.judge(l)
	c.sum(out, 1)
	// What the old policy did not govern may have an entry or not; one too many is
	// refused by the kernel as there already.
	out.Delete = false
	out.Unsure = len(out.Legs) > 0 && (c.old == nil || c.lost || c.old.judge.Interface(name) == nil)
	out.Seed = len(out.Legs) > 0 && out.Fate != Cut && (out.Unsure || out.KeptOut) && !l.keepsOut
	if out.Fate == Cut && s.Protocol == flow.UDP {
		out.hold(c, l, s.Local)
	}
	return nil
}

// socketLink returns the name of the interface that a connected socket's packets
// cross, or "".
func (r *Routes) socketLink(s *Socket) (string, error) {
	w, err := r.socketWay(s, flow.Ingress)
	return r.names[w.link], err
}

// socketWay is way for the flow of a connected socket, which may be bound to a link.
func (r *Routes) socketWay(s *Socket, opened flow.Direction) (way, error) {
	if link := int32(s.Interface); link != 0 && r.names[link] != "" {
		return way{link: link}, nil
	}
	l := leg{direction: opened, source: s.Remote.Addr(), dest: s.Local.Addr()}
	if opened == flow.Egress {
		l.source, l.dest = l.dest, l.source
	}
	return r.way(&l)
}

// SocketKey names a flow by its ends as a socket of the host has them.
type SocketKey struct {
	Protocol      flow.Protocol
	Local, Remote netip.AddrPort
}

// Key returns the name of the socket's flow.
func (s *Socket) Key() SocketKey { return SocketKey{s.Protocol, s.Local, s.Remote} }

// SocketKey returns the name of the entry's flow, if one of its ends is on the
// host.
func (c *Change) SocketKey(e *Entry) (SocketKey, bool) {
	o, r := &e.Original, &e.Reply
	switch {
	case !o.Protocol.HasPorts():
		return SocketKey{}, false
	case c.routes.isOwn(o.Source):
		return SocketKey{o.Protocol, netip.AddrPortFrom(o.Source, o.SourcePort), netip.AddrPortFrom(o.Dest, o.DestPort)}, true
	case c.routes.isOwn(r.Source):
		return SocketKey{o.Protocol, netip.AddrPortFrom(r.Source, r.SourcePort), netip.AddrPortFrom(r.Dest, r.DestPort)}, true
	}
	return SocketKey{}, false
}

// Bound appends the ports on which a UDP socket without a peer can be reached;
// nothing for other sockets.
func (c *Change) Bound(s *Socket, to []policies.BoundPort) []policies.BoundPort {
	local := s.Local.Addr()
	if s.Protocol != flow.UDP || s.State != Unconnected || s.Local.Port() == 0 || local.IsLoopback() {
		return to
	}
	families := []flow.Family{flow.FamilyOf(local)}
	if s.DualStack {
		families = flow.Families[:]
	}
	links := c.managed
	if name := c.routes.names[int32(s.Interface)]; s.Interface != 0 && name != "" {
		if !slices.Contains(links, name) {
			return to
		}
		links = []string{name}
	}
	for _, name := range links {
		for _, f := range families {
			to = append(to, policies.BoundPort{
				Interface: name, Family: f, Port: s.Local.Port(),
				Ephemeral: c.openers.ephemeral.Contains(s.Local.Port()),
			})
		}
	}
	return to
}

// Holds returns what is to be refused because the change closes it under ports
// of the host: see policies.Closing. Where the old rules kept open flows in
// conntrack, their entries tell more, and ports are not held.
func (c *Change) Holds(bound []policies.BoundPort) []policies.Held {
	if c.old == nil || c.same || c.flush == FlushNone {
		return nil
	}
	keptOut := slices.DeleteFunc(slices.Clone(bound), func(b policies.BoundPort) bool {
		i := c.old.judge.Interface(b.Interface)
		return !c.lost && (i == nil || i.NotrackOff || c.old.conntrack[b.Family] != "")
	})
	return policies.NewClosing(c.old.judge, c.new.judge).Holds(keptOut)
}
