package compile_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/nftvm"
	"sgc/policies"
)

// A list of many sets and an ACL of as many entries mean what they say.
func TestDecideAgreesOnLargeLists(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	addr := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(rng.IntN(4)), byte(rng.Uint32()), byte(rng.Uint32())})
	}
	list := &policies.PrefixList{Name: "many"}
	for range 20000 {
		list.Entries = append(list.Entries, netip.PrefixFrom(addr(), 26+rng.IntN(7)).Masked())
	}
	acl := &policies.ACL{Name: "edge"}
	for n := range 20000 {
		acl.Entries = append(acl.Entries, &policies.ACLEntry{
			ACL: "edge", Direction: flow.Ingress, Number: n + 1, Allow: rng.IntN(2) == 0, AllProtocols: true,
			Prefix: netip.PrefixFrom(addr(), 26+rng.IntN(7)).Masked(),
		})
	}
	acl.Entries = append(acl.Entries, &policies.ACLEntry{
		ACL: "edge", Direction: flow.Ingress, Number: 32000, Allow: true, AllProtocols: true, Prefix: netip.MustParsePrefix("0.0.0.0/0"),
	})
	rule := func(id string, ports flow.PortRange) *policies.Rule {
		return &policies.Rule{
			Group: "web", Direction: flow.Ingress, ID: id, Protocol: flow.TCP,
			Ports: []flow.PortRange{ports}, Lists: []string{"many"},
		}
	}
	p := &policies.Policy{
		Groups:     []*policies.Group{{Name: "web", Rules: []*policies.Rule{rule("https", flow.PortRange{First: 443, Last: 443}), rule("ssh", flow.PortRange{First: 22, Last: 22})}}},
		Lists:      []*policies.PrefixList{list},
		ACLs:       []*policies.ACL{acl},
		Interfaces: []*policies.Interface{{Name: "eth0", Groups: []string{"web"}, ACL: "edge"}, {Name: "eth1", Groups: []string{"web"}}},
	}
	vm, err := nftvm.New(compile.Compile(p, compile.Environment{}))
	if err != nil {
		t.Fatal(err)
	}
	judge := policies.NewJudge(p)
	seen := map[bool]int{}
	for range 20000 {
		packet := flow.Packet{
			Interface: []string{"eth0", "eth1"}[rng.IntN(2)], Direction: flow.Ingress, Protocol: flow.TCP, TCPFlags: flow.SYN,
			Source: addr(), Dest: netip.MustParseAddr("192.0.2.10"),
			SourcePort: 40000, DestPort: []uint16{22, 443, 80}[rng.IntN(3)],
		}
		if rng.IntN(2) == 0 { // at a border
			r := flow.RangeOf(list.Entries[rng.IntN(len(list.Entries))])
			packet.Source = []netip.Addr{r.First, r.First.Prev(), r.Last, r.Last.Next()}[rng.IntN(4)]
		}
		result, err := vm.Run(&packet)
		if err != nil {
			t.Fatal(err)
		}
		d := judge.Decide(&packet)
		if result.Accept != d.Allow {
			t.Fatalf("%s: the rules say %v, the policy %v: %s", &packet, result.Accept, d.Allow, d.Reason)
		}
		seen[d.Allow]++
	}
	if seen[true] < 2000 || seen[false] < 2000 {
		t.Errorf("packets allowed and refused: %v", seen)
	}
}
