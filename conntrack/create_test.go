package conntrack

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// seed is an entry that a test makes.
type seed struct {
	original, reply Tuple
	status          Status
	seconds         uint32
	tcp             TCPState
	mark            uint32
	zone            uint16
}

func reversed(t Tuple) Tuple {
	t.Source, t.Dest, t.SourcePort, t.DestPort = t.Dest, t.Source, t.DestPort, t.SourcePort
	return t
}

// tcpSeed is a connection that goes from one place to another without NAT.
func tcpSeed(from, to string) seed {
	source, dest := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	original := Tuple{Source: source.Addr(), Dest: dest.Addr(), Protocol: flow.TCP, SourcePort: source.Port(), DestPort: dest.Port()}
	return seed{original: original, reply: reversed(original), status: SeenReply | Assured | Confirmed, seconds: 3600, tcp: TCPEstablished}
}

func udpSeed(from, to string) seed {
	s := tcpSeed(from, to)
	s.original.Protocol, s.reply.Protocol, s.tcp, s.seconds = flow.UDP, flow.UDP, TCPNone, 120
	return s
}

func pingSeed(from, to string, id uint16) seed {
	original := Tuple{Source: netip.MustParseAddr(from), Dest: netip.MustParseAddr(to), ICMPType: 8, ICMPID: id, Protocol: flow.ICMP}
	answer := uint8(0)
	if original.Family() == flow.IPv6 {
		original.Protocol, original.ICMPType, answer = flow.ICMPv6, 128, 129
	}
	reply := reversed(original)
	reply.ICMPType = answer
	return seed{original: original, reply: reply, status: SeenReply | Confirmed, seconds: 30}
}

func otherSeed(from, to string, protocol flow.Protocol) seed {
	original := Tuple{Source: netip.MustParseAddr(from), Dest: netip.MustParseAddr(to), Protocol: protocol}
	return seed{original: original, reply: reversed(original), status: Confirmed, seconds: 600}
}

func (s seed) family() uint8 {
	if s.original.Family() == flow.IPv4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func (t *Tuple) append(m *message, typ uint16) {
	tuple := m.nest(typ)
	ip := m.nest(attrTupleIP)
	source, dest := uint16(attrIPv4Source), uint16(attrIPv4Dest)
	id, icmpType, icmpCode := uint16(attrProtoICMPID), uint16(attrProtoICMPType), uint16(attrProtoICMPCode)
	if t.Family() == flow.IPv6 {
		source, dest = attrIPv6Source, attrIPv6Dest
		id, icmpType, icmpCode = attrProtoICMPv6ID, attrProtoICMPv6Type, attrProtoICMPv6Code
	}
	m.bytes(source, t.Source.AsSlice())
	m.bytes(dest, t.Dest.AsSlice())
	m.end(ip)
	proto := m.nest(attrTupleProto)
	m.u8(attrProtoNumber, uint8(t.Protocol))
	if t.Protocol.IsICMP(t.Family()) {
		m.u16(id, t.ICMPID)
		m.u8(icmpType, t.ICMPType)
		m.u8(icmpCode, t.ICMPCode)
	} else if t.SourcePort != 0 || t.DestPort != 0 {
		m.u16(attrProtoSourcePort, t.SourcePort)
		m.u16(attrProtoDestPort, t.DestPort)
	}
	m.end(proto)
	m.end(tuple)
}

// appendTo writes what ctnetlink reads, and what it writes.
func (s seed) appendTo(m *message) {
	m.family(s.family())
	s.original.append(m, attrTupleOriginal)
	s.reply.append(m, attrTupleReply)
	m.u32(attrStatus, uint32(s.status))
	m.u32(attrTimeout, s.seconds)
	if s.mark != 0 {
		m.u32(attrMark, s.mark)
	}
	if s.zone != 0 {
		m.u16(attrZone, s.zone)
	}
	if s.tcp != TCPNone {
		info := m.nest(attrProtoInfo)
		tcp := m.nest(attrProtoInfoTCP)
		m.u8(attrTCPState, uint8(s.tcp))
		m.end(tcp)
		m.end(info)
	}
}

// create makes n entries; it calls next for each.
func create(t testing.TB, table *Table, n int, next func(i int) seed) {
	t.Helper()
	c, err := table.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	b := &Batch{conn: c}
	defer b.Close()
	for i := range n {
		b.last = len(b.m.buf)
		c.sequence++
		b.m.begin(messageNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, c.sequence)
		next(i).appendTo(&b.m)
		if err := b.end(); err != nil {
			t.Fatalf("make entry %d: %v", i, err)
		}
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	if r := b.Result(); r.Done != n {
		t.Fatalf("made %d of %d entries: %+v", r.Done, n, r)
	}
}

func createSeeds(t testing.TB, table *Table, seeds ...seed) {
	t.Helper()
	create(t, table, len(seeds), func(i int) seed { return seeds[i] })
}

// clients returns the connections of many clients to one server's port.
func clients(i int) seed {
	s := tcpSeed("198.51.100.0:1024", "192.0.2.10:443")
	a := s.original.Source.As4()
	a[1], a[2], a[3] = byte(i>>16), byte(i>>8), byte(i)
	s.original.Source = netip.AddrFrom4(a)
	s.original.SourcePort = uint16(1024 + i%60000)
	s.reply = reversed(s.original)
	return s
}
