package ruleset

import (
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// Field is something of a packet that can be compared or looked up.
type Field struct {
	kind fieldKind
	// offset and length, in bits, count for raw fields of the transport header.
	offset, length uint32
}

type fieldKind uint8

const (
	iifname fieldKind = iota
	oifname
	nfproto
	l4proto
	ipSaddr
	ipDaddr
	ip6Saddr
	ip6Daddr
	ip6HopLimit
	thSport
	thDport
	icmpType
	icmpCode
	icmpv6Type
	icmpv6Code
	rawTransport
	ctOriginalSource4
	ctOriginalSource6
)

// The fields, by their nft names: "iifname", "meta nfproto", "ip saddr", …
var (
	IIFName     = Field{kind: iifname}
	OIFName     = Field{kind: oifname}
	NFProtocol  = Field{kind: nfproto}
	L4Protocol  = Field{kind: l4proto}
	IPSource    = Field{kind: ipSaddr}
	IPDest      = Field{kind: ipDaddr}
	IP6Source   = Field{kind: ip6Saddr}
	IP6Dest     = Field{kind: ip6Daddr}
	IP6HopLimit = Field{kind: ip6HopLimit}
	SourcePort  = Field{kind: thSport}
	DestPort    = Field{kind: thDport}
	ICMPTypeOf4 = Field{kind: icmpType}
	ICMPCodeOf4 = Field{kind: icmpCode}
	ICMPTypeOf6 = Field{kind: icmpv6Type}
	ICMPCodeOf6 = Field{kind: icmpv6Code}
)

// OriginalSource returns the field of the source address of the packet that
// opened the flow, before any NAT.
func OriginalSource(f flow.Family) Field {
	if f == flow.IPv4 {
		return Field{kind: ctOriginalSource4}
	}
	return Field{kind: ctOriginalSource6}
}

// Raw is length bits of the transport header from a bit offset on; both are
// multiples of 8.
func Raw(offset, length uint32) Field { return Field{rawTransport, offset, length} }

// nfprotoIPv4 and nfprotoIPv6 are the values of NFProtocol.
const (
	nfprotoIPv4 = unix.NFPROTO_IPV4
	nfprotoIPv6 = unix.NFPROTO_IPV6
)

// NFProtoKey returns the value of NFProtocol for a family.
func NFProtoKey(f flow.Family) string {
	if f == flow.IPv4 {
		return string([]byte{nfprotoIPv4})
	}
	return string([]byte{nfprotoIPv6})
}

// ProtoKey returns the value of L4Protocol for a protocol.
func ProtoKey(p flow.Protocol) string { return string([]byte{byte(p)}) }

// fieldInfo is how a field is written, loaded, and what nft asks of a packet
// before it loads it.
type fieldInfo struct {
	text string
	size int
	typ  Type
	load func(register uint32) expr.Any
	// family and proto are the field's dependencies; 0 is none.
	family flow.Family
	proto  flow.Protocol
}

func (f Field) info() fieldInfo {
	switch f.kind {
	case iifname:
		return fieldInfo{text: "iifname", size: 16, typ: IfName, load: loadMeta(expr.MetaKeyIIFNAME)}
	case oifname:
		return fieldInfo{text: "oifname", size: 16, typ: IfName, load: loadMeta(expr.MetaKeyOIFNAME)}
	case nfproto:
		return fieldInfo{text: "meta nfproto", size: 1, typ: NFProto, load: loadMeta(expr.MetaKeyNFPROTO)}
	case l4proto:
		return fieldInfo{text: "meta l4proto", size: 1, typ: InetProto, load: loadMeta(expr.MetaKeyL4PROTO)}
	case ipSaddr:
		return fieldInfo{text: "ip saddr", size: 4, typ: IPv4Addr, load: loadNetwork(12, 4), family: flow.IPv4}
	case ipDaddr:
		return fieldInfo{text: "ip daddr", size: 4, typ: IPv4Addr, load: loadNetwork(16, 4), family: flow.IPv4}
	case ip6Saddr:
		return fieldInfo{text: "ip6 saddr", size: 16, typ: IPv6Addr, load: loadNetwork(8, 16), family: flow.IPv6}
	case ip6Daddr:
		return fieldInfo{text: "ip6 daddr", size: 16, typ: IPv6Addr, load: loadNetwork(24, 16), family: flow.IPv6}
	case ip6HopLimit:
		// ICMPCode only lends its text here: one byte, written as a number.
		return fieldInfo{text: "ip6 hoplimit", size: 1, typ: ICMPCode, load: loadNetwork(7, 1), family: flow.IPv6}
	case thSport:
		return fieldInfo{text: "th sport", size: 2, typ: InetService, load: loadTransport(0, 2)}
	case thDport:
		return fieldInfo{text: "th dport", size: 2, typ: InetService, load: loadTransport(2, 2)}
	case icmpType:
		return fieldInfo{text: "icmp type", size: 1, typ: ICMPType, load: loadTransport(0, 1), family: flow.IPv4, proto: flow.ICMP}
	case icmpCode:
		return fieldInfo{text: "icmp code", size: 1, typ: ICMPCode, load: loadTransport(1, 1), family: flow.IPv4, proto: flow.ICMP}
	case icmpv6Type:
		return fieldInfo{text: "icmpv6 type", size: 1, typ: ICMPv6Type, load: loadTransport(0, 1), family: flow.IPv6, proto: flow.ICMPv6}
	case icmpv6Code:
		return fieldInfo{text: "icmpv6 code", size: 1, typ: ICMPv6Code, load: loadTransport(1, 1), family: flow.IPv6, proto: flow.ICMPv6}
	case ctOriginalSource4:
		return fieldInfo{text: "ct original ip saddr", size: 4, typ: IPv4Addr, load: loadCt(expr.CtKeySRCIP), family: flow.IPv4}
	case ctOriginalSource6:
		return fieldInfo{text: "ct original ip6 saddr", size: 16, typ: IPv6Addr, load: loadCt(expr.CtKeySRCIP6), family: flow.IPv6}
	case rawTransport:
		typ := ICMPCode // lends its text: one byte, written as a number
		switch f.length {
		case 16:
			typ = QuotedPort
		case 32:
			typ = QuotedAddr4
		case 128:
			typ = QuotedAddr6
		}
		return fieldInfo{
			text: fmt.Sprintf("@th,%d,%d", f.offset, f.length), size: int(f.length / 8), typ: typ,
			load: loadTransport(f.offset/8, f.length/8),
		}
	}
	panic(fmt.Sprintf("ruleset: unknown field %d", f.kind))
}

func loadMeta(key expr.MetaKey) func(uint32) expr.Any {
	return func(register uint32) expr.Any { return &expr.Meta{Key: key, Register: register} }
}

// loadCt loads something of the direction in which the flow was opened.
func loadCt(key expr.CtKey) func(uint32) expr.Any {
	return func(register uint32) expr.Any { return &expr.Ct{Key: key, Register: register} }
}

func loadNetwork(offset, size uint32) func(uint32) expr.Any {
	return loadPayload(expr.PayloadBaseNetworkHeader, offset, size)
}

func loadTransport(offset, size uint32) func(uint32) expr.Any {
	return loadPayload(expr.PayloadBaseTransportHeader, offset, size)
}

func loadPayload(base expr.PayloadBase, offset, size uint32) func(uint32) expr.Any {
	return func(register uint32) expr.Any {
		return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: size}
	}
}

// Source returns the source address field of a family.
func Source(f flow.Family) Field {
	if f == flow.IPv4 {
		return IPSource
	}
	return IP6Source
}

// Dest is the opposite of Source.
func Dest(f flow.Family) Field {
	if f == flow.IPv4 {
		return IPDest
	}
	return IP6Dest
}

// Peer returns the address field of the far side: the source on ingress, the
// destination on egress.
func Peer(f flow.Family, d flow.Direction) Field {
	if d == flow.Ingress {
		return Source(f)
	}
	return Dest(f)
}

// InterfaceName returns the field that names the interface a packet crosses.
func InterfaceName(d flow.Direction) Field {
	if d == flow.Ingress {
		return IIFName
	}
	return OIFName
}

// LocalPort returns the port field of the near side: the destination's on
// ingress, the source's on egress.
func LocalPort(d flow.Direction) Field {
	if d == flow.Ingress {
		return DestPort
	}
	return SourcePort
}

// PeerPort is the opposite of LocalPort.
func PeerPort(d flow.Direction) Field { return LocalPort(d.Opposite()) }

// ICMPTypeField returns the type field of the family's ICMP.
func ICMPTypeField(f flow.Family) Field {
	if f == flow.IPv4 {
		return ICMPTypeOf4
	}
	return ICMPTypeOf6
}

// ICMPCodeField returns the code field of the family's ICMP.
func ICMPCodeField(f flow.Family) Field {
	if f == flow.IPv4 {
		return ICMPCodeOf4
	}
	return ICMPCodeOf6
}
