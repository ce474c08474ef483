package livetest

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// others are protocols without ports: one that conntrack has a tracker for, and
// one that nobody has.
var others = []flow.Protocol{47, 99}

// otherPort stands where other protocols have ports. As the beginning of a header
// of GRE it is sound.
const otherPort = 0x2020

// tunnelRule allows the protocols to some peers.
func tunnelRule(d flow.Direction, peers []netip.Addr) string {
	text := ""
	for _, p := range others {
		text += rule(d, fmt.Sprintf("tunnel%d_%s", p, d), fmt.Sprint(uint8(p)), "", peers)
	}
	return text
}

// tunnels opens flows of the protocols, and waits until both ends of all heard
// from each other.
func (s *stand) tunnels(d flow.Direction, peers map[flow.Family]netip.Addr) []*talk {
	s.t.Helper()
	var talks []*talk
	for _, f := range flow.Families {
		for _, p := range others {
			k := &talk{call: call{protocol: p, family: f, direction: d, peer: peers[f]}, done: make(chan struct{})}
			k.local = netip.AddrPortFrom(s.wireAddress(f), otherPort)
			k.remote = netip.AddrPortFrom(k.peer, otherPort)
			k.nearAt = netip.AddrPortFrom(s.nearAddress(f), otherPort)
			k.leg.protocol = p
			s.watch.add(s.t, k.leg, k.nearAt)
			s.attend(k)
			s.tunnelEnd(&k.near, s.near(), p, k.nearAt.Addr(), k.remote.Addr())
			s.tunnelEnd(&k.far, s.peer, p, k.remote.Addr(), k.local.Addr())
			caller, callee := k.ends()
			s.t.Cleanup(func() { s.hangUp(k) })
			go caller.speak(k.done)
			go callee.answer(k.done)
			talks = append(talks, k)
		}
	}
	s.goOn("at the beginning", talks...)
	return talks
}

// tunnelEnd makes a raw socket an end of a talk.
func (s *stand) tunnelEnd(e *end, ns *lab.Namespace, p flow.Protocol, local, remote netip.Addr) {
	s.t.Helper()
	var c *net.IPConn
	err := ns.Do(func() (err error) {
		c, err = net.ListenIP(fmt.Sprintf("ip%d:%d", flow.FamilyOf(local), p), &net.IPAddr{IP: local.AsSlice()})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	to := &net.IPAddr{IP: remote.AsSlice()}
	header := []byte{otherPort >> 8, otherPort & 0xff, otherPort >> 8, otherPort & 0xff}
	e.write = func(b []byte) error {
		_, err := c.WriteToIP(append(append([]byte{}, header...), b...), to)
		return err
	}
	go func() {
		for b := make([]byte, 1<<16); ; {
			_, from, err := c.ReadFromIP(b)
			if err != nil {
				return
			}
			if from.IP.Equal(to.IP) {
				e.hear()
			}
		}
	}()
}

// counts expects a plan to say how many flows are cut, and how many go on without
// a rule.
func (s *stand) counts(when string, p policy, cut, goOn float64, flags ...string) {
	s.t.Helper()
	live := s.document(s.plan(p, append(flags, "--json")...))["live_flows"].(map[string]any)
	if live["cut"] != cut || live["go_on"] != goOn {
		s.t.Errorf("%s: the plan says %v; want %v to be cut, %v to go on", when, live, cut, goOn)
	}
}

// What sgc tracks by itself is cut and goes on as what conntrack tracks, with one
// difference: nobody knows who opened it.
func TestOtherProtocols(t *testing.T) {
	t.Parallel()
	for _, at := range []place{plain, besideNAT, routed} {
		for _, d := range flow.Directions {
			t.Run(at.String()+"/"+d.String(), func(t *testing.T) {
				t.Parallel()
				s := newStand(t, at)
				strangers := []netip.Addr{strangerOf[flow.IPv4], strangerOf[flow.IPv6]}
				back := d.Opposite()
				p := policy{
					rules:    []string{tunnelRule(d, strangers)},
					groups:   map[string][]string{"g": {tunnelRule(d, friends)}, "b": {both(back, "third", "7003", friends)}},
					attached: []string{"a", "b", "g"},
				}
				s.apply(p)
				talks, kept := s.tunnels(d, friendOf), s.tunnels(d, strangerOf)

				detached := p
				detached.attached = []string{"a", "b"}
				s.mark(append(talks, kept...)...)
				s.counts("detached", detached, 0, 4)
				s.apply(detached)
				s.smoothly("detached", append(talks, kept...)...)
				s.mark(kept...)
				s.counts("revoked later", detached, 4, 0, "--flush", "revoked")
				s.says("the plan", s.plan(detached, "--flush", "revoked").out, "4 flows cut")
				s.apply(detached, "--flush", "revoked")
				s.areCut("revoked later", talks...)
				s.haveNone("revoked later", talks...)
				s.smoothly("revoked later, others", kept...)
				s.apply(p)
				s.goOn("allowed again", talks...)
				s.apply(detached)
				s.mark(append(talks, kept...)...)

				revoked := detached
				revoked.groups = map[string][]string{"g": p.groups["g"], "b": {tunnelRule(back, friends)}}
				s.counts("allowed the other way", revoked, 0, 0, "--flush", "revoked")
				s.apply(revoked, "--flush", "revoked")
				s.smoothly("allowed the other way", append(talks, kept...)...)
				s.mark(kept...)
				s.counts("revoked", detached, 4, 0, "--flush", "revoked")
				s.apply(detached, "--flush", "revoked")
				s.areCut("revoked", talks...)
				s.smoothly("revoked, others", kept...)
				s.apply(detached, "--flush", "revoked")
				s.areCut("once more", talks...)

				s.apply(p)
				s.goOn("allowed again", talks...)
				s.mark(append(talks, kept...)...)
				deleted := p
				deleted.groups = map[string][]string{"g": p.groups["g"]}
				deleted.attached = []string{"a", "g"}
				s.apply(deleted)
				s.smoothly("another group is deleted", append(talks, kept...)...)
				deleted.groups, deleted.attached = nil, nil
				s.mark(kept...)
				s.counts("deleted", deleted, 4, 0)
				s.apply(deleted)
				s.areCut("deleted", talks...)
				s.haveNone("deleted", talks...)
				s.smoothly("deleted, others", kept...)
				s.counts("at the end", deleted, 0, 0, "--flush", "revoked")
				s.says("the plan", s.plan(deleted).out, "No changes.")
			})
		}
	}
}
