package flow

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func TestRangeOf(t *testing.T) {
	for _, c := range []struct{ prefix, first, last string }{
		{"10.0.0.0/8", "10.0.0.0", "10.255.255.255"},
		{"10.1.2.3/8", "10.0.0.0", "10.255.255.255"},
		{"192.0.2.5/32", "192.0.2.5", "192.0.2.5"},
		{"192.0.2.4/31", "192.0.2.4", "192.0.2.5"},
		{"0.0.0.0/0", "0.0.0.0", "255.255.255.255"},
		{"2001:db8::/33", "2001:db8::", "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff"},
		{"::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	} {
		got := RangeOf(netip.MustParsePrefix(c.prefix))
		want := Range{netip.MustParseAddr(c.first), netip.MustParseAddr(c.last)}
		if got != want {
			t.Errorf("%s: got %v, want %v", c.prefix, got, want)
		}
	}
}

// A merge keeps exactly the addresses, in disjoint ranges with gaps between.
func TestMergeRangesKeepsTheAddresses(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	at := func(n int) netip.Addr {
		if n < 256 {
			return netip.AddrFrom4([4]byte{255, 255, 255, byte(n)}) // up to the end of the space
		}
		return netip.AddrFrom16([16]byte{15: byte(n)})
	}
	for range 500 {
		var in []Range
		for range rng.IntN(12) {
			family := 256 * rng.IntN(2)
			a, b := rng.IntN(256), rng.IntN(256)
			in = append(in, Range{at(family + min(a, b)), at(family + max(a, b))})
		}
		out := MergeRanges(slices.Clone(in))
		for n := range 512 {
			has := func(r Range) bool { return FamilyOf(r.First) == FamilyOf(at(n)) && r.Contains(at(n)) }
			if got, want := slices.ContainsFunc(out, has), slices.ContainsFunc(in, has); got != want {
				t.Fatalf("%v merges to %v: %s is in it: %v, was: %v", in, out, at(n), got, want)
			}
		}
		for i := 1; i < len(out); i++ {
			if FamilyOf(out[i].First) == FamilyOf(out[i-1].First) && out[i].First.Compare(out[i-1].Last.Next()) <= 0 {
				t.Fatalf("%v and %v touch", out[i-1], out[i])
			}
		}
	}
}

func TestPrefixesAreTheRange(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		a, b := byte(rng.IntN(256)), byte(rng.IntN(256))
		r := Range{netip.AddrFrom4([4]byte{10, 0, 0, min(a, b)}), netip.AddrFrom4([4]byte{10, 0, 0, max(a, b)})}
		prefixes := r.Prefixes()
		next := r.First
		for _, p := range prefixes {
			if p.Addr() != next {
				t.Fatalf("%v: %v begins at %s and not at %s", r, prefixes, p, next)
			}
			next = RangeOf(p).Last.Next()
		}
		if next != r.Last.Next() {
			t.Fatalf("%v: %v ends before %s", r, prefixes, next)
		}
		if len(prefixes) > 14 {
			t.Fatalf("%v is %d prefixes", r, len(prefixes))
		}
	}
	for _, f := range Families {
		if p := RangeOf(f.Any()).Prefixes(); len(p) != 1 || p[0] != f.Any() {
			t.Errorf("the whole %s space is %v", f, p)
		}
	}
}

func TestRangesThatHoldNothingHaveNoPrefixes(t *testing.T) {
	low, high, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8::1")
	for _, r := range []Range{{high, low}, {low, six}, {six, low}, {}, {First: low}, {Last: low}} {
		if p := r.Prefixes(); p != nil {
			t.Errorf("%v has prefixes %v", r, p)
		}
	}
	if p := (Range{low, low}).Prefixes(); len(p) != 1 || p[0] != netip.PrefixFrom(low, 32) {
		t.Errorf("one address is %v", p)
	}
}

func TestParseProtocol(t *testing.T) {
	for in, want := range map[string]Protocol{"tcp": TCP, "TCP": TCP, "17": UDP, "icmpv6": ICMPv6, "ipv6-icmp": ICMPv6, "gre": 47, "0": 0, "255": 255} {
		if got, err := ParseProtocol(in); err != nil || got != want {
			t.Errorf("%q: got %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "-1", "256", "65536", "tpc", "all", " tcp"} {
		if got, err := ParseProtocol(in); err == nil {
			t.Errorf("%q is %v, want an error", in, got)
		}
	}
	for n := range 256 {
		p := Protocol(n)
		if got, err := ParseProtocol(p.String()); err != nil || got != p {
			t.Errorf("%d is called %s, which reads as %v, %v", n, p, got, err)
		}
	}
}

func TestReplyOfAReplyIsThePacket(t *testing.T) {
	p := Packet{
		Interface: "eth0", Direction: Ingress, Protocol: TCP, State: New, TCPFlags: SYN,
		Source: netip.MustParseAddr("192.0.2.1"), Dest: netip.MustParseAddr("192.0.2.2"), SourcePort: 1, DestPort: 2,
	}
	r := p.Reply()
	if r.Direction != Egress || r.Peer() != p.Peer() || r.LocalPort() != p.LocalPort() || r.PeerPort() != p.PeerPort() {
		t.Errorf("the reply is %v", &r)
	}
	if again := r.Reply(); again != p {
		t.Errorf("got %v, want %v", &again, &p)
	}
}
