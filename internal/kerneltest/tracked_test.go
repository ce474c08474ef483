package kerneltest

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// entryOf reports whether the host's conntrack has an entry for a flow of TCP.
func (s *scene) entryOf(t *testing.T, client, server netip.AddrPort) bool {
	t.Helper()
	return s.tracked(t, &flow.Packet{
		Protocol: flow.TCP, Source: client.Addr(), SourcePort: client.Port(), Dest: server.Addr(), DestPort: server.Port(),
	})
}

// exchangeUDP sends datagrams from a client to a server and back, and fails
// with a timeout where one does not arrive. The server listens at another
// address than the one that the client dials, if it is not the same.
func exchangeUDP(from, to *lab.Namespace, client netip.Addr, dial, server netip.AddrPort, wait time.Duration) error {
	far, err := to.ListenUDP(server)
	if err != nil {
		return err
	}
	near, err := from.DialUDP(netip.AddrPortFrom(client, 0), dial)
	if err != nil {
		return errors.Join(err, far.Close())
	}
	talk := func() error {
		b := make([]byte, 100)
		for range 3 {
			if _, err := near.Write([]byte("question")); err != nil {
				return fmt.Errorf("ask: %w", err)
			}
			if err := far.SetReadDeadline(time.Now().Add(wait)); err != nil {
				return err
			}
			_, peer, err := far.ReadFromUDPAddrPort(b)
			if err != nil {
				return fmt.Errorf("hear the question: %w", err)
			}
			if _, err := far.WriteToUDPAddrPort([]byte("answer"), peer); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
			if err := near.SetReadDeadline(time.Now().Add(wait)); err != nil {
				return err
			}
			if _, err := near.Read(b); err != nil {
				return fmt.Errorf("hear the answer: %w", err)
			}
		}
		return nil
	}
	return errors.Join(talk(), near.Close(), far.Close())
}

// Peers that are always tracked have entries, and what tracked flows have: they
// outlast their rule. All others of an open port do not.
func TestAlwaysTrackedPeers(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	enforce(t, s.host, load(t, everything+`
interface "eth0" {
  security_groups = ["everything"]
  always_track "balancers" {
    cidr_blocks      = ["198.51.100.0/24"]
    ipv6_cidr_blocks = ["2001:db8:77::/48"]
  }
}
`))
	var tracked, untracked []*chat
	for _, f := range flow.Families {
		for n, tt := range []struct {
			name     string
			from, to *lab.Namespace
			client   netip.Addr
			server   netip.Addr
			tracked  bool
		}{
			{"a balancer's", s.client, s.host, worldOf[f], hostOf[f], true},
			{"somebody else's", s.client, s.host, officeOf[f], hostOf[f], false},
			{"to a balancer", s.host, s.client, hostOf[f], worldOf[f], true},
			{"to somebody else", s.host, s.client, hostOf[f], officeOf[f], false},
		} {
			server := netip.AddrPortFrom(tt.server, uint16(8000+n))
			c := newChat(t, tt.name+", "+f.String(), tt.from, tt.to, netip.AddrPortFrom(tt.client, 0), server)
			c.goesOn(t, "at first")
			if got := s.entryOf(t, c.client, server); got != tt.tracked {
				t.Errorf("%s: tracked %t, want %t", c.name, got, tt.tracked)
			}
			if tt.tracked {
				tracked = append(tracked, c)
			} else {
				untracked = append(untracked, c)
			}
		}
	}
	enforce(t, s.host, load(t, nothing))
	for _, c := range tracked {
		c.goesOn(t, "without a rule")
	}
	for _, c := range untracked {
		c.isCut(t, "without a rule")
	}
	for _, f := range flow.Families {
		serve(t, s.host, hostOf[f], 90)
		refused(t, s.client, worldOf[f], netip.AddrPortFrom(hostOf[f], 90))
	}
}

// With notrack off, open flows are in conntrack and go on being judged by the
// rules alone.
func TestOpenFlowsOfAnInterfaceWithoutNotrack(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	enforce(t, s.host, load(t, `
security_group "web" {
  ingress "http" {
    protocol         = "tcp"
    ports            = [80]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "dns" {
    protocol         = "udp"
    ports            = [5353]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
interface "eth0" {
  security_groups = ["web"]
  notrack         = "off"
}
`))
	for _, f := range flow.Families {
		server := netip.AddrPortFrom(hostOf[f], 80)
		c := newChat(t, f.String(), s.client, s.host, netip.AddrPortFrom(worldOf[f], 0), server)
		c.goesOn(t, "open")
		if !s.entryOf(t, c.client, server) {
			t.Errorf("%s: no entry", c.name)
		}
		dns := netip.AddrPortFrom(hostOf[f], 5353)
		if err := exchangeUDP(s.client, s.host, worldOf[f], dns, dns, patience); err != nil {
			t.Errorf("%s, UDP: %v", c.name, err)
		}
		if !s.hasUDP(t, worldOf[f], dns) {
			t.Errorf("%s, UDP: no entry", c.name)
		}
	}
}

// hasUDP reports whether conntrack has an entry of UDP from an address to a
// port.
func (s *scene) hasUDP(t *testing.T, from netip.Addr, to netip.AddrPort) bool {
	t.Helper()
	entries, err := s.witness.Entries()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if o := e.Original; o.Protocol == flow.UDP && o.Source.Addr() == from && o.Dest == to {
			return true
		}
	}
	return false
}

// routed governs both sides of the router: eth0 is open to the world on some
// ports, eth1 lets some of them through to the machine inside, and lets that
// machine ask the world.
const routed = `
security_group "outside" {
  ingress "http" {
    protocol         = "tcp"
    ports            = [80, 81, 8080, 8081]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "dns" {
    protocol         = "udp"
    ports            = [80, 81, 8080, 8081]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
security_group "inside" {
  egress "http" {
    protocol         = "tcp"
    ports            = [80, 90]
    cidr_blocks      = ["10.9.0.0/24"]
    ipv6_cidr_blocks = ["2001:db8:9::/64"]
  }
  egress "dns" {
    protocol         = "udp"
    ports            = [80, 90]
    cidr_blocks      = ["10.9.0.0/24"]
    ipv6_cidr_blocks = ["2001:db8:9::/64"]
  }
  ingress "any" {
    protocol         = "tcp"
    ports            = ["0-442", "444-65535"]
    cidr_blocks      = ["10.9.0.0/24"]
    ipv6_cidr_blocks = ["2001:db8:9::/64"]
  }
  ingress "dns" {
    protocol         = "udp"
    ports            = ["0-442", "444-65535"]
    cidr_blocks      = ["10.9.0.0/24"]
    ipv6_cidr_blocks = ["2001:db8:9::/64"]
  }
  ingress "gre" {
    protocol         = "gre"
    cidr_blocks      = ["10.9.0.0/24"]
    ipv6_cidr_blocks = ["2001:db8:9::/64"]
  }
}
interface "eth0" { security_groups = ["outside"] }
interface "eth1" { security_groups = ["inside"] }
`

func TestRouterBetweenTwoManagedInterfaces(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	enforce(t, s.host, load(t, routed))
	for _, f := range flow.Families {
		// Through both, and so in conntrack, though the one outside is open.
		for name, way := range map[string]struct {
			from, to       *lab.Namespace
			client, server netip.Addr
			port           uint16
			passes         bool
		}{
			"inwards":                            {s.client, s.inside, worldOf[f], insideOf[f], 80, true},
			"inwards, refused inside":            {s.client, s.inside, worldOf[f], insideOf[f], 81, false},
			"inwards, refused outside":           {s.client, s.inside, worldOf[f], insideOf[f], 90, false},
			"outwards":                           {s.inside, s.client, insideOf[f], worldOf[f], 9000, true},
			"outwards, refused inside":           {s.inside, s.client, insideOf[f], worldOf[f], 443, false},
			"from the host itself, inside":       {s.host, s.inside, addrOfRouter[f], insideOf[f], 90, true},
			"from the host, refused inside":      {s.host, s.inside, addrOfRouter[f], insideOf[f], 81, false},
			"to the host's address of the other": {s.inside, s.host, insideOf[f], hostOf[f], 82, true},
		} {
			name += ", " + f.String()
			server := netip.AddrPortFrom(way.server, way.port)
			wait := impatience
			if way.passes {
				wait = patience
				c := newChat(t, name, way.from, way.to, netip.AddrPortFrom(way.client, 0), server)
				c.goesOn(t, "two interfaces")
				if !s.entryOf(t, c.client, server) {
					t.Errorf("%s: no entry", name)
				}
			} else if _, err := tryConnect(t, way.from, way.client, server, impatience); err == nil {
				t.Errorf("%s: a session came about", name)
			}
			if err := exchangeUDP(way.from, way.to, way.client, server, server, wait); (err == nil) != way.passes {
				t.Errorf("%s, UDP: got %v, want it to pass: %t", name, err, way.passes)
			}
		}
		// Other protocols are tracked at each interface by itself.
		inside, outside := rawSocket(t, s.inside, insideOf[f], 47), rawSocket(t, s.client, worldOf[f], 47)
		gre := line{47, inside, outside}
		if err := gre.back(1); err != nil {
			t.Fatal(err)
		}
		if heard(t, inside, outside, impatience) {
			t.Errorf("%s: it came in unasked", gre)
		}
		if err := gre.out(1); err != nil {
			t.Fatal(err)
		}
		if !heard(t, outside, inside, patience) {
			t.Errorf("%s: it did not go out", gre)
		}
		if err := gre.back(2); err != nil {
			t.Fatal(err)
		}
		if !heard(t, inside, outside, patience) {
			t.Errorf("%s: it did not come back", gre)
		}
	}
}

// addrOfRouter is the host's own address on the side of the machine inside.
var addrOfRouter = map[flow.Family]netip.Addr{flow.IPv4: addr("10.9.0.1"), flow.IPv6: addr("2001:db8:9::1")}

// Ports that are published, and flows that are masqueraded, pass the rules of
// both interfaces by what is on each one's wire.
func TestTranslatedFlowsThroughTwoManagedInterfaces(t *testing.T) {
	t.Parallel()
	for _, f := range flow.Families {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
				publish(t, s.host, f, protocol, 8080, 80)
				publish(t, s.host, f, protocol, 8081, 81)
			}
			masquerade(t, s.host, f)
			enforce(t, s.host, load(t, routed))
			published := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(hostOf[f], port) }
			inside := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(insideOf[f], port) }

			in := newChatVia(t, "published", s.client, s.inside, netip.AddrPortFrom(worldOf[f], 0), published(8080), inside(80))
			in.goesOn(t, "both allow it")
			if !s.entryOf(t, in.client, published(8080)) {
				t.Error("a published flow has no entry")
			}
			if err := exchangeUDP(s.client, s.inside, worldOf[f], published(8080), inside(80), patience); err != nil {
				t.Errorf("published, UDP: %v", err)
			}
			if !s.hasUDP(t, worldOf[f], published(8080)) {
				t.Error("a published flow of UDP has no entry")
			}
			// Open outside, but nothing lets port 81 through inside.
			serve(t, s.inside, insideOf[f], 81)
			refused(t, s.client, worldOf[f], published(8081))
			if err := exchangeUDP(s.client, s.inside, worldOf[f], published(8081), inside(81), impatience); err == nil {
				t.Error("published, refused inside, UDP: it passed")
			}

			out := netip.AddrPortFrom(worldOf[f], 9000)
			c := newChat(t, "masqueraded", s.inside, s.client, netip.AddrPortFrom(insideOf[f], 0), out)
			c.goesOn(t, "both allow it")
			if !s.entryOf(t, c.client, out) {
				t.Error("a masqueraded flow has no entry")
			}
			if err := exchangeUDP(s.inside, s.client, insideOf[f], out, out, patience); err != nil {
				t.Errorf("masqueraded, UDP: %v", err)
			}
			refused(t, s.inside, insideOf[f], netip.AddrPortFrom(worldOf[f], 443))
			in.goesOn(t, "still")

			// Everything is open, to the replies of masqueraded flows as well.
			enforce(t, s.host, load(t, everything+atEth0("everything")))
			out = netip.AddrPortFrom(worldOf[f], 9001)
			open := newChat(t, "masqueraded, open", s.inside, s.client, netip.AddrPortFrom(insideOf[f], 0), out)
			open.goesOn(t, "open")
			if !s.entryOf(t, open.client, out) {
				t.Error("an open masqueraded flow has no entry")
			}
			if err := exchangeUDP(s.inside, s.client, insideOf[f], out, out, patience); err != nil {
				t.Errorf("masqueraded, open, UDP: %v", err)
			}
		})
	}
}
