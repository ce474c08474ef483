package lab_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// samePacket compares what a packet on the wire shows.
var samePacket = cmp.Options{
	cmpopts.IgnoreFields(flow.Packet{}, "Interface", "Direction", "State", "Forwarded"),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

func randomAddr(r *rand.Rand, f flow.Family) netip.Addr {
	b := make([]byte, f.Bits()/8)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func randomPacket(r *rand.Rand) flow.Packet {
	f := flow.Families[r.IntN(2)]
	p := flow.Packet{
		Source: randomAddr(r, f), Dest: randomAddr(r, f), HopLimit: uint8(1 + r.IntN(255)),
		Protocol: []flow.Protocol{flow.TCP, flow.UDP, flow.ICMP, flow.ICMPv6, 47, flow.Protocol(r.IntN(256))}[r.IntN(6)],
	}
	switch {
	case p.Protocol.HasPorts():
		p.SourcePort, p.DestPort = uint16(r.Uint32()), uint16(r.Uint32())
		if p.Protocol == flow.TCP {
			p.TCPFlags = uint8(r.Uint32())
		}
	case p.Protocol.IsICMP(f):
		p.ICMPType, p.ICMPCode = uint8(r.Uint32()), uint8(r.Uint32())
	}
	return p
}

func TestMarshalAndParseAreOpposites(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 20000 {
		want := randomPacket(r)
		if f := want.Family(); want.Protocol.IsICMP(f) && r.IntN(2) == 0 {
			quoted := randomPacket(r)
			for quoted.Family() != f {
				quoted = randomPacket(r)
			}
			want.ICMPType = map[flow.Family][]uint8{flow.IPv4: {3, 4, 5, 11, 12}, flow.IPv6: {1, 2, 3, 4, 100}}[f][r.IntN(5)]
			want.Quoted = &quoted
		}
		e := lab.Envelope{ID: uint16(r.Uint32()), Class: uint8(r.Uint32()), BadChecksum: r.IntN(4) == 0}
		b, err := lab.Marshal(&want, e)
		if err != nil {
			t.Fatalf("seed %d: %s: %v", seed, &want, err)
		}
		got, gotEnvelope, err := lab.Parse(b)
		if err != nil {
			t.Fatalf("seed %d: %s: %v", seed, &want, err)
		}
		if diff := cmp.Diff(want, got, samePacket); diff != "" {
			t.Fatalf("seed %d: %s (-want +got):\n%s", seed, &want, diff)
		}
		hasChecksum := want.Protocol.HasPorts() || want.Protocol.IsICMP(want.Family())
		if gotEnvelope.ID != e.ID || gotEnvelope.Class != e.Class || gotEnvelope.BadChecksum != (e.BadChecksum && hasChecksum) {
			t.Fatalf("seed %d: %s: got envelope %+v, want %+v", seed, &want, gotEnvelope, e)
		}
	}
}

func TestMarshalPutsAHeaderBeforeTheZeros(t *testing.T) {
	t.Parallel()
	p := flow.Packet{Protocol: 132, Source: addr("192.0.2.1"), Dest: addr("192.0.2.2")}
	header := []byte("a header of any protocol")
	b, err := lab.Marshal(&p, lab.Envelope{Header: header, Payload: []byte("payload")})
	if err != nil {
		t.Fatal(err)
	}
	want := string(header) + string(make([]byte, 32-len(header))) + "payload"
	if got := string(b[20:]); got != want {
		t.Errorf("got body %q, want %q", got, want)
	}
	if _, err := lab.Marshal(&p, lab.Envelope{Header: make([]byte, 33)}); err == nil {
		t.Error("a header that is too long was cut")
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range []flow.Packet{
		{Protocol: flow.TCP, Source: addr("192.0.2.1"), Dest: addr("192.0.2.2"), SourcePort: 1, DestPort: 2},
		{Protocol: flow.ICMPv6, Source: addr("2001:db8::1"), Dest: addr("2001:db8::2"), ICMPType: 1,
			Quoted: &flow.Packet{Protocol: flow.UDP, Source: addr("2001:db8::2"), Dest: addr("2001:db8::1")}},
	} {
		b, err := lab.Marshal(&p, lab.Envelope{ID: 7})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		lab.Parse(b) // never panics
	})
}
