package conntrack

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

func TestWhatTheKernelIsAskedToLeaveOut(t *testing.T) {
	port := func(p uint16) []flow.PortRange { return []flow.PortRange{{First: p, Last: p}} }
	for _, tc := range []struct {
		name   string
		filter Filter
		dumps  int
		family uint8
	}{
		{"nothing", Filter{}, 1, unix.AF_UNSPEC},
		{"nothing that only the judge knows", Filter{Interfaces: []string{"eth0"}, Groups: []string{"web"}, Revoked: true}, 1, unix.AF_UNSPEC},
		{"a network says the family", Filter{Peers: networks("2001:db8::/32")}, 1, unix.AF_INET6},
		{"a range of ports", Filter{Ports: []flow.PortRange{{First: 1, Last: 2}}}, 1, unix.AF_UNSPEC},
		{"a protocol", Filter{Protocols: []flow.Protocol{flow.UDP}}, 2, unix.AF_INET},
		{"a protocol and a network", Filter{Protocols: []flow.Protocol{flow.UDP}, Peers: networks("10.0.0.0/8")}, 1, unix.AF_INET},
		{"a port", Filter{Ports: port(22)}, 8, unix.AF_INET},
		{"a port of a protocol", Filter{Ports: port(22), Protocols: []flow.Protocol{flow.TCP}}, 4, unix.AF_INET},
		{"a port of a protocol that has none", Filter{Ports: port(22), Protocols: []flow.Protocol{flow.ICMP}}, 0, 0},
		{"ports of several protocols, one of which has some", Filter{Ports: port(22), Protocols: []flow.Protocol{flow.ICMP, flow.TCP}}, 4, unix.AF_INET},
		{"several ports", Filter{Ports: append(port(22), port(23)...)}, 1, unix.AF_UNSPEC},
		{"several protocols", Filter{Protocols: []flow.Protocol{flow.TCP, flow.ICMP}}, 4, unix.AF_INET},
		{"networks of one family", Filter{Peers: networks("10.0.0.1/32", "10.1.0.0/16")}, 1, unix.AF_INET},
		{"networks of both", Filter{Peers: networks("10.0.0.1/32", "2001:db8::/32")}, 1, unix.AF_UNSPEC},
		{"an address", Filter{Peers: networks("10.0.0.1/32")}, 2, unix.AF_INET},
		{"an address of IPv6, which the kernel cannot compare", Filter{Peers: networks("2001:db8::1/128")}, 1, unix.AF_INET6},
		{"all that there is", Filter{Peers: networks("10.0.0.1/32"), Ports: port(22), Protocols: []flow.Protocol{flow.TCP}}, 2, unix.AF_INET},
	} {
		all := tc.filter.narrowings()
		if len(all) != tc.dumps || len(all) > 0 && all[0].family != tc.family {
			t.Errorf("%s: %+v", tc.name, all)
		}
	}
}

// Whatever the kernel leaves out, the filter would not have taken.
func TestNarrowingLosesNothing(t *testing.T) {
	t.Run("with filters in the kernel", func(t *testing.T) { testNarrowing(t, false) })
	t.Run("without", func(t *testing.T) { testNarrowing(t, true) })
}

func testNarrowing(t *testing.T, noFilters bool) {
	table := openTable(t, hostNamespace(t))
	table.noFilters = noFilters
	judge := judgeOf(t, table, load(t, bothPolicy))
	seeds := crossing()
	seeds = append(seeds,
		tcpSeed("[2001:db8:1::7]:1000", "[2001:db8::10]:443"),
		tcpSeed("192.0.2.10:1000", "198.51.100.7:443"),
		udpSeed("198.51.100.7:443", "192.0.2.10:443"),
		natted("[2001:db8:1::8]:1000", "[2001:db8::10]:443", "[fd00:17::2]:80", "[2001:db8:1::8]:1000"),
		pingSeed("2001:db8:1::7", "2001:db8::10", 3),
	)
	createSeeds(t, table, seeds...)
	// Nothing changes them any more.
	all := keepAll(t, table)
	if len(all) != len(seeds) {
		t.Fatalf("%d entries of %d are there", len(all), len(seeds))
	}
	protocols := []flow.Protocol{flow.TCP, flow.UDP, flow.ICMP, flow.ICMPv6, 50}
	ports := []uint16{22, 25, 53, 80, 443, 1000, 40000}
	peers := []string{"198.51.100.7/32", "203.0.113.0/24", "203.0.113.9/32", "172.17.0.2/32", "2001:db8:1::7/128", "fd00:17::2/128", "::/0"}
	pseudo := uint64(7)
	t.Logf("seed %d", pseudo)
	r := rand.New(rand.NewPCG(pseudo, 0))
	taken := 0
	for range 80 {
		var f Filter
		for r.IntN(2) == 0 {
			f.Protocols = append(f.Protocols, protocols[r.IntN(len(protocols))])
		}
		for r.IntN(2) == 0 {
			p := ports[r.IntN(len(ports))]
			f.Ports = append(f.Ports, flow.PortRange{First: p, Last: p})
		}
		for r.IntN(2) == 0 {
			f.Peers = append(f.Peers, netip.MustParsePrefix(peers[r.IntN(len(peers))]))
		}
		var got, want []string
		if err := table.Select(context.Background(), judge, &f, func(e *Entry, j *Judged) error {
			got = append(got, e.Original.String())
			return nil
		}); err != nil {
			t.Fatalf("%s: %v", describe(&f), err)
		}
		var judged Judged
		for i := range all {
			if err := judge.Entry(&all[i], &judged); err != nil {
				t.Fatal(err)
			}
			if f.Matches(&judged) {
				want = append(want, all[i].Original.String())
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", describe(&f), got, want)
		}
		taken += len(got)
	}
	if taken < 20 {
		t.Errorf("only %d entries were taken", taken)
	}
}

func describe(f *Filter) string {
	return fmt.Sprint(f.Peers, f.Protocols, f.Ports)
}

// The kernel leaves out what it is told to, or the flags are wrong.
func TestTheKernelNarrows(t *testing.T) {
	table := openTable(t, hostNamespace(t))
	seeds := crossing()
	createSeeds(t, table, seeds...)
	tcp, port := flow.TCP, uint16(80)
	for _, tc := range []struct {
		n    narrowing
		want int
	}{
		{narrowing{family: unix.AF_INET}, 9},
		{narrowing{family: unix.AF_INET6}, 0},
		{narrowing{family: unix.AF_INET, protocol: &tcp}, 6},
		{narrowing{family: unix.AF_INET, protocol: &tcp, port: &port}, 1},
		{narrowing{family: unix.AF_INET, protocol: &tcp, port: &port, reply: true}, 2},
		{narrowing{family: unix.AF_INET, source: netip.MustParseAddr("198.51.100.7")}, 4},
		{narrowing{family: unix.AF_INET, source: netip.MustParseAddr("203.0.113.9"), reply: true}, 1},
	} {
		n := 0
		if err := table.dumpEntries(context.Background(), tc.n.appendTo, func(e *Entry) error {
			n++
			if !tc.n.holds(e) {
				t.Errorf("%+v holds not of %s", tc.n, e)
			}
			return nil
		}); err != nil || n != tc.want {
			t.Errorf("%s: the kernel tells %d entries, want %d: %v", fmt.Sprintf("%+v", tc.n), n, tc.want, err)
		}
	}
}
