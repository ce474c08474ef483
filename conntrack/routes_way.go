package conntrack

import (
	"net/netip"

	"sgc/internal/flow"
)

// way is by which link the packets of a leg cross.
type way struct {
	// link is the likeliest one, 0 if nobody knows.
	link int32
	// twins are links of which nothing says that they are less likely.
	twins []int32
	// open says that it may be any other link as well, although it is unlikely: the
	// peer is behind a router, which sends by whatever way it has.
	open bool
}

// way returns by which link the packets of a leg cross, as far as that can be told
// from the addresses at both ends of it. The first of these counts:
//
//   - The link on whose network the peer is. Where it is not the one that has the
//     flow's address on the host, routes that look at the source say whether the
//     host answers by another one: a host with an address on each of its uplinks has
//     such. Without such routes it is a machine behind the host that uses an address
//     of another side.
//   - The link that has the address. Who has several uplinks gets by each what is
//     for its address, and what the host sends has the address of the link by which
//     it leaves, unless a program wants another one.
//   - The link by which the kernel would send to the peer today: the address is on
//     several links, on one that leads nowhere, or not the host's.
//
// What others send comes by the way that they choose, so that all of it is a guess
// where the peer is on no network of the host's.
func (r *Routes) way(l *leg) (way, error) {
	host, peer := l.dest, l.source
	if l.direction == flow.Egress {
		host, peer = l.source, l.dest
	}
	near, isNear := r.networks.longest(peer)
	if near != 0 && l.forwarded && !r.main.origins {
		return way{link: near}, nil
	}
	here := r.local[host]
	sure := here.link != 0 && !here.unsure
	switch {
	case sure && near == here.link:
		return way{link: near}, nil
	case sure && near == 0:
		return way{link: here.link, open: !isNear || !peer.IsLinkLocalUnicast()}, nil
	case near != 0 && !r.main.origins:
		return way{link: near, open: sure}, nil
	}
	link, err := r.toward(l, host, peer)
	if err != nil {
		return way{}, err
	}
	w := way{link: link, open: !isNear || sure}
	if w.link == 0 {
		w.link = near
	}
	if w.link == 0 {
		w.link = here.link
	}
	if near == 0 && len(here.links) > 1 {
		w.twins = here.links
	}
	return w, nil
}

// toward returns the link by which the kernel would send to the peer of a leg, or
// 0. What a routed flow's other end sends, the kernel sends on.
func (r *Routes) toward(l *leg, host, peer netip.Addr) (int32, error) {
	if !r.main.origins {
		return r.peer(peer)
	}
	q := question{to: peer}
	switch {
	case l.forwarded:
		in, _ := r.networks.longest(l.behind)
		if in == 0 {
			var err error
			if in, err = r.peer(l.behind); err != nil {
				return 0, err
			}
		}
		q.from, q.in = l.behind, in
	case r.isOwn(host):
		q.from = host
	}
	return r.answer(q)
}
