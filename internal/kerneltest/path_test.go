package kerneltest

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// longPath is a server, a router and a client. What the router does with the
// way to the client ("narrow") only the router knows.
func longPath(t *testing.T) (server, router, client *lab.Namespace) {
	t.Helper()
	server, router, client = eager(t, "server"), labtest.Namespace(t, "router"), eager(t, "client")
	labtest.Connect(t,
		lab.End{Namespace: server, Interface: "eth0", Addresses: prefixes("192.0.2.10/24", "2001:db8:2::10/64")},
		lab.End{Namespace: router, Interface: "wide", Addresses: prefixes("192.0.2.1/24", "2001:db8:2::1/64")})
	labtest.Connect(t,
		lab.End{Namespace: client, Interface: "wire", Addresses: prefixes("198.51.100.7/24", "2001:db8:77::7/64", "203.0.113.1/32", "2001:db8:78::1/128")},
		lab.End{Namespace: router, Interface: "narrow", Addresses: prefixes("198.51.100.1/24", "2001:db8:77::1/64")})
	for _, err := range []error{
		router.Forward(),
		router.AddRoute(lab.Route{Dest: prefix("203.0.113.1/32"), Via: worldOf[flow.IPv4], Interface: "narrow"}),
		router.AddRoute(lab.Route{Dest: prefix("2001:db8:78::1/128"), Via: worldOf[flow.IPv6], Interface: "narrow"}),
		server.AddRoute(lab.Route{Dest: flow.IPv4.Any(), Via: addr("192.0.2.1"), Interface: "eth0"}),
		server.AddRoute(lab.Route{Dest: flow.IPv6.Any(), Via: addr("2001:db8:2::1"), Interface: "eth0"}),
		client.AddRoute(lab.Route{Dest: flow.IPv4.Any(), Via: addr("198.51.100.1"), Interface: "wire"}),
		client.AddRoute(lab.Route{Dest: flow.IPv6.Any(), Via: addr("2001:db8:77::1"), Interface: "wire"}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return server, router, client
}

// A session whose path grows narrow while it lasts goes on if the errors that
// say so come through. The server sends whole segments, and finds out.
func TestPathMTUDiscovery(t *testing.T) {
	t.Parallel()
	byRules := "\nhost { icmp_errors = \"rules\" }\n"
	for name, tt := range map[string]struct {
		policy  string
		tracked bool
		works   bool
	}{
		"untracked":        {openPorts, false, true},
		"tracked":          {onlyIn, true, true},
		"errors by rules":  {openPorts + byRules, false, false},
		"tracked by rules": {onlyIn + byRules, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, router, client := longPath(t)
			witness := labtest.Witness(t, server)
			port := uint16(80)
			if tt.tracked {
				port = 22
			}
			enforce(t, server, load(t, tt.policy))
			var sessions []session
			for _, f := range flow.Families {
				serve(t, server, hostOf[f], port)
				sessions = append(sessions, connect(t, client, worldOf[f], netip.AddrPortFrom(hostOf[f], port)))
			}
			wait := patience
			if !tt.works {
				wait = impatience
			}
			for n, mtu := range []int{1400, 1300} {
				if err := router.SetMTU("narrow", mtu); err != nil {
					t.Fatal(err)
				}
				for _, c := range sessions {
					if n > 0 && !tt.works {
						break // what was not answered is still on its way
					}
					err := lab.RoundTrip(c.conn, make([]byte, 200_000), wait)
					if (err == nil) != tt.works {
						t.Errorf("MTU %d, %s: got %v, want it to work: %t", mtu, c.remote, err, tt.works)
					}
				}
			}
			entries, err := witness.Entries()
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range sessions {
				if got := lab.Tracks(entries, c.packet()); got != tt.tracked {
					t.Errorf("%s: tracked %t, want %t", c.remote, got, tt.tracked)
				}
			}
		})
	}
}

// The host, as a router, finds its own way narrow, and its errors go out by
// eth0: about flows that it forwards, be they open or not.
func TestPathMTUOfForwardedFlows(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var sessions []session
	enforce(t, s.host, load(t, webAndOffice+atEth0("web")))
	for _, f := range flow.Families {
		serve(t, s.inside, insideOf[f], 80)
		serve(t, s.inside, insideOf[f], 22)
		sessions = append(sessions,
			connect(t, s.client, worldOf[f], netip.AddrPortFrom(insideOf[f], 80)),
			connect(t, s.client, officeOf[f], netip.AddrPortFrom(insideOf[f], 22)))
	}
	// Nothing lets errors out but that they belong to a flow.
	enforce(t, s.host, load(t, onlyPorts+atEth0("ports")))
	if err := s.host.SetMTU("eth1", 1300); err != nil {
		t.Fatal(err)
	}
	for _, c := range sessions {
		c.exchange(t)
	}
}

// What real kernels say about UDP that comes to a closed port, or dies on its
// way, reaches the socket that sent it.
func TestErrorsOfRealKernelsReachTheSender(t *testing.T) {
	t.Parallel()
	server, _, client := longPath(t)
	witness := labtest.Witness(t, server)
	for _, f := range flow.Families {
		for _, tt := range []struct {
			name, policy string
			tracked      bool
			from         *lab.Namespace
			local, to    netip.Addr
			port         uint16
		}{
			{"inbound", onlyPorts + atEth0("ports"), true, client, officeOf[f], hostOf[f], 22},
			{"inbound", onlyPorts + atEth0("ports"), false, client, worldOf[f], hostOf[f], 80},
			{"outbound", onlyPorts + atEth0("ports"), true, server, hostOf[f], worldOf[f], 53},
			{"outbound", outToAll + atEth0("out"), false, server, hostOf[f], worldOf[f], 443},
		} {
			enforce(t, server, load(t, tt.policy))
			conn, err := tt.from.DialUDP(netip.AddrPortFrom(tt.local, 0), netip.AddrPortFrom(tt.to, tt.port))
			if err != nil {
				t.Fatal(err)
			}
			// Connected sockets are told at once that nobody listens, and, if
			// they ask for it, what happens on the way.
			if _, err := conn.Write([]byte("anybody there?")); err != nil {
				t.Fatal(err)
			}
			if err := errorOf(conn); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s, tracked %t, %s: the closed port says %v, want %v", tt.name, tt.tracked, f, err, unix.ECONNREFUSED)
			}
			local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			entries, err := witness.Entries()
			if err != nil {
				t.Fatal(err)
			}
			p := flow.Packet{Protocol: flow.UDP, Source: tt.local, Dest: tt.to, SourcePort: local.Port(), DestPort: tt.port}
			if got := lab.Tracks(entries, &p); got != tt.tracked {
				t.Errorf("%s, %s: tracked %t, want %t", tt.name, f, got, tt.tracked)
			}
			if err := shortLived(conn, f); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("dies at the router")); err != nil {
				t.Fatal(err)
			}
			if err := errorOf(conn); !errors.Is(err, unix.EHOSTUNREACH) {
				t.Errorf("%s, tracked %t, %s: the router says %v, want %v", tt.name, tt.tracked, f, err, unix.EHOSTUNREACH)
			}
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// shortLived makes the socket's packets die at the first router, and lets the
// socket hear of it.
func shortLived(c *net.UDPConn, f flow.Family) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if f == flow.IPv4 {
			failed = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, 1),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1))
			return
		}
		failed = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 1),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1))
	})
	return errors.Join(err, failed)
}

// errorOf waits for the error that an ICMP message sets on the socket.
func errorOf(c *net.UDPConn) error {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1500))
	return err
}

// Datagrams that are larger than the sender's own link are cut there, and in
// IPv6 by nobody else: an error about a fragment tells the sender that the path
// is narrower still.
func TestPathMTUOfLargeDatagrams(t *testing.T) {
	t.Parallel()
	server, router, client := longPath(t)
	enforce(t, server, load(t, onlyPorts+atEth0("ports")))
	for n, tt := range []struct {
		name string
		port uint16
	}{{"untracked", 80}, {"tracked", 22}} {
		// A path that nobody has found narrow yet.
		if err := router.SetMTU("narrow", 1400-100*n); err != nil {
			t.Fatal(err)
		}
		for _, f := range flow.Families {
			at := netip.AddrPortFrom(hostOf[f], tt.port)
			far, err := server.ListenUDP(at)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { far.Close() })
			near, err := client.DialUDP(netip.AddrPortFrom(officeOf[f], 0), at)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { near.Close() })
			// The first answer may be lost: it finds out.
			b := make([]byte, 1<<16)
			if !eventually(func() bool {
				if _, err := near.Write([]byte("a question")); err != nil {
					t.Fatal(err)
				}
				_, from, err := readFrom(far, b, patience)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := far.WriteToUDP(b[:4000], from); err != nil {
					t.Fatal(err)
				}
				size, _, err := readFrom(near, b, impatience)
				return err == nil && size == 4000
			}) {
				t.Errorf("%s, %s: no large answer comes through", tt.name, f)
			}
		}
	}
}
