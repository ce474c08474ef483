package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// mainTable is a copy of the kernel's main routing tables, of both families,
// as far as a look-up in them gives what the kernel would say. Most hosts have
// a few routes, and asking for each of a million peers takes seconds.
type mainTable struct {
	// links are the links of routes by prefix: 0 where they lead nowhere, askKernel
	// where the table alone does not tell.
	links prefixes[int32]
	// routes counts them; rules is set once a rule has been seen that sends some
	// packets elsewhere, origins once one or a route has been that looks at where
	// they come from.
	routes  int
	rules   bool
	origins bool
}

// askKernel is in the place of a link that depends on more than the address.
const askKernel = -1

// maxRoutes is how many routes a copy holds at most.
const maxRoutes = 1 << 14

// link returns the link by which the kernel sends to an address, 0 being none.
// It is not ok if the kernel has to be asked.
func (m *mainTable) link(to netip.Addr) (link int32, ok bool) {
	if m.rules || m.routes > maxRoutes {
		return 0, false
	}
	link, ok = m.links.longest(to)
	return link, ok && link != askKernel
}

// ruleHeader is the size of struct fib_rule_hdr.
const ruleHeader = 12

// addRule takes a rule of the policy routing.
func (m *mainTable) addRule(payload []byte) error {
	if len(payload) < ruleHeader {
		return nlmsg.ErrMalformed
	}
	// Lengths of prefixes, and the type of service.
	plain := payload[1] == 0 && payload[2] == 0 && payload[3] == 0 && payload[7] == unix.FR_ACT_TO_TBL
	table := uint32(payload[4])
	m.origins = m.origins || payload[2] != 0
	a := nlmsg.Walk(payload[ruleHeader:])
	for a.Next() {
		switch a.Type {
		case unix.FRA_IIFNAME:
			m.origins, plain = true, false
		case unix.FRA_TABLE:
			table = a.NativeUint32()
		case unix.FRA_SUPPRESS_PREFIXLEN:
			plain = plain && a.NativeUint32() == 1<<32-1
		case unix.FRA_PRIORITY, unix.FRA_PROTOCOL:
		default:
			plain = false
		}
	}
	switch table {
	case unix.RT_TABLE_LOCAL, unix.RT_TABLE_MAIN, unix.RT_TABLE_DEFAULT:
	default:
		plain = false
	}
	m.rules = m.rules || !plain
	return a.Err
}

// addRoute takes a route; those of other tables are passed over.
func (m *mainTable) addRoute(payload []byte) error {
	if len(payload) < routeHeader {
		return nlmsg.ErrMalformed
	}
	to := netip.IPv4Unspecified()
	if payload[0] == unix.AF_INET6 {
		to = netip.IPv6Unspecified()
	}
	table, link, flags := uint32(payload[4]), int32(0), binary.NativeEndian.Uint32(payload[8:])
	// A source, a type of service, several ways, a way that is down: the kernel
	// knows what it does then.
	m.origins = m.origins || payload[2] != 0
	const unsteady = unix.RTNH_F_DEAD | unix.RTNH_F_LINKDOWN | unix.RTM_F_CLONED
	ask := payload[2] != 0 || payload[3] != 0 || flags&unsteady != 0
	a := nlmsg.Walk(payload[routeHeader:])
	for a.Next() {
		switch a.Type {
		case unix.RTA_DST:
			to, _ = netip.AddrFromSlice(a.Data)
		case unix.RTA_TABLE:
			table = a.NativeUint32()
		case unix.RTA_OIF:
			link = int32(a.NativeUint32())
		case unix.RTA_MULTIPATH:
			ask = true
		}
	}
	prefix := netip.PrefixFrom(to, int(payload[1]))
	switch {
	case a.Err != nil:
		return a.Err
	case !prefix.IsValid():
		return nlmsg.ErrMalformed
	case table != unix.RT_TABLE_MAIN:
		return nil
	}
	if payload[7] != unix.RTN_UNICAST {
		link = 0
	} else if link == 0 {
		ask = true
	}
	if ask {
		link = askKernel
	}
	m.routes++
	if m.routes > maxRoutes {
		return nil
	}
	// Of several routes to one network, the kernel tells the best first.
	m.links.set(prefix, func(first int32, known bool) int32 {
		if known {
			return first
		}
		return link
	})
	return nil
}

// readMain reads the rules and the main tables.
func (r *Routes) readMain() (torn bool, err error) {
	r.main = mainTable{}
	rules, err := r.conn.dump(unix.RTM_GETRULE, func(m *nlmsg.Message) { m.Buf = append(m.Buf, make([]byte, ruleHeader)...) }, r.main.addRule)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		err = nil // a kernel without policy routing
	}
	if err != nil {
		return false, err
	}
	routes, err := r.conn.dump(unix.RTM_GETROUTE, tableRequest(unix.RT_TABLE_MAIN), r.main.addRoute)
	return rules || routes, err
}

// tableRequest asks for the routes of one table in both families. Kernels
// before 4.20 tell those of all tables.
func tableRequest(table uint8) func(*nlmsg.Message) {
	return func(m *nlmsg.Message) {
		header := [routeHeader]byte{4: table}
		m.Buf = append(m.Buf, header[:]...)
	}
}
