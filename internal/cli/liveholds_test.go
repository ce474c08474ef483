package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// A plan says which UDP its commit refuses for a while, and which of what is
// refused already its apply lets go.
func TestPlanShowsWhatIsHeldAndLetGo(t *testing.T) {
	requireNft(t)
	s := newStage(t, true)
	peer := labtest.Namespace(t, "peer")
	labtest.Connect(t,
		lab.End{Namespace: s.ns, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}},
		lab.End{Namespace: peer, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}})
	policy := func(name, cidr, notrack string) string {
		s.write(name+"/web.hcl", fmt.Sprintf(`security_group "web" {
  ingress "dns" {
    protocol    = "udp"
    ports       = [53]
    cidr_blocks = ["%s"]
  }
  egress "any" {
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

interface "eth0" {
  security_groups = [security_group.web]
  notrack         = "%s"
}
`, cidr, notrack))
		return s.dir + "/" + name
	}
	open, narrowed, closed := policy("open", "0.0.0.0/0", "auto"), policy("narrowed", "198.51.0.0/16", "auto"), policy("closed", "203.0.113.0/24", "auto")
	entries, off := policy("entries", "0.0.0.0/0", "off"), policy("off", "203.0.113.0/24", "off")
	s.mustRun("apply", "--auto-approve", open)
	listen := func(remote string) {
		t.Helper()
		err := s.ns.Do(func() error {
			var c net.Conn
			config := net.ListenConfig{Control: shared}
			dialer := net.Dialer{Control: shared, LocalAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.10:53"))}
			var err error
			if remote == "" {
				var p net.PacketConn
				if p, err = config.ListenPacket(context.Background(), "udp4", "192.0.2.10:53"); err == nil {
					t.Cleanup(func() { p.Close() })
				}
				return err
			}
			if c, err = dialer.Dial("udp4", remote); err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	listen("192.0.2.7:10000")
	listen("192.0.2.7:10001")
	listen("")

	type document struct {
		Live struct {
			WillHold []heldView `json:"will_hold"`
		} `json:"live_flows"`
		Held []heldView `json:"held"`
	}
	plan := func(path string) (string, document) {
		t.Helper()
		var d document
		if err := json.Unmarshal([]byte(s.mustRun("plan", "--json", path).out), &d); err != nil {
			t.Fatal(err)
		}
		return s.mustRun("plan", path).out, d
	}
	says := func(text string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("it does not say %q:\n%s", w, text)
			}
		}
	}
	count := func(held []heldView, is func(heldView) bool) (n int) {
		for _, h := range held {
			if is(h) {
				n++
			}
		}
		return n
	}
	exact := func(h heldView) bool { return h.Flow != "" }

	text, d := plan(closed)
	says(text, "2 UDP flows of connected sockets will be refused for a while by their addresses and ports:",
		"eth0: in udp 192.0.2.7:10000 → 192.0.2.10:53  for 180s", "eth0: udp of the host's port 53 to")
	if strings.Contains(text, "UDP flows of conntrack") {
		t.Errorf("it speaks of entries:\n%s", text)
	}
	if n := count(d.Live.WillHold, exact); n != 2 || len(d.Live.WillHold) == n {
		t.Errorf("will_hold: %+v", d.Live.WillHold)
	}
	cut := time.Now()
	s.mustRun("apply", "--auto-approve", closed)
	released := func(h heldView) bool { return h.Released && !h.PartlyReleased }
	partly := func(h heldView) bool { return h.PartlyReleased && !h.Released }
	text, d = plan(open)
	says(text, "eth0: in udp 192.0.2.7:10000 → 192.0.2.10:53  for another ", ", let go by this apply")
	if len(d.Held) < 3 || count(d.Held, released) != len(d.Held) {
		t.Errorf("held: %+v", d.Held)
	}
	for _, h := range d.Held {
		if h.Expires > 180 || time.Duration(h.Expires+2)*time.Second < 180*time.Second-time.Since(cut) {
			t.Errorf("%s after the cut, held: %+v", time.Since(cut), h)
		}
	}
	text, d = plan(narrowed)
	says(text, ", partly let go by this apply")
	if count(d.Held, released) != 0 || count(d.Held, partly) == 0 || count(d.Held, exact) != 2 {
		t.Errorf("held: %+v", d.Held)
	}
	if text, d = plan(closed); strings.Contains(text, "let go") || count(d.Held, released)+count(d.Held, partly) > 0 {
		t.Errorf("an apply of the same lets go:\n%s", text)
	}

	// Entries are refused after the commit.
	s.mustRun("apply", "--auto-approve", entries)
	var client net.Conn
	if err := peer.Do(func() (err error) {
		client, err = net.Dial("udp4", "192.0.2.10:53")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// Of a peer that goes on sending, the entry stays.
	go func() {
		for {
			if _, err := client.Write([]byte("x")); errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(time.Second)
		}
	}()
	witness := labtest.Witness(t, s.ns)
	eventually(t, "an entry", func() bool {
		entries, err := witness.Entries()
		return err == nil && len(entries) > 0
	})
	text, _ = plan(off)
	says(text, "1 will be cut", "UDP flows of conntrack that are cut will be refused by their addresses and ports for the UDP stream timeout.")
	s.mustRun("apply", "--auto-approve", off)
	says(s.mustRun("status").out, "eth0: in udp "+client.LocalAddr().String()+" → 192.0.2.10:53  for another 1")
}

// shared lets several sockets have the same local end.
func shared(_, _ string, c syscall.RawConn) error {
	var err error
	failed := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	return errors.Join(failed, err)
}
