package livetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// bulk is a TCP connection on which one end sends whole windows, and the other
// says nothing.
type bulk struct {
	leg
	name      string
	hostSends bool
	end       end
	// refused is how many packets had been refused at the mark.
	refused uint64
}

// stream opens a connection at eth0 in a direction, over which the host or its
// peer sends.
func (s *stand) stream(d flow.Direction, f flow.Family, hostSends bool) *bulk {
	s.t.Helper()
	who := "the peer"
	if hostSends {
		who = "the host"
	}
	b := &bulk{hostSends: hostSends, name: fmt.Sprintf("%s, opened %s, %s sends", f, map[flow.Direction]string{flow.Ingress: "inwards", flow.Egress: "outwards"}[d], who)}
	from, to := s.near(), s.peer
	port := s.nextPort()
	client, server := netip.AddrPortFrom(s.nearAddress(f), port), netip.AddrPortFrom(friendOf[f], service)
	dial, seen := server, netip.AddrPortFrom(s.wireAddress(f), port)
	if d == flow.Ingress {
		from, to = to, from
		client = netip.AddrPortFrom(friendOf[f], port)
		server = netip.AddrPortFrom(s.nearAddress(f), s.nearPort(service))
		dial, seen = netip.AddrPortFrom(s.wireAddress(f), service), client
	}
	near := client
	b.leg = leg{flow.TCP, seen, server}
	if d == flow.Ingress {
		near = server
		b.leg = leg{flow.TCP, dial, client}
	}
	s.watch.add(s.t, b.leg, near)
	accepted := s.listen(to, server).expect(seen)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := from.DialTCP(ctx, client, dial)
	if err != nil {
		s.t.Fatal(err)
	}
	var sender, receiver net.Conn = c, <-accepted
	if hostSends == (d == flow.Ingress) {
		sender, receiver = receiver, sender
	}
	s.t.Cleanup(func() { sender.Close(); receiver.Close() })
	b.end.machine = s.machine
	b.end.mark()
	go func() {
		for chunk := make([]byte, 128<<10); ; time.Sleep(2 * pace) {
			if _, err := sender.Write(chunk); err != nil {
				return
			}
		}
	}()
	go func() {
		for chunk := make([]byte, 1<<20); ; {
			n, err := receiver.Read(chunk)
			if err != nil {
				return
			}
			if n > 0 {
				b.end.hear()
			}
		}
	}()
	return b
}

// streams are bulk transfers of both families, each with either side sending.
func (s *stand) streams(d flow.Direction) []*bulk {
	s.t.Helper()
	var out []*bulk
	for _, f := range flow.Families {
		for _, hostSends := range []bool{false, true} {
			out = append(out, s.stream(d, f, hostSends))
		}
	}
	s.flowing("at the beginning", out...)
	return out
}

func (s *stand) markStreams(streams ...*bulk) {
	s.t.Helper()
	passed := s.watch.counts(s.t)
	came := s.watch.arrivals(s.t)
	for _, b := range streams {
		b.refused = refused(came[b.leg], passed[b.leg])
		b.end.mark()
	}
}

// flowing expects that transfers go on, and that since their mark there was no
// stall in which packets were refused.
func (s *stand) flowing(when string, streams ...*bulk) {
	s.t.Helper()
	old := map[*bulk]uint64{}
	for _, b := range streams {
		old[b] = b.end.got.Load()
	}
	end := time.Now().Add(patience)
	for _, b := range streams {
		if !before(end, func() bool { return b.end.got.Load() > old[b]+20 }) {
			s.t.Errorf("%s: %s: the transfer does not go on", when, b.name)
		}
		gap := b.end.longestGap()
		if gap <= stall {
			continue
		}
		came := s.watch.arrivals(s.t)
		if n := refused(came[b.leg], s.watch.counts(s.t)[b.leg]); n > b.refused {
			s.t.Errorf("%s: %s: nothing came for %s, and %d packets were refused", when, b.name, gap.Round(time.Millisecond), n-b.refused)
		}
	}
}

// standing are the flows of a host that can be adopted.
func (s *stand) standing(d flow.Direction) []*talk {
	return s.open(append(kinds(call{direction: d, connected: true}), kinds(call{direction: d, port: otherService, connected: false})[0], kinds(call{direction: d, port: otherService})[2])...)
}

// The policies of a first apply, by what they say of the flows that are there.
var firstPolicies = map[string]func(flow.Direction) policy{
	"open":        open,
	"tracked":     func(d flow.Direction) policy { return narrowed(d, friends...) },
	"one way":     oneWay,
	"not allowed": func(d flow.Direction) policy { return policy{rules: []string{both(d, "third", "7003", anyone)}} },
}

// The first apply, one after a destroy, and one after somebody flushed the
// ruleset cut and stall nothing, whoever sends next.
func TestFirstApplyAdopts(t *testing.T) {
	t.Parallel()
	for _, name := range sortedKeys(firstPolicies) {
		for _, d := range flow.Directions {
			t.Run(name+"/"+d.String(), func(t *testing.T) {
				t.Parallel()
				s := newStand(t, plain)
				p := firstPolicies[name](d)
				talks, streams := s.standing(d), s.streams(d)
				check := func(when string) {
					t.Helper()
					s.smoothly(when, talks...)
					s.flowing(when, streams...)
					for _, k := range talks {
						// Everybody may use the other service, also where this one
						// is the friend's.
						if name == "open" || name == "tracked" && k.port == otherService {
							s.haveNone(when, k)
						} else {
							s.haveEntries(when, k)
						}
					}
				}
				again := func() {
					s.mark(talks...)
					s.markStreams(streams...)
				}
				again()
				s.apply(p)
				check("after the first apply")

				s.must("destroy", "--auto-approve")
				time.Sleep(impatience)
				again()
				s.apply(p)
				check("after a destroy")

				s.flushRuleset()
				time.Sleep(impatience)
				again()
				s.apply(p)
				check("after the ruleset was flushed")
			})
		}
	}
}

// flushRuleset deletes every table, as a boot script would.
func (s *stand) flushRuleset() {
	s.t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(s.host.FD()))
	if err != nil {
		s.t.Fatal(err)
	}
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		s.t.Fatal(err)
	}
	s.watch.start(s.t)
}

// A peer that is silent for longer than the apply lasts: the first to send
// afterwards may be either side.
func TestFirstApplyAdoptsSilentFlows(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		for _, hostFirst := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/host first %t", d, hostFirst), func(t *testing.T) {
				t.Parallel()
				s := newStand(t, plain)
				talks := s.open(kinds(call{direction: d, connected: true})...)
				pause(true, talks...)
				time.Sleep(50 * time.Millisecond)
				s.apply(policy{rules: []string{both(d, "third", "7003", anyone)}})
				end := time.Now().Add(patience)
				for _, k := range talks {
					first, second := &k.far, &k.near
					if hostFirst {
						first, second = second, first
					}
					heard := second.got.Load()
					first.paused.Store(false)
					if !before(end, func() bool { return second.got.Load() > heard+5 }) {
						t.Errorf("%s: what the first side sends does not arrive", k.call)
					}
				}
				pause(false, talks...)
				s.goOn("at the end", talks...)
			})
		}
	}
}

// What conntrack already holds at the first apply goes on, too, also where the
// policy would not let it open.
func TestFirstApplyBesideNAT(t *testing.T) {
	t.Parallel()
	for _, at := range []place{besideNAT, published} {
		for _, name := range sortedKeys(firstPolicies) {
			for _, d := range flow.Directions {
				t.Run(fmt.Sprintf("%s/%s/%s", at, name, d), func(t *testing.T) {
					t.Parallel()
					s := newStand(t, at)
					talks, streams := s.open(s.serviceCalls(d)...), s.streams(d)
					s.mark(talks...)
					s.markStreams(streams...)
					s.apply(firstPolicies[name](d))
					s.smoothly("after the first apply", talks...)
					s.flowing("after the first apply", streams...)
				})
			}
		}
	}
}

// Routed flows without entries go on from their next packet if the rules allow
// it.
func TestFirstApplyLetsRoutedFlowsGoOn(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"open", "tracked", "one way"} {
		for _, d := range flow.Directions {
			t.Run(name+"/"+d.String(), func(t *testing.T) {
				t.Parallel()
				s := newStand(t, routed)
				talks, streams := s.open(kinds(call{direction: d})...), s.streams(d)
				if name == "one way" {
					// A side whose packets no rule allows has to wait for one of
					// the other side, and that one says nothing by itself.
					streams = slices.DeleteFunc(streams, func(b *bulk) bool { return b.hostSends == (d == flow.Ingress) })
				}
				s.mark(talks...)
				s.markStreams(streams...)
				s.apply(firstPolicies[name](d))
				s.smoothly("after the first apply", talks...)
				s.flowing("after the first apply", streams...)
				// A later apply that touches nothing of them leaves them alone.
				s.apply(firstPolicies[name](d).with(both(d, "third", "7003", anyone)))
				s.smoothly("after another apply", talks...)
			})
		}
	}
}

// A segment in the middle of no connection is refused even where its port is
// allowed, and also in the window of the first apply if it is the host's.
func TestSegmentOfNoConnectionIsRefused(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			s.apply(policy{rules: []string{serviceRule(d, friends)}})
			var stray []*talk
			for _, f := range flow.Families {
				k := &talk{call: call{protocol: flow.TCP, family: f, direction: d}.filled()}
				k.leg = leg{flow.TCP, netip.AddrPortFrom(hostOf[f], service), netip.AddrPortFrom(friendOf[f], s.nextPort())}
				if d == flow.Egress {
					k.leg = leg{flow.TCP, netip.AddrPortFrom(hostOf[f], s.nextPort()), netip.AddrPortFrom(friendOf[f], service)}
				}
				k.nearAt = k.local
				s.watch.add(t, k.leg, k.nearAt)
				stray = append(stray, k)
			}
			s.areCut("no connection", stray...)
			s.haveNone("no connection", stray...)
		})
	}
}

// A connection that ends is gone as ever: nothing keeps its port.
func TestAdoptedConnectionEnds(t *testing.T) {
	t.Parallel()
	s := newStand(t, plain)
	l, err := s.host.ListenTCP(netip.AddrPortFrom(hostOf[flow.IPv4], service))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := netip.AddrPortFrom(friendOf[flow.IPv4], s.nextPort())
	connect := func() (near, far net.Conn) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		far, err := s.peer.DialTCP(ctx, client, netip.AddrPortFrom(hostOf[flow.IPv4], service))
		for errors.Is(err, unix.EADDRINUSE) && ctx.Err() == nil {
			time.Sleep(pace) // the last acknowledgement is still on its way
			far, err = s.peer.DialTCP(ctx, client, netip.AddrPortFrom(hostOf[flow.IPv4], service))
		}
		if err != nil {
			t.Fatal(err)
		}
		if near, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		return near, far
	}
	near, far := connect()
	s.apply(policy{rules: []string{serviceRule(flow.Ingress, friends)}})
	if _, err := near.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	// The host closes first, so that the client's port is free at once.
	near.Close()
	if err := far.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(far); err != nil || string(b) != "last words" {
		t.Errorf("the peer read %q, %v", b, err)
	}
	far.Close()
	near, far = connect()
	near.Close()
	far.Close()
}
