package livetest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// How long a test waits for what ought to come, and for what ought not to.
const (
	patience   = 30 * time.Second
	impatience = 150 * time.Millisecond
	// stall is the longest silence that a flow that goes on may have, but for what
	// the machine is to blame for.
	stall = time.Second
)

// place says where flows end on the near side, and so whether the kernel
// leaves them out of conntrack where the policy calls them open.
type place int

const (
	// plain flows end on the host, and open ones have no entry.
	plain place = iota
	// notrackOff flows end on the host, and the policy keeps them in conntrack.
	notrackOff
	// besideNAT flows end on the host, where another table does NAT.
	besideNAT
	// routed flows end on the machine inside, for which the host is the router.
	routed
	// published flows end on the machine inside, which is reached by
	// destination NAT and reaches others by masquerading.
	published
)

var places = []place{plain, notrackOff, besideNAT, routed, published}

func (p place) String() string {
	return [...]string{"kernel-untracked", "notrack off", "beside NAT", "routed", "published"}[p]
}

// behind says that flows end on the machine inside.
func (p place) behind() bool { return p == routed || p == published }

// untracks says that the kernel leaves open flows out of conntrack.
func (p place) untracks() bool { return p == plain }

// The addresses. The friend and the stranger are both addresses of the peer,
// in networks of their own.
var (
	hostOf     = map[flow.Family]netip.Addr{flow.IPv4: addr("192.0.2.10"), flow.IPv6: addr("2001:db8:2::10")}
	friendOf   = map[flow.Family]netip.Addr{flow.IPv4: addr("203.0.113.1"), flow.IPv6: addr("2001:db8:78::1")}
	strangerOf = map[flow.Family]netip.Addr{flow.IPv4: addr("198.51.100.7"), flow.IPv6: addr("2001:db8:77::7")}
	insideOf   = map[flow.Family]netip.Addr{flow.IPv4: addr("10.9.0.2"), flow.IPv6: addr("2001:db8:9::2")}
)

// friends are the addresses of the friend.
var friends = []netip.Addr{friendOf[flow.IPv4], friendOf[flow.IPv6]}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, prefix(s))
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// stand is a host that sgc governs at eth0, a peer, and a machine inside:
//
//	peer wire ── eth0 host eth1 ── wire inside
type stand struct {
	t                  *testing.T
	place              place
	host, peer, inside *lab.Namespace
	witness            *lab.Witness
	machine            *machine
	watch              *watch
	dir                string
	// wildcard says that servers of the host listen at any address of both
	// families.
	wildcard bool
	// address are the host's addresses of the flows; nil are those of eth0.
	address map[flow.Family]netip.Addr

	mu        sync.Mutex
	port      uint16
	listeners map[ending]*listener
	servers   map[ending]*datagrams
	senders   map[string]*lab.Sender
}

// ending is where a socket is bound.
type ending struct {
	ns *lab.Namespace
	at netip.AddrPort
}

func newStand(t *testing.T, at place) *stand {
	t.Helper()
	s := &stand{
		t: t, place: at, dir: t.TempDir(), port: 40000, machine: controlOf(t),
		host: labtest.Namespace(t, "host"), peer: labtest.Namespace(t, "peer"),
		listeners: map[ending]*listener{}, servers: map[ending]*datagrams{}, senders: map[string]*lab.Sender{},
	}
	labtest.Connect(t,
		lab.End{Namespace: s.host, Interface: "eth0", Addresses: prefixes("192.0.2.10/24", "2001:db8:2::10/64")},
		lab.End{Namespace: s.peer, Interface: "wire", Addresses: prefixes("192.0.2.20/24", "2001:db8:2::20/64",
			"198.51.100.7/32", "2001:db8:77::7/128", "203.0.113.1/32", "2001:db8:78::1/128")})
	s.route(s.host, "0.0.0.0/0", "192.0.2.20", "eth0")
	s.route(s.host, "::/0", "2001:db8:2::20", "eth0")
	if at.behind() {
		s.inside = labtest.Namespace(t, "inside")
		labtest.Connect(t,
			lab.End{Namespace: s.host, Interface: "eth1", Addresses: prefixes("10.9.0.1/24", "2001:db8:9::1/64")},
			lab.End{Namespace: s.inside, Interface: "wire", Addresses: prefixes("10.9.0.2/24", "2001:db8:9::2/64")})
		if err := s.host.Forward(); err != nil {
			t.Fatal(err)
		}
		s.route(s.inside, "0.0.0.0/0", "10.9.0.1", "wire")
		s.route(s.inside, "::/0", "2001:db8:9::1", "wire")
		if at == routed {
			s.route(s.peer, "10.9.0.0/24", "192.0.2.10", "wire")
			s.route(s.peer, "2001:db8:9::/64", "2001:db8:2::10", "wire")
		}
	}
	for _, ns := range []*lab.Namespace{s.host, s.peer, s.inside} {
		if ns != nil {
			labtest.Eager(t, ns)
		}
	}
	if at == besideNAT || at == published {
		s.translate()
	}
	s.witness = labtest.Witness(t, s.host)
	s.watch = newWatch(t, s.host)
	return s
}

func (s *stand) route(ns *lab.Namespace, to, via, iface string) {
	s.t.Helper()
	if err := ns.AddRoute(lab.Route{Dest: prefix(to), Via: addr(via), Interface: iface}); err != nil {
		s.t.Fatal(err)
	}
}

// near is the namespace in which flows end on the near side.
func (s *stand) near() *lab.Namespace {
	if s.place.behind() {
		return s.inside
	}
	return s.host
}

// nearAddress is the near side's own address, and wireAddress the one that
// eth0's wire sees.
func (s *stand) nearAddress(f flow.Family) netip.Addr {
	if s.place.behind() {
		return insideOf[f]
	}
	return s.hostAddress(f)
}

func (s *stand) wireAddress(f flow.Family) netip.Addr {
	if s.place == routed {
		return insideOf[f]
	}
	return s.hostAddress(f)
}

// hostAddress is the host's address of the flows that end on it.
func (s *stand) hostAddress(f flow.Family) netip.Addr {
	if s.address != nil {
		return s.address[f]
	}
	return hostOf[f]
}

// nearPort is where a service listens that the wire knows by another port.
func (s *stand) nearPort(port uint16) uint16 {
	if s.place == published {
		return port + 1000
	}
	return port
}

// nextPort returns a port that nobody used before.
func (s *stand) nextPort() uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.port++
	return s.port
}

// translate adds tables of another tool that publish the services of the
// machine inside and masquerade what leaves by eth0.
func (s *stand) translate() {
	s.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(s.host.FD()))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range flow.Families {
		table := c.AddTable(otherTable(f))
		pre := c.AddChain(&nftables.Chain{
			Name: "prerouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
		})
		post := c.AddChain(&nftables.Chain{
			Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: post, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("eth0\x00")},
			&expr.Masq{},
		}})
		if s.place != published {
			continue
		}
		for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
			for _, port := range []uint16{service, otherService, thirdService, unnamed} {
				c.AddRule(&nftables.Rule{Table: table, Chain: pre, Exprs: []expr.Any{
					&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
					&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("eth0\x00")},
					&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
					&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(protocol)}},
					&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
					&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
					&expr.Immediate{Register: 1, Data: insideOf[f].AsSlice()},
					&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(s.nearPort(port))},
					&expr.NAT{
						Type: expr.NATTypeDestNAT, Family: nfFamily(f),
						RegAddrMin: 1, RegAddrMax: 1, RegProtoMin: 2, RegProtoMax: 2, Specified: true,
					},
				}})
			}
		}
	}
	if err := c.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

func otherTable(f flow.Family) *nftables.Table {
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "other_tool"}
	if f == flow.IPv6 {
		t.Family = nftables.TableFamilyIPv6
	}
	return t
}

// untranslate takes away what translate added.
func (s *stand) untranslate() {
	s.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(s.host.FD()))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range flow.Families {
		c.DelTable(otherTable(f))
	}
	if err := c.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

func nfFamily(f flow.Family) uint32 {
	if f == flow.IPv4 {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// eventually waits until f is true, and reports whether it ever was.
func eventually(f func() bool) bool { return before(time.Now().Add(patience), f) }

// before is eventually with an end that several waits may share.
func before(end time.Time, f func() bool) bool {
	for ; time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if f() {
			return true
		}
	}
	return f()
}

// everywhere runs a test in each place, for flows that are opened inwards and
// for such that are opened outwards.
func everywhere(t *testing.T, test func(s *stand, d flow.Direction)) {
	t.Helper()
	for _, at := range places {
		for _, d := range flow.Directions {
			t.Run(fmt.Sprintf("%s/%s", at, d), func(t *testing.T) {
				t.Parallel()
				test(newStand(t, at), d)
			})
		}
	}
}
