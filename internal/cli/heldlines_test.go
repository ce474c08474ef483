package cli

import (
	"slices"
	"testing"
)

func TestHeldLines(t *testing.T) {
	view := func(name, flow string, expires int, released bool) heldView {
		return heldView{Interface: name, Opened: "ingress", Flow: flow, LocalPort: 53, Peers: "0.0.0.0/0", PeerPorts: "0-65535", Expires: expires, Released: released}
	}
	const a, b = "in udp 192.0.2.7:1 → 192.0.2.10:53", "in udp 192.0.2.7:2 → 192.0.2.10:53"
	for _, tc := range []struct {
		name       string
		held, want []heldView
		flows      int
	}{
		{"nothing", nil, nil, 0},
		{"one flow on two interfaces", []heldView{view("eth0", a, 180, false), view("eth1", a, 179, false)}, []heldView{view("eth0, eth1", a, 180, false)}, 1},
		{"two flows on two interfaces", []heldView{view("eth0", a, 180, false), view("eth0", b, 180, false), view("eth1", a, 180, false), view("eth1", b, 180, false)},
			[]heldView{view("eth0, eth1", a, 180, false), view("eth0, eth1", b, 180, false)}, 2},
		{"for times of their own", []heldView{view("eth0", a, 180, false), view("eth1", a, 60, false), view("eth2", a, 60, false)},
			[]heldView{view("eth0", a, 180, false), view("eth1, eth2", a, 60, false)}, 1},
		{"one is let go", []heldView{view("eth0", a, 180, true), view("eth1", a, 180, false)}, []heldView{view("eth0", a, 180, true), view("eth1", a, 180, false)}, 1},
		{"ports are no flow", []heldView{view("eth0", "", 180, false), view("eth1", "", 180, false)}, []heldView{view("eth0", "", 180, false), view("eth1", "", 180, false)}, 0},
	} {
		if got := heldLines(tc.held); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
		if got := heldFlowCount(tc.held); got != tc.flows {
			t.Errorf("%s: %d flows, want %d", tc.name, got, tc.flows)
		}
	}
}
