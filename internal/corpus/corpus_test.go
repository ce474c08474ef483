package corpus

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

var everything = Options{ACLs: true, AlwaysTrack: true, Logs: true, Timeouts: true}

// TestPoliciesAreWhatTheLanguageLoads: a random policy, written down and
// loaded, is the same policy. So the corpus has only what Load can return.
func TestPoliciesAreWhatTheLanguageLoads(t *testing.T) {
	for seed := range uint64(300) {
		want := Policy(Seeded(seed), everything)
		path := filepath.Join(t.TempDir(), "policy.hcl")
		text := HCL(want)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		loaded := policies.Load(path, policies.Inputs{})
		if loaded.Policy == nil {
			t.Fatalf("seed %d: %v\n%s", seed, loaded.Diagnostics, text)
		}
		got := withoutPositions(loaded.Policy)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: loaded\n%s\nfrom\n%s", seed, asJSON(t, got), asJSON(t, want))
		}
	}
}

func withoutPositions(p *policies.Policy) *policies.Policy {
	p.Files, p.Host.Pos = nil, policies.Pos{}
	for _, l := range p.Lists {
		l.Pos = policies.Pos{}
	}
	for _, g := range p.Groups {
		g.Pos = policies.Pos{}
		for _, r := range g.Rules {
			r.Pos = policies.Pos{}
		}
	}
	for _, a := range p.ACLs {
		a.Pos = policies.Pos{}
		for _, e := range a.Entries {
			e.Pos = policies.Pos{}
		}
	}
	for _, i := range p.Interfaces {
		i.Pos = policies.Pos{}
		for _, t := range i.AlwaysTrack {
			t.Pos = policies.Pos{}
		}
		if i.Log != nil {
			i.Log.Pos = policies.Pos{}
		}
	}
	return p
}

func asJSON(t *testing.T, p *policies.Policy) string {
	t.Helper()
	text, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheSameSourceMakesTheSame(t *testing.T) {
	for seed := range uint64(50) {
		var cases [2]*policies.Policy
		var packets [2][]flow.Packet
		for n := range cases {
			r := Seeded(seed)
			cases[n] = Policy(r, everything)
			next := NewPackets(r, cases[n])
			for range 100 {
				packets[n] = append(packets[n], next.Next())
			}
		}
		if !reflect.DeepEqual(cases[0], cases[1]) || !reflect.DeepEqual(packets[0], packets[1]) {
			t.Fatalf("seed %d makes two things", seed)
		}
	}
}

func TestBytesDecide(t *testing.T) {
	r := FromBytes([]byte{0x80, 0, 0xff, 0xff})
	if got := []int{r.IntN(100), r.IntN(100)}; !slices.Equal(got, []int{50, 99}) {
		t.Errorf("draws %d, want those of the bytes", got)
	}
	if a, b := FromBytes([]byte{1}).Uint64(), FromBytes([]byte{2}).Uint64(); a == b {
		t.Error("different bytes go on in the same way")
	}
}

// TestPacketsStandAtBorders: for every range of ports and every prefix of a
// policy, packets come from its first and last value and from beside them.
func TestPacketsStandAtBorders(t *testing.T) {
	p := &policies.Policy{
		Groups: []*policies.Group{{Name: "web", Rules: []*policies.Rule{
			{Protocol: flow.TCP, Ports: []flow.PortRange{{First: 7000, Last: 7099}}, Prefixes: parse("100.64.8.0/22", "2001:db8:ff::/48")},
		}}},
		Interfaces: []*policies.Interface{{Name: "eth*"}},
	}
	ports, addresses, interfaces := map[uint16]bool{}, map[string]bool{}, map[string]bool{}
	next := NewPackets(Seeded(1), p)
	for range 5000 {
		packet := next.Next()
		ports[packet.DestPort] = true
		addresses[packet.Peer().String()] = true
		interfaces[packet.Interface] = true
		if packet.Source.Is4() != packet.Dest.Is4() {
			t.Fatalf("%s has two families", &packet)
		}
	}
	for _, want := range []uint16{6999, 7000, 7099, 7100, 0, 65535, 53} {
		if !ports[want] {
			t.Errorf("no packet to port %d", want)
		}
	}
	for _, want := range []string{"100.64.7.255", "100.64.8.0", "100.64.11.255", "100.64.12.0", "169.254.169.254",
		"2001:db8:fe:ffff:ffff:ffff:ffff:ffff", "2001:db8:ff::", "2001:db8:ff:ffff:ffff:ffff:ffff:ffff", "2001:db8:100::"} {
		if !addresses[want] {
			t.Errorf("no packet with peer %s", want)
		}
	}
	for _, want := range []string{"eth", "eth7", "lo", "zz0"} {
		if !interfaces[want] {
			t.Errorf("no packet on %s", want)
		}
	}
}
