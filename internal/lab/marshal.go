package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sgc/internal/flow"
)

// Envelope is what a packet on the wire has and a flow.Packet does not.
type Envelope struct {
	// ID is the IPv4 identification, or the low bits of the IPv6 flow label.
	ID uint16
	// Class is the IPv4 type of service, or the IPv6 traffic class.
	Class uint8
	// EchoID and EchoSeq are the identifier and sequence number of ICMP
	// queries and their replies, and of those that an error quotes.
	EchoID, EchoSeq uint16
	// Seq and Ack are the numbers of TCP segments.
	Seq, Ack uint32
	// Payload follows the transport header. ICMP errors have none.
	Payload []byte
	// Header is the beginning of the body of protocols that have no header
	// here, also of such a packet that an ICMP error quotes: at most 32 bytes,
	// of which the rest is zeros.
	Header []byte
	// BadChecksum spoils the transport checksum, so that conntrack finds the
	// packet invalid on ingress.
	BadChecksum bool
}

const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
	// defaultHopLimit is written where a flow.Packet says 0, which means that
	// nobody cares.
	defaultHopLimit = 64
)

// Marshal builds the IP packet, without link-layer header, that p describes:
// both families, TCP with p's flags, UDP, ICMP of any type (errors with the
// quoted packet), and any other protocol number over an empty body. Interface,
// Direction, State and Forwarded do not show in it.
func Marshal(p *flow.Packet, e Envelope) ([]byte, error) {
	source, dest := p.Source, p.Dest
	if !source.IsValid() || !dest.IsValid() || source.Is4() != dest.Is4() {
		return nil, fmt.Errorf("marshal %s → %s: not two addresses of one family", source, dest)
	}
	body, err := marshalBody(p, e)
	if err != nil {
		return nil, err
	}
	if e.BadChecksum {
		if at := checksumOffset(p.Protocol, p.Family()); at >= 0 {
			body[at+1] ^= 0x55
		}
	}
	return append(marshalNetworkHeader(p, e, len(body)), body...), nil
}

func marshalNetworkHeader(p *flow.Packet, e Envelope, length int) []byte {
	hops := p.HopLimit
	if hops == 0 {
		hops = defaultHopLimit
	}
	if p.Source.Is4() {
		b := make([]byte, ipv4HeaderLen, ipv4HeaderLen+length)
		b[0], b[1] = 0x45, e.Class
		binary.BigEndian.PutUint16(b[2:], uint16(ipv4HeaderLen+length))
		binary.BigEndian.PutUint16(b[4:], e.ID)
		b[6] = 0x40 // do not fragment
		b[8], b[9] = hops, byte(p.Protocol)
		copy(b[12:], p.Source.AsSlice())
		copy(b[16:], p.Dest.AsSlice())
		binary.BigEndian.PutUint16(b[10:], checksum(b))
		return b
	}
	b := make([]byte, ipv6HeaderLen, ipv6HeaderLen+length)
	binary.BigEndian.PutUint32(b, 6<<28|uint32(e.Class)<<20|uint32(e.ID))
	binary.BigEndian.PutUint16(b[4:], uint16(length))
	b[6], b[7] = byte(p.Protocol), hops
	copy(b[8:], p.Source.AsSlice())
	copy(b[24:], p.Dest.AsSlice())
	return b
}

// otherBodyLen is the length of the body of protocols that have no header
// here. Zeros that long are a sound GRE header, and long enough for the
// transport headers that conntrack looks into.
const otherBodyLen = 32

func marshalBody(p *flow.Packet, e Envelope) ([]byte, error) {
	family := p.Family()
	switch {
	case p.Protocol == flow.TCP:
		return marshalTCP(p, e), nil
	case p.Protocol == flow.UDP:
		return marshalUDP(p, e), nil
	case p.Protocol.IsICMP(family):
		return marshalICMP(p, e)
	default:
		if len(e.Header) > otherBodyLen {
			return nil, fmt.Errorf("marshal %s: a header of %d bytes, at most %d fit", p, len(e.Header), otherBodyLen)
		}
		return slices.Concat(e.Header, make([]byte, otherBodyLen-len(e.Header)), e.Payload), nil
	}
}

func marshalTCP(p *flow.Packet, e Envelope) []byte {
	b := make([]byte, 20, 20+len(e.Payload))
	binary.BigEndian.PutUint16(b, p.SourcePort)
	binary.BigEndian.PutUint16(b[2:], p.DestPort)
	binary.BigEndian.PutUint32(b[4:], e.Seq)
	binary.BigEndian.PutUint32(b[8:], e.Ack)
	b[12], b[13] = 5<<4, p.TCPFlags
	binary.BigEndian.PutUint16(b[14:], 0xffff) // window
	b = append(b, e.Payload...)
	sum := checksum(pseudoHeader(p.Source, p.Dest, flow.TCP, len(b)), b)
	binary.BigEndian.PutUint16(b[16:], sum)
	return b
}

func marshalUDP(p *flow.Packet, e Envelope) []byte {
	b := make([]byte, 8, 8+len(e.Payload))
	binary.BigEndian.PutUint16(b, p.SourcePort)
	binary.BigEndian.PutUint16(b[2:], p.DestPort)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(e.Payload)))
	b = append(b, e.Payload...)
	sum := checksum(pseudoHeader(p.Source, p.Dest, flow.UDP, len(b)), b)
	if sum == 0 {
		sum = 0xffff // 0 means that there is none
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}

func marshalICMP(p *flow.Packet, e Envelope) ([]byte, error) {
	family := p.Family()
	b := []byte{p.ICMPType, p.ICMPCode, 0, 0, 0, 0, 0, 0}
	switch {
	case p.Quoted != nil:
		if !isICMPError(family, p.ICMPType) {
			return nil, fmt.Errorf("marshal %s: type %d quotes no packet", p, p.ICMPType)
		}
		if p.Quoted.Quoted != nil {
			return nil, fmt.Errorf("marshal %s: a quoted packet quotes another", p)
		}
		quoted, err := Marshal(p.Quoted, Envelope{ID: e.ID, EchoID: e.EchoID, EchoSeq: e.EchoSeq, Seq: e.Seq, Ack: e.Ack, Header: e.Header})
		if err != nil {
			return nil, fmt.Errorf("quote: %w", err)
		}
		if needsMTU(family, p.ICMPType, p.ICMPCode) {
			binary.BigEndian.PutUint32(b[4:], 1400)
		}
		b = append(b, quoted...)
	default:
		binary.BigEndian.PutUint16(b[4:], e.EchoID)
		binary.BigEndian.PutUint16(b[6:], e.EchoSeq)
		b = append(b, e.Payload...)
		if family == flow.IPv4 && p.ICMPType >= 13 && p.ICMPType <= 18 {
			b = append(b, make([]byte, 12)...) // timestamps, or a mask
		}
		if family == flow.IPv6 && p.ICMPType >= 130 && p.ICMPType <= 137 {
			b = append(b, make([]byte, 32)...) // the addresses of listener and neighbour messages
		}
	}
	if family == flow.IPv4 {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	} else {
		sum := checksum(pseudoHeader(p.Source, p.Dest, flow.ICMPv6, len(b)), b)
		binary.BigEndian.PutUint16(b[2:], sum)
	}
	return b, nil
}

// isICMPError reports whether messages of the type quote the packet that they
// are about. Source quench and redirect do so in IPv4.
func isICMPError(f flow.Family, icmpType uint8) bool {
	if f == flow.IPv4 {
		switch icmpType {
		case 3, 4, 5, 11, 12:
			return true
		}
		return false
	}
	return icmpType < 128
}

// needsMTU reports whether the message tells the next hop's MTU in its last
// word: fragmentation needed, and packet too big.
func needsMTU(f flow.Family, icmpType, icmpCode uint8) bool {
	if f == flow.IPv4 {
		return icmpType == 3 && icmpCode == 4
	}
	return icmpType == 2
}

// checksumOffset returns where the transport checksum stands, -1 for none.
func checksumOffset(p flow.Protocol, f flow.Family) int {
	switch {
	case p == flow.TCP:
		return 16
	case p == flow.UDP:
		return 6
	case p.IsICMP(f):
		return 2
	default:
		return -1
	}
}

// Parse reads an IP packet without link-layer header, the reverse of Marshal.
// IPv4 options are skipped; an IPv6 extension header is the protocol. A
// transport header that is cut off, as quoted ones may be, leaves the fields
// after the cut at zero. The envelope's BadChecksum tells whether the transport
// checksum of a whole packet is wrong.
func Parse(b []byte) (flow.Packet, Envelope, error) {
	if len(b) == 0 {
		return flow.Packet{}, Envelope{}, errors.New("parse packet: empty")
	}
	switch b[0] >> 4 {
	case 4:
		return parseIPv4(b)
	case 6:
		return parseIPv6(b)
	default:
		return flow.Packet{}, Envelope{}, fmt.Errorf("parse packet: IP version %d", b[0]>>4)
	}
}

func parseIPv4(b []byte) (flow.Packet, Envelope, error) {
	if len(b) < ipv4HeaderLen {
		return flow.Packet{}, Envelope{}, fmt.Errorf("parse IPv4 packet: %d bytes", len(b))
	}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < ipv4HeaderLen || total < header {
		return flow.Packet{}, Envelope{}, fmt.Errorf("parse IPv4 packet: header of %d bytes in %d", header, total)
	}
	p := flow.Packet{
		Protocol: flow.Protocol(b[9]),
		Source:   netip.AddrFrom4([4]byte(b[12:16])),
		Dest:     netip.AddrFrom4([4]byte(b[16:20])),
		HopLimit: b[8],
	}
	e := Envelope{ID: binary.BigEndian.Uint16(b[4:]), Class: b[1]}
	whole := len(b) >= total
	parseBody(&p, &e, b[min(header, len(b)):min(total, len(b))], whole)
	return p, e, nil
}

func parseIPv6(b []byte) (flow.Packet, Envelope, error) {
	if len(b) < ipv6HeaderLen {
		return flow.Packet{}, Envelope{}, fmt.Errorf("parse IPv6 packet: %d bytes", len(b))
	}
	first, length := binary.BigEndian.Uint32(b), int(binary.BigEndian.Uint16(b[4:]))
	p := flow.Packet{
		Protocol: flow.Protocol(b[6]),
		Source:   netip.AddrFrom16([16]byte(b[8:24])),
		Dest:     netip.AddrFrom16([16]byte(b[24:40])),
		HopLimit: b[7],
	}
	e := Envelope{ID: uint16(first), Class: uint8(first >> 20)}
	whole := len(b) >= ipv6HeaderLen+length
	parseBody(&p, &e, b[ipv6HeaderLen:min(ipv6HeaderLen+length, len(b))], whole)
	return p, e, nil
}

func parseBody(p *flow.Packet, e *Envelope, b []byte, whole bool) {
	family := p.Family()
	if whole && checksumOffset(p.Protocol, family) >= 0 {
		e.BadChecksum = !checksumIsRight(p, b)
	}
	switch {
	case p.Protocol.HasPorts():
		if len(b) < 4 {
			return
		}
		p.SourcePort, p.DestPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		header := 8
		if p.Protocol == flow.TCP {
			if len(b) < 20 {
				return
			}
			p.TCPFlags = b[13]
			e.Seq, e.Ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
			header = int(b[12]>>4) * 4
		}
		e.Payload = rest(b, header)
	case p.Protocol.IsICMP(family):
		if len(b) < 8 {
			return
		}
		p.ICMPType, p.ICMPCode = b[0], b[1]
		if isICMPError(family, p.ICMPType) && len(b) > 8 {
			if quoted, inner, err := Parse(b[8:]); err == nil {
				p.Quoted = &quoted
				e.EchoID, e.EchoSeq = inner.EchoID, inner.EchoSeq
				return
			}
		}
		e.EchoID, e.EchoSeq = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
		e.Payload = rest(b, 8)
	default:
		e.Payload = rest(b, otherBodyLen)
	}
}

// rest returns what follows the first n bytes, nil where nothing does.
func rest(b []byte, n int) []byte {
	if len(b) <= n {
		return nil
	}
	return b[n:]
}

// checksumIsRight checks the transport checksum of a whole packet. UDP over
// IPv4 may have none.
func checksumIsRight(p *flow.Packet, b []byte) bool {
	at := checksumOffset(p.Protocol, p.Family())
	if len(b) < at+2 {
		return false
	}
	switch {
	case p.Protocol == flow.UDP && p.Family() == flow.IPv4 && b[at] == 0 && b[at+1] == 0:
		return true
	case p.Protocol == flow.ICMP:
		return checksum(b) == 0
	default:
		return checksum(pseudoHeader(p.Source, p.Dest, p.Protocol, len(b)), b) == 0
	}
}
