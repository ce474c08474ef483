package livetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// mark begins the time in which a stall counts.
func (s *stand) mark(talks ...*talk) {
	s.t.Helper()
	if len(talks) == 0 {
		return
	}
	// In this order, packets that pass in between count as refused, and not as if
	// others had not been.
	passed := s.watch.counts(s.t)
	came := s.watch.arrivals(s.t)
	for _, k := range talks {
		k.refused = refused(came[k.leg], passed[k.leg])
		k.near.mark()
		k.far.mark()
	}
}

// refusals returns how many packets of a flow were refused since its mark, at
// least. The flow stands still meanwhile.
func (s *stand) refusals(k *talk) uint64 {
	s.t.Helper()
	ends := []*end{&k.near, &k.far}
	for _, e := range ends {
		if !e.paused.Load() {
			k.pause(true, e)
			defer k.pause(false, e)
		}
	}
	s.machine.drain(s.t)
	came := s.watch.arrivals(s.t)
	n := refused(came[k.leg], s.watch.counts(s.t)[k.leg])
	return n - min(n, k.refused)
}

// pause keeps both ends of flows from sending, or lets them go on.
func pause(paused bool, talks ...*talk) {
	for _, k := range talks {
		k.pause(paused, &k.near)
		k.pause(paused, &k.far)
	}
}

// pause keeps one end from sending, or lets it go on. What is just being sent has
// left afterwards; but a segment of TCP may wait for long.
func (k *talk) pause(paused bool, e *end) {
	e.paused.Store(paused)
	for paused && !isTCP(k) && e.busy.Load() {
		time.Sleep(time.Millisecond)
	}
}

// goOn expects that both ends of each flow hear more from each other.
func (s *stand) goOn(when string, talks ...*talk) {
	s.t.Helper()
	const more = 10
	type heard struct{ near, far uint64 }
	old := map[*talk]heard{}
	for _, k := range talks {
		old[k] = heard{k.near.got.Load(), k.far.got.Load()}
	}
	fresh := func(k *talk) heard {
		return heard{k.near.got.Load() - old[k].near, k.far.got.Load() - old[k].far}
	}
	end := time.Now().Add(patience)
	for _, k := range talks {
		if !before(end, func() bool { h := fresh(k); return h.near >= more && h.far >= more }) {
			h := fresh(k)
			s.t.Errorf("%s: %s: the near end heard %d messages, the far end %d, want more of both; %s", when, k.call, h.near, h.far, s.about(k))
		}
	}
}

// smoothly expects that flows go on, and that since their mark neither end waited
// longer than a stall may be while sgc refused packets. Where it refused none, the
// processes or processors of the flow stood still, which the machine's own flow
// need not have noticed.
func (s *stand) smoothly(when string, talks ...*talk) {
	s.t.Helper()
	s.goOn(when, talks...)
	for _, k := range talks {
		for name, e := range map[string]*end{"near": &k.near, "far": &k.far} {
			gap := e.longestGap()
			if gap <= stall {
				continue
			}
			if n := s.refusals(k); n > 0 {
				s.t.Errorf("%s: %s: the %s end heard nothing for %s, and %d packets were refused", when, k.call, name, gap.Round(time.Millisecond), n)
			}
		}
	}
}

// areCut expects that from now on no packet of the flows comes past sgc, in
// either direction, while both ends keep sending.
func (s *stand) areCut(when string, talks ...*talk) {
	s.t.Helper()
	labtest.Settle(s.t)
	old, came := s.watch.counts(s.t), s.watch.arrivals(s.t)
	s.poke(talks...)
	rest(impatience)
	s.awaitTries(came, talks...)
	s.poke(talks...)
	after := s.watch.counts(s.t)
	for _, k := range talks {
		if in, out := after[k.leg][0]-old[k.leg][0], after[k.leg][1]-old[k.leg][1]; in+out > 0 {
			s.t.Errorf("%s: %s: %d packets in, %d packets out, want none; %s", when, k.call, in, out, s.about(k))
		}
	}
}

// awaitTries waits until packets that both ends of UDP flows sent came to sgc: a
// processor that stands still sends none, and none of them is easily refused. (Of
// TCP there is poke.)
func (s *stand) awaitTries(came map[leg]crossed, talks ...*talk) {
	s.t.Helper()
	const tries = 3
	var waiting string
	if !eventually(func() bool {
		waiting = ""
		now := s.watch.arrivals(s.t)
		for _, k := range talks {
			for d, e := range map[flow.Direction]*end{flow.Ingress: &k.far, flow.Egress: &k.near} {
				if isUDP(k) && !e.paused.Load() && now[k.leg][d]-came[k.leg][d] < tries {
					waiting = fmt.Sprintf("%s, %s", k.call, d)
				}
			}
		}
		return waiting == ""
	}) {
		s.t.Errorf("%s: nothing is sent", waiting)
	}
}

// oneWayOnly expects that no packet of the flows comes past sgc in direction d.
func (s *stand) deniedIn(when string, d flow.Direction, talks ...*talk) {
	s.t.Helper()
	labtest.Settle(s.t)
	before := s.watch.counts(s.t)
	rest(impatience)
	after := s.watch.counts(s.t)
	for _, k := range talks {
		if n := after[k.leg][d] - before[k.leg][d]; n > 0 {
			s.t.Errorf("%s: %s: %d packets in the denied direction", when, k.call, n)
		}
	}
}

// poke sends segments in the middle of TCP flows from both ends, since a socket
// whose segments are lost sends ever more seldom.
func (s *stand) poke(talks ...*talk) {
	s.t.Helper()
	for _, k := range talks {
		if k.call.protocol != flow.TCP {
			continue
		}
		for range 3 {
			s.segment(s.near(), k.leg, true, k)
			s.segment(s.peer, k.leg, false, k)
		}
	}
}

// segment sends one segment in the middle of a flow.
func (s *stand) segment(ns *lab.Namespace, l leg, near bool, k *talk) {
	s.t.Helper()
	source, dest := l.remote, l.local
	if near {
		source, dest = k.nearAt, l.remote
	}
	b, err := lab.Marshal(&flow.Packet{
		Protocol: flow.TCP, Source: source.Addr(), Dest: dest.Addr(),
		SourcePort: source.Port(), DestPort: dest.Port(), TCPFlags: flow.ACK | flow.PSH,
	}, lab.Envelope{Seq: 4711, Ack: 4711, Payload: []byte("poke")})
	if err != nil {
		s.t.Fatal(err)
	}
	// The host's own rules may refuse it: that is an error here, and right.
	_ = s.sender(ns).Send(b)
}

func (s *stand) sender(ns *lab.Namespace) *lab.Sender {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.senders[ns.Name()] == nil {
		iface := "wire"
		if ns == s.host {
			iface = "eth0"
		}
		sender, err := ns.OpenSender(iface, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { sender.Close() })
		s.senders[ns.Name()] = sender
	}
	return s.senders[ns.Name()]
}

// entry returns the conntrack entry of a flow.
func (s *stand) entry(k *talk) (lab.Entry, bool) {
	s.t.Helper()
	return entryOf(s.entries(), k)
}

// entries returns all of the host's conntrack. That takes a while: the kernel keeps
// the entries of all namespaces of the machine in one table.
func (s *stand) entries() []lab.Entry {
	s.t.Helper()
	entries, err := s.witness.Entries()
	if err != nil {
		s.t.Fatal(err)
	}
	return entries
}

func entryOf(entries []lab.Entry, k *talk) (lab.Entry, bool) {
	for _, e := range entries {
		if lab.Tracks([]lab.Entry{e}, &flow.Packet{
			Protocol: k.call.protocol, Source: k.remote.Addr(), Dest: k.local.Addr(), SourcePort: k.remote.Port(), DestPort: k.local.Port(),
		}) {
			return e, true
		}
	}
	return lab.Entry{}, false
}

// about says what conntrack knows of a flow.
func (s *stand) about(k *talk) string {
	s.t.Helper()
	if e, ok := s.entry(k); ok {
		return "conntrack has " + e.String()
	}
	return "conntrack has no entry"
}

// haveEntries expects that each flow has an entry, which names the side that
// opened it. Of unconnected UDP that the kernel did not track, whoever sends next
// counts as the opener.
func (s *stand) haveEntries(when string, talks ...*talk) {
	s.t.Helper()
	var entries []lab.Entry
	before(time.Now().Add(patience), func() bool {
		entries = s.entries()
		return !slices.ContainsFunc(talks, func(k *talk) bool { _, there := entryOf(entries, k); return !there })
	})
	for _, k := range talks {
		e, there := entryOf(entries, k)
		if !there {
			s.t.Errorf("%s: %s: no entry", when, k.call)
			continue
		}
		if s.place.untracks() && isUDP(k) && !k.connected {
			continue
		}
		inwards := e.Original.Source == k.remote
		if inwards != (k.direction == flow.Ingress) {
			s.t.Errorf("%s: %s: the entry says that the other side opened it: %s", when, k.call, e)
		}
	}
}

// haveNone expects that no flow has an entry.
func (s *stand) haveNone(when string, talks ...*talk) {
	s.t.Helper()
	entries := s.entries()
	for _, k := range talks {
		if e, ok := entryOf(entries, k); ok {
			s.t.Errorf("%s: %s: there is an entry: %s", when, k.call, e)
		}
	}
}

// settled expects that p is in force, with nothing left to do.
func (s *stand) settled(when string, p policy) {
	s.t.Helper()
	if r := s.plan(p); r.err != "" || !strings.Contains(r.out, "No changes.") {
		s.t.Errorf("%s: plan prints\n%s%s", when, r.out, r.err)
	}
}

// opens expects that new flows come about at once.
func (s *stand) opens(when string, calls ...call) []*talk {
	s.t.Helper()
	var talks []*talk
	for _, c := range calls {
		k, err := s.dial(c, patience)
		if err != nil {
			s.t.Errorf("%s: new %s: %v", when, c.filled(), err)
			continue
		}
		if k.took > stall {
			if n := s.refusals(k); n > 0 {
				s.t.Errorf("%s: new %s: it took %s, and %d packets were refused", when, c.filled(), k.took.Round(time.Millisecond), n)
			}
		}
		talks = append(talks, k)
	}
	s.smoothly(when+", new", talks...)
	return talks
}

// refuses expects that new flows do not come about: nothing of them comes past
// sgc.
func (s *stand) refuses(when string, calls ...call) {
	s.t.Helper()
	var talks []*talk
	for _, c := range calls {
		k, err := s.dial(c, impatience)
		if err == nil && c.protocol == flow.TCP {
			s.t.Errorf("%s: new %s: it came about", when, c.filled())
		}
		talks = append(talks, k)
	}
	rest(impatience)
	counts := s.watch.counts(s.t)
	for _, k := range talks {
		if n := counts[k.leg][k.direction]; n > 0 {
			s.t.Errorf("%s: new %s: %d packets came through", when, k.call, n)
		}
		// An UDP talk would go on trying, and open its flow when it is allowed.
		pause(true, k)
	}
}

// kinds are calls of both protocols and families, with the rest as in c.
func kinds(c call) []call {
	var calls []call
	for _, f := range flow.Families {
		for _, p := range []flow.Protocol{flow.TCP, flow.UDP} {
			k := c
			k.protocol, k.family, k.connected = p, f, p == flow.UDP && c.connected
			calls = append(calls, k)
		}
	}
	return calls
}

// kindsOf are the kinds of one protocol.
func kindsOf(p flow.Protocol, c call) []call {
	return slices.DeleteFunc(kinds(c), func(k call) bool { return k.protocol != p })
}

// fromStrangers are the same calls with the stranger as the peer.
func fromStrangers(calls []call) []call {
	var out []call
	for _, c := range calls {
		c.peer = strangerOf[c.family]
		out = append(out, c)
	}
	return out
}

// serviceCalls are flows of the service in every kind that the place has:
// connected sockets are the host's own business.
func (s *stand) serviceCalls(d flow.Direction) []call {
	calls := kinds(call{direction: d})
	if !s.place.behind() {
		for _, f := range flow.Families {
			calls = append(calls, call{protocol: flow.UDP, family: f, direction: d, connected: true})
		}
	}
	return calls
}

func only(talks []*talk, keep func(*talk) bool) []*talk {
	var out []*talk
	for _, k := range talks {
		if keep(k) {
			out = append(out, k)
		}
	}
	return out
}

func isTCP(k *talk) bool { return k.call.protocol == flow.TCP }
func isUDP(k *talk) bool { return k.call.protocol == flow.UDP }

// says expects that a text holds another.
func (s *stand) says(what, text, want string) {
	s.t.Helper()
	if !strings.Contains(text, want) {
		s.t.Errorf("%s does not say %q:\n%s", what, want, text)
	}
}
