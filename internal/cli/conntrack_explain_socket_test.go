package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/policies"
)

// Of a flow that was cut, its sockets are left. What is said of it is true of its
// packets, also when other applies came since.
func TestExplainFlowsThatWereCut(t *testing.T) {
	requireNft(t)
	s := newStage(t, true)
	peer := labtest.Namespace(t, "peer")
	labtest.Connect(t,
		lab.End{Namespace: s.ns, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}},
		lab.End{Namespace: peer, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}})
	policy := func(ingress, egress string) string {
		return fmt.Sprintf(`security_group "web" {
  %s
  ingress "other" {
    protocol    = "tcp"
    ports       = [8080]
    cidr_blocks = ["192.0.2.0/24"]
  }
  egress "any" {
    protocol    = "-1"
    cidr_blocks = ["%s"]
  }
}

interface "eth0" {
  security_groups = [security_group.web]
}
`, ingress, egress)
	}
	const open = `ingress "open" {
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }`
	s.write("open/web.hcl", policy(open, "0.0.0.0/0"))
	s.write("closed/web.hcl", policy("", "0.0.0.0/0"))
	s.write("later/web.hcl", strings.Replace(policy("", "0.0.0.0/0"), "8080", "8081", 1))
	s.write("shut/web.hcl", policy("", "203.0.113.0/24"))
	apply := func(name string) {
		t.Helper()
		s.mustRun("apply", "--auto-approve", s.dir+"/"+name)
	}
	inside := func(ns *lab.Namespace, f func() error) {
		t.Helper()
		if err := ns.Do(f); err != nil {
			t.Fatal(err)
		}
	}
	apply("open")
	var listener net.Listener
	inside(s.ns, func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp4", "192.0.2.10:80")
		return err
	})
	defer listener.Close()
	var client net.Conn
	inside(peer, func() (err error) {
		client, err = net.Dial("tcp4", "192.0.2.10:80")
		return err
	})
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var inner, outer *net.UDPConn
	inside(s.ns, func() (err error) {
		inner, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.10:53")), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.7:10000")))
		return err
	})
	defer inner.Close()
	inside(peer, func() (err error) {
		outer, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.7:10000")), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.10:53")))
		return err
	})
	defer outer.Close()
	// within is how long to wait: for what is not to come, a moment.
	const moment, long = 300 * time.Millisecond, 30 * time.Second
	arrives := func(from, to net.Conn, within time.Duration) bool {
		t.Helper()
		_, _ = from.Write([]byte("x")) // a refused one may fail
		if err := to.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		_, err := to.Read(make([]byte, 1))
		return err == nil
	}
	if !arrives(server, client, long) || !arrives(inner, outer, long) {
		t.Fatal("nothing passes under the open policy")
	}

	one := func(port string, says ...string) explained {
		t.Helper()
		all := s.explain("--port="+port, "--revoked")
		if len(all) != 1 {
			t.Fatalf("port %s: %+v", port, all)
		}
		e := all[0]
		if e.Class != "none" || e.Socket == "" || e.Remaining != nil {
			t.Errorf("port %s: %+v", port, e)
		}
		for _, text := range says {
			if !strings.Contains(e.text(), text) {
				t.Errorf("port %s: it does not say %q:\n%s", port, text, e.text())
			}
		}
		for _, text := range []string{"alive", "goes on", "Tracked"} {
			if strings.Contains(e.text(), text) {
				t.Errorf("port %s: it says %q:\n%s", port, text, e.text())
			}
		}
		return e
	}
	var cut time.Time
	check := func(when string) {
		t.Helper()
		one("80", "No rule allows it", " by security_group.web.ingress.open, which is gone", "no packet of it passes",
			"ss -tK src 192.0.2.10:80 dst "+client.LocalAddr().String())
		e := one("53", "what the host sends is refused for another", "eth0: in udp 192.0.2.7:10000 → 192.0.2.10:53",
			"From then on the next packet that the host sends opens a flow of its own, as security_group.web.egress.any allows")
		if h := e.Explained.Held; h == nil || h.Expires > 180 || time.Duration(h.Expires+2)*time.Second < 180*time.Second-time.Since(cut) {
			t.Errorf("%s: held is %+v, %s after the cut", when, h, time.Since(cut))
		}
		for _, way := range [][2]net.Conn{{server, client}, {client, server}, {inner, outer}, {outer, inner}} {
			if arrives(way[0], way[1], moment) {
				t.Errorf("%s: a packet of %s passes from %s", when, way[0].LocalAddr().Network(), way[0].LocalAddr())
			}
		}
	}
	cut = time.Now()
	apply("closed")
	check("after the apply that cuts")
	apply("later")
	check("after another apply")
	if all := s.explain("--class=tracked", "--port=80"); len(all) != 0 {
		t.Errorf("they are tracked: %+v", all)
	}

	// Once nothing is held, what may send does as it was said.
	s.nft("flush set inet sgc refused.egress.ipv4")
	e := one("53", "the next packet that the host sends opens a flow of its own, as security_group.web.egress.any allows")
	if e.Explained.Held != nil {
		t.Errorf("held is %+v", e.Explained.Held)
	}
	apply("shut")
	one("53", "no packet of it passes")
	if arrives(inner, outer, moment) || arrives(outer, inner, moment) {
		t.Error("a packet passes although no rule allows one")
	}
	apply("closed")
	if !arrives(inner, outer, long) {
		t.Error("the host's next packet opens no flow")
	}
}

// What is held of a flow is found, and what is held of others is not.
func TestHeldFlows(t *testing.T) {
	hold := func(h policies.Held, expires time.Duration) heldUntil { return heldUntil{h, expires} }
	address := netip.MustParseAddr
	p := flow.Packet{
		Interface: "eth0", Direction: flow.Ingress, Protocol: flow.UDP,
		Source: address("198.51.100.7"), SourcePort: 4000, Dest: address("192.0.2.10"), DestPort: 53,
	}
	single := policies.HoldFlow(&p, netip.MustParseAddrPort("192.0.2.10:53"))
	port := policies.Held{
		Interface: "eth0", Opened: flow.Ingress, LocalPort: 53,
		Peers: flow.Range{First: address("198.51.100.0"), Last: address("198.51.100.255")}, PeerPorts: flow.PortRange{First: 0, Last: 65535},
	}
	key := heldKey{"eth0", netip.MustParseAddrPort("198.51.100.7:4000"), 53}
	h := heldFlows{exact: map[heldKey][]heldUntil{key: {hold(single, time.Minute)}}, ports: []heldUntil{hold(port, time.Second)}}
	if u := h.of(&p); u == nil || u.expires != time.Minute {
		t.Errorf("the flow itself: %+v", u)
	}
	back := p.Reply()
	if u := h.of(&back); u == nil || u.expires != time.Minute {
		t.Errorf("the other way: %+v", u)
	}
	for name, change := range map[string]func(*flow.Packet){
		"another peer's port": func(p *flow.Packet) { p.SourcePort++ },
		"another address":     func(p *flow.Packet) { p.Dest = p.Dest.Next() },
	} {
		q := p
		change(&q)
		if u := h.of(&q); u == nil || u.expires != time.Second {
			t.Errorf("%s, under the port: %+v", name, u)
		}
	}
	for name, change := range map[string]func(*flow.Packet){
		"another interface": func(p *flow.Packet) { p.Interface = "eth1" },
		"another protocol":  func(p *flow.Packet) { p.Protocol = flow.TCP },
		"another peer":      func(p *flow.Packet) { p.Source = address("203.0.113.1") },
		"another port":      func(p *flow.Packet) { p.DestPort++ },
	} {
		q := p
		change(&q)
		if u := h.of(&q); u != nil {
			t.Errorf("%s: %+v", name, u)
		}
	}
}
