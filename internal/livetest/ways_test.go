package livetest

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab/labtest"
)

// apart is the policy p for eth0 with the rules of another one at eth1.
func (s *stand) apart(p, other policy) policy { return s.beside(p, append([]string{}, other.rules...)) }

// wireOf are the peer's own addresses in the network of eth0.
var wireOf = map[flow.Family]netip.Addr{flow.IPv4: addr("192.0.2.20"), flow.IPv6: addr("2001:db8:2::20")}

// answersByAddress makes the host send what it sends from its address on eth1 by
// eth1, as hosts with several uplinks do.
func (s *stand) answersByAddress() {
	s.t.Helper()
	labtest.Command(s.t, "ip")
	for _, f := range flow.Families {
		for _, line := range []string{
			fmt.Sprintf("rule add from %s lookup 100", secondOf[f].host),
			fmt.Sprintf("route add default via %s dev eth1 table 100", secondOf[f].peer),
		} {
			family := "-4"
			if f == flow.IPv6 {
				family = "-6"
			}
			if err := s.host.Do(func() error {
				out, err := exec.Command("ip", append([]string{family}, strings.Fields(line)...)...).CombinedOutput()
				if err != nil {
					return fmt.Errorf("ip %s %s: %w: %s", family, line, err, out)
				}
				return nil
			}); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// onWire are the calls with the peer's address in the network of eth0.
func onWire(calls []call) []call {
	for i := range calls {
		calls[i].peer = wireOf[calls[i].family]
	}
	return calls
}

// A host with an address on each uplink answers by each. A peer in the network of
// the one that talks to the address of the other does so by the other.
func TestFlowsByTheSource(t *testing.T) {
	t.Parallel()
	for _, at := range []place{plain, notrackOff} {
		for _, d := range flow.Directions {
			t.Run(fmt.Sprintf("%s/%s", at, d), func(t *testing.T) {
				t.Parallel()
				s := newUplinks(t, at)
				s.answersByAddress()
				s.address = map[flow.Family]netip.Addr{}
				var peers []netip.Addr
				for _, f := range flow.Families {
					s.address[f] = addr(secondOf[f].host)
					peers = append(peers, wireOf[f])
				}
				s.apply(s.apart(closed(d), open(d)))
				talks := s.open(onWire(s.serviceCalls(d))...)
				s.mark(talks...)
				s.apply(s.apart(closed(d), narrowed(d, peers...)))
				s.smoothly("narrowed to the peer", talks...)
				s.haveEntries("narrowed to the peer", talks...)
				s.apply(s.apart(closed(d), open(d)))
				s.smoothly("open again", talks...)
				p := s.apart(closed(d), closed(d))
				text := s.plan(p).out
				s.says("the plan", text, "will be cut")
				s.says("the plan", text, fmt.Sprintf("(eth1, %s)", d))
				if strings.Contains(text, "(eth0,") {
					t.Errorf("the plan speaks of flows of eth0:\n%s", text)
				}
				s.apply(p)
				s.areCut("the rule is gone", talks...)
			})
		}
	}
}

// A peer behind a router may send by a link that has neither the flow's address nor
// the way back. An open flow there ends with its rule all the same.
func TestOpenByAnotherWay(t *testing.T) {
	t.Parallel()
	const d = flow.Ingress
	s := newUplinks(t, notrackOff)
	s.peerSends()
	s.apply(s.apart(closed(d), open(d)))
	talks := s.open(s.serviceCalls(d)...)
	s.mark(talks...)
	s.apply(s.apart(closed(d), narrowed(d, friends...)))
	s.smoothly("narrowed to the friend", talks...)
	s.apply(s.apart(closed(d), open(d)))
	s.smoothly("open again", talks...)
	s.apply(s.apart(closed(d), closed(d)))
	s.areCut("the rule is gone", talks...)
	s.apply(s.apart(closed(d), closed(d).with(both(d, "third", "7003", friends))))
	s.areCut("after an unrelated apply", talks...)
}

// An address that is on two links does not tell by which a flow came. An open one
// ends with its rule all the same.
func TestOpenAtAnAddressOfTwoLinks(t *testing.T) {
	t.Parallel()
	const d = flow.Ingress
	s := newUplinks(t, notrackOff)
	s.address = map[flow.Family]netip.Addr{flow.IPv4: addr("198.18.99.1"), flow.IPv6: addr("2001:db8:99::1")}
	for _, f := range flow.Families {
		for _, link := range []string{"eth0", "eth1"} {
			if err := s.host.AddAddress(link, netip.PrefixFrom(s.address[f], f.Bits())); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.peerSends()
	s.apply(s.apart(narrowed(d, friends...), open(d)))
	talks := s.open(kindsOf(flow.TCP, call{direction: d})...)
	s.mark(talks...)
	s.apply(s.apart(narrowed(d, friends...), narrowed(d, friends...)))
	s.smoothly("narrowed to the friend", talks...)
	s.apply(s.apart(narrowed(d, friends...), open(d)))
	s.smoothly("open again", talks...)
	s.apply(s.apart(narrowed(d, friends...), closed(d)))
	s.areCut("the rule is gone", talks...)
}
