package nflog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"sgc/internal/flow"
)

const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
	icmpHeaderLen = 8
	// fragmentLen is the length of an IPv6 fragment header.
	fragmentLen = 8
)

// The IPv6 extension headers that stand before the protocol. nf_tables counts
// the authentication header among the protocols.
//
// Source: Linux include/net/netfilter/nf_tables_ipv6.h and net/ipv6/exthdrs_core.c,
// ipv6_find_hdr with IP6_FH_F_AUTH.
const (
	hopByHop           = 0
	routing            = 43
	fragment           = 44
	destinationOptions = 60
)

var errEmpty = errors.New("parse packet: empty")

// parse reads an IP packet from its network header on, which may be cut off
// anywhere after that header. Of the result's fields it sets those that stand
// in the packet.
func parse(b []byte) (Packet, error) {
	p, body, err := parseHeaders(b)
	if err != nil {
		return Packet{}, err
	}
	if p.Transport && p.Protocol.IsICMP(p.Family()) && quotes(p.Family(), p.ICMPType) {
		// What does not parse is no quoted packet: a sender may write anything.
		if quoted, _, err := parseHeaders(from(body, icmpHeaderLen)); err == nil {
			p.Quoted = &quoted.Packet
		}
	}
	return p, nil
}

// parseHeaders returns what the headers say, and the transport header with what
// follows it.
func parseHeaders(b []byte) (p Packet, body []byte, err error) {
	if len(b) == 0 {
		return Packet{}, nil, errEmpty
	}
	switch version := b[0] >> 4; version {
	case 4:
		p, body, err = parseIPv4(b)
	case 6:
		p, body, err = parseIPv6(b)
	default:
		err = fmt.Errorf("parse packet: IP version %d", version)
	}
	if err == nil && !p.Fragment {
		p.parseTransport(body)
	}
	return p, body, err
}

func parseIPv4(b []byte) (p Packet, body []byte, err error) {
	if len(b) < ipv4HeaderLen {
		return Packet{}, nil, fmt.Errorf("parse IPv4 header: %d bytes", len(b))
	}
	header, length := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < ipv4HeaderLen {
		return Packet{}, nil, fmt.Errorf("parse IPv4 header: it says that it has %d bytes", header)
	}
	if length < header {
		length = len(b)
	}
	p = Packet{
		Packet: flow.Packet{
			Protocol: flow.Protocol(b[9]),
			Source:   netip.AddrFrom4([4]byte(b[12:16])),
			Dest:     netip.AddrFrom4([4]byte(b[16:20])),
			HopLimit: b[8],
		},
		Length:   length,
		Fragment: binary.BigEndian.Uint16(b[6:])&0x1fff != 0,
	}
	return p, from(b[:min(len(b), length)], header), nil
}

func parseIPv6(b []byte) (p Packet, body []byte, err error) {
	if len(b) < ipv6HeaderLen {
		return Packet{}, nil, fmt.Errorf("parse IPv6 header: %d bytes", len(b))
	}
	p = Packet{
		Packet: flow.Packet{
			Protocol: flow.Protocol(b[6]),
			Source:   netip.AddrFrom16([16]byte(b[8:24])),
			Dest:     netip.AddrFrom16([16]byte(b[24:40])),
			HopLimit: b[7],
		},
		Length: ipv6HeaderLen + int(binary.BigEndian.Uint16(b[4:])),
	}
	if p.Length == ipv6HeaderLen {
		// Nothing follows, or more than 64 KiB.
		p.Length = len(b)
	}
	return p, p.skipExtensions(b[ipv6HeaderLen:min(len(b), p.Length)]), nil
}

// skipExtensions walks along the extension headers and returns what follows
// them. Where one is cut off, it is the protocol, of which nothing is known.
func (p *Packet) skipExtensions(b []byte) []byte {
	for !p.Fragment {
		length := fragmentLen
		switch p.Protocol {
		case hopByHop, routing, destinationOptions:
			if len(b) < 2 {
				return nil
			}
			length = 8 * (int(b[1]) + 1)
		case fragment:
		default:
			return b
		}
		if len(b) < length {
			return nil
		}
		p.Fragment = p.Protocol == fragment && binary.BigEndian.Uint16(b[2:])&^7 != 0
		p.Protocol, b = flow.Protocol(b[0]), b[length:]
	}
	return nil
}

// parseTransport reads the transport header, or as much of it as there is.
func (p *Packet) parseTransport(b []byte) {
	switch {
	case p.Protocol.HasPorts():
		if len(b) < 4 {
			return
		}
		p.Transport = true
		p.SourcePort, p.DestPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		if p.Protocol == flow.TCP && len(b) >= 14 {
			p.TCPFlags = b[13]
		}
	case p.Protocol.IsICMP(p.Family()):
		if len(b) < 2 {
			return
		}
		p.Transport = true
		p.ICMPType, p.ICMPCode = b[0], b[1]
	}
}

// quotes reports whether ICMP messages of the type quote the packet that they
// are about.
func quotes(f flow.Family, icmpType uint8) bool {
	if f == flow.IPv6 {
		return icmpType < 128
	}
	switch icmpType {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}

// from returns what follows the first n bytes.
func from(b []byte, n int) []byte { return b[min(n, len(b)):] }
