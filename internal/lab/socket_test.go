package lab_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"sgc/internal/lab"
)

// A dial that nobody answers ends with its context, says so, and does not keep
// its port from the next one.
func TestDialThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	for _, tt := range []struct{ local, nobody, server string }{
		{"192.0.2.20", "192.0.2.99", "10.9.0.2"},
		{"2001:db8:2::20", "2001:db8:2::99", "2001:db8:9::2"},
	} {
		// Nor does anybody say that there is nobody, however late it is asked.
		if err := l.left.AddNeighbour("wire", addr(tt.nobody), net.HardwareAddr{2, 0, 0, 0, 0, 0x99}); err != nil {
			t.Fatal(err)
		}
		local, to := netip.AddrPortFrom(addr(tt.local), 40000), netip.AddrPortFrom(addr(tt.server), 80)
		_, err := l.left.DialTCP(within(t, 100*time.Millisecond), local, netip.AddrPortFrom(addr(tt.nobody), 80))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial to nobody: got %v, want DeadlineExceeded", err)
		}
		if _, err := l.left.DialTCP(within(t, 30*time.Second), local, to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial to a closed port: got %v, want ECONNREFUSED", err)
		}
		listener, err := l.right.ListenTCP(to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		go lab.Echo(listener)
		c, err := l.left.DialTCP(within(t, 30*time.Second), local, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := lab.RoundTrip(c, []byte("hello"), 30*time.Second); err != nil {
			t.Error(err)
		}
		if got := c.LocalAddr().String(); got != local.String() {
			t.Errorf("dialled from %s, want %s", got, local)
		}
	}
}

// A host may send from the port at which it is asked: the answers go to the
// socket that is connected to their sender, all else to the other.
func TestSocketsShareAPortOfUDP(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	service, resolver := netip.AddrPortFrom(addr("192.0.2.20"), 53), netip.AddrPortFrom(addr("10.9.0.2"), 53)
	listener, err := l.left.ListenUDP(service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	client, err := l.left.DialUDP(service, resolver)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	answering, err := l.right.DialUDP(resolver, service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answering.Close() })
	asking, err := l.right.DialUDP(netip.AddrPortFrom(resolver.Addr(), 40000), service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { asking.Close() })
	for _, tt := range []struct {
		text     string
		from, to interface {
			Read([]byte) (int, error)
			Write([]byte) (int, error)
			SetDeadline(time.Time) error
		}
	}{{"an answer", answering, client}, {"a question", asking, listener}} {
		b := make([]byte, 64)
		// The kernel drops what comes while it is busy with packets of others.
		for begun := time.Now(); ; {
			if _, err := tt.from.Write([]byte(tt.text)); err != nil {
				t.Fatal(err)
			}
			if err := tt.to.SetDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := tt.to.Read(b)
			if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(begun) < 30*time.Second {
				continue
			}
			if err != nil || string(b[:n]) != tt.text {
				t.Errorf("got %q, %v, want %q", b[:n], err, tt.text)
			}
			break
		}
	}
}
