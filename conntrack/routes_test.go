package conntrack

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// ip runs lines of ip's batch mode in the namespace.
func ip(t *testing.T, ns *lab.Namespace, lines ...string) {
	t.Helper()
	if err := ns.Do(func() error {
		for _, family := range []string{"-4", "-6"} {
			var mine []string
			for _, l := range lines {
				if f, line, _ := strings.Cut(l, " "); f == family {
					mine = append(mine, line)
				}
			}
			cmd := exec.Command("ip", family, "-batch", "-")
			cmd.Stdin = strings.NewReader(strings.Join(mine, "\n"))
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// What the tables say must be what the kernel says.
func TestRoutesAreTheKernels(t *testing.T) {
	labtest.Command(t, "ip")
	for _, tc := range []struct {
		name  string
		lines []string
		// asks says that the kernel is asked about everything.
		asks bool
	}{
		{"a default route", nil, false},
		{"networks behind a neighbour", []string{
			"-4 route add 10.0.0.0/8 via 172.17.0.2", "-4 route add 10.1.0.0/16 via 192.0.2.1", "-4 route add 10.1.1.1/32 via 172.17.0.2",
			"-6 route add 2001:db8:9::/48 via fd00:17::2", "-6 route add 2001:db8:9:1::/64 via 2001:db8::1"}, false},
		{"networks that lead nowhere", []string{
			"-4 route add blackhole 10.0.0.0/8", "-4 route add unreachable 10.1.0.0/16", "-4 route add prohibit 10.1.1.0/24", "-4 route add throw 10.1.1.1/32",
			"-6 route add blackhole 2001:db8:9::/48", "-6 route add unreachable 2001:db8:9:1::/64"}, false},
		{"the better of two", []string{
			"-4 route add 10.0.0.0/8 via 172.17.0.2 metric 20", "-4 route add 10.0.0.0/8 via 192.0.2.1 metric 10",
			"-6 route add 2001:db8:9::/48 via 2001:db8::1 metric 20", "-6 route add 2001:db8:9::/48 via fd00:17::2 metric 10"}, false},
		{"several ways, all by one link", []string{
			"-4 route add 10.0.0.0/8 nexthop via 172.17.0.2 nexthop via 172.17.0.3",
			"-6 route add 2001:db8:9::/48 nexthop via fd00:17::2 nexthop via fd00:17::3"}, false},
		{"a service of its own", []string{"-4 route add 10.0.0.0/8 tos 0x10 via 172.17.0.2", "-4 route add 10.0.0.0/8 via 192.0.2.1"}, false},
		{"a route by the source", []string{"-6 route add 2001:db8:9::/48 from 2001:db8::/64 via fd00:17::2"}, false},
		{"another table", []string{"-4 route add 10.0.0.0/8 via 172.17.0.2 table 77", "-4 rule add to 10.1.0.0/16 lookup 77"}, true},
		{"another table of IPv6", []string{"-6 route add 2001:db8:9::/48 via fd00:17::2 table 77", "-6 rule add to 2001:db8:9::/64 lookup 77"}, true},
		{"a rule for packets with a mark", []string{"-4 rule add fwmark 1 lookup main"}, true},
		{"a rule that passes default routes over", []string{"-4 rule add lookup main suppress_prefixlength 0"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ns := hostNamespace(t)
			ip(t, ns, tc.lines...)
			routes, err := openTable(t, ns).Routes()
			if err != nil {
				t.Fatal(err)
			}
			defer routes.Close()
			if routes.main.rules != tc.asks {
				t.Errorf("asks about everything: %t", routes.main.rules)
			}
			known := 0
			r := rand.New(rand.NewPCG(1, 2))
			for range 300 {
				a := netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), byte(r.IntN(3)), byte(1 + r.IntN(3))})
				switch r.IntN(4) {
				case 0:
					a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 9, 0, byte(r.IntN(3)), 15: byte(1 + r.IntN(9))})
				case 1:
					a = netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + r.IntN(9))})
				}
				if _, ok := routes.main.link(a); ok {
					known++
				}
				got, err := routes.peer(a)
				if err != nil {
					t.Fatal(err)
				}
				want, err := routes.ask(question{to: a})
				if err != nil {
					t.Fatal(err)
				}
				if got != want {
					t.Errorf("%s is by link %d, but the kernel says %d", a, got, want)
				}
			}
			if (known == 0) != tc.asks {
				t.Errorf("%d of 300 addresses are known without asking", known)
			}
		})
	}
}

func TestAddressesOnSeveralLinks(t *testing.T) {
	ns := hostNamespace(t)
	ip(t, ns, "-4 addr add 203.0.113.200/32 dev eth0", "-4 addr add 203.0.113.200/32 dev br0", "-4 addr add 203.0.113.201/32 dev lo",
		"-4 addr add 203.0.113.201/32 dev br0", "-4 addr add 203.0.113.202/32 dev br0",
		"-4 addr add 198.18.0.1/16 dev br0 noprefixroute", "-4 addr add 198.19.0.1/24 dev br0", "-4 addr add 198.19.0.2/24 dev eth0",
		"-4 route add 10.0.0.0/8 via 172.17.0.2")
	routes, err := openTable(t, ns).Routes()
	if err != nil {
		t.Fatal(err)
	}
	defer routes.Close()
	for _, tc := range []struct{ name, host, peer, want string }{
		{"on two links, by the route to the peer", "203.0.113.200", "198.51.100.1", "eth0"},
		{"on two links, by the other route", "203.0.113.200", "10.1.1.1", "br0"},
		{"on one link, whatever the routes say", "203.0.113.202", "198.51.100.1", "br0"},
		{"on a link and the loopback, by the route", "203.0.113.201", "198.51.100.1", "eth0"},
		{"the peer's network comes first", "192.0.2.10", "172.17.0.9", "br0"},
		{"a network without a route is none", "192.0.2.10", "198.18.0.9", "eth0"},
		{"of two links on the peer's network, the one with the address", "198.19.0.1", "198.19.0.9", "br0"},
		{"of two links on the peer's network, the other", "198.19.0.2", "198.19.0.9", "eth0"},
	} {
		for _, l := range []leg{
			{direction: flow.Ingress, source: netip.MustParseAddr(tc.peer), dest: netip.MustParseAddr(tc.host)},
			{direction: flow.Egress, source: netip.MustParseAddr(tc.host), dest: netip.MustParseAddr(tc.peer)},
		} {
			if w, err := routes.way(&l); err != nil || routes.names[w.link] != tc.want {
				t.Errorf("%s, %s: %q, %v; want %s", tc.name, l.direction, routes.names[w.link], err, tc.want)
			}
		}
	}
}

func TestTablesThatAreTooLongAreNotCopied(t *testing.T) {
	ns := hostNamespace(t)
	routes, err := openTable(t, ns).Routes()
	if err != nil {
		t.Fatal(err)
	}
	defer routes.Close()
	a := netip.MustParseAddr("198.51.100.1")
	link, ok := routes.main.link(a)
	routes.main.routes = maxRoutes + 1
	if _, known := routes.main.link(a); !ok || known {
		t.Errorf("known %t, and with too many routes %t", ok, known)
	}
	if got, err := routes.peer(a); err != nil || got != link {
		t.Errorf("link %d, %v; want %d", got, err, link)
	}
}
