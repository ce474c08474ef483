package policies

import (
	"fmt"
	"net/netip"

	"sgc/internal/flow"
)

// What a test block leaves out.
const (
	// testSourcePort is the first of IANA's dynamic ports.
	testSourcePort = 49152
	testHopLimit   = 64
)

// tests decodes the test blocks.
func (l *loader) tests(blocks []declared) []*Test {
	var names declarations
	var out []*Test
	for _, b := range blocks {
		if problem := textProblem(b.name); problem != "" {
			l.errorAt(b.labels[0].rng, "Invalid name", problem)
		} else if b.name == "" {
			l.errorAt(b.labels[0].rng, "Invalid name", "The name of a test is empty; say in it what is tested.")
		} else {
			l.declare(&names, "test", b.name, b.labels[0].rng)
		}
		out = append(out, l.testBlock(b))
	}
	return out
}

// testBlock decodes one test: the first packet of a new flow. The address on
// the host's side of the wire decides nothing, so it need not be given and is
// then the unspecified address.
func (l *loader) testBlock(b declared) *Test {
	d := l.decodeTop(b)
	t := &Test{Name: b.name, Pos: l.pos(b.header)}
	p := &t.Packet
	p.HopLimit = testHopLimit

	name := d.text("interface")
	required(d, &name, "interface", `Say which interface the packet crosses: interface = "eth0".`)
	if name.set {
		if problem := interfaceProblem(name.val, false); problem != "" {
			fail(d, &name, "Invalid interface name", problem)
		}
	}
	p.Interface = name.val

	direction := d.choice("direction", flow.Ingress.String(), flow.Egress.String())
	required(d, &direction, "direction", `Say direction = "ingress" (a packet that comes in) or "egress" (one that goes out).`)
	if direction.val == flow.Egress.String() {
		p.Direction = flow.Egress
	}
	d.testAddresses(p, direction)
	d.testProtocol(p)

	expect := d.choice("expect", "allow", "drop")
	required(d, &expect, "expect", `Say expect = "allow" or expect = "drop".`)
	t.Allow = expect.val == "allow"
	if tracked := d.boolean("tracked"); tracked.set {
		t.Tracked = &tracked.val
	}
	return t
}

// testAddresses reads source and dest.
func (d *decoder) testAddresses(p *flow.Packet, direction field[string]) {
	source, dest := d.address("source"), d.address("dest")
	peer, near, peerName := &source, &dest, "source"
	if direction.val == flow.Egress.String() {
		peer, near, peerName = &dest, &source, "dest"
	}
	if direction.set {
		required(d, peer, peerName, fmt.Sprintf("An %s packet needs the address of the peer: %s = \"203.0.113.1\".", direction.val, peerName))
	}
	if source.set && dest.set && source.val.Is4() != dest.val.Is4() {
		fail(d, near, "Two families", fmt.Sprintf("%s and %s are not of the same family.", source.val, dest.val))
	}
	if peer.set && !near.set {
		near.val = netip.IPv6Unspecified()
		if peer.val.Is4() {
			near.val = netip.IPv4Unspecified()
		}
	}
	p.Source, p.Dest = source.val, dest.val
}

// address reads one address.
func (d *decoder) address(name string) field[netip.Addr] {
	v := d.text(name)
	f := field[netip.Addr]{set: v.set, broken: v.broken, expr: v.expr, attr: v.attr}
	if !f.set {
		return f
	}
	a, err := netip.ParseAddr(v.val)
	switch {
	case err == nil && a.Zone() != "":
		fail(d, &f, "Invalid address", fmt.Sprintf("%s names a zone, which no packet carries: write %q.", quoteShort(v.val), a.WithZone("")))
	case err == nil && a.Is4In6():
		fail(d, &f, "Invalid address", fmt.Sprintf("%s is an IPv4 address inside IPv6, which is never on the wire: write %q.", quoteShort(v.val), a.Unmap()))
	case err != nil:
		fail(d, &f, "Invalid address", fmt.Sprintf("%s is one address, such as \"203.0.113.1\" or \"2001:db8::1\", not %s.", name, quoteShort(v.val)))
	default:
		f.val = a
	}
	return f
}

// testProtocol reads the protocol, and the ports or the ICMP type and code.
func (d *decoder) testProtocol(p *flow.Packet) {
	proto := d.protocol()
	required(d, &proto, "protocol", `Every packet has a protocol: protocol = "tcp", "udp", "icmp", "icmpv6" or another.`)
	if proto.set && proto.val.all {
		fail(d, &proto, "No single protocol", `A packet has one protocol: write "tcp", "udp", "icmp", "icmpv6" or another.`)
	}
	p.Protocol = proto.val.number
	sourcePort, port := d.number("source_port", 0, 65535), d.number("port", 0, 65535)
	typ, code := d.number("icmp_type", 0, 255), d.number("icmp_code", 0, 255)
	if !proto.set {
		return
	}
	if !proto.val.hasPorts() {
		for _, f := range []*field[int]{&sourcePort, &port} {
			if f.set {
				d.l.errorAt(f.attr.nameRange, "No ports", fmt.Sprintf("A packet of protocol %s has no ports here; remove this line.", proto.val))
			}
		}
	}
	if !proto.val.isICMP() {
		for _, f := range []*field[int]{&typ, &code} {
			if f.set {
				d.l.errorAt(f.attr.nameRange, "No ICMP", fmt.Sprintf("A packet of protocol %s has no ICMP type and code; remove this line.", proto.val))
			}
		}
	}
	switch {
	case proto.val.hasPorts():
		required(d, &port, "port", fmt.Sprintf("A %s packet needs the port that it goes to: port = 22.", proto.val))
		p.SourcePort, p.DestPort = testSourcePort, uint16(port.val)
		if sourcePort.set {
			p.SourcePort = uint16(sourcePort.val)
		}
		if proto.val.number == flow.TCP {
			p.TCPFlags = flow.SYN
		}
	case proto.val.isICMP():
		// An echo request, unless the test says otherwise.
		p.ICMPType = 8
		if proto.val.number == flow.ICMPv6 {
			p.ICMPType = 128
		}
		if typ.set {
			p.ICMPType = uint8(typ.val)
		}
		p.ICMPCode = uint8(code.val)
		if p.Source.IsValid() && !p.Protocol.IsICMP(p.Family()) {
			d.l.errorAt(proto.at(), "ICMP in the wrong family", fmt.Sprintf("The addresses are %s: write protocol = %q.", p.Family(), flow.ICMPOf(p.Family())))
		}
	}
}
