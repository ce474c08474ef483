package kerneltest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// Large datagrams come in fragments, of which all but the first have no ports.
// The rules judge them whole, in flows of every kind, and so does an ACL.
func TestFragmentsAreJudgedAsAWhole(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	enforce(t, s.host, load(t, onlyPorts+aclText("edge", append([]string{
		"ingress 10 deny udp:81 0.0.0.0/0", "ingress 11 deny udp:81 ::/0",
		"egress 10 deny udp:82 0.0.0.0/0", "egress 11 deny udp:82 ::/0",
	}, allowAll...)...)+behindACL("ports", "edge")))
	for _, f := range flow.Families {
		for name, way := range map[string]struct {
			from, to       *lab.Namespace
			client, server netip.Addr
			port           uint16
			passes         bool
		}{
			"untracked":                   {s.client, s.host, worldOf[f], hostOf[f], 80, true},
			"tracked":                     {s.client, s.host, officeOf[f], hostOf[f], 22, true},
			"tracked, outwards":           {s.host, s.client, hostOf[f], worldOf[f], 9000, true},
			"forwarded":                   {s.client, s.inside, worldOf[f], insideOf[f], 80, true},
			"forwarded, outwards":         {s.inside, s.client, insideOf[f], worldOf[f], 9001, true},
			"no rule":                     {s.client, s.host, worldOf[f], hostOf[f], 23, false},
			"forwarded, no rule":          {s.client, s.inside, worldOf[f], insideOf[f], 23, false},
			"denied by the ACL":           {s.client, s.host, officeOf[f], hostOf[f], 81, false},
			"denied by the ACL, outwards": {s.host, s.client, hostOf[f], worldOf[f], 82, false},
		} {
			wait := impatience
			if way.passes {
				wait = patience
			}
			server := netip.AddrPortFrom(way.server, way.port)
			if err := sendLarge(way.from, way.to, way.client, server, wait); (err == nil) != way.passes {
				t.Errorf("%s, %s: got %v, want it to pass: %t", name, f, err, way.passes)
			}
		}
	}
}

// sendLarge exchanges datagrams of several fragments.
func sendLarge(from, to *lab.Namespace, client netip.Addr, server netip.AddrPort, wait time.Duration) error {
	far, err := to.ListenUDP(server)
	if err != nil {
		return err
	}
	near, err := from.DialUDP(netip.AddrPortFrom(client, 0), server)
	if err != nil {
		return errors.Join(err, far.Close())
	}
	talk := func() error {
		b := make([]byte, 1<<16)
		if _, err := near.Write(b[:10_000]); err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		if err := errors.Join(far.SetReadDeadline(time.Now().Add(wait)), near.SetReadDeadline(time.Now().Add(2*wait))); err != nil {
			return err
		}
		n, peer, err := far.ReadFromUDPAddrPort(b)
		if err != nil || n != 10_000 {
			return fmt.Errorf("hear the question: %d bytes, %w", n, err)
		}
		if _, err := far.WriteToUDPAddrPort(b[:9_000], peer); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		if n, err = near.Read(b); err != nil || n != 9_000 {
			return fmt.Errorf("hear the answer: %d bytes, %w", n, err)
		}
		return nil
	}
	return errors.Join(talk(), near.Close(), far.Close())
}

// Headers between those of IP and UDP, and options, hide no port.
func TestPacketsWithOptionsAreJudgedByTheirPorts(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	enforce(t, s.host, load(t, onlyPorts+aclText("edge", append([]string{
		"ingress 10 deny udp:81 0.0.0.0/0", "ingress 11 deny udp:81 ::/0",
	}, allowAll...)...)+behindACL("ports", "edge")))
	servers := map[netip.AddrPort]*net.UDPConn{}
	for _, f := range flow.Families {
		for _, port := range []uint16{22, 79, 80, 81} {
			at := netip.AddrPortFrom(hostOf[f], port)
			c, err := s.host.ListenUDP(at)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			servers[at] = c
		}
	}
	padding := string([]byte{0, 0, 1, 4, 0, 0, 0, 0}) // a header of one option that means nothing
	waiting := map[netip.AddrPort]map[string]bool{}
	for name, option := range map[string]struct {
		family       flow.Family
		level, which int
		value        string
	}{
		"no option":           {flow.IPv4, unix.IPPROTO_IP, unix.IP_OPTIONS, ""},
		"options":             {flow.IPv4, unix.IPPROTO_IP, unix.IP_OPTIONS, "\x01\x01\x01\x00"},
		"hop by hop":          {flow.IPv6, unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, padding},
		"destination options": {flow.IPv6, unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, padding},
	} {
		f := option.family
		for _, way := range []struct {
			client netip.Addr
			port   uint16
			passes bool
		}{{worldOf[f], 80, true}, {officeOf[f], 22, true}, {worldOf[f], 22, false}, {officeOf[f], 81, false}, {officeOf[f], 79, false}} {
			server := netip.AddrPortFrom(hostOf[f], way.port)
			client, err := s.client.DialUDP(netip.AddrPortFrom(way.client, 0), server)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { client.Close() })
			control(t, client, func(fd int) error { return unix.SetsockoptString(fd, option.level, option.which, option.value) })
			text := fmt.Sprintf("%s from %s", name, way.client)
			if _, err := client.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if way.passes {
				if waiting[server] == nil {
					waiting[server] = map[string]bool{}
				}
				waiting[server][text] = true
			}
		}
	}
	b := make([]byte, 100)
	for at, c := range servers {
		for len(waiting[at]) > 0 {
			n, _, err := readFrom(c, b, patience)
			if err != nil {
				t.Errorf("%s: %v, still waiting for %v", at, err, waiting[at])
				break
			}
			if text := string(b[:n]); !waiting[at][text] {
				t.Errorf("%s: %s passed", at, text)
			}
			delete(waiting[at], string(b[:n]))
		}
	}
	rest(impatience)
	for at, c := range servers {
		if n, _, err := readFrom(c, b, time.Millisecond); err == nil {
			t.Errorf("%s: %s passed", at, b[:n])
		}
	}
}
