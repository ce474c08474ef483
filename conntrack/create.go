package conntrack

import (
	"errors"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/nlmsg"
)

// Create makes an entry, as conntrack -I does, of the tuples, status, timeout
// (Remaining), mark, zone and TCP state that e holds; its ID is the kernel's
// affair. An entry that is there already, in either direction, is left as it is
// and counts as Exists; one for which the table has no room counts as Full.
//
// An entry of TCP follows the connection from its next segment on, whichever
// window that is in: the kernel has not seen the scale of the windows, nor where
// they are, and would otherwise take most segments for invalid.
//
// Nothing needs to track in the namespace for the entry to be there. The kernel
// does not know the entry's interface, and runs no NAT for it.
//
// Source: Linux net/netfilter/nf_conntrack_netlink.c, ctnetlink_create_conntrack.
func (b *Batch) Create(e *Entry) error {
	if !e.Original.isValid() || !e.Reply.isValid() || e.Original.Family() != e.Reply.Family() {
		return errors.New("an entry needs the addresses of both directions, of one family")
	}
	seconds, err := wholeSeconds(e.Remaining)
	if err != nil {
		return err
	}
	b.start(messageNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b.creates = true
	e.append(&b.m, seconds)
	return b.end()
}

// append writes what ctnetlink reads, which is also what it writes.
func (e *Entry) append(m *nlmsg.Message, seconds uint32) {
	family := uint8(unix.AF_INET)
	if e.Original.Family() == flow.IPv6 {
		family = unix.AF_INET6
	}
	m.Netfilter(family, 0)
	e.Original.append(m, attrTupleOriginal)
	e.Reply.append(m, attrTupleReply)
	// The kernel confirms every entry that it makes so; one with another status
	// has to say so itself.
	m.Uint32(attrStatus, uint32(e.Status|Confirmed))
	m.Uint32(attrTimeout, seconds)
	if e.Mark != 0 {
		m.Uint32(attrMark, e.Mark)
	}
	if e.Zone != 0 {
		m.Uint16(attrZone, e.Zone)
	}
	if e.TCPState != TCPNone {
		info := m.Nest(attrProtoInfo)
		e.TCPState.append(m)
		m.End(info)
	}
}

// Attributes and flags of TCP beside the state, and the largest scale of a
// window.
//
// Source: linux/netfilter/nfnetlink_conntrack.h, linux/netfilter/nf_conntrack_tcp.h;
// RFC 7323, section 2.3.
const (
	attrTCPScaleOriginal = 2
	attrTCPScaleReply    = 3
	attrTCPFlagsOriginal = 4
	attrTCPFlagsReply    = 5

	tcpWindowScale = 0x01
	tcpSACK        = 0x02
	tcpBeLiberal   = 0x08

	maxWindowScale = 14
)

// append writes the state of a connection whose windows are not known.
func (s TCPState) append(m *nlmsg.Message) {
	const flags = tcpWindowScale | tcpSACK | tcpBeLiberal
	tcp := m.Nest(attrProtoInfoTCP)
	m.Uint8(attrTCPState, uint8(s))
	m.Uint8(attrTCPScaleOriginal, maxWindowScale)
	m.Uint8(attrTCPScaleReply, maxWindowScale)
	// The flags, and which of them are meant.
	m.Bytes(attrTCPFlagsOriginal, []byte{flags, flags})
	m.Bytes(attrTCPFlagsReply, []byte{flags, flags})
	m.End(tcp)
}

// isValid reports whether the tuple has the addresses of one family.
func (t *Tuple) isValid() bool {
	return t.Source.IsValid() && t.Source.BitLen() == t.Dest.BitLen()
}

func (t *Tuple) append(m *nlmsg.Message, typ uint16) {
	tuple := m.Nest(typ)
	ip := m.Nest(attrTupleIP)
	source, dest := uint16(attrIPv4Source), uint16(attrIPv4Dest)
	id, icmpType, icmpCode := uint16(attrProtoICMPID), uint16(attrProtoICMPType), uint16(attrProtoICMPCode)
	if t.Family() == flow.IPv6 {
		source, dest = attrIPv6Source, attrIPv6Dest
		id, icmpType, icmpCode = attrProtoICMPv6ID, attrProtoICMPv6Type, attrProtoICMPv6Code
	}
	m.Bytes(source, t.Source.AsSlice())
	m.Bytes(dest, t.Dest.AsSlice())
	m.End(ip)
	proto := m.Nest(attrTupleProto)
	m.Uint8(attrProtoNumber, uint8(t.Protocol))
	if t.Protocol.IsICMP(t.Family()) {
		m.Uint16(id, t.ICMPID)
		m.Uint8(icmpType, t.ICMPType)
		m.Uint8(icmpCode, t.ICMPCode)
	} else if t.SourcePort != 0 || t.DestPort != 0 {
		m.Uint16(attrProtoSourcePort, t.SourcePort)
		m.Uint16(attrProtoDestPort, t.DestPort)
	}
	m.End(proto)
	m.End(tuple)
}

// Reversed returns the tuple of the other direction where there is no NAT; of
// ICMP, the type stays that of the question.
func (t Tuple) Reversed() Tuple {
	t.Source, t.Dest, t.SourcePort, t.DestPort = t.Dest, t.Source, t.DestPort, t.SourcePort
	return t
}
