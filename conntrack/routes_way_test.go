package conntrack

import (
	"net/netip"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// bySource gives a host tables that its addresses choose: what its address on br0 or
// a service's address on the loopback sends leaves by br0, and what the machine behind
// br0 sends by a link of its own.
func bySource(t *testing.T) *lab.Namespace {
	t.Helper()
	labtest.Command(t, "ip")
	ns := hostNamespace(t)
	if err := ns.Forward(); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"all", "eth0", "br0"} {
		if err := ns.SetSysctl("net/ipv4/conf/"+link+"/rp_filter", "0"); err != nil {
			t.Fatal(err)
		}
	}
	labtest.Connect(t,
		lab.End{Namespace: ns, Interface: "away", Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.9.1/24"), netip.MustParsePrefix("2001:db8:99::1/64")}},
		lab.End{Namespace: labtest.Namespace(t, "away"), Interface: "wire"})
	ip(t, ns, "-4 addr add 192.0.2.200/32 dev lo",
		"-4 route add default via 172.17.0.2 table 77", "-4 route add default dev away table 78",
		"-4 rule add from 172.17.0.1 lookup 77", "-4 rule add from 192.0.2.200 lookup 77", "-4 rule add from 172.17.0.2 lookup 78",
		"-4 rule add iif br0 to 203.0.113.0/24 lookup 78",
		"-6 route add default via fd00:17::2 table 77", "-6 route add default dev away table 78",
		"-6 rule add from fd00:17::1 lookup 77", "-6 rule add from fd00:17::2 lookup 78")
	return ns
}

// Where routes look at the source, the flow's own address tells more than the peer's
// network.
func TestWaysBySource(t *testing.T) {
	plain, err := openTable(t, hostNamespace(t)).Routes()
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	routes, err := openTable(t, bySource(t)).Routes()
	if err != nil {
		t.Fatal(err)
	}
	defer routes.Close()
	if plain.main.origins || !routes.main.origins {
		t.Fatalf("routes look at the source: %t without rules, %t with them", plain.main.origins, routes.main.origins)
	}
	const in, out = flow.Ingress, flow.Egress
	for _, tc := range []struct {
		name         string
		direction    flow.Direction
		source, dest string
		// behind is the other end of a routed flow.
		behind        string
		want, without string
	}{
		{"a neighbour of one link asks for the address of another", in, "192.0.2.77", "172.17.0.1", "", "br0", "eth0"},
		{"the same over IPv6", in, "2001:db8::77", "fd00:17::1", "", "br0", "eth0"},
		{"the host asks such a neighbour", out, "172.17.0.1", "192.0.2.77", "", "br0", "eth0"},
		{"the same over IPv6", out, "fd00:17::1", "2001:db8::77", "", "br0", "eth0"},
		{"a neighbour asks for the address of its own link", in, "192.0.2.77", "192.0.2.10", "", "eth0", "eth0"},
		{"a machine inside asks for the address outside", in, "172.17.0.9", "192.0.2.10", "", "br0", "br0"},
		{"somebody far away asks for the one address", in, "198.51.100.7", "192.0.2.10", "", "eth0", "eth0"},
		{"somebody far away asks for the other", in, "198.51.100.7", "172.17.0.1", "", "br0", "br0"},
		{"the host asks somebody far away from that", out, "172.17.0.1", "198.51.100.7", "", "br0", "br0"},
		{"somebody far away asks for a service's address", in, "198.51.100.7", "192.0.2.200", "", "br0", "eth0"},
		{"a machine inside asks somebody far away: there", in, "172.17.0.2", "198.51.100.7", "198.51.100.7", "br0", "br0"},
		{"and there it leaves", out, "172.17.0.2", "198.51.100.7", "172.17.0.2", "away", "eth0"},
		{"and it leaves over IPv6", out, "fd00:17::2", "2001:db8:7::7", "fd00:17::2", "away", "eth0"},
		{"another machine inside asks", out, "172.17.0.3", "198.51.100.7", "172.17.0.3", "eth0", "eth0"},
		{"and asks who is sent for elsewhere", out, "172.17.0.3", "203.0.113.7", "172.17.0.3", "away", "eth0"},
		{"somebody far away asks the machine inside", in, "198.51.100.7", "172.17.0.2", "172.17.0.2", "away", "eth0"},
	} {
		for _, at := range []struct {
			routes *Routes
			want   string
		}{{routes, tc.want}, {plain, tc.without}} {
			l := leg{direction: tc.direction, source: netip.MustParseAddr(tc.source), dest: netip.MustParseAddr(tc.dest)}
			if tc.behind != "" {
				l.forwarded, l.behind = true, netip.MustParseAddr(tc.behind)
			}
			for range 2 { // the second time from what is remembered
				if w, err := at.routes.way(&l); err != nil || at.routes.names[w.link] != at.want {
					t.Errorf("%s, by source %t: %q, %v; want %q", tc.name, at.routes == routes, at.routes.names[w.link], err, at.want)
				}
			}
		}
	}
}
