package livetest

import (
	"os"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab/labtest"
)

// Most servers listen at any address, for both families with one socket.
func TestServersOfBothFamilies(t *testing.T) {
	t.Parallel()
	for _, at := range []place{plain, notrackOff} {
		t.Run(at.String(), func(t *testing.T) {
			t.Parallel()
			const d = flow.Ingress
			s := newStand(t, at)
			s.wildcard = true
			early := s.open(kinds(call{direction: d})...)
			s.reopen(narrowed(d, friends...), early...)
			s.mark(early...)
			s.smoothly("adopted", early...)
			s.apply(open(d))
			s.smoothly("open", early...)
			strangers := s.open(fromStrangers(kinds(call{direction: d}))...)
			s.mark(early...)
			s.apply(narrowed(d, friends...))
			s.smoothly("narrowed", early...)
			s.haveEntries("narrowed", early...)
			s.areCut("the stranger's", strangers...)
			s.reopen(open(d), strangers...)
			s.opens("open again", fromStrangers(kinds(call{direction: d}))...)
			s.apply(closed(d))
			s.areCut("closed", append(early, only(strangers, isUDP)...)...)
			s.opens("the other way", kinds(call{direction: flow.Egress, port: unnamed})...)
		})
	}
}

// A block of another name governs the interface: flows are kept and cut by it.
func TestInterfaceByPrefix(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		named := func(iface string, p policy) policy {
			p.iface = iface
			return p
		}
		s.apply(named("eth0*", open(d)))
		talks := s.open(s.serviceCalls(d)...)
		s.mark(talks...)
		s.apply(named("eth0", open(d)))
		s.smoothly("by its own name", talks...)
		strangers := s.open(fromStrangers(kinds(call{direction: d}))...)
		s.mark(talks...)
		s.apply(named("eth0*", narrowed(d, friends...)))
		s.smoothly("narrowed", talks...)
		s.areCut("the stranger's", strangers...)
		s.reopen(named("eth0*", open(d)), strangers...)
		s.apply(named("e*", closed(d)))
		// Of a TCP flow that was cut any segment may go on once it is open again,
		// and so look as if the other side had opened it.
		gone := append(talks, only(strangers, isUDP)...)
		s.areCut("closed", gone...)
		s.apply(closed(d))
		s.areCut("closed, by another name", gone...)
	})
}

// An interface that is named later, or no more.
func TestInterfaceComesAndGoes(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			none := policy{rules: []string{all(d)}, iface: "eth9"}
			s.apply(none)
			talks := s.open(kinds(call{direction: d, connected: true})...)
			s.mark(talks...)
			s.apply(narrowed(d, friends...))
			s.smoothly("named", talks...)
			s.haveEntries("named", talks...)
			s.apply(none)
			s.smoothly("named no more", talks...)
			s.mark(talks...)
			s.apply(oneWay(d))
			s.smoothly("named again", talks...)
			s.apply(open(d))
			s.apply(closed(d))
			s.areCut("closed", talks...)
			s.apply(none)
			s.goOn("named no more", only(talks, isUDP)...)
		})
	}
}

// Another table makes open flows stay in conntrack from the next apply on, and
// they leave it when it is gone. They are open all the time, and so are cut when
// nothing allows them.
func TestAnotherTableComesAndGoes(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			s.apply(open(d))
			talks := s.open(kinds(call{direction: d, connected: true})...)
			for range 2 {
				s.mark(talks...)
				s.translate()
				s.smoothly("with another table", talks...)
				s.apply(open(d))
				s.smoothly("with another table, applied", talks...)
				s.haveEntries("with another table, applied", talks...)
				s.untranslate()
				s.mark(talks...)
				s.apply(open(d))
				s.smoothly("without it", talks...)
				s.haveNone("without it", talks...)
			}
			s.translate()
			s.apply(open(d))
			s.goOn("with another table", talks...)
			s.apply(closed(d))
			s.areCut("closed", talks...)
			s.untranslate()
			s.apply(closed(d))
			s.areCut("closed, and without the table", talks...)
		})
	}
}

// The same where the policy itself asks for it.
func TestNotrackIsTurnedOffAndOn(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			off := func(p policy) policy {
				p.attributes = "  notrack = \"off\"\n"
				return p
			}
			s.apply(open(d))
			talks := s.open(kinds(call{direction: d, connected: true})...)
			for range 2 {
				s.mark(talks...)
				s.apply(off(open(d)))
				s.smoothly("off", talks...)
				s.haveEntries("off", talks...)
				s.apply(open(d))
				s.smoothly("auto", talks...)
				s.haveNone("auto", talks...)
			}
			s.mark(talks...)
			s.apply(off(narrowed(d, friends...)))
			s.smoothly("off, and narrowed", talks...)
			s.apply(open(d))
			s.apply(off(open(d)))
			s.goOn("off", talks...)
			s.apply(off(closed(d)))
			s.areCut("closed", talks...)
			s.apply(closed(d))
			s.areCut("closed, and auto", talks...)
		})
	}
}

// A peer that is always tracked from now on keeps its flows, and one that is so
// no more.
func TestAlwaysTrack(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		balancers := open(d)
		balancers.attributes = `  always_track "friends" {
    cidr_blocks      = ["203.0.113.0/24"]
    ipv6_cidr_blocks = ["2001:db8:78::/64"]
  }
`
		s.apply(open(d))
		mine := s.open(s.serviceCalls(d)...)
		strangers := s.open(fromStrangers(kinds(call{direction: d}))...)
		s.mark(append(mine, strangers...)...)
		s.apply(balancers)
		s.smoothly("always tracked", append(mine, strangers...)...)
		s.haveEntries("always tracked", mine...)
		if s.place.untracks() {
			s.haveNone("the stranger's", strangers...)
		}
		without := closed(d)
		without.attributes = balancers.attributes
		s.apply(without)
		s.smoothly("always tracked, and the rule is gone", mine...)
		s.areCut("the stranger's", strangers...)
		s.reopen(open(d), strangers...)
		s.smoothly("tracked no more", mine...)
		s.apply(closed(d))
		s.areCut("tracked no more, and the rule is gone", append(mine, only(strangers, isUDP)...)...)
	})
}

// A forwarded flow crosses two interfaces: either may cut it.
func TestCutOnTheInnerInterface(t *testing.T) {
	t.Parallel()
	for _, at := range []place{routed, published} {
		for _, d := range flow.Directions {
			t.Run(at.String()+"/"+d.String(), func(t *testing.T) {
				t.Parallel()
				s := newStand(t, at)
				// What comes in at eth0 goes out at eth1.
				inner := func(rules ...string) policy {
					p := open(d)
					p.groups = map[string][]string{"inner": rules}
					p.blocks = "interface \"eth1\" { security_groups = [security_group.inner] }\n"
					return p
				}
				both := inner(all(flow.Ingress), all(flow.Egress))
				s.apply(both)
				talks := s.open(kinds(call{direction: d})...)
				back := s.open(kinds(call{direction: d.Opposite(), port: unnamed})...)
				s.mark(back...)
				// The same ports as at eth0, or those behind it: none.
				s.apply(inner(all(d)))
				s.isolated("closed at eth1", talks...)
				s.smoothly("the other way", back...)
				s.apply(inner(all(d), rule(d.Opposite(), "tcp", "tcp", "9", friends)))
				s.isolated("after another apply", talks...)
				s.apply(both)
				s.opens("open again", kinds(call{direction: d})...)
			})
		}
	}
}

// isolated expects that neither end hears the other any more.
func (s *stand) isolated(when string, talks ...*talk) {
	s.t.Helper()
	labtest.Settle(s.t)
	type heard struct{ near, far uint64 }
	for end := time.Now().Add(patience); ; {
		old := map[*talk]heard{}
		for _, k := range talks {
			old[k] = heard{k.near.got.Load(), k.far.got.Load()}
		}
		s.poke(talks...)
		rest(impatience)
		loud := only(talks, func(k *talk) bool { return old[k] != heard{k.near.got.Load(), k.far.got.Load()} })
		if len(loud) == 0 {
			return
		}
		if time.Now().Before(end) {
			continue // what was on its way may come late
		}
		for _, k := range loud {
			s.t.Errorf("%s: %s: the near end heard %d messages, the far end %d; %s", when, k.call,
				k.near.got.Load()-old[k].near, k.far.got.Load()-old[k].far, s.about(k))
		}
		return
	}
}

// Where the record of what is enforced is lost, what was open is read from the
// kernel.
func TestRecordIsLost(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			s.apply(open(d))
			talks := s.open(s.serviceCalls(d)...)
			other := s.open(kinds(call{direction: d, port: otherService})...)
			if err := os.RemoveAll(s.state()); err != nil {
				t.Fatal(err)
			}
			s.goOn("the record is lost", append(talks, other...)...)
			s.mark(other...)
			s.apply(closed(d))
			s.areCut("closed", talks...)
			s.smoothly("others", other...)
			s.opens("the other way", kinds(call{direction: d.Opposite(), port: unnamed})...)
		})
	}
}

// Where nothing is allowed any more, nothing passes.
func TestEverythingIsClosed(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(open(d))
		talks := s.open(append(s.serviceCalls(d), kinds(call{direction: d, port: otherService})...)...)
		nothing := open(d)
		nothing.attached = []string{}
		s.apply(nothing)
		s.areCut("no group", talks...)
		s.haveNone("no group", talks...)
		s.reopen(open(d), talks...)
		s.opens("open again", kinds(call{direction: d})...)
	})
}
