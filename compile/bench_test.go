package compile

import (
	"fmt"
	"io"
	"net/netip"
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

// rules10000 returns a policy of 10,000 rules, each with ports and CIDRs of
// its own.
func rules10000() *policies.Policy {
	var rules []*policies.Rule
	for i := range 10000 {
		rules = append(rules, tcpRule(fmt.Sprintf("r%d", i), uint16(1000+i*3), uint16(1001+i*3), fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)))
	}
	return webPolicy(rules...)
}

// list returns a policy with one rule for a prefix list of n CIDRs.
func list(n int) *policies.Policy {
	l := &policies.PrefixList{Name: "many"}
	for i := range n {
		a := netip.AddrFrom4([4]byte{byte(10 + i>>20), byte(i >> 12), byte(i >> 4), byte(i << 4)})
		l.Entries = append(l.Entries, netip.PrefixFrom(a, 29))
	}
	p := webPolicy(&policies.Rule{
		Group: "web", Direction: flow.Ingress, ID: "many", Protocol: flow.TCP,
		Ports: []flow.PortRange{{First: 443, Last: 443}}, Lists: []string{"many"},
	})
	p.Lists = []*policies.PrefixList{l}
	return p
}

func benchmarkCompile(b *testing.B, p *policies.Policy) {
	b.ReportAllocs()
	for b.Loop() {
		if err := Compile(p, Environment{}).WriteText(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile10000Rules(b *testing.B)   { benchmarkCompile(b, rules10000()) }
func BenchmarkCompile1000000CIDRs(b *testing.B) { benchmarkCompile(b, list(1_000_000)) }
