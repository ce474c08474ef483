package conntrack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/nlmsg"
)

// A layout is how the kernel writes the tuples of a family that have ports:
// always the same attributes in the same order, and nothing else in between.
// Reading them by place takes a tenth of the time of a walk, and most entries
// of a large table are such.
//
// Source: Linux net/netfilter/nf_conntrack_netlink.c, ctnetlink_dump_tuples,
// and nf_conntrack_core.c, nf_ct_port_tuple_to_nlattr.
type layout struct {
	size    int
	headers [7]struct {
		at   int
		word uint32
	}
}

// Where the values of a layout stand.
const (
	layoutSource = 8
	// The others are counted from the end.
	layoutProtocol, layoutSourcePort, layoutDestPort = 20, 12, 4
)

var ipv4Layout, ipv6Layout = newLayout(4, attrIPv4Source, attrIPv4Dest), newLayout(16, attrIPv6Source, attrIPv6Dest)

func newLayout(address int, source, dest uint16) layout {
	var l layout
	n := 0
	attribute := func(typ uint16, length int) {
		word := binary.NativeEndian.AppendUint16(nil, uint16(nlmsg.AttributeSize+length))
		word = binary.NativeEndian.AppendUint16(word, typ)
		l.headers[n].at, l.headers[n].word = l.size, binary.NativeEndian.Uint32(word)
		n++
		l.size += nlmsg.AttributeSize
		if typ&unix.NLA_F_NESTED == 0 {
			l.size += nlmsg.Align(length)
		}
	}
	attribute(attrTupleIP|unix.NLA_F_NESTED, 2*(nlmsg.AttributeSize+address))
	attribute(source, address)
	attribute(dest, address)
	attribute(attrTupleProto|unix.NLA_F_NESTED, 24)
	attribute(attrProtoNumber, 1)
	attribute(attrProtoSourcePort, 2)
	attribute(attrProtoDestPort, 2)
	return l
}

func (l *layout) fits(b []byte) bool {
	for i := range l.headers {
		if h := &l.headers[i]; binary.NativeEndian.Uint32(b[h.at:]) != h.word {
			return false
		}
	}
	return true
}

// parsePorts reads a tuple with ports, if it is laid out as the kernel does it.
func (t *Tuple) parsePorts(b []byte) bool {
	switch {
	case len(b) == ipv4Layout.size && ipv4Layout.fits(b):
		t.Source = netip.AddrFrom4([4]byte(b[layoutSource:]))
		t.Dest = netip.AddrFrom4([4]byte(b[layoutSource+4+nlmsg.AttributeSize:]))
	case len(b) == ipv6Layout.size && ipv6Layout.fits(b):
		t.Source = netip.AddrFrom16([16]byte(b[layoutSource:]))
		t.Dest = netip.AddrFrom16([16]byte(b[layoutSource+16+nlmsg.AttributeSize:]))
	default:
		return false
	}
	t.Protocol = flow.Protocol(b[len(b)-layoutProtocol])
	t.SourcePort = binary.BigEndian.Uint16(b[len(b)-layoutSourcePort:])
	t.DestPort = binary.BigEndian.Uint16(b[len(b)-layoutDestPort:])
	return true
}

// parseWalk reads any tuple, attribute by attribute.
func (t *Tuple) parseWalk(b []byte) error {
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case attrTupleIP:
			if err := t.parseAddresses(a.Data); err != nil {
				return err
			}
		case attrTupleProto:
			if err := t.parseProtocol(a.Data); err != nil {
				return err
			}
		}
	}
	return a.Err
}

func (t *Tuple) parseAddresses(b []byte) error {
	a := nlmsg.Walk(b)
	for a.Next() {
		var address netip.Addr
		switch a.Type {
		case attrIPv4Source, attrIPv4Dest:
			if len(a.Data) < 4 {
				return nlmsg.ErrMalformed
			}
			address = netip.AddrFrom4([4]byte(a.Data))
		case attrIPv6Source, attrIPv6Dest:
			if len(a.Data) < 16 {
				return nlmsg.ErrMalformed
			}
			address = netip.AddrFrom16([16]byte(a.Data))
		}
		switch a.Type {
		case attrIPv4Source, attrIPv6Source:
			t.Source = address
		case attrIPv4Dest, attrIPv6Dest:
			t.Dest = address
		}
	}
	return a.Err
}

func (t *Tuple) parseProtocol(b []byte) error {
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case attrProtoNumber:
			t.Protocol = flow.Protocol(a.Uint8())
		case attrProtoSourcePort:
			t.SourcePort = a.Uint16()
		case attrProtoDestPort:
			t.DestPort = a.Uint16()
		case attrProtoICMPID, attrProtoICMPv6ID:
			t.ICMPID = a.Uint16()
		case attrProtoICMPType, attrProtoICMPv6Type:
			t.ICMPType = a.Uint8()
		case attrProtoICMPCode, attrProtoICMPv6Code:
			t.ICMPCode = a.Uint8()
		}
	}
	return a.Err
}
