package compile_test

import (
	"net/netip"
	"strings"
	"testing"

	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/nftvm"
	"sgc/policies"
)

// TestAdoptionWindow: while it is open, TCP in the middle of a connection that is
// routed is judged by the rules; all other is refused as ever.
func TestAdoptionWindow(t *testing.T) {
	open := &policies.Rule{Group: "web", Direction: flow.Ingress, ID: "http", Protocol: flow.TCP, Ports: []flow.PortRange{{First: 80, Last: 80}},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
	ssh := &policies.Rule{Group: "web", Direction: flow.Ingress, ID: "ssh", Protocol: flow.TCP, Ports: []flow.PortRange{{First: 22, Last: 22}},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:7::/48")}}
	any := &policies.Rule{Group: "web", Direction: flow.Egress, ID: "any", AllProtocols: true,
		Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
	p := &policies.Policy{
		Groups: []*policies.Group{{Name: "web", Rules: []*policies.Rule{open, ssh, any}}},
		Interfaces: []*policies.Interface{
			{Name: "eth0", Groups: []string{"web"}},
			{Name: "eth1", Groups: []string{"web"}, AlwaysTrack: []*policies.AlwaysTrack{{ID: "all", Prefixes: any.Prefixes}}},
		},
	}
	table := compile.Compile(p, compile.Environment{})
	set, elements := compile.Adoption()
	var timed []nftvm.Timed
	for _, e := range elements {
		if e.Timeout != compile.AdoptionWindow {
			t.Errorf("an element lives for %s", e.Timeout)
		}
		timed = append(timed, nftvm.Timed{Set: set, Element: e})
	}
	vms := map[string]*nftvm.VM{}
	for name, timed := range map[string][]nftvm.Timed{"closed": nil, "IPv4": timed[:1], "both": timed} {
		vm, err := nftvm.New(table, timed...)
		if err != nil {
			t.Fatal(err)
		}
		vms[name] = vm
	}
	for _, row := range []struct {
		about     string
		port      uint16
		egress    bool
		forwarded bool
		state     flow.State
		flags     uint8
		// allowed says in which window the packet passes: "never", "open",
		// "always".
		allowed string
	}{
		{"the host's own", 22, false, false, flow.New, flow.ACK, "never"},
		{"routed", 22, false, true, flow.New, flow.ACK, "open"},
		{"routed out", 443, true, true, flow.New, flow.ACK, "open"},
		{"the host's own, out", 443, true, false, flow.New, flow.ACK, "never"},
		{"routed, no rule allows it", 23, false, true, flow.New, flow.ACK, "never"},
		{"routed and invalid", 22, false, true, flow.Invalid, flow.ACK, "never"},
		{"a SYN", 22, false, true, flow.New, flow.SYN, "always"},
		{"of a known flow", 22, false, true, flow.Established, flow.ACK, "always"},
		{"an answer, routed", 22, true, true, flow.New, flow.SYN | flow.ACK, "open"},
	} {
		for _, f := range flow.Families {
			for _, iface := range []string{"eth0", "eth1"} {
				packet := flow.Packet{
					Interface: iface, Protocol: flow.TCP, HopLimit: 64, State: row.state, TCPFlags: row.flags, Forwarded: row.forwarded,
					Source: netip.MustParseAddr("10.1.2.3"), SourcePort: 40000, Dest: netip.MustParseAddr("192.0.2.10"), DestPort: row.port,
				}
				if f == flow.IPv6 {
					packet.Source, packet.Dest = netip.MustParseAddr("2001:db8:7::7"), netip.MustParseAddr("2001:db8::10")
				}
				if row.egress {
					packet.Direction = flow.Egress
				}
				for window, vm := range vms {
					isOpen := window == "both" || window == "IPv4" && f == flow.IPv4
					want := row.allowed == "always" || row.allowed == "open" && isOpen
					result, err := vm.Trace(&packet)
					if err != nil {
						t.Fatal(err)
					}
					if result.Accept != want {
						t.Errorf("%s, window %s: %s: accept %t\n%s", row.about, window, &packet, result.Accept, strings.Join(result.Trace, "\n"))
					}
				}
			}
		}
	}
}
