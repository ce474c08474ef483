package policies_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/policies"
)

func TestHoldingAFlow(t *testing.T) {
	for _, tc := range []struct {
		name    string
		opened  flow.Packet
		local   string
		comment string
		refused flow.Direction
	}{
		{"to the host", in(flow.UDP, "198.51.100.7", 40000, 53), "192.0.2.10:53", "in udp 198.51.100.7:40000 → 192.0.2.10:53", flow.Egress},
		{"to a container behind the host", in(flow.UDP, "198.51.100.7", 40000, 8080), "172.17.0.2:80", "in udp 198.51.100.7:40000 → 192.0.2.10:8080", flow.Egress},
		{"from the host", out(flow.UDP, "198.51.100.7", 53, 40000), "192.0.2.10:40000", "out udp 192.0.2.10:40000 → 198.51.100.7:53", flow.Ingress},
		{"over IPv6", out(flow.UDP, "2001:db8:7::7", 53, 40000), "[2001:db8::10]:40000", "out udp [2001:db8::10]:40000 → [2001:db8:7::7]:53", flow.Ingress},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := policies.HoldFlow(&tc.opened, netip.MustParseAddrPort(tc.local))
			if h.Comment != tc.comment || h.Refused() != tc.refused || !h.Exact() || h.Family() != tc.opened.Family() {
				t.Errorf("%+v", h)
			}
			p, err := h.Opening()
			if err != nil {
				t.Fatal(err)
			}
			if p.Source != tc.opened.Source || p.SourcePort != tc.opened.SourcePort || p.Dest != tc.opened.Dest || p.DestPort != tc.opened.DestPort ||
				p.Interface != tc.opened.Interface || p.Direction != tc.opened.Direction || p.Protocol != flow.UDP {
				t.Errorf("the comment tells of %s, want %s", &p, &tc.opened)
			}
		})
	}
}

// The kernel keeps 128 bytes.
func TestTheLongestComment(t *testing.T) {
	longest := netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	p := flow.Packet{Direction: flow.Egress, Source: longest, SourcePort: 65535, Dest: longest, DestPort: 65535}
	if h := policies.HoldFlow(&p, netip.AddrPortFrom(longest, 1)); len(h.Comment) > 128 {
		t.Errorf("%d bytes: %s", len(h.Comment), h.Comment)
	}
}

func TestCommentsThatTellOfNothing(t *testing.T) {
	p := in(flow.UDP, "198.51.100.7", 40000, 53)
	h := policies.HoldFlow(&p, netip.MustParseAddrPort("192.0.2.10:53"))
	for _, comment := range []string{
		"", "in udp", "out udp 198.51.100.7:40000 → 192.0.2.10:53", "in tcp 198.51.100.7:40000 → 192.0.2.10:53", "in udp 198.51.100.7 → 192.0.2.10:53",
		"in udp 198.51.100.7:40000 → [2001:db8::1]:53", "in udp 198.51.100.7:40000 → 192.0.2.10", "in udp 198.51.100.7:40000 - 192.0.2.10:53", "eth0 port 53 was bound",
	} {
		h.Comment = comment
		if p, err := h.Opening(); err == nil {
			t.Errorf("%q tells of %s", comment, &p)
		}
		// The tuple is judged then.
		if got := h.Remaining(policies.NewJudge(attached(group("a")))); len(got) != 1 || got[0] != h {
			t.Errorf("%q: %v is still held", comment, got)
		}
		if got := h.Remaining(policies.NewJudge(attached(group("a", udp(flow.Ingress, "dns", ports(port(53)), any4))))); len(got) != 0 {
			t.Errorf("%q: %v is held", comment, got)
		}
	}
	h.Opened = flow.Egress
	if got := h.Remaining(policies.NewJudge(attached(group("a", udp(flow.Egress, "out", ports(port(40000)), any4))))); len(got) != 0 {
		t.Errorf("%v is held", got)
	}
}

func TestWhatRemainsHeld(t *testing.T) {
	natted := in(flow.UDP, "198.51.100.7", 40000, 8080)
	exact := policies.HoldFlow(&natted, netip.MustParseAddrPort("172.17.0.2:80"))
	space := policies.Held{Interface: "eth0", Opened: flow.Ingress, LocalPort: 53, Peers: flow.RangeOf(flow.IPv4.Any()), PeerPorts: flow.AllPorts, Comment: "in udp port 53 was bound"}
	client := space
	client.Opened, client.LocalPort = flow.Egress, 40000
	for _, tc := range []struct {
		name string
		held policies.Held
		new  *policies.Policy
		want []string
	}{
		{"a flow that is still not allowed", exact, attached(group("a", udp(flow.Ingress, "other", ports(port(80)), any4))),
			[]string{"eth0 opened ingress 172.17.0.2:80, 198.51.100.7/32 40000"}},
		{"a flow that is allowed again, by the port on the wire", exact, attached(group("a", udp(flow.Ingress, "web", ports(port(8080)), "198.51.100.0/24"))), nil},
		{"what goes the other way does not count", exact, attached(group("a", everything(flow.Egress, "out", any4))),
			[]string{"eth0 opened ingress 172.17.0.2:80, 198.51.100.7/32 40000"}},
		{"nobody governs the interface now", exact, &policies.Policy{}, nil},
		{"the peer is exempt now", exact, &policies.Policy{Interfaces: attached().Interfaces, Host: policies.Host{Exempt: prefixes("198.51.100.7")}}, nil},

		{"a space that is still closed", space, attached(group("a")), []string{"eth0 opened ingress 53, 0.0.0.0/0 0-65535"}},
		{"a space that is open again", space, attached(group("a", udp(flow.Ingress, "dns", ports(port(53)), any4))), nil},
		{"a space, half of which is allowed again", space, attached(group("a", udp(flow.Ingress, "dns", ports(port(53)), "0.0.0.0/2", "128.0.0.0/1"))),
			[]string{"eth0 opened ingress 53, 64.0.0.0/2 0-65535"}},
		{"a hole in it", space, attached(group("a", udp(flow.Ingress, "dns", ports(port(53)), "64.0.0.0/2"))),
			[]string{"eth0 opened ingress 53, 0.0.0.0/2 0-65535", "eth0 opened ingress 53, 128.0.0.0/1 0-65535"}},
		{"another port is allowed", space, attached(group("a", udp(flow.Ingress, "web", ports(port(80)), any4))), []string{"eth0 opened ingress 53, 0.0.0.0/0 0-65535"}},
		{"a space that nobody governs", space, &policies.Policy{}, nil},
		{"a client may ask some ports again", client, attached(group("a", udp(flow.Egress, "dns", ports(port(53)), any4))),
			[]string{"eth0 opened egress 40000, 0.0.0.0/0 0-52", "eth0 opened egress 40000, 0.0.0.0/0 54-65535"}},
		{"a client may ask everybody again", client, attached(group("a", everything(flow.Egress, "out", any4))), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			judge := policies.NewJudge(tc.new)
			rest := tc.held.Remaining(judge)
			if got := heldText(rest); !slices.Equal(got, tc.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
			for _, h := range rest {
				if h.Comment != tc.held.Comment {
					t.Errorf("the comment became %q", h.Comment)
				}
				if again := h.Remaining(judge); len(again) != 1 || again[0] != h {
					t.Errorf("of %v, %v remains: not all of it", h, again)
				}
			}
		})
	}
}

// What remains of a space is what the judge does not allow, packet by packet.
func TestWhatRemainsIsWhatTheJudgeSays(t *testing.T) {
	kept, left := 0, 0
	for seed := range uint64(200) {
		r := corpus.Seeded(seed)
		p := corpus.Policy(r, corpus.Options{Interfaces: []string{"eth0"}})
		judge, packets := policies.NewJudge(p), corpus.NewPackets(r, p)
		for range 100 {
			packet := packets.Next()
			packet.Protocol, packet.Quoted, packet.ICMPType, packet.ICMPCode = flow.UDP, nil, 0, 0
			packet.Interface = "eth0"
			class := judge.Standing(&packet).Class
			if class == policies.Exempt {
				continue // what is exempt passes before anything is refused
			}
			h := policies.Held{
				Interface: "eth0", Opened: packet.Direction, LocalPort: packet.LocalPort(),
				Peers: flow.RangeOf(packet.Family().Any()), PeerPorts: flow.AllPorts,
			}
			n := 0
			for _, rest := range h.Remaining(judge) {
				if rest.Peers.Contains(packet.Peer()) && rest.PeerPorts.Contains(packet.PeerPort()) {
					n++
				}
			}
			want := 0
			if class == policies.None {
				want = 1
			}
			if n != want {
				t.Fatalf("seed %d: %s is %s, and in %d pieces", seed, &packet, class, n)
			}
			kept, left = kept+n, left+1-n
		}
	}
	if kept < 1000 || left < 1000 {
		t.Errorf("%d are still held, %d are not", kept, left)
	}
}
