package kerneltest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
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
	server, router, client = labtest.Namespace(t, "server"), labtest.Namespace(t, "router"), labtest.Namespace(t, "client")
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

// atEth0 attaches groups to eth0.
func atEth0(groups ...string) string {
	return fmt.Sprintf("interface \"eth0\" {\n  security_groups = [\"%s\"]\n}\n", strings.Join(groups, `", "`))
}

// onlyPorts makes TCP and UDP to port 80 untracked and lets the office, and
// nobody else, into port 22. It says nothing of ICMP.
const onlyPorts = `
security_group "ports" {
  ingress "http" {
    protocol         = "tcp"
    ports            = [80]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "http3" {
    protocol         = "udp"
    ports            = [80]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "ssh" {
    protocol         = "tcp"
    ports            = [22]
    cidr_blocks      = ["203.0.113.1/32"]
    ipv6_cidr_blocks = ["2001:db8:78::1/128"]
  }
  ingress "udp" {
    protocol         = "udp"
    ports            = [22]
    cidr_blocks      = ["203.0.113.1/32"]
    ipv6_cidr_blocks = ["2001:db8:78::1/128"]
  }
  egress "tcp" {
    protocol         = "tcp"
    ports            = ["0-65535"]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "udp" {
    protocol         = "udp"
    ports            = ["0-65535"]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
`

// outToAll makes TCP and UDP from the host to port 443 untracked. It says
// nothing of ICMP.
const outToAll = `
security_group "out" {
  egress "udp" {
    protocol         = "udp"
    ports            = [443]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "tcp" {
    protocol         = "tcp"
    ports            = [443]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "tcp" {
    protocol         = "tcp"
    ports            = ["0-65535"]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "udp" {
    protocol         = "udp"
    ports            = ["0-65535"]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
`

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
			local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			entries, err := witness.Entries()
			if err != nil {
				t.Fatal(err)
			}
			p := flow.Packet{Protocol: flow.UDP, Source: tt.local, Dest: tt.to, SourcePort: local.Port(), DestPort: tt.port}
			if got := lab.Tracks(entries, &p); got != tt.tracked {
				t.Errorf("%s, %s: tracked %t, want %t", tt.name, f, got, tt.tracked)
			}
			if err := errorOf(conn); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s, tracked %t, %s: the closed port says %v, want %v", tt.name, tt.tracked, f, err, unix.ECONNREFUSED)
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

// errorTypes are the errors that belong to flows, and otherTypes messages that
// quote a packet, too, and yet pass by rules alone: advice that a host must not
// take unasked, and what nobody knows.
var (
	errorTypes = map[flow.Family][][2]uint8{
		flow.IPv4: {{3, 0}, {3, 1}, {3, 3}, {3, 4}, {3, 13}, {11, 0}, {11, 1}, {12, 0}, {12, 2}},
		flow.IPv6: {{1, 0}, {1, 3}, {1, 4}, {2, 0}, {3, 0}, {3, 1}, {4, 0}, {4, 1}, {4, 2}},
	}
	otherTypes = map[flow.Family][][2]uint8{
		flow.IPv4: {{4, 0}, {5, 0}, {5, 1}},
		flow.IPv6: {{5, 0}, {100, 0}, {127, 0}},
	}
)

// routerOf is somebody on the way to the peers, for whom there is no rule.
var routerOf = map[flow.Family]string{flow.IPv4: "192.0.2.77", flow.IPv6: "2001:db8:99::77"}

// about makes an ICMP message, in direction d, about a packet between the
// host's port and the peer's.
func about(iface string, d flow.Direction, kind [2]uint8, protocol flow.Protocol, peer string, local, remote uint16) flow.Packet {
	f := flow.FamilyOf(addr(peer))
	quoted := packet("", d.Opposite(), protocol, peer)
	if quoted.TCPFlags = 0; protocol == flow.TCP {
		quoted.TCPFlags = flow.ACK
	}
	if quoted.SourcePort, quoted.DestPort = remote, local; d == flow.Ingress {
		quoted.SourcePort, quoted.DestPort = local, remote
	}
	quoted.Direction = flow.Ingress // no direction: it is a quotation
	to := routerOf[f]
	if d == flow.Egress {
		to = peer // errors go to the sender
	}
	p := packet(iface, d, flow.ICMPOf(f), to, typeCode(kind[0], kind[1]))
	p.Quoted = &quoted
	return p
}

// errorPolicy leaves port 80 open at eth0, and port 443 of all peers at eth1
// but for some that are always tracked; eth2 is open for nobody.
const errorPolicy = onlyPorts + outToAll + `
security_group "closed" {
  ingress "udp" {
    protocol         = "udp"
    ports            = [22]
    cidr_blocks      = ["198.51.100.0/24"]
    ipv6_cidr_blocks = ["2001:db8:77::/48"]
  }
}
interface "eth0" { security_groups = ["ports"] }
interface "eth1" {
  security_groups = ["out"]
  always_track {
    cidr_blocks      = ["198.51.100.64/26"]
    ipv6_cidr_blocks = ["2001:db8:77:1::/64"]
  }
}
interface "eth2" { security_groups = ["closed"] }
`

func TestErrorsPassWithTheFlowsThatTheyAreAbout(t *testing.T) {
	t.Parallel()
	b := newBench(t, nothing, "eth0", "eth1", "eth2")
	// The judge is open already: from here on the policy alone decides what is
	// left out of conntrack.
	for _, byRules := range []bool{false, true} {
		text := errorPolicy
		if byRules {
			text += "host { icmp_errors = \"rules\" }\n"
		}
		b.govern(t, text)
		for _, f := range flow.Families {
			always := map[flow.Family]string{flow.IPv4: "198.51.100.65", flow.IPv6: "2001:db8:77:1::1"}[f]
			for _, d := range flow.Directions {
				for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
					name := fmt.Sprintf("by rules %t", byRules)
					for _, kind := range errorTypes[f] {
						related := func(iface string, p flow.Packet) {
							t.Helper()
							p.State = flow.Related
							b.check(t, name+", tracked, at "+iface, p, !byRules)
						}
						invalid := func(p flow.Packet, open bool) {
							t.Helper()
							p.State = flow.Invalid
							b.check(t, name+", not tracked", p, open && !byRules)
						}
						invalid(about("eth0", d, kind, protocol, peersOf[f], 80, 4000), true)
						invalid(about("eth0", d, kind, protocol, peersOf[f], 79, 80), false)
						invalid(about("eth0", d, kind, protocol, peersOf[f], 4000, 443), false)
						invalid(about("eth1", d, kind, protocol, peersOf[f], 4000, 443), true)
						invalid(about("eth1", d, kind, protocol, peersOf[f], 443, 4000), false)
						invalid(about("eth1", d, kind, protocol, always, 4000, 443), false)
						invalid(about("eth2", d, kind, protocol, peersOf[f], 22, 4000), false)
						invalid(about("eth0", d, kind, 132, peersOf[f], 0, 0), false)
						related("eth1", about("eth1", d, kind, protocol, always, 4000, 443))
						related("eth2", about("eth2", d, kind, protocol, peersOf[f], 22, 4000))
						if err := b.ask.Witness().Flush(); err != nil {
							t.Fatal(err)
						}
					}
					for _, kind := range otherTypes[f] {
						p := about("eth0", d, kind, protocol, peersOf[f], 80, 4000)
						p.State = flow.Invalid
						b.check(t, name+", no error", p, false)
						p = about("eth2", d, kind, protocol, peersOf[f], 22, 4000)
						p.State = flow.Related
						b.check(t, name+", no error, about a tracked flow", p, false)
						if err := b.ask.Witness().Flush(); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
	}
}

// Errors about pings, and about other protocols, pass as those of any flow
// that conntrack knows.
func TestErrorsAboutPingsAndTunnelsPass(t *testing.T) {
	t.Parallel()
	text := `
security_group "out" {
  egress "gre" {
    protocol         = "gre"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "ping" {
    protocol    = "icmp"
    from_port   = 8
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }
  egress "ping6" {
    protocol         = "icmpv6"
    from_port        = 128
    to_port          = 0
    ipv6_cidr_blocks = ["::/0"]
  }
}
interface "eth0" { security_groups = ["out"] }
`
	b := newBench(t, text, "eth0")
	for _, f := range flow.Families {
		for _, opener := range []flow.Packet{
			packet("eth0", flow.Egress, flow.ICMPOf(f), peersOf[f], typeCode(echoOf[f], 0)),
			packet("eth0", flow.Egress, 47, peersOf[f]),
		} {
			quoted := opener
			quoted.Interface, quoted.Direction = "", flow.Ingress
			p := packet("eth0", flow.Ingress, flow.ICMPOf(f), routerOf[f], typeCode(errorTypes[f][0][0], 0))
			p.Quoted, p.State = &quoted, flow.Invalid
			b.check(t, "about nothing", p, false)
			if o, err := b.ask.Open(opener); err != nil || !o.Passed {
				t.Fatalf("%s: %s, %v", &opener, o, err)
			}
			p.State = flow.Related
			if o := b.check(t, "about a flow", p, true); o.State != flow.Related {
				t.Errorf("%s: %s, want it related", &p, o)
			}
		}
	}
}

// What the kernel has no entries for obeys the rules, each packet by itself.
func TestMessagesWithoutEntriesObeyTheirRules(t *testing.T) {
	t.Parallel()
	stateless := map[flow.Family][]uint8{flow.IPv4: {4, 5, 9, 10, 0, 14, 30, 255}, flow.IPv6: {129, 134, 135, 137, 138, 143, 151, 200}}
	queries := map[flow.Family]map[uint8]uint8{flow.IPv4: {8: 0, 13: 14, 15: 16, 17: 18}, flow.IPv6: {128: 129}}
	for _, f := range flow.Families {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			text := "security_group \"in\" {\n"
			rule := func(n uint8) {
				attribute := map[flow.Family]string{flow.IPv4: "cidr_blocks", flow.IPv6: "ipv6_cidr_blocks"}[f]
				text += fmt.Sprintf("  ingress {\n    protocol = %q\n    from_port = %d\n    to_port = -1\n    %s = [%q]\n  }\n",
					flow.ICMPOf(f), n, attribute, peersOf[f]+fmt.Sprintf("/%d", f.Bits()))
			}
			for _, n := range stateless[f] {
				rule(n)
			}
			for query := range queries[f] {
				rule(query)
			}
			b := newBench(t, text+"}\n"+atEth0("in"), "eth0")
			for _, n := range stateless[f] {
				in := packet("eth0", flow.Ingress, flow.ICMPOf(f), peersOf[f], typeCode(n, 3))
				in.HopLimit = 77
				in.State = flow.Invalid
				b.check(t, "allowed by a rule", in, true)
				out := in.Reply()
				b.check(t, "the other way there is none", out, false)
				b.check(t, "and again", in, true)
				stranger := packet("eth0", flow.Ingress, flow.ICMPOf(f), routerOf[f], typeCode(n, 3))
				stranger.HopLimit, stranger.State = 77, flow.Invalid
				b.check(t, "no rule names the peer", stranger, false)
			}
			for query, reply := range queries[f] {
				in := packet("eth0", flow.Ingress, flow.ICMPOf(f), peersOf[f], typeCode(query, 0))
				out := in.Reply()
				out.ICMPType, out.State = reply, flow.Invalid
				b.check(t, "a reply to nothing", out, false)
				if o, err := b.ask.Open(in); err != nil || !o.Passed {
					t.Fatalf("%s: %s, %v", &in, o, err)
				}
				out.State = flow.Established
				b.check(t, "the reply", out, true)
			}
		})
	}
}
