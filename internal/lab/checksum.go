package lab

import (
	"encoding/binary"
	"net/netip"

	"sgc/internal/flow"
)

// checksum is the Internet checksum of the concatenation of the parts. Every
// part but the last has an even length.
//
// Source: RFC 1071.
func checksum(parts ...[]byte) uint16 {
	var sum uint64
	for _, b := range parts {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint64(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint64(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// pseudoHeader is what the checksums of TCP, UDP and ICMPv6 cover of the
// network header.
func pseudoHeader(source, dest netip.Addr, protocol flow.Protocol, length int) []byte {
	b := append(source.AsSlice(), dest.AsSlice()...)
	if source.Is4() {
		b = append(b, 0, byte(protocol))
		return binary.BigEndian.AppendUint16(b, uint16(length))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	return append(b, 0, 0, 0, byte(protocol))
}
