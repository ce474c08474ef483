package cli

import (
	"net/netip"
	"testing"

	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/policies"
)

func TestSSHConnection(t *testing.T) {
	packet := func(source, dest string) *flow.Packet {
		s, d := netip.MustParseAddrPort(source), netip.MustParseAddrPort(dest)
		return &flow.Packet{Protocol: flow.TCP, Source: s.Addr(), SourcePort: s.Port(), Dest: d.Addr(), DestPort: d.Port()}
	}
	for _, tc := range []struct {
		name, value, source, dest string
		want                      bool
	}{
		{"it", "203.0.113.1 50000 192.0.2.10 22", "203.0.113.1:50000", "192.0.2.10:22", true},
		{"IPv6 with a zone", "fe80::1%eth0 50000 fe80::2%eth0 22", "[fe80::1]:50000", "[fe80::2]:22", true},
		{"IPv4 by way of an IPv6 socket", "::ffff:203.0.113.1 50000 ::ffff:192.0.2.10 22", "203.0.113.1:50000", "192.0.2.10:22", true},
		{"another port of the client", "203.0.113.1 50000 192.0.2.10 22", "203.0.113.1:50001", "192.0.2.10:22", false},
		{"the other way round", "203.0.113.1 50000 192.0.2.10 22", "192.0.2.10:22", "203.0.113.1:50000", false},
		{"garbage", "203.0.113.1 x 192.0.2.10 22", "203.0.113.1:50000", "192.0.2.10:22", false},
		{"no connection", "", "203.0.113.1:50000", "192.0.2.10:22", false},
	} {
		c := sshOf([]string{"HOME=/", sshVariable + "=" + tc.value})
		if got := c.is(packet(tc.source, tc.dest)); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
		udp := packet(tc.source, tc.dest)
		udp.Protocol = flow.UDP
		if c.is(udp) {
			t.Errorf("%s: UDP", tc.name)
		}
	}
}

func TestEntriesThatAConnectionNeeds(t *testing.T) {
	c := sshOf([]string{sshVariable + "=203.0.113.1 50000 192.0.2.10 22"})
	p := flow.Packet{
		Protocol: flow.TCP, Source: netip.MustParseAddr("203.0.113.1"), SourcePort: 50000,
		Dest: netip.MustParseAddr("192.0.2.10"), DestPort: 22,
	}
	judged := func(p flow.Packet, class policies.Class) *conntrack.Judged {
		return &conntrack.Judged{Legs: []conntrack.Leg{{Packet: p, Standing: policies.Standing{Class: class}}}}
	}
	other := p
	other.SourcePort++
	for name, tc := range map[string]struct {
		judged *conntrack.Judged
		want   bool
	}{
		"tracked":                     {judged(p, policies.Tracked), true},
		"allowed by no rule":          {judged(p, policies.None), true},
		"written the other way round": {judged(p.Reply(), policies.Tracked), true},
		"open":                        {judged(p, policies.Untracked), false},
		"exempt":                      {judged(p, policies.Exempt), false},
		"another connection":          {judged(other, policies.Tracked), false},
	} {
		if got := c.needs(tc.judged); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if (sshConnection{}).needs(judged(p, policies.Tracked)) {
		t.Error("no connection needs an entry")
	}
}
