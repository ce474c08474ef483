package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// Routes knows which interface a packet of a flow crosses. An entry does not
// say it: it is the link on whose network the peer is, else the one that has the
// flow's address on the host, else the one by which the kernel would send to the
// peer today. It is of the moment in which it was made, except for routes,
// which it asks the kernel for. One goroutine at a time may use it.
type Routes struct {
	conn *conn
	// names are those of the links, by index.
	names map[int32]string
	local map[netip.Addr]place
	// networks are those that links are on, the smallest first.
	networks []networks
	// peers remembers answers of the kernel, the last ones of many.
	peers map[netip.Addr]place
}

// networks are those of one family and size: the link by the first address.
// The link is 0 where several are on the network.
type networks struct {
	bits, length int
	links        map[netip.Addr]int32
}

// place is where an address is.
type place struct {
	// link is the index of the link, 0 where there is none.
	link int32
	// own is an address of the host; heard is also one that it hears among
	// others, such as a multicast group.
	own, heard bool
	// unsure says that the link may be another: the address is on several, or
	// on one that leads nowhere (the loopback, a dummy).
	unsure bool
}

// maxPeers is how many answers Routes remembers; that takes a few megabytes.
const maxPeers = 1 << 15

// attempts is how often a list is read anew that changed while it was read.
const attempts = 10

// Routes reads the links and addresses of the namespace.
func (t *Table) Routes() (*Routes, error) {
	c, err := t.dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	r := &Routes{conn: c}
	for attempt := 1; ; attempt++ {
		torn, err := r.read()
		switch {
		case err != nil:
			return nil, errors.Join(fmt.Errorf("read the addresses of the host: %w", explain(err)), c.close())
		case !torn:
			return r, nil
		case attempt == attempts:
			return nil, errors.Join(errors.New("read the addresses of the host: they keep changing"), c.close())
		}
	}
}

// Close ends the connection to the kernel.
func (r *Routes) Close() error { return r.conn.close() }

// Attributes of links, addresses and routes, and the sizes of what stands
// before them.
//
// Source: linux/if_link.h, linux/if_addr.h, linux/rtnetlink.h.
const (
	linkHeader    = unix.SizeofIfInfomsg
	addressHeader = unix.SizeofIfAddrmsg
	routeHeader   = unix.SizeofRtMsg
)

func (r *Routes) read() (torn bool, err error) {
	r.names, r.local, r.networks, r.peers = map[int32]string{}, map[netip.Addr]place{}, nil, map[netip.Addr]place{}
	nowhere := map[int32]bool{}
	links, err := r.conn.dump(unix.RTM_GETLINK, func(m *message) { m.buf = append(m.buf, make([]byte, linkHeader)...) }, func(payload []byte) error {
		return r.addLink(payload, nowhere)
	})
	if err != nil {
		return false, err
	}
	addresses, err := r.conn.dump(unix.RTM_GETADDR, func(m *message) { m.buf = append(m.buf, make([]byte, addressHeader)...) }, func(payload []byte) error {
		return r.addAddress(payload, nowhere)
	})
	slices.SortStableFunc(r.networks, func(a, b networks) int { return b.length - a.length })
	return links || addresses, err
}

// addLink takes a link; nowhere collects those that lead to no peer.
func (r *Routes) addLink(payload []byte, nowhere map[int32]bool) error {
	if len(payload) < linkHeader {
		return errMalformed
	}
	index := int32(binary.NativeEndian.Uint32(payload[4:]))
	if binary.NativeEndian.Uint32(payload[8:])&unix.IFF_LOOPBACK != 0 {
		nowhere[index] = true
	}
	a := walk(payload[linkHeader:])
	for a.next() {
		switch a.typ {
		case unix.IFLA_IFNAME:
			r.names[index] = string(cutNUL(a.data))
		case unix.IFLA_LINKINFO:
			info := walk(a.data)
			for info.next() {
				if info.typ == unix.IFLA_INFO_KIND && string(cutNUL(info.data)) == "dummy" {
					nowhere[index] = true
				}
			}
			if info.err != nil {
				return info.err
			}
		}
	}
	return a.err
}

func (r *Routes) addAddress(payload []byte, nowhere map[int32]bool) error {
	if len(payload) < addressHeader {
		return errMalformed
	}
	index := int32(binary.NativeEndian.Uint32(payload[4:]))
	// The address of a link that has a far end is the far end's, and the local
	// one stands beside it.
	var address, local netip.Addr
	flags := uint32(payload[2])
	a := walk(payload[addressHeader:])
	for a.next() {
		switch a.typ {
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(a.data)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(a.data)
		case unix.IFA_FLAGS:
			flags = a.native()
		}
	}
	if a.err != nil {
		return a.err
	}
	if !local.IsValid() {
		local = address
	}
	if !local.IsValid() {
		return nil
	}
	p, known := r.local[local]
	switch {
	case !known:
		p = place{link: index, own: true, heard: true, unsure: nowhere[index]}
	case p.link != index:
		if nowhere[p.link] {
			p.link = index
		}
		p.unsure = true
	}
	r.local[local] = p
	if prefix := netip.PrefixFrom(address, int(payload[1])).Masked(); prefix.IsValid() && !nowhere[index] && flags&unix.IFA_F_NOPREFIXROUTE == 0 {
		r.addNetwork(prefix, index)
	}
	return nil
}

// addNetwork notes that a link is on a network.
func (r *Routes) addNetwork(prefix netip.Prefix, link int32) {
	bits, length := prefix.Addr().BitLen(), prefix.Bits()
	n := slices.IndexFunc(r.networks, func(n networks) bool { return n.bits == bits && n.length == length })
	if n < 0 {
		n = len(r.networks)
		r.networks = append(r.networks, networks{bits, length, map[netip.Addr]int32{}})
	}
	links := r.networks[n].links
	if other, ok := links[prefix.Addr()]; ok && other != link {
		link = 0
	}
	links[prefix.Addr()] = link
}

// network returns the link on whose network the peer is, or 0 if there is not
// exactly one.
func (r *Routes) network(peer netip.Addr) int32 {
	for i := range r.networks {
		n := &r.networks[i]
		if n.bits != peer.BitLen() {
			continue
		}
		// The prefix is not out of range.
		prefix, _ := peer.Prefix(n.length)
		if link, ok := n.links[prefix.Addr()]; ok {
			return link
		}
	}
	return 0
}

// ends reports at which of its ends a flow is the host's own. A flow that
// begins or ends elsewhere at both is routed.
func (r *Routes) ends(source, dest netip.Addr) (here, there bool, err error) {
	here, there = r.isLocal(source), r.isLocal(dest) || dest.IsMulticast()
	if here || there {
		return here, there, nil
	}
	// The host may take addresses that no link has; it hears broadcasts.
	p, err := r.peer(source)
	if err != nil || p.own {
		return p.own, false, err
	}
	p, err = r.peer(dest)
	return false, p.heard, err
}

// isLocal reports whether a link has the address.
func (r *Routes) isLocal(a netip.Addr) bool {
	_, ok := r.local[a]
	return ok || a.IsLoopback()
}

// peer returns by which link the kernel would send to the address.
func (r *Routes) peer(a netip.Addr) (place, error) {
	if p, ok := r.peers[a]; ok {
		return p, nil
	}
	p, err := r.ask(a)
	if err != nil {
		return place{}, err
	}
	if len(r.peers) >= maxPeers {
		clear(r.peers)
	}
	r.peers[a] = p
	return p, nil
}

// ask asks the kernel for a route. No route is no error.
func (r *Routes) ask(to netip.Addr) (place, error) {
	payload, err := r.conn.get(unix.RTM_GETROUTE, func(m *message) {
		header := [routeHeader]byte{unix.AF_INET, byte(to.BitLen())}
		if flow.FamilyOf(to) == flow.IPv6 {
			header[0] = unix.AF_INET6
		}
		m.buf = append(m.buf, header[:]...)
		m.bytes(unix.RTA_DST, to.AsSlice())
	})
	var refusal *kernelError
	switch {
	case errors.As(err, &refusal) && !errors.Is(err, unix.EPERM):
		return place{}, nil
	case err != nil:
		return place{}, fmt.Errorf("ask for the route to %s: %w", to, explain(err))
	case len(payload) < routeHeader:
		return place{}, fmt.Errorf("ask for the route to %s: %w", to, errMalformed)
	}
	var p place
	switch payload[7] {
	case unix.RTN_LOCAL:
		p.own, p.heard = true, true
	case unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST:
		p.heard = true
	}
	a := walk(payload[routeHeader:])
	for a.next() {
		if a.typ == unix.RTA_OIF {
			p.link = int32(a.native())
		}
	}
	return p, a.err
}

// link returns the name of the interface between an address of the host and a
// peer, or "".
func (r *Routes) link(host, peer netip.Addr) (string, error) {
	if link := r.network(peer); link != 0 {
		return r.names[link], nil
	}
	here, known := r.local[host]
	if known && !here.unsure {
		return r.names[here.link], nil
	}
	there, err := r.peer(peer)
	if err != nil {
		return "", err
	}
	if there.link == 0 {
		there.link = here.link
	}
	return r.names[there.link], nil
}
