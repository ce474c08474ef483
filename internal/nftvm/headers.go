package nftvm

import (
	"encoding/binary"
	"fmt"

	"sgc/internal/flow"
)

// headers are the bytes of a packet, as payload expressions see them. The
// transport header runs to the end of the packet.
type headers struct{ network, transport []byte }

// newHeaders builds the packet's headers. Checksums are zero: no rule looks at
// them.
func newHeaders(p *flow.Packet) (headers, error) {
	if !p.Source.IsValid() || !p.Dest.IsValid() || flow.FamilyOf(p.Source) != flow.FamilyOf(p.Dest) {
		return headers{}, fmt.Errorf("packet from %s to %s: its addresses are not of one family", p.Source, p.Dest)
	}
	transport, err := transportHeader(p)
	if err != nil {
		return headers{}, err
	}
	return headers{networkHeader(p, len(transport)), transport}, nil
}

// networkHeader has neither IPv4 options nor IPv6 extension headers.
func networkHeader(p *flow.Packet, payload int) []byte {
	if p.Family() == flow.IPv6 {
		h := []byte{0x60, 0, 0, 0}
		h = binary.BigEndian.AppendUint16(h, uint16(payload))
		h = append(h, byte(p.Protocol), p.HopLimit)
		return append(append(h, p.Source.AsSlice()...), p.Dest.AsSlice()...)
	}
	h := []byte{0x45, 0}
	h = binary.BigEndian.AppendUint16(h, uint16(20+payload))
	h = append(h, 0, 0, 0x40, 0, p.HopLimit, byte(p.Protocol), 0, 0)
	return append(append(h, p.Source.AsSlice()...), p.Dest.AsSlice()...)
}

func transportHeader(p *flow.Packet) ([]byte, error) {
	ports := binary.BigEndian.AppendUint16(nil, p.SourcePort)
	ports = binary.BigEndian.AppendUint16(ports, p.DestPort)
	switch {
	case p.Protocol == flow.TCP:
		return append(ports, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, p.TCPFlags, 0xff, 0xff, 0, 0, 0, 0), nil
	case p.Protocol == flow.UDP:
		return append(ports, 0, 8, 0, 0), nil
	case p.Protocol.IsICMP(p.Family()):
		h := []byte{p.ICMPType, p.ICMPCode, 0, 0, 0, 0, 0, 0}
		if p.Quoted == nil {
			return h, nil
		}
		quoted, err := newHeaders(p.Quoted)
		if err != nil {
			return nil, fmt.Errorf("quoted %w", err)
		}
		return append(append(h, quoted.network...), quoted.transport...), nil
	default:
		// Bytes that no rule should look at.
		return []byte{0, 80, 0, 80, 0, 0, 0, 0}, nil
	}
}
