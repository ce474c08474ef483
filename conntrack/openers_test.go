package conntrack

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"sgc/internal/flow"
)

// openersOf are openers of a host with the usual range of ephemeral ports.
func openersOf(waiting ...Socket) *Openers {
	o := &Openers{waiting: map[waitingPort][]Socket{}, ephemeral: flow.PortRange{First: 32768, Last: 60999}}
	for i := range waiting {
		o.add(&waiting[i])
	}
	return o
}

func TestWhoOpenedAFlow(t *testing.T) {
	listening := func(local string) Socket { return waitingSocket(flow.TCP, Listening, local) }
	dual := listening("[::]:8080")
	dual.DualStack = true
	at := func(device uint32, s Socket) Socket { s.Interface = device; return s }
	established := func(local, remote string) Socket { return connectedSocket(flow.TCP, Established, local, remote) }
	in := func(state SocketState, s Socket) Socket { s.State = state; return s }
	udp := func(local string) Socket { return waitingSocket(flow.UDP, Unconnected, local) }
	connected := func(local, remote string) Socket { return connectedSocket(flow.UDP, Connected, local, remote) }
	for _, tc := range []struct {
		name    string
		waiting []Socket
		socket  Socket
		want    flow.Direction
	}{
		{"a listener at every address", []Socket{listening("0.0.0.0:22")}, established("192.0.2.10:22", "198.51.100.7:50000"), flow.Ingress},
		{"a listener at the address", []Socket{listening("192.0.2.10:40000")}, established("192.0.2.10:40000", "198.51.100.7:22"), flow.Ingress},
		{"a listener at another address", []Socket{listening("192.0.2.11:40000")}, established("192.0.2.10:40000", "198.51.100.7:22"), flow.Egress},
		{"a listener at another port", []Socket{listening("0.0.0.0:40001")}, established("192.0.2.10:40000", "198.51.100.7:22"), flow.Egress},
		{"a listener on the loopback alone", []Socket{listening("127.0.0.1:40000")}, established("192.0.2.10:40000", "198.51.100.7:22"), flow.Egress},
		{"a listener of IPv6", []Socket{listening("[::]:40000")}, established("[2001:db8::10]:40000", "[2001:db8:7::7]:22"), flow.Ingress},
		{"a listener of IPv6 alone does not take IPv4", []Socket{listening("[::]:40000")}, established("192.0.2.10:40000", "198.51.100.7:22"), flow.Egress},
		{"a listener of IPv4 does not take IPv6", []Socket{listening("0.0.0.0:40000")}, established("[2001:db8::10]:40000", "[2001:db8:7::7]:22"), flow.Egress},
		{"a listener of both takes IPv4", []Socket{dual}, established("192.0.2.10:8080", "198.51.100.7:22"), flow.Ingress},
		{"a listener of both takes IPv6", []Socket{dual}, established("[2001:db8::10]:8080", "[2001:db8:7::7]:22"), flow.Ingress},
		{"a listener at the flow's link", []Socket{at(2, listening("0.0.0.0:40000"))}, at(2, established("192.0.2.10:40000", "198.51.100.7:22")), flow.Ingress},
		{"a listener at another link", []Socket{at(3, listening("0.0.0.0:40000"))}, at(2, established("192.0.2.10:40000", "198.51.100.7:22")), flow.Egress},
		{"a listener at a link does not take the flows of none", []Socket{at(3, listening("0.0.0.0:40000"))}, established("192.0.2.10:40000", "198.51.100.7:22"), flow.Egress},
		{"a listener at no link takes link-local flows", []Socket{listening("[::]:40000")}, at(2, established("[fe80::10]:40000", "[fe80::7]:22")), flow.Ingress},
		{"the last of several listeners", []Socket{listening("192.0.2.11:80"), listening("192.0.2.12:80"), listening("192.0.2.10:80")}, established("192.0.2.10:80", "198.51.100.7:99"), flow.Ingress},
		{"a UDP socket is no listener", []Socket{udp("0.0.0.0:40000")}, established("192.0.2.10:40000", "198.51.100.7:22"), flow.Egress},
		{"half-closed, of a listener", []Socket{listening("0.0.0.0:22")}, in(CloseWait, established("192.0.2.10:22", "198.51.100.7:22")), flow.Ingress},

		{"the host's port is ephemeral", nil, established("192.0.2.10:32768", "198.51.100.7:443"), flow.Egress},
		{"the last ephemeral port", nil, established("192.0.2.10:60999", "198.51.100.7:61000"), flow.Egress},
		{"the peer's port is ephemeral: the listener has gone", nil, established("192.0.2.10:2222", "198.51.100.7:60999"), flow.Ingress},
		{"both are ephemeral: passive FTP", nil, established("192.0.2.10:40000", "198.51.100.7:50000"), flow.Egress},
		{"both are ephemeral, the peer's is lower", nil, established("192.0.2.10:50000", "198.51.100.7:40000"), flow.Egress},
		{"neither is: an NFS client", nil, established("192.0.2.10:850", "198.51.100.7:2049"), flow.Egress},
		{"neither is: the first reserved port", nil, established("192.0.2.10:512", "198.51.100.7:2049"), flow.Egress},
		{"neither is: rsh", nil, established("192.0.2.10:1023", "198.51.100.7:514"), flow.Egress},
		{"neither is: both well known", nil, established("192.0.2.10:179", "198.51.100.7:179"), flow.Egress},
		{"neither is: a server whose listener has gone, a client from below", nil, established("192.0.2.10:22", "198.51.100.7:1024"), flow.Ingress},
		{"neither is: a server whose listener has gone, a client from above", nil, established("192.0.2.10:22", "198.51.100.7:61000"), flow.Ingress},
		{"neither is: both chosen by people", nil, established("192.0.2.10:5000", "198.51.100.7:8080"), flow.Egress},

		{"the host has sent a SYN, from a port with a listener", []Socket{listening("0.0.0.0:179")}, in(SynSent, established("192.0.2.10:179", "198.51.100.7:50000")), flow.Egress},
		{"the host answers a SYN, and has no listener any more", nil, in(SynReceived, established("192.0.2.10:40000", "198.51.100.7:22")), flow.Ingress},

		{"UDP: a server with connected children", []Socket{udp("0.0.0.0:40000")}, connected("192.0.2.10:40000", "198.51.100.7:53"), flow.Ingress},
		{"UDP: a socket at another address", []Socket{udp("192.0.2.11:40000")}, connected("192.0.2.10:40000", "198.51.100.7:53"), flow.Egress},
		{"UDP: a listener of TCP is none", []Socket{listening("0.0.0.0:40000")}, connected("192.0.2.10:40000", "198.51.100.7:53"), flow.Egress},
		{"UDP: a resolver's question", nil, connected("192.0.2.10:40000", "198.51.100.7:53"), flow.Egress},
		{"UDP: a server with one peer", nil, connected("192.0.2.10:1194", "198.51.100.7:50000"), flow.Ingress},
		{"UDP: the same port on both sides", nil, connected("192.0.2.10:500", "198.51.100.7:500"), flow.Egress},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := openersOf(tc.waiting...).Opened(&tc.socket); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

// Where nothing but ports is known, the two ends of a flow do not both claim to
// have been connected to; and where one of the ports is ephemeral, they agree.
func TestBothEndsAgreeWhoOpenedAFlow(t *testing.T) {
	o := openersOf()
	ports := []uint16{1, 22, 443, 511, 512, 1023, 1024, 8080, 32767, 32768, 50000, 60999, 61000, 65535}
	for _, a := range ports {
		for _, b := range ports {
			here, there := o.byPorts(a, b), o.byPorts(b, a)
			if here == flow.Ingress && there == flow.Ingress {
				t.Errorf("%d and %d: both say that the other connected", a, b)
			}
			if o.ephemeral.Contains(a) != o.ephemeral.Contains(b) && here == there {
				t.Errorf("%d and %d: both say %s", a, b, here)
			}
		}
	}
}

func TestRangesOfPorts(t *testing.T) {
	for text, want := range map[string]flow.PortRange{
		"32768\t60999":  {First: 32768, Last: 60999},
		"1024 65535":    {First: 1024, Last: 65535},
		"40000\t40000":  {First: 40000, Last: 40000},
		"":              {},
		"32768":         {},
		"60999 32768":   {},
		"1024 70000":    {},
		"a few of them": {},
	} {
		got, err := parsePortRange(text)
		if (err == nil) != (want != flow.PortRange{}) || err == nil && got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}

// The kernel's sockets and settings are asked, of the namespace.
func TestOpenersOfTheKernel(t *testing.T) {
	n := newNeighbours(t)
	table := openTable(t, n.host)
	if err := n.host.SetSysctl("net/ipv4/ip_local_port_range", "20000 29999"); err != nil {
		t.Fatal(err)
	}
	host, peer := newSocketMaker(t, n.host), newSocketMaker(t, n.peer)
	server := peer.listen(tcp4, "0.0.0.0:40000")
	host.listen(tcp6, "[::]:1001")
	host.listen(tcp4.on("eth0"), "0.0.0.0:1002")
	want := map[string]flow.Direction{}
	for _, port := range []int{1001, 1002} {
		for _, from := range []string{"192.0.2.20:2000", "192.0.2.20:25000"} {
			peer.connect(tcp4, from, fmt.Sprintf("192.0.2.10:%d", port))
			want[fmt.Sprintf("192.0.2.10:%d %s", port, from)] = flow.Ingress
		}
	}
	peer.connect(tcp6, "[2001:db8::20]:2001", "[2001:db8::10]:1001")
	want["[2001:db8::10]:1001 [2001:db8::20]:2001"] = flow.Ingress
	for _, from := range []string{"192.0.2.10:20000", "192.0.2.10:1003", "192.0.2.10:40000"} {
		host.connect(tcp4, from, "192.0.2.20:40000")
		peer.accept(server)
		want[from+" 192.0.2.20:40000"] = flow.Egress
	}
	host.bind(udp4, "0.0.0.0:29999")
	host.connect(udp4, "192.0.2.10:29999", "192.0.2.20:53")
	want["192.0.2.10:29999 192.0.2.20:53"] = flow.Ingress
	host.connect(udp4, "192.0.2.10:29998", "192.0.2.20:53")
	want["192.0.2.10:29998 192.0.2.20:53"] = flow.Egress
	openers, err := table.Openers(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, s := range readSockets(t, table) {
		direction, ok := want[s.Local.String()+" "+s.Remote.String()]
		if !ok {
			continue
		}
		seen++
		if got := openers.Opened(&s); got != direction {
			t.Errorf("%s: %s, want %s", &s, got, direction)
		}
	}
	if seen != len(want) {
		t.Errorf("%d of %d sockets were there", seen, len(want))
	}
}

func TestOpenersEndWithTheContext(t *testing.T) {
	n := newNeighbours(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if o, err := openTable(t, n.host).Openers(ctx); !errors.Is(err, context.Canceled) || o != nil {
		t.Errorf("%v, %v", o, err)
	}
}
