package nflog_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/nflog"
)

var (
	client4, host4 = netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("192.0.2.10")
	client6, host6 = netip.MustParseAddr("2001:db8:77::7"), netip.MustParseAddr("2001:db8:2::10")

	compareAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

// between returns a packet from the client to the host.
func between(f flow.Family, protocol flow.Protocol, set ...func(*flow.Packet)) flow.Packet {
	p := flow.Packet{Protocol: protocol, Source: client4, Dest: host4, HopLimit: 64}
	if f == flow.IPv6 {
		p.Source, p.Dest = client6, host6
	}
	for _, s := range set {
		s(&p)
	}
	return p
}

func ports(source, dest uint16) func(*flow.Packet) {
	return func(p *flow.Packet) { p.SourcePort, p.DestPort = source, dest }
}

func flags(f uint8) func(*flow.Packet) { return func(p *flow.Packet) { p.TCPFlags = f } }

func icmp(icmpType, code uint8) func(*flow.Packet) {
	return func(p *flow.Packet) { p.ICMPType, p.ICMPCode = icmpType, code }
}

func quoting(q flow.Packet) func(*flow.Packet) { return func(p *flow.Packet) { p.Quoted = &q } }

func marshal(t testing.TB, p flow.Packet) []byte {
	t.Helper()
	b, err := lab.Marshal(&p, lab.Envelope{ID: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// extend puts extension headers before the transport header of an IPv6 packet.
// Each begins with the number of what follows it.
func extend(b []byte, first flow.Protocol, headers ...[]byte) []byte {
	out := append([]byte(nil), b[:40]...)
	out[6] = byte(first)
	for _, h := range headers {
		out = append(out, h...)
	}
	out = append(out, b[40:]...)
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)-40))
	return out
}

// option is a hop-by-hop, routing or destination options header of 8(n+1)
// bytes.
func option(next flow.Protocol, n int) []byte {
	h := make([]byte, 8*(n+1))
	h[0], h[1] = byte(next), byte(n)
	return h
}

// fragmentHeader is one of a fragment that begins after 8n bytes.
func fragmentHeader(next flow.Protocol, n uint16, more bool) []byte {
	word := n << 3
	if more {
		word |= 1
	}
	return []byte{byte(next), 0, byte(word >> 8), byte(word), 0, 0, 0, 9}
}

// fragment4 makes an IPv4 packet a fragment that begins after 8n bytes.
func fragment4(b []byte, n uint16, more bool) []byte {
	b = append([]byte(nil), b...)
	if more {
		n |= 1 << 13
	}
	binary.BigEndian.PutUint16(b[6:], n)
	return b
}

func TestParse(t *testing.T) {
	t.Parallel()
	syn4, syn6 := between(flow.IPv4, flow.TCP, ports(51344, 22), flags(flow.SYN)), between(flow.IPv6, flow.TCP, ports(51344, 22), flags(flow.SYN))
	udp6 := between(flow.IPv6, flow.UDP, ports(5353, 53))
	reply4, reply6 := syn4.Reply(), udp6.Reply()
	reply4.Direction, reply6.Direction = flow.Ingress, flow.Ingress
	without := func(p flow.Packet) flow.Packet {
		p.SourcePort, p.DestPort, p.TCPFlags, p.ICMPType, p.ICMPCode, p.Quoted = 0, 0, 0, 0, 0, nil
		return p
	}
	as := func(p flow.Packet, protocol flow.Protocol) flow.Packet {
		p = without(p)
		p.Protocol = protocol
		return p
	}
	raw4, raw6 := marshal(t, syn4), marshal(t, syn6)
	options4 := append(append(append([]byte(nil), raw4[:20]...), 1, 1, 1, 0), raw4[20:]...)
	options4[0] = 0x46
	binary.BigEndian.PutUint16(options4[2:], uint16(len(options4)))
	error4, error6 := between(flow.IPv4, flow.ICMP, icmp(3, 4), quoting(reply4)), between(flow.IPv6, flow.ICMPv6, icmp(2, 0), quoting(reply6))
	// A quoted TCP header is 8 bytes long, as routers may send it.
	short4 := marshal(t, error4)[:20+8+20+8]
	shortQuoted := reply4
	shortQuoted.TCPFlags = 0
	huge4, huge6 := append([]byte(nil), raw4...), append([]byte(nil), raw6...)
	binary.BigEndian.PutUint16(huge4[2:], 0)
	binary.BigEndian.PutUint16(huge6[4:], 0)

	padded := append([]byte(nil), raw4...)
	binary.BigEndian.PutUint16(padded[2:], 20)

	for name, tt := range map[string]struct {
		bytes []byte
		want  nflog.Packet
	}{
		"a TCP segment":      {raw4, nflog.Packet{Packet: syn4, Length: 40, Transport: true}},
		"over IPv6":          {raw6, nflog.Packet{Packet: syn6, Length: 60, Transport: true}},
		"IPv4 options":       {options4, nflog.Packet{Packet: syn4, Length: 44, Transport: true}},
		"an echo request":    {marshal(t, between(flow.IPv4, flow.ICMP, icmp(8, 0))), nflog.Packet{Packet: between(flow.IPv4, flow.ICMP, icmp(8, 0)), Length: 28, Transport: true}},
		"a protocol":         {marshal(t, between(flow.IPv4, 47)), nflog.Packet{Packet: between(flow.IPv4, 47), Length: 52}},
		"ICMP over IPv6":     {marshal(t, between(flow.IPv6, flow.ICMP)), nflog.Packet{Packet: between(flow.IPv6, flow.ICMP), Length: 72}},
		"ICMPv6 over IPv4":   {marshal(t, between(flow.IPv4, flow.ICMPv6)), nflog.Packet{Packet: between(flow.IPv4, flow.ICMPv6), Length: 52}},
		"an ICMP error":      {marshal(t, error4), nflog.Packet{Packet: error4, Length: 68, Transport: true}},
		"an ICMPv6 error":    {marshal(t, error6), nflog.Packet{Packet: error6, Length: 96, Transport: true}},
		"a short quote":      {short4, nflog.Packet{Packet: between(flow.IPv4, flow.ICMP, icmp(3, 4), quoting(shortQuoted)), Length: 68, Transport: true}},
		"a quote of nothing": {short4[:28], nflog.Packet{Packet: between(flow.IPv4, flow.ICMP, icmp(3, 4)), Length: 68, Transport: true}},

		"a first IPv4 fragment":                {fragment4(raw4, 0, true), nflog.Packet{Packet: syn4, Length: 40, Transport: true}},
		"a later IPv4 fragment":                {fragment4(raw4, 185, true), nflog.Packet{Packet: without(syn4), Length: 40, Fragment: true}},
		"a last IPv4 fragment":                 {fragment4(raw4, 8191, false), nflog.Packet{Packet: without(syn4), Length: 40, Fragment: true}},
		"a first IPv6 fragment":                {extend(raw6, 44, fragmentHeader(6, 0, true)), nflog.Packet{Packet: syn6, Length: 68, Transport: true}},
		"a later IPv6 fragment":                {extend(raw6, 44, fragmentHeader(6, 181, true)), nflog.Packet{Packet: without(syn6), Length: 68, Fragment: true}},
		"a fragment after options":             {extend(raw6, 0, option(44, 0), fragmentHeader(6, 1, false)), nflog.Packet{Packet: without(syn6), Length: 76, Fragment: true}},
		"a later fragment of one with options": {extend(raw6, 44, fragmentHeader(60, 181, true), option(6, 0)), nflog.Packet{Packet: as(syn6, 60), Length: 76, Fragment: true}},

		"hop-by-hop options":        {extend(marshal(t, udp6), 0, option(17, 0)), nflog.Packet{Packet: udp6, Length: 56, Transport: true}},
		"all extension headers":     {extend(marshal(t, udp6), 0, option(60, 1), option(43, 0), option(44, 2), fragmentHeader(60, 0, false), option(17, 0)), nflog.Packet{Packet: udp6, Length: 112, Transport: true}},
		"an authentication header":  {extend(raw6, 51, option(6, 1)), nflog.Packet{Packet: as(syn6, 51), Length: 76}},
		"mobility is a protocol":    {extend(raw6, 135, option(59, 0)), nflog.Packet{Packet: as(syn6, 135), Length: 68}},
		"nothing after the options": {extend(raw6[:40], 60, option(59, 0)), nflog.Packet{Packet: as(syn6, 59), Length: 48}},

		"cut after the ports":               {raw4[:24], nflog.Packet{Packet: between(flow.IPv4, flow.TCP, ports(51344, 22)), Length: 40, Transport: true}},
		"cut before the ports":              {raw4[:23], nflog.Packet{Packet: without(syn4), Length: 40}},
		"cut after the IPv6 header":         {raw6[:40], nflog.Packet{Packet: without(syn6), Length: 60}},
		"cut in an extension header":        {extend(raw6, 0, option(6, 1))[:50], nflog.Packet{Packet: as(syn6, 0), Length: 76}},
		"cut in a fragment header":          {extend(raw6, 44, fragmentHeader(6, 0, true))[:47], nflog.Packet{Packet: as(syn6, 44), Length: 68}},
		"an extension header that is a lie": {extend(raw6, 0, []byte{6, 255, 0, 0, 0, 0, 0, 0}), nflog.Packet{Packet: as(syn6, 0), Length: 68}},
		"padding after the packet":          {padded, nflog.Packet{Packet: without(syn4), Length: 20}},
		"an IPv4 length that says nothing":  {huge4, nflog.Packet{Packet: syn4, Length: 40, Transport: true}},
		"an IPv6 length that says nothing":  {huge6, nflog.Packet{Packet: syn6, Length: 60, Transport: true}},
	} {
		got, err := nflog.Parse(tt.bytes)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if d := cmp.Diff(tt.want, got, compareAddr); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestParseRefusesWhatIsNoPacket(t *testing.T) {
	t.Parallel()
	raw4, raw6 := marshal(t, between(flow.IPv4, flow.TCP)), marshal(t, between(flow.IPv6, flow.TCP))
	short := append([]byte(nil), raw4...)
	short[0] = 0x44
	for name, b := range map[string][]byte{
		"nothing": nil, "half an IPv4 header": raw4[:19], "half an IPv6 header": raw6[:39],
		"another version": {0x50}, "a header shorter than any": short,
	} {
		if p, err := nflog.Parse(b); err == nil {
			t.Errorf("%s is %v", name, &p)
		}
	}
}

// What is copied of a packet says the same as the whole packet, or nothing.
func TestParseOfACutPacketInventsNothing(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		want := randomPacket(rng)
		b := marshal(t, want)
		whole, err := nflog.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, whole.Packet, compareAddr); d != "" {
			t.Fatalf("%v (-want +got):\n%s", &want, d)
		}
		if whole.Length != len(b) {
			t.Fatalf("%v: length %d, want %d", &want, whole.Length, len(b))
		}
		for n := range b {
			cut, err := nflog.Parse(b[:n])
			if err != nil {
				continue
			}
			told := whole
			for _, f := range [][2]any{
				{&cut.SourcePort, &told.SourcePort}, {&cut.DestPort, &told.DestPort},
				{&cut.TCPFlags, &told.TCPFlags}, {&cut.ICMPType, &told.ICMPType}, {&cut.ICMPCode, &told.ICMPCode}, {&cut.Transport, &told.Transport},
			} {
				switch got := f[0].(type) {
				case *uint16:
					if *got == 0 {
						*f[1].(*uint16) = 0
					}
				case *uint8:
					if *got == 0 {
						*f[1].(*uint8) = 0
					}
				case *bool:
					if !*got {
						*f[1].(*bool) = false
					}
				}
			}
			cut.Quoted, told.Quoted = nil, nil
			if d := cmp.Diff(told, cut, compareAddr); d != "" {
				t.Fatalf("%v cut after %d bytes (-whole +cut):\n%s", &want, n, d)
			}
		}
	}
}

func randomPacket(rng *rand.Rand) flow.Packet {
	f := flow.Families[rng.IntN(2)]
	protocols := []flow.Protocol{flow.TCP, flow.UDP, flow.ICMPOf(f), 47, 50, 132, 253}
	p := between(f, protocols[rng.IntN(len(protocols))])
	p.HopLimit = uint8(1 + rng.IntN(255))
	switch {
	case p.Protocol.HasPorts():
		p.SourcePort, p.DestPort = uint16(rng.Uint32()), uint16(rng.Uint32())
		if p.Protocol == flow.TCP {
			p.TCPFlags = uint8(rng.Uint32())
		}
	case p.Protocol.IsICMP(f):
		p.ICMPType, p.ICMPCode = []uint8{128, 8, 0, 135, 143, 200}[rng.IntN(6)], uint8(rng.IntN(16))
		if f == flow.IPv6 {
			p.ICMPType |= 128
		}
	}
	return p
}

func FuzzParse(f *testing.F) {
	f.Add(marshal(f, between(flow.IPv4, flow.TCP, ports(1, 2))))
	f.Add(extend(marshal(f, between(flow.IPv6, flow.UDP, ports(1, 2))), 0, option(44, 1), fragmentHeader(17, 0, true)))
	f.Add(marshal(f, between(flow.IPv6, flow.ICMPv6, icmp(1, 4), quoting(between(flow.IPv6, flow.UDP, ports(1, 2))))))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := nflog.Parse(b)
		if err != nil {
			return
		}
		switch {
		case p.Source.Is4() != p.Dest.Is4() || !p.Source.IsValid() || !p.Dest.IsValid():
			t.Fatalf("addresses %s and %s", p.Source, p.Dest)
		case p.Length < 20:
			t.Fatalf("a length of %d", p.Length)
		case p.Transport && p.Fragment:
			t.Fatal("the transport header of a later fragment")
		case (p.SourcePort != 0 || p.DestPort != 0) && !(p.Transport && p.Protocol.HasPorts()):
			t.Fatalf("ports %d and %d of %s", p.SourcePort, p.DestPort, p.Protocol)
		case (p.ICMPType != 0 || p.ICMPCode != 0 || p.Quoted != nil) && !(p.Transport && p.Protocol.IsICMP(p.Family())):
			t.Fatalf("type %d of %s", p.ICMPType, p.Protocol)
		case p.Quoted != nil && p.Quoted.Quoted != nil:
			t.Fatal("a quoted packet quotes another")
		}
		if p.Fragment || p.Family() == flow.IPv6 && flow.Protocol(b[6]) != p.Protocol {
			return // the witness knows neither fragments nor extension headers
		}
		w, _, err := lab.Parse(b)
		if err != nil {
			return
		}
		w.Quoted, p.Quoted = nil, nil
		if !p.Transport || w.Protocol == flow.TCP && w.TCPFlags == 0 {
			w.TCPFlags, p.TCPFlags = 0, 0
		}
		if p.Protocol.IsICMP(p.Family()) && w.ICMPType == 0 {
			w.ICMPType, w.ICMPCode, p.ICMPType, p.ICMPCode = 0, 0, 0, 0 // it wants a whole header
		}
		if p.Family() == flow.IPv6 && binary.BigEndian.Uint16(b[4:]) == 0 {
			return // it takes the length at its word
		}
		if d := cmp.Diff(w, p.Packet, compareAddr); d != "" {
			t.Fatalf("(-lab +nflog):\n%s", d)
		}
	})
}
