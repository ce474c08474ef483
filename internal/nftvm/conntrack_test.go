package nftvm

import (
	"testing"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

func TestNotrack(t *testing.T) {
	untracked := rules(when(ruleset.MatchState{State: ruleset.CtUntracked}, accept), when(drop))
	before := mustNew(t, &ruleset.Table{Chains: []*ruleset.Chain{
		base("raw", ruleset.Prerouting, -300, rules(when(ruleset.Notrack{}))), base("late", ruleset.Prerouting, -150, untracked),
	}})
	after := mustNew(t, &ruleset.Table{Chains: []*ruleset.Chain{
		base("late", ruleset.Prerouting, -150, append(rules(when(ruleset.Notrack{})), untracked...)),
	}})
	for _, s := range []flow.State{flow.New, flow.Established, flow.Related, flow.Invalid} {
		if result, err := before.Run(packet(state(s))); err != nil || !result.Notrack || !result.Accept {
			t.Errorf("before conntrack, %s: %+v, %v", s, result, err)
		}
		if result, err := after.Run(packet(state(s))); err != nil || result.Notrack || result.Accept {
			t.Errorf("after conntrack, %s: %+v, %v", s, result, err)
		}
	}
}

// TestTimeouts: what opens a flow takes the last object of its family and
// protocol.
func TestTimeouts(t *testing.T) {
	table := prerouting(nil, rules(
		when(ruleset.SetTimeout{Object: "tcp4.60s"}),
		when(ruleset.SetTimeout{Object: "udp4.60s"}),
		when(ruleset.SetTimeout{Object: "tcp6.60s"}),
		when(ruleset.Match{Field: ruleset.DestPort, Value: ruleset.PortKey(23)}, ruleset.SetTimeout{Object: "tcp4.70s"}),
	))
	table.Timeouts = []*ruleset.Timeout{
		{Name: "tcp4.60s", Family: flow.IPv4, Protocol: flow.TCP},
		{Name: "tcp4.70s", Family: flow.IPv4, Protocol: flow.TCP},
		{Name: "tcp6.60s", Family: flow.IPv6, Protocol: flow.TCP},
		{Name: "udp4.60s", Family: flow.IPv4, Protocol: flow.UDP},
	}
	vm := mustNew(t, table)
	for _, row := range []struct {
		packet *flow.Packet
		want   string
	}{
		{packet(), "tcp4.60s"},
		{packet(func(p *flow.Packet) { p.DestPort = 23 }), "tcp4.70s"},
		{packet(v6), "tcp6.60s"},
		{packet(protocol(flow.UDP)), "udp4.60s"},
		{packet(v6, protocol(flow.UDP)), ""},
		{packet(state(flow.Established)), ""},
		{packet(state(flow.Invalid)), ""},
	} {
		result, err := vm.Run(row.packet)
		if err != nil {
			t.Fatal(err)
		}
		if !result.Accept || result.Timeout != row.want {
			t.Errorf("%s: accept %t, timeout %q, want %q", row.packet, result.Accept, result.Timeout, row.want)
		}
	}
}
