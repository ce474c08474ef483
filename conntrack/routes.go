package conntrack

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/nlmsg"
)

// Routes tells which interface the packets of a flow cross, which an entry does not
// say: see way. It is of the moment in which it was made, except for routes, which
// it asks the kernel for. One goroutine at a time may use it.
type Routes struct {
	conn *conn
	// names are those of the links, by index.
	names map[int32]string
	local map[netip.Addr]place
	// networks are those that links are on, with the link, which is 0 where
	// several are on one.
	networks prefixes[int32]
	// taken are the addresses that the host takes, those that no link has, too,
	// with the type of the route.
	taken prefixes[uint8]
	// main is where all other addresses are, if the kernel need not be asked.
	main mainTable
	// openers tells who waits for peers on the host; nil if nobody asked.
	openers *Openers
	// links are those that lead to peers, by index.
	links []int32
	// peers remembers answers of the kernel, the last ones of many: by which
	// link it would send there, 0 being none.
	peers map[question]int32
}

// place is where an address of the host is.
type place struct {
	link int32
	// unsure says that the link may be another: the address is on several, or
	// on one that leads nowhere (the loopback, a dummy).
	unsure bool
	// links are those that have the address and lead somewhere, where unsure.
	links []int32
}

// question is what the kernel is asked: by which link it sends to an address.
type question struct {
	to netip.Addr
	// from is the sender's address; the zero Addr leaves it open.
	from netip.Addr
	// in is the link by which the packet came that is to be sent on; 0 if the host
	// itself sends it.
	in int32
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

// Heed makes Routes tell entries that the host's segments began in the middle of
// connections from those of connections that the host opened.
func (r *Routes) Heed(o *Openers) { r.openers = o }

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
	*r = Routes{conn: r.conn, names: map[int32]string{}, local: map[netip.Addr]place{}, peers: map[question]int32{}}
	nowhere := map[int32]bool{}
	zeros := func(n int) func(*nlmsg.Message) {
		return func(m *nlmsg.Message) { m.Buf = append(m.Buf, make([]byte, n)...) }
	}
	for _, list := range []struct {
		typ  int
		fill func(*nlmsg.Message)
		each func([]byte) error
	}{
		{unix.RTM_GETLINK, zeros(linkHeader), func(payload []byte) error { return r.addLink(payload, nowhere) }},
		{unix.RTM_GETADDR, zeros(addressHeader), func(payload []byte) error { return r.addAddress(payload, nowhere) }},
		{unix.RTM_GETROUTE, tableRequest(unix.RT_TABLE_LOCAL), r.addTaken},
	} {
		ripped, err := r.conn.dump(list.typ, list.fill, list.each)
		if err != nil {
			return false, err
		}
		torn = torn || ripped
	}
	for index := range r.names {
		if !nowhere[index] {
			r.links = append(r.links, index)
		}
	}
	slices.SortFunc(r.links, func(a, b int32) int { return cmp.Compare(r.names[a], r.names[b]) })
	ripped, err := r.readMain()
	return torn || ripped, err
}

// addLink takes a link; nowhere collects those that lead to no peer.
func (r *Routes) addLink(payload []byte, nowhere map[int32]bool) error {
	if len(payload) < linkHeader {
		return nlmsg.ErrMalformed
	}
	index := int32(binary.NativeEndian.Uint32(payload[4:]))
	if binary.NativeEndian.Uint32(payload[8:])&unix.IFF_LOOPBACK != 0 {
		nowhere[index] = true
	}
	a := nlmsg.Walk(payload[linkHeader:])
	for a.Next() {
		switch a.Type {
		case unix.IFLA_IFNAME:
			r.names[index] = string(nlmsg.CutNUL(a.Data))
		case unix.IFLA_LINKINFO:
			info := nlmsg.Walk(a.Data)
			for info.Next() {
				if info.Type == unix.IFLA_INFO_KIND && string(nlmsg.CutNUL(info.Data)) == "dummy" {
					nowhere[index] = true
				}
			}
			if info.Err != nil {
				return info.Err
			}
		}
	}
	return a.Err
}

func (r *Routes) addAddress(payload []byte, nowhere map[int32]bool) error {
	if len(payload) < addressHeader {
		return nlmsg.ErrMalformed
	}
	index := int32(binary.NativeEndian.Uint32(payload[4:]))
	// The address of a link that has a far end is the far end's, and the local
	// one stands beside it.
	var address, local netip.Addr
	flags := uint32(payload[2])
	a := nlmsg.Walk(payload[addressHeader:])
	for a.Next() {
		switch a.Type {
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(a.Data)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(a.Data)
		case unix.IFA_FLAGS:
			flags = a.NativeUint32()
		}
	}
	if a.Err != nil {
		return a.Err
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
		p = place{link: index, unsure: nowhere[index]}
	case p.link != index:
		p.unsure = true
	}
	if !nowhere[index] && !slices.Contains(p.links, index) {
		p.links = append(p.links, index)
	}
	r.local[local] = p
	// The route to an address on a VRF's link is in the VRF's table.
	r.taken.set(netip.PrefixFrom(local, local.BitLen()), func(uint8, bool) uint8 { return unix.RTN_LOCAL })
	if prefix := netip.PrefixFrom(address, int(payload[1])); prefix.IsValid() && flags&unix.IFA_F_NOPREFIXROUTE == 0 {
		r.networks.set(prefix, func(other int32, known bool) int32 {
			if known && other != index {
				return 0
			}
			return index
		})
	}
	return nil
}

// addTaken takes a route, if it is one of the host's own addresses.
func (r *Routes) addTaken(payload []byte) error {
	if len(payload) < routeHeader {
		return nlmsg.ErrMalformed
	}
	length, typ := int(payload[1]), payload[7]
	switch typ {
	case unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST:
	default:
		return nil
	}
	to := netip.IPv4Unspecified()
	if payload[0] == unix.AF_INET6 {
		to = netip.IPv6Unspecified()
	}
	table := uint32(payload[4])
	a := nlmsg.Walk(payload[routeHeader:])
	for a.Next() {
		switch a.Type {
		case unix.RTA_DST:
			to, _ = netip.AddrFromSlice(a.Data)
		case unix.RTA_TABLE:
			table = a.NativeUint32()
		}
	}
	prefix := netip.PrefixFrom(to, length)
	if a.Err != nil || !prefix.IsValid() {
		return errors.Join(a.Err, nlmsg.ErrMalformed)
	}
	if table == unix.RT_TABLE_LOCAL {
		r.taken.set(prefix, func(uint8, bool) uint8 { return typ })
	}
	return nil
}

// isOwn reports whether an address is the host's.
func (r *Routes) isOwn(a netip.Addr) bool { return r.takes(a) == unix.RTN_LOCAL }

// hears reports whether the host takes packets to an address: its own, or one
// that it hears among others.
func (r *Routes) hears(a netip.Addr) bool {
	return a.IsMulticast() || a == everybody || r.takes(a) != unix.RTN_UNSPEC
}

// everybody is the broadcast that no routing table holds.
var everybody = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// takes returns as what the host takes packets to an address: the type of the
// route, RTN_UNSPEC if it does not.
func (r *Routes) takes(a netip.Addr) uint8 {
	typ, _ := r.taken.longest(a)
	return typ
}

// peer returns the link by which the host would send to the address, or 0.
func (r *Routes) peer(a netip.Addr) (int32, error) {
	if link, ok := r.main.link(a); ok {
		return link, nil
	}
	return r.answer(question{to: a})
}

// answer is what the kernel says now or said before.
func (r *Routes) answer(q question) (int32, error) {
	if link, ok := r.peers[q]; ok {
		return link, nil
	}
	link, err := r.ask(q)
	if err != nil {
		return 0, fmt.Errorf("ask for the route to %s: %w", q.to, explain(err))
	}
	if len(r.peers) >= maxPeers {
		clear(r.peers)
	}
	r.peers[q] = link
	return link, nil
}

// ask asks the kernel for a route. No route is no error.
func (r *Routes) ask(q question) (link int32, err error) {
	payload, err := r.conn.get(unix.RTM_GETROUTE, func(m *nlmsg.Message) {
		header := [routeHeader]byte{unix.AF_INET, byte(q.to.BitLen())}
		if flow.FamilyOf(q.to) == flow.IPv6 {
			header[0] = unix.AF_INET6
		}
		if q.from.IsValid() {
			header[2] = byte(q.from.BitLen())
		}
		m.Buf = append(m.Buf, header[:]...)
		m.Bytes(unix.RTA_DST, q.to.AsSlice())
		if q.from.IsValid() {
			m.Bytes(unix.RTA_SRC, q.from.AsSlice())
		}
		if q.in != 0 {
			m.Bytes(unix.RTA_IIF, binary.NativeEndian.AppendUint32(nil, uint32(q.in)))
		}
	})
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ESRCH),
		errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENODEV):
		// Nowhere, prohibited, blackhole, or an address that has no route; a packet
		// that would not be taken from such a link, or a link that is gone.
		return 0, nil
	case err != nil:
		return 0, err
	case len(payload) < routeHeader:
		return 0, nlmsg.ErrMalformed
	}
	a := nlmsg.Walk(payload[routeHeader:])
	for a.Next() {
		if a.Type == unix.RTA_OIF {
			link = int32(a.NativeUint32())
		}
	}
	return link, a.Err
}
