package livetest

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// reusePort lets a connection be dialled from a port on which a socket listens, as
// peers of each other do.
func reusePort(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); e != nil {
		return e
	}
	return err
}

// listenAndDial opens a connection from a port of the host on which the host
// listens, to a port of the friend's.
func (s *stand) listenAndDial(f flow.Family, from, to uint16) *talk {
	s.t.Helper()
	k := &talk{call: call{protocol: flow.TCP, family: f, direction: flow.Egress, peer: friendOf[f], port: to}, done: make(chan struct{})}
	k.leg = leg{flow.TCP, netip.AddrPortFrom(hostOf[f], from), netip.AddrPortFrom(k.peer, to)}
	k.nearAt = k.local
	s.watch.add(s.t, k.leg, k.nearAt)
	s.attend(k)
	accepted := s.listen(s.peer, k.remote).expect(k.local)
	if err := s.host.Do(func() error {
		ctx := context.Background()
		l, err := (&net.ListenConfig{Control: reusePort}).Listen(ctx, "tcp", k.local.String())
		if err != nil {
			return err
		}
		s.t.Cleanup(func() { l.Close() })
		c, err := (&net.Dialer{Control: reusePort, LocalAddr: net.TCPAddrFromAddrPort(k.local)}).DialContext(ctx, "tcp", k.remote.String())
		if err != nil {
			return err
		}
		s.carry(&k.near, c)
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	s.carry(&k.far, <-accepted)
	s.t.Cleanup(func() { s.hangUp(k) })
	go k.near.speak(k.done)
	go k.far.answer(k.done)
	return k
}

// A connection that the host dialled from a port on which it listens is the host's,
// and does not end with the rule that lets others in there.
func TestDialledFromAListeningPort(t *testing.T) {
	t.Parallel()
	for _, at := range []place{notrackOff, besideNAT} {
		t.Run(at.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, at)
			s.apply(open(flow.Ingress))
			var mine []*talk
			for _, f := range flow.Families {
				mine = append(mine, s.listenAndDial(f, service, unnamed))
			}
			s.goOn("at the beginning", mine...)
			s.mark(mine...)
			s.apply(closed(flow.Ingress))
			s.smoothly("others may not come in", mine...)
			s.haveEntries("others may not come in", mine...)
		})
	}
}
