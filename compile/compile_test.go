package compile

import (
	"net/netip"
	"os"
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

func pfx(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestScratch(t *testing.T) {
	web := &policies.Group{Name: "web", Members: pfx("192.0.2.10/32"), Rules: []*policies.Rule{
		{Group: "web", Direction: flow.Ingress, ID: "http", Protocol: flow.TCP, Ports: []flow.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8099}}, Prefixes: pfx("0.0.0.0/0", "::/0")},
		{Group: "web", Direction: flow.Ingress, ID: "ssh", Protocol: flow.TCP, Ports: []flow.PortRange{{First: 22, Last: 22}}, Prefixes: pfx("203.0.113.1/32")},
		{Group: "web", Direction: flow.Ingress, ID: "db", Protocol: flow.TCP, Ports: []flow.PortRange{{First: 5432, Last: 5432}}, Lists: []string{"partners"}, Groups: []string{"web"}},
		{Group: "web", Direction: flow.Ingress, ID: "ping", Protocol: flow.ICMP, ICMPType: 8, ICMPCode: -1, Prefixes: pfx("0.0.0.0/0")},
		{Group: "web", Direction: flow.Ingress, ID: "icmp3", Protocol: flow.ICMP, ICMPType: 5, ICMPCode: 1, Prefixes: pfx("10.0.0.0/8")},
		{Group: "web", Direction: flow.Ingress, ID: "gre", Protocol: 47, Prefixes: pfx("10.0.0.0/8", "2001:db8::/33")},
		{Group: "web", Direction: flow.Egress, ID: "any", AllProtocols: true, Prefixes: pfx("0.0.0.0/0", "::/0")},
	}}
	p := &policies.Policy{
		Groups:     []*policies.Group{web},
		Lists:      []*policies.PrefixList{{Name: "partners", Entries: pfx("198.51.100.0/24", "2001:db8:7::/48")}},
		Interfaces: []*policies.Interface{{Name: "eth0", Groups: []string{"web"}}, {Name: "eth*"}, {Name: "wg-0.1", Groups: []string{"web"}, NotrackOff: true}},
		Host:       policies.Host{DNSResolvers: pfx("192.0.2.2/32")},
	}
	f, _ := os.Create("/tmp/out.nft")
	Compile(p, Environment{}).WriteText(f)
	f.Close()
}
