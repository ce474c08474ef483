package conntrack

import (
	"net/netip"
	"slices"
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

// Nobody knows who opened a flow of another protocol: a rule of either direction
// allows it, of its entry and of what is left without one.
func TestOtherFlowsAreAllowedByEitherDirection(t *testing.T) {
	const gre, esp, sctp, ah flow.Protocol = 47, 50, 132, 51
	peers := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:7::/48")}
	rule := func(d flow.Direction, id string, p flow.Protocol) *policies.Rule {
		return &policies.Rule{Group: "web", Direction: d, ID: id, Protocol: p, Prefixes: peers}
	}
	in, out, both, back := rule(flow.Ingress, "gre", gre), rule(flow.Egress, "esp", esp), rule(flow.Ingress, "sctp", sctp), rule(flow.Egress, "sctp", sctp)
	policy := &policies.Policy{
		Groups:     []*policies.Group{{Name: "web", Rules: []*policies.Rule{in, both, out, back}}},
		Interfaces: []*policies.Interface{{Name: "eth0", Groups: []string{"web"}}},
	}
	j := NewJudge(policies.NewJudge(policy), nil)
	for _, peer := range []string{"198.51.100.7", "2001:db8:7::7"} {
		for _, tc := range []struct {
			name     string
			protocol flow.Protocol
			rules    []*policies.Rule  // of Other, in order
			entry    [2]*policies.Rule // of an entry that came in, and one that went out
			legs     []flow.Direction
		}{
			{"let in", gre, []*policies.Rule{in}, [2]*policies.Rule{in, in}, []flow.Direction{flow.Ingress}},
			{"let out", esp, []*policies.Rule{out}, [2]*policies.Rule{out, out}, []flow.Direction{flow.Egress}},
			{"both", sctp, []*policies.Rule{both, back}, [2]*policies.Rule{both, back}, []flow.Direction{flow.Ingress, flow.Egress}},
			{"neither", ah, []*policies.Rule{nil}, [2]*policies.Rule{}, []flow.Direction{flow.Ingress}},
		} {
			f := policies.OtherFlow{Interface: "eth0", Protocol: tc.protocol, Peer: netip.MustParseAddr(peer)}
			var judged Judged
			j.Other(f, &judged)
			var rules []*policies.Rule
			var legs []flow.Direction
			for _, l := range judged.Legs {
				rules, legs = append(rules, l.Rule), append(legs, l.Packet.Direction)
			}
			if !slices.Equal(rules, tc.rules) || !slices.Equal(legs, tc.legs) || judged.Revoked() != (tc.rules[0] == nil) || judged.Class() != ClassTracked {
				t.Errorf("%s, %s: %+v", tc.name, peer, judged.Legs)
			}
			for i, d := range flow.Directions {
				p := f.Packet(d)
				if s := j.standing(&p); s.Rule != tc.entry[i] || (s.Class == policies.None) != (tc.entry[i] == nil) {
					t.Errorf("%s, %s %s: %+v", tc.name, d, peer, s)
				}
			}
			f.Interface = "eth9"
			if j.Other(f, &judged); len(judged.Legs) != 0 {
				t.Errorf("%s: %+v on an interface that nobody governs", tc.name, judged.Legs)
			}
		}
	}
}

func TestWhichFiltersTakeOthers(t *testing.T) {
	for _, tc := range []struct {
		filter Filter
		want   bool
	}{
		{Filter{}, true},
		{Filter{Protocols: []flow.Protocol{47}}, true},
		{Filter{Protocols: []flow.Protocol{flow.TCP}}, false},
		{Filter{Protocols: []flow.Protocol{flow.ICMPv6}}, true}, // over IPv4
		{Filter{Ports: []flow.PortRange{{First: 1, Last: 2}}}, false},
		{Filter{Classes: []Class{ClassOpen}}, false},
		{Filter{Classes: []Class{ClassOpen, ClassTracked}}, true},
		{Filter{Revoked: true, Groups: []string{"web"}}, true},
	} {
		if got := tc.filter.TakesOthers(); got != tc.want {
			t.Errorf("%+v: %t", tc.filter, got)
		}
	}
}
