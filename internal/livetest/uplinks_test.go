package livetest

import (
	"fmt"
	"strings"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// newUplinks is a stand whose host has a second way to the peer:
//
//	peer wire  ── eth0 host
//	     wire1 ── eth1
func newUplinks(t *testing.T, at place) *stand {
	t.Helper()
	s := newStand(t, at)
	labtest.Connect(t,
		lab.End{Namespace: s.host, Interface: "eth1", Addresses: prefixes("198.18.1.10/24", "2001:db8:5::10/64")},
		lab.End{Namespace: s.peer, Interface: "wire1", Addresses: prefixes("198.18.1.20/24", "2001:db8:5::20/64")})
	for ns, links := range map[*lab.Namespace][]string{s.host: {"all", "eth0", "eth1"}, s.peer: {"all", "wire", "wire1"}} {
		for _, link := range links {
			if err := ns.SetSysctl("net/ipv4/conf/"+link+"/rp_filter", "0"); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

// hostSends makes the host send to the peer by eth1, and peerSends makes the peer
// send to the host so.
func (s *stand) hostSends() {
	s.t.Helper()
	for _, f := range flow.Families {
		s.route(s.host, fmt.Sprintf("%s/%d", friendOf[f], f.Bits()), secondOf[f].peer, "eth1")
	}
}

func (s *stand) peerSends() {
	s.t.Helper()
	for _, f := range flow.Families {
		s.route(s.peer, fmt.Sprintf("%s/%d", s.hostAddress(f), f.Bits()), secondOf[f].host, "wire1")
	}
}

// secondOf are the addresses at the ends of the second way.
var secondOf = map[flow.Family]struct{ host, peer string }{
	flow.IPv4: {"198.18.1.10", "198.18.1.20"}, flow.IPv6: {"2001:db8:5::10", "2001:db8:5::20"},
}

// onBoth is the policy with the group "a" at eth1, too.
func (s *stand) onBoth(p policy) policy { return s.beside(p, nil) }

// beside is the policy with a group of these rules at eth1; nil is the group "a".
func (s *stand) beside(p policy, rules []string) policy {
	attributes := ""
	if s.place == notrackOff {
		attributes = "  notrack = \"off\"\n"
	}
	name := "a"
	if rules != nil {
		name = "b"
		p.blocks += fmt.Sprintf("security_group %q {\n%s}\n", name, strings.Join(rules, ""))
	}
	p.blocks += fmt.Sprintf("interface \"eth1\" {\n  security_groups = [%q]\n%s}\n", name, attributes)
	return p
}

// A flow that is cut stays cut while routes lead it by other interfaces, if their
// rules do not let it open; and goes on by those whose rules do.
func TestCutOnEveryWay(t *testing.T) {
	t.Parallel()
	for _, at := range []place{plain, notrackOff, besideNAT} {
		for _, d := range flow.Directions {
			t.Run(fmt.Sprintf("%s/%s", at, d), func(t *testing.T) {
				t.Parallel()
				s := newUplinks(t, at)
				s.apply(s.onBoth(open(d)))
				talks := s.open(s.serviceCalls(d)...)
				s.apply(s.onBoth(closed(d)))
				s.areCut("by the first way", talks...)
				s.hostSends()
				s.areCut("the host sends by the other way", talks...)
				s.peerSends()
				s.areCut("both send by the other way", talks...)
				s.apply(s.onBoth(closed(d).with(both(d, "third", "7003", friends))))
				s.areCut("after an unrelated apply", talks...)

				datagrams := only(talks, isUDP)
				s.reopen(s.beside(closed(d), open(d).rules), talks...)
				s.mark(datagrams...)
				s.smoothly("open on the other way", datagrams...)
				if h := s.held(); len(h) == 0 {
					t.Error("nothing is held on the first way")
				}
			})
		}
	}
}

// What is allowed on the other way when a flow is cut is not held there.
func TestNotHeldWhereItIsAllowed(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newUplinks(t, notrackOff)
			s.apply(s.beside(open(d), open(d).rules))
			talks := s.open(kindsOf(flow.UDP, call{direction: d})...)
			s.apply(s.beside(closed(d), open(d).rules))
			s.areCut("by the first way", talks...)
			pause(true, talks...)
			s.hostSends()
			s.peerSends()
			pause(false, talks...)
			s.mark(talks...)
			s.smoothly("by the other way", talks...)
		})
	}
}
