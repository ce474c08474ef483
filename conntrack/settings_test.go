package conntrack

import (
	"encoding/json"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sgc/policies"
)

func timeouts(tcp, udp, stream int) *policies.Timeouts {
	return &policies.Timeouts{TCPEstablished: time.Duration(tcp) * time.Second, UDP: time.Duration(udp) * time.Second, UDPStream: time.Duration(stream) * time.Second}
}

func TestWantedSettings(t *testing.T) {
	eth := func(name string, t *policies.Timeouts) *policies.Interface {
		return &policies.Interface{Name: name, Timeouts: t}
	}
	for _, tc := range []struct {
		name       string
		interfaces []*policies.Interface
		host       *policies.HostConntrack
		want       Settings
	}{
		{"a policy without interfaces leaves all alone", nil, nil, Settings{}},
		{"the defaults of the language", []*policies.Interface{eth("eth0", nil)}, nil,
			Settings{TimeoutTCPEstablished: 432000, TimeoutUDP: 30, TimeoutUDPStream: 180}},
		{"one interface", []*policies.Interface{eth("eth0", timeouts(350, 40, 120))}, nil,
			Settings{TimeoutTCPEstablished: 350, TimeoutUDP: 40, TimeoutUDPStream: 120}},
		{"interfaces that agree", []*policies.Interface{eth("eth0", timeouts(350, 40, 120)), eth("eth1", timeouts(350, 40, 120))}, nil,
			Settings{TimeoutTCPEstablished: 350, TimeoutUDP: 40, TimeoutUDPStream: 120}},
		{"each value for itself", []*policies.Interface{eth("eth0", timeouts(350, 40, 120)), eth("eth1", timeouts(350, 60, 60))}, nil,
			Settings{TimeoutTCPEstablished: 350, TimeoutUDP: 30, TimeoutUDPStream: 180}},
		{"one that says nothing has the defaults, and disagrees", []*policies.Interface{eth("eth0", timeouts(350, 30, 120)), eth("eth1", nil)}, nil,
			Settings{TimeoutTCPEstablished: 432000, TimeoutUDP: 30, TimeoutUDPStream: 180}},
		{"two of three agree", []*policies.Interface{eth("a", timeouts(60, 30, 60)), eth("b", timeouts(350, 30, 60)), eth("c", timeouts(350, 30, 60))}, nil,
			Settings{TimeoutTCPEstablished: 432000, TimeoutUDP: 30, TimeoutUDPStream: 60}},
		{"the host", nil, &policies.HostConntrack{Max: 1000, ICMPTimeout: 10 * time.Second, GenericTimeout: 300 * time.Second},
			Settings{TimeoutICMP: 10, TimeoutICMPv6: 10, TimeoutGeneric: 300, MaxEntries: 1000}},
		{"what the host leaves out stays", nil, &policies.HostConntrack{GenericTimeout: 300 * time.Second}, Settings{TimeoutGeneric: 300}},
	} {
		got := Wanted(&policies.Policy{Interfaces: tc.interfaces, Host: policies.Host{Conntrack: tc.host}})
		if !maps.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
		for s, v := range got {
			if err := s.Check(v); err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
	}
}

// made returns what changes make of settings.
func made(have Settings, changes []SettingChange) Settings {
	out := maps.Clone(have)
	for _, c := range changes {
		if out[c.Setting] != c.Old {
			panic("a change of something else")
		}
		out[c.Setting] = c.New
	}
	return out
}

func randomSettings(r *rand.Rand, percent int) Settings {
	s := Settings{}
	for _, x := range AllSettings() {
		if r.IntN(100) < percent {
			s[x] = uint32(1 + r.IntN(3))
		}
	}
	return s
}

func TestDiffsOfSettings(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		have, want := randomSettings(r, 100), randomSettings(r, 50)
		if d := DiffSettings(have, have); len(d) != 0 {
			t.Fatalf("from %v to the same: %v", have, d)
		}
		changes := DiffSettings(have, want)
		if !slices.IsSortedFunc(changes, func(a, b SettingChange) int { return int(a.Setting) - int(b.Setting) }) {
			t.Fatalf("out of order: %v", changes)
		}
		got := made(have, changes)
		for s, v := range want {
			if got[s] != v {
				t.Fatalf("from %v to %v: %v makes %v", have, want, changes, got)
			}
		}
		// What was recorded brings everything back.
		if back := made(got, DiffSettings(got, have)); !maps.Equal(back, have) {
			t.Fatalf("back from %v: %v, want %v", got, back, have)
		}
	}
	if m := MissingSettings(Settings{TimeoutICMP: 1}, Settings{TimeoutUDP: 30, TimeoutICMP: 2, TimeoutTCPEstablished: 3}); !slices.Equal(m, []Setting{TimeoutTCPEstablished, TimeoutUDP}) {
		t.Errorf("missing: %v", m)
	}
	// The kernel has no such setting.
	if d := DiffSettings(Settings{}, Settings{TimeoutUDP: 30}); len(d) != 0 {
		t.Errorf("a setting that the kernel does not have: %v", d)
	}
}

func TestSettingsAsJSON(t *testing.T) {
	s := Settings{TimeoutTCPEstablished: 350, MaxEntries: 0, TimeoutICMPv6: 30}
	b, err := json.Marshal(s)
	if want := `{"icmpv6_timeout":30,"max":0,"tcp_established_timeout":350}`; err != nil || string(b) != want {
		t.Fatalf("%s, %v; want %s", b, err, want)
	}
	var back Settings
	if err := json.Unmarshal(b, &back); err != nil || !maps.Equal(back, s) {
		t.Errorf("%v, %v; want %v", back, err, s)
	}
	if err := json.Unmarshal([]byte(`{"sctp_timeout":1}`), &back); err == nil {
		t.Error("a setting that there is not")
	}
	if _, err := json.Marshal(Settings{settingCount: 1}); err == nil {
		t.Error("a setting that there is not has a name")
	}
}

func TestRangesOfSettings(t *testing.T) {
	for _, tc := range []struct {
		setting Setting
		value   uint32
		ok      bool
	}{
		{TimeoutUDP, 0, false}, {TimeoutUDP, 1, true}, {TimeoutTCPEstablished, 432000, true},
		{TimeoutTCPEstablished, 4294967, true}, {TimeoutTCPEstablished, 4294968, false}, {TimeoutGeneric, math.MaxUint32, false},
		{MaxEntries, 0, true}, {MaxEntries, math.MaxInt32, true}, {MaxEntries, math.MaxInt32 + 1, false},
		{settingCount, 1, false},
	} {
		if err := tc.setting.Check(tc.value); (err == nil) != tc.ok {
			t.Errorf("%s %d: %v", tc.setting, tc.value, err)
		}
	}
	if got, want := (SettingChange{TimeoutUDP, 30, 40}).String(), "udp_timeout 30s → 40s"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := (SettingChange{MaxEntries, 30, 40}).String(), "max 30 → 40"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
