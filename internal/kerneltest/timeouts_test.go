package kerneltest

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// everybodyTracked lets everything through, and tracks it.
const everybodyTracked = `
security_group "all" {
  ingress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/1", "128.0.0.0/1"]
    ipv6_cidr_blocks = ["::/1", "8000::/1"]
  }
  egress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/1", "128.0.0.0/1"]
    ipv6_cidr_blocks = ["::/1", "8000::/1"]
  }
}
`

// seconds returns what is left of the timeout of the flow's entry, and how its
// text is.
func (s *scene) seconds(t *testing.T, protocol flow.Protocol, from, to netip.AddrPort) (int, string) {
	t.Helper()
	entries, err := s.witness.Entries()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Original.Protocol == protocol && e.Original.Source == from && e.Original.Dest == to {
			return int(e.Seconds), e.String()
		}
	}
	return 0, "no entry"
}

// lives expects that a flow's entry has the timeout, a few seconds after its last
// packet. Where that may come later, more lets the flow go on until it has.
func (s *scene) lives(t *testing.T, what string, protocol flow.Protocol, from, to netip.AddrPort, want int, more ...func()) {
	t.Helper()
	// Of TCP, the kernel keeps 300 s until the last data is acknowledged.
	later := protocol == flow.TCP || len(more) > 0
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		for _, goOn := range more {
			goOn()
		}
		got, text := s.seconds(t, protocol, from, to)
		if got <= want && got >= want-15 {
			return
		}
		if !later || time.Now().After(end) {
			t.Errorf("%s: %s, want at most %d s, and not much less", what, text, want)
			return
		}
	}
}

// wayOfTimeouts is a way from one address to another, with the timeouts in seconds
// that its flows shall have: of TCP established, of UDP unreplied and of a stream.
type wayOfTimeouts struct {
	what                   string
	from, to               *lab.Namespace
	local, remote          netip.Addr
	tcp, unreplied, stream int
}

// datagrams is a flow of UDP.
type datagrams struct {
	near, far     *net.UDPConn
	local, remote netip.AddrPort
}

func dialDatagrams(t *testing.T, way wayOfTimeouts, port uint16) *datagrams {
	t.Helper()
	remote := netip.AddrPortFrom(way.remote, port)
	far, err := way.to.ListenUDP(remote)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	near, err := way.from.DialUDP(netip.AddrPortFrom(way.local, 0), remote)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	return &datagrams{near, far, near.LocalAddr().(*net.UDPAddr).AddrPort(), remote}
}

// ask sends a datagram, and answers it where that is asked for.
func (d *datagrams) ask(t *testing.T, answer bool) {
	t.Helper()
	b := make([]byte, 100)
	if _, err := d.near.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := d.far.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, peer, err := d.far.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatalf("%s → %s: %v", d.local, d.remote, err)
	}
	if !answer {
		return
	}
	if _, err := d.far.WriteToUDPAddrPort([]byte("answer"), peer); err != nil {
		t.Fatal(err)
	}
	if err := d.near.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.near.Read(b); err != nil {
		t.Fatalf("%s → %s, the answer: %v", d.local, d.remote, err)
	}
}

// flowsHave opens a flow of every kind on every way and expects their timeouts.
func (s *scene) flowsHave(t *testing.T, ways []wayOfTimeouts) {
	t.Helper()
	for i, way := range ways {
		port := uint16(7000 + 2*i)
		server := netip.AddrPortFrom(way.remote, port)
		serve(t, way.to, way.remote, port)
		session := connect(t, way.from, way.local, server)
		s.lives(t, way.what+", TCP", flow.TCP, session.local, server, way.tcp)
		silent := dialDatagrams(t, way, port)
		silent.ask(t, false)
		s.lives(t, way.what+", UDP", flow.UDP, silent.local, server, way.unreplied)
	}
	// The kernel takes nothing for a stream before two seconds of an entry are over.
	var streams []*datagrams
	for i, way := range ways {
		stream := dialDatagrams(t, way, uint16(7001+2*i))
		stream.ask(t, true)
		streams = append(streams, stream)
	}
	time.Sleep(2100 * time.Millisecond)
	for i, way := range ways {
		goOn := func() { streams[i].ask(t, true) }
		s.lives(t, way.what+", a stream", flow.UDP, streams[i].local, streams[i].remote, way.stream, goOn)
	}
}

// Flows have the timeouts of the interface that they cross, whoever opens them,
// and always tracked peers those of their block.
func TestTimeoutsOfInterfaces(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	enforce(t, s.host, load(t, everybodyTracked+`
interface "eth0" {
  security_groups = ["all"]
  connection_tracking {
    tcp_established_timeout = 350
    udp_timeout             = 60
    udp_stream_timeout      = 150
  }
  always_track "balancers" {
    cidr_blocks             = ["203.0.113.0/24"]
    ipv6_cidr_blocks        = ["2001:db8:78::/48"]
    tcp_established_timeout = 100
    udp_stream_timeout      = 90
  }
  always_track "one" {
    cidr_blocks      = ["203.0.113.200/32"]
    ipv6_cidr_blocks = ["2001:db8:78::200/128"]
  }
}
# Another interface, so that the host's defaults are those of the language.
interface "eth1" { security_groups = ["all"] }
`))
	var ways []wayOfTimeouts
	for _, f := range flow.Families {
		gate := map[flow.Family]netip.Addr{flow.IPv4: addr("10.9.0.1"), flow.IPv6: addr("2001:db8:9::1")}[f]
		ways = append(ways,
			wayOfTimeouts{"in", s.client, s.host, worldOf[f], hostOf[f], 350, 60, 150},
			wayOfTimeouts{"out", s.host, s.client, hostOf[f], worldOf[f], 350, 60, 150},
			wayOfTimeouts{"a balancer's", s.client, s.host, officeOf[f], hostOf[f], 100, 60, 90},
			wayOfTimeouts{"to a balancer", s.host, s.client, hostOf[f], officeOf[f], 100, 60, 90},
			// The kernel's own: nothing has set the host's defaults here.
			wayOfTimeouts{"of the other interface", s.inside, s.host, insideOf[f], gate, 432000, 30, 120})
	}
	s.flowsHave(t, ways)
}

// A routed flow has the shorter of the timeouts of both interfaces.
func TestTimeoutsOfRoutedFlows(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		policy                 string
		tcp, unreplied, stream int
	}{
		"one has the host's": {everybodyTracked + `
interface "eth0" {
  security_groups = ["all"]
  connection_tracking {
    tcp_established_timeout = 350
    udp_timeout             = 60
    udp_stream_timeout      = 60
  }
}
interface "eth1" { security_groups = ["all"] }
`, 350, 30, 60},
		"both have their own": {everybodyTracked + `
interface "eth*" {
  security_groups = ["all"]
  connection_tracking {
    tcp_established_timeout = 350
    udp_timeout             = 60
    udp_stream_timeout      = 150
  }
}
interface "eth1" {
  security_groups = ["all"]
  connection_tracking {
    tcp_established_timeout = 400
    udp_timeout             = 40
    udp_stream_timeout      = 170
  }
}
`, 350, 40, 150},
		"one is not managed": {everybodyTracked + `
interface "eth0" {
  security_groups = ["all"]
  connection_tracking {
    tcp_established_timeout = 350
    udp_timeout             = 60
    udp_stream_timeout      = 150
  }
}
interface "wg0" { security_groups = ["all"] }
`, 350, 60, 150},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			enforce(t, s.host, load(t, tt.policy))
			var ways []wayOfTimeouts
			for _, f := range flow.Families {
				ways = append(ways,
					wayOfTimeouts{"to the inside", s.client, s.inside, worldOf[f], insideOf[f], tt.tcp, tt.unreplied, tt.stream},
					wayOfTimeouts{"to the world", s.inside, s.client, insideOf[f], worldOf[f], tt.tcp, tt.unreplied, tt.stream})
			}
			s.flowsHave(t, ways)
		})
	}
}
