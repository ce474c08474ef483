package policies

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sgc/internal/flow"
)

// What parsePrefix takes, it writes canonically: taking that again changes
// nothing and is canonical. A prefix that it calls canonical was written with
// no bits behind its length.
func TestParsePrefixIsCanonical(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 20_000 {
		var a netip.Addr
		if random.IntN(2) == 0 {
			a = netip.AddrFrom4([4]byte{byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())})
		} else {
			var b [16]byte
			for i := range b {
				b[i] = byte(random.Uint32())
			}
			a = netip.AddrFrom16(b)
		}
		want := netip.PrefixFrom(a, random.IntN(a.BitLen()+1))
		p, canonical, problem := parsePrefix(want.String(), prefixForm{family: flow.FamilyOf(a)})
		if problem != "" || p != want.Masked() || canonical != (want == want.Masked()) {
			t.Fatalf("%s is %s, %v, %q", want, p, canonical, problem)
		}
		again, canonical, problem := parsePrefix(p.String(), prefixForm{})
		if problem != "" || again != p || !canonical {
			t.Fatalf("%s again is %s, %v, %q", p, again, canonical, problem)
		}
		if _, _, problem := parsePrefix(want.String(), prefixForm{family: 10 - flow.FamilyOf(a), other: "the_other_one"}); !strings.Contains(problem, "the_other_one") {
			t.Fatalf("%s passes in the wrong family, or without the right attribute: %q", want, problem)
		}
	}
}

// Nothing that is not exactly a CIDR passes.
func TestParsePrefixRefuses(t *testing.T) {
	for _, s := range []string{
		"", "/", "/8", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0.0/33", "10.0.0/8", "10.0.0.0.0/8", "256.0.0.0/8",
		"0x0a000000/8", "10/8", "010.0.0.0/8", "10.0.0.0/8 ", " 10.0.0.0/8", "10.0.0.0 /8", "10.0.0.0/8/8", "10.0.0.0/255.0.0.0",
		"::/129", "::1::/64", "2001:db8/32", ":::/0", "fe80::1%eth0/64", "::ffff:10.0.0.0/104", "::ffff:0:0/96", "10.0.0.0/8\x00", "１０.0.0.0/8",
	} {
		if p, _, problem := parsePrefix(s, prefixForm{addresses: true}); problem == "" {
			t.Errorf("%q is %s", s, p)
		}
	}
	for _, s := range []string{"10.0.0.1", "2001:db8::1"} {
		if _, _, problem := parsePrefix(s, prefixForm{}); !strings.Contains(problem, s+"/") {
			t.Errorf("the address %s passes as a CIDR, or is not offered as one: %q", s, problem)
		}
		if p, canonical, problem := parsePrefix(s, prefixForm{addresses: true}); problem != "" || !canonical || !p.IsSingleIP() {
			t.Errorf("the address %s is %s, %v, %q", s, p, canonical, problem)
		}
	}
}

func TestMergePorts(t *testing.T) {
	ranges := func(ends ...uint16) (out []flow.PortRange) {
		for i := 0; i < len(ends); i += 2 {
			out = append(out, flow.PortRange{First: ends[i], Last: ends[i+1]})
		}
		return out
	}
	for _, c := range []struct{ in, want []flow.PortRange }{
		{nil, nil},
		{ranges(80, 80, 22, 22), ranges(22, 22, 80, 80)},
		{ranges(80, 80, 81, 90), ranges(80, 90)},
		{ranges(80, 100, 85, 90, 102, 102), ranges(80, 100, 102, 102)},
		{ranges(65535, 65535, 0, 65535, 0, 0), ranges(0, 65535)},
	} {
		if got := mergePorts(slices.Clone(c.in)); !slices.Equal(got, c.want) {
			t.Errorf("%v becomes %v, want %v", c.in, got, c.want)
		}
	}
}
