package scenario

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"sgc/internal/flow"
)

// What was lost before one passed is counted, and nothing that need not be the
// policy's doing.
func TestLostBefore(t *testing.T) {
	const ms = time.Millisecond
	small, large := []*Network{{Name: "a"}, {Name: "b", MTU: 9000}}, []*Network{{Name: "a", MTU: 1400}, {Name: "b", MTU: 9000}}
	for _, tt := range []struct {
		name     string
		protocol flow.Protocol
		networks []*Network
		size     int
		play     func(r *Run, p *player)
		want     int
	}{
		{"none passes", flow.UDP, nil, 56, func(_ *Run, p *player) {
			p.sending(Opener, 1, false)
			p.sending(Opener, 2, false)
		}, 0},
		{"all before the third", flow.UDP, nil, 56, func(_ *Run, p *player) {
			p.sending(Opener, 1, false)
			p.sending(Opener, 2, false)
			p.arrived(Opener, p.sending(Opener, 3, false), 4)
		}, 2},
		{"what follows may be under way", flow.UDP, nil, 56, func(_ *Run, p *player) {
			p.arrived(Opener, p.sending(Opener, 3, false), 4)
			p.sending(Opener, 5, false)
		}, 0},
		{"of the other side", flow.UDP, nil, 56, func(_ *Run, p *player) {
			p.arrived(Opener, p.sending(Opener, 1, false), 2)
			p.sending(Responder, 2, false)
			p.arrived(Responder, p.sending(Responder, 3, false), 4)
		}, 1},
		{"refused by the sender's own rules", flow.UDP, large, 2000, func(_ *Run, p *player) {
			p.failed(Opener, p.sending(Opener, 1, false), syscall.EPERM)
			p.arrived(Opener, p.sending(Opener, 2, false), 3)
		}, 1},
		{"not sent", flow.TCP, nil, 56, func(_ *Run, p *player) {
			p.failed(Opener, p.sending(Opener, 1, true), syscall.EADDRINUSE)
			p.arrived(Opener, p.sending(Opener, 2, true), 3)
		}, 0},
		{"too large for one of the networks", flow.UDP, large, 2000, func(_ *Run, p *player) {
			p.sending(Opener, 1, false)
			p.arrived(Opener, p.sending(Opener, 2, false), 3)
		}, 0},
		{"small enough for all", flow.UDP, small, 1000, func(_ *Run, p *player) {
			p.sending(Opener, 1, false)
			p.arrived(Opener, p.sending(Opener, 2, false), 3)
		}, 1},
		{"too large for all, as the sender knows", flow.UDP, small[:1], 2000, func(_ *Run, p *player) {
			p.sending(Opener, 1, false)
			p.arrived(Opener, p.sending(Opener, 2, false), 3)
		}, 1},
		{"an attempt to connect", flow.TCP, nil, 56, func(_ *Run, p *player) {
			p.failed(Opener, p.sending(Opener, 1, true), errNoAnswer)
			p.arrived(Opener, p.sending(Opener, 900*ms, true), 901*ms)
		}, 1},
		{"an attempt during which the machine stood still", flow.TCP, nil, 56, func(r *Run, p *player) {
			r.clock.stalls = append(r.clock.stalls, stall{at: 500 * ms, took: 300 * ms})
			p.failed(Opener, p.sending(Opener, 1, true), errNoAnswer)
			p.arrived(Opener, p.sending(Opener, 900*ms, true), 901*ms)
		}, 0},
	} {
		r, p := paused(t, tt.protocol)
		r.scenario.Networks, p.spec.Size, p.attempt = tt.networks, tt.size, allowedAttempt
		tt.play(r, p)
		if got := r.lostBefore(p); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	_, p := paused(t, flow.TCP)
	if p.failed(Opener, p.sending(Opener, 1, true), errNoAnswer); errors.Is(errNoAnswer, syscall.EPERM) || p.lane.Packets[0].Failed != "" {
		t.Error("an attempt that nobody answered was not sent")
	}
}

// What the opener's one packet shows is enough where only the other side sends: that
// it is refused, or that it is not, be it that no answer comes back.
func TestCheckOfWhatTheOtherSideSends(t *testing.T) {
	const check = `
  check "CHECK" {
    protocol = "PROTOCOL"
    from     = "server"
    to       = "elsewhere"
    sends    = "to"
    traffic  = "refused"
    MORE
  }
`
	with := func(name, protocol, more string) string {
		return strings.NewReplacer("CHECK", name, "PROTOCOL", protocol, "MORE", more).Replace(check)
	}
	r := playText(t, `
host "elsewhere" {
  forward   = true
  addresses = ["192.0.2.99/24"]
  # To an address that nobody has.
  publish {
    interface = "eth0"
    port      = 124
    to        = "192.0.2.200:124"
  }
  publish {
    interface = "eth0"
    protocol  = "udp"
    port      = 124
    to        = "192.0.2.200:124"
  }
}
step "s" {`+
		with("udp, refused", "udp", "port = 124")+
		with("gre, refused", "gre", "reaches = \"client\"")+
		with("tcp, refused", "tcp", "port = 124")+
		with("udp, not refused", "udp", "port = 123")+
		`}`, func() {})
	for _, v := range r.Steps[0].Verdicts {
		if v.Met != strings.HasSuffix(v.Flow, ", refused") {
			t.Errorf("%s: met is %t; %s", v.Flow, v.Met, v.Seen)
		}
	}
}

// Whoever sees that packets arrive, and reads that none passed, learns that it is the
// answers that do not.
func TestCheckNamesTheSideOfWhichNothingPasses(t *testing.T) {
	r := playText(t, `
host "router" {
  forward = true
  interface "eth0" {
    addresses = ["192.0.2.1/24"]
  }
  interface "eth1" {
    network   = "far"
    addresses = ["198.51.100.1/24"]
  }
  route {
    to  = "198.51.100.77/32"
    via = "198.51.100.99"
  }
}
host "far" {
  interface "eth0" {
    network   = "far"
    addresses = ["198.51.100.77/24"]
  }
}
host "nowhere" {
  interface "eth0" {
    network   = "far"
    addresses = ["198.51.100.99/24"]
  }
}
step "s" {
  check "udp" {
    protocol = "udp"
    from     = "far"
    to       = "server"
    port     = 123
    traffic  = "allowed"
  }
  check "udp, one way" {
    protocol = "udp"
    from     = "far"
    to       = "server"
    port     = 123
    sends    = "to"
    traffic  = "refused"
  }
}
`, func() {})
	both, oneWay := r.Steps[0].Verdicts[0], r.Steps[0].Verdicts[1]
	if both.Met || !strings.HasSuffix(both.Seen, "; nothing that server sent passed") {
		t.Errorf("got %q", both.Seen)
	}
	if oneWay.Met || !strings.HasSuffix(oneWay.Seen, "; 1 passed") {
		t.Errorf("got %q", oneWay.Seen)
	}
}
