package lab_test

import (
	"net/netip"
	"testing"
	"time"

	"sgc/internal/lab"
)

// A port at which nobody listens says so, of the datagram that it is about; a
// router that finds no way says something else.
func TestErrorsOfDatagrams(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	for _, tt := range []struct {
		local, server string
		unreachable   bool
	}{
		{"192.0.2.20", "10.9.0.2", true},
		{"2001:db8:2::20", "2001:db8:9::2", true},
		{"192.0.2.20", "203.0.113.9", false},
		{"2001:db8:2::20", "2001:db8:ffff::9", false},
	} {
		c, err := l.left.DialUDP(netip.AddrPortFrom(addr(tt.local), 40000), netip.AddrPortFrom(addr(tt.server), 53))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := lab.QueueErrors(c); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("anybody there?")); err != nil {
			t.Fatal(err)
		}
		var got []lab.ICMPError
		for end := time.Now().Add(30 * time.Second); len(got) == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			if got, err = lab.TakeErrors(c); err != nil {
				t.Fatal(err)
			}
		}
		if len(got) != 1 || got[0].PortUnreachable != tt.unreachable || string(got[0].Payload) != "anybody there?" {
			t.Errorf("%s: got %+v", tt.server, got)
		}
		if got, err := lab.TakeErrors(c); err != nil || len(got) != 0 {
			t.Errorf("%s: it said so twice: %+v, %v", tt.server, got, err)
		}
	}
}
