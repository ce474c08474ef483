package compile_test

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/nftvm"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// randomHeld makes an exact flow, or a range.
func randomHeld(r *rand.Rand) policies.Held {
	f := flow.Families[r.IntN(2)]
	address := func() netip.Addr {
		b := make([]byte, f.Bits()/8)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	h := policies.Held{
		Interface: strings.Repeat("e", 1+r.IntN(15)), Opened: flow.Directions[r.IntN(2)], LocalPort: uint16(r.Uint32()),
		Comment: []string{"", "security_group.web.ingress.dns", strings.Repeat("x", 128)}[r.IntN(3)],
	}
	a, b, port, other := address(), address(), uint16(r.Uint32()), uint16(r.Uint32())
	if r.IntN(2) == 0 {
		h.Local, h.Peers, h.PeerPorts = address(), flow.Range{First: a, Last: a}, flow.PortRange{First: port, Last: port}
		return h
	}
	if b.Less(a) {
		a, b = b, a
	}
	h.Peers, h.PeerPorts = flow.Range{First: a, Last: b}, flow.PortRange{First: min(port, other), Last: max(port, other)}
	if r.IntN(4) == 0 {
		h.Peers.Last = h.Peers.First
	}
	return h
}

func TestRefusedElementsRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	sets := map[string]int{}
	for range 2000 {
		want := randomHeld(r)
		set, e := compile.RefusedElement(want, 180*time.Second, 7*time.Second)
		sets[set]++
		if e.Timeout != 180*time.Second || e.Expires != 7*time.Second {
			t.Errorf("seed %d: %+v lives for %s, %s left", seed, want, e.Timeout, e.Expires)
		}
		if got, ok := compile.RefusedFrom(set, e); !ok || got != want {
			t.Errorf("seed %d: %s\n got %+v, %t\nwant %+v", seed, set, got, ok, want)
		}
		if opened := strings.HasPrefix(set, "refused.egress."); opened != (want.Opened == flow.Ingress) {
			t.Errorf("seed %d: what was opened %s is refused by %s", seed, want.Opened, set)
		}
		if exact := !strings.HasSuffix(set, ".ports"); exact != want.Local.IsValid() {
			t.Errorf("seed %d: %+v is refused by %s", seed, want, set)
		}
	}
	if len(sets) != 8 {
		t.Errorf("seed %d: sets %v", seed, sets)
	}
}

func TestRefusedElementsOfOthers(t *testing.T) {
	h := policies.Held{
		Interface: "eth0", Local: netip.MustParseAddr("192.0.2.10"), LocalPort: 53,
		Peers:     flow.RangeOf(netip.MustParsePrefix("198.51.100.7/32")),
		PeerPorts: flow.PortRange{First: 4000, Last: 4000},
	}
	set, e := compile.RefusedElement(h, time.Second, 0)
	wide := h
	wide.Peers = flow.RangeOf(netip.MustParsePrefix("198.51.100.0/24"))
	ranges, box := compile.RefusedElement(wide, time.Second, 0)
	for _, row := range []struct {
		about string
		set   string
		e     ruleset.TimedElement
	}{
		{"another set", "adoption", ruleset.TimedElement{First: "\x02", Last: "\x02"}},
		{"a key of another length", set, ruleset.TimedElement{First: e.First[1:], Last: e.First[1:]}},
		{"a range of exact flows", set, ruleset.TimedElement{First: e.First, Last: e.First[:len(e.First)-4] + "\xff\xff\x00\x00"}},
		{"a range of interfaces", ranges, ruleset.TimedElement{First: box.First, Last: box.Last[:len(box.Last)-16] + ruleset.IfNameKey("eth1")}},
	} {
		if got, ok := compile.RefusedFrom(row.set, row.e); ok {
			t.Errorf("%s: %+v", row.about, got)
		}
	}
	h.Comment = strings.Repeat("é", 100)
	if _, e := compile.RefusedElement(h, time.Second, 0); len(e.Comment) > 128 || !strings.HasPrefix(h.Comment, e.Comment) {
		t.Errorf("comment of %d bytes: %q", len(e.Comment), e.Comment)
	}
}

// heldVM compiles a policy that allows all UDP and runs it with elements of what
// is held.
func heldVM(t *testing.T, held ...policies.Held) *nftvm.VM {
	t.Helper()
	all := func(d flow.Direction) *policies.Rule {
		return &policies.Rule{Group: "any", Direction: d, ID: "any", AllProtocols: true, Prefixes: []netip.Prefix{
			netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1"), netip.MustParsePrefix("::/1"), netip.MustParsePrefix("8000::/1"),
		}}
	}
	p := &policies.Policy{
		Groups:     []*policies.Group{{Name: "any", Rules: []*policies.Rule{all(flow.Ingress), all(flow.Egress)}}},
		Interfaces: []*policies.Interface{{Name: "eth0", Groups: []string{"any"}}, {Name: "wg*", Groups: []string{"any"}}},
	}
	var timed []nftvm.Timed
	for _, h := range held {
		set, e := compile.RefusedElement(h, time.Minute, 0)
		timed = append(timed, nftvm.Timed{Set: set, Element: e})
	}
	vm, err := nftvm.New(compile.Compile(p, compile.Environment{}), timed...)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func TestRefusedUDP(t *testing.T) {
	for _, a := range []struct{ host, other, peer, next, far string }{
		{"192.0.2.10", "192.0.2.11", "198.51.100.7", "198.51.100.8", "203.0.113.1"},
		{"2001:db8::10", "2001:db8::11", "2001:db8:7::7", "2001:db8:7::8", "2001:db8:8::1"},
	} {
		host, peer := netip.MustParseAddr(a.host), netip.MustParseAddr(a.peer)
		near := netip.PrefixFrom(peer, peer.BitLen()-8).Masked()
		for _, refused := range flow.Directions {
			exact := policies.Held{
				Interface: "eth0", Opened: refused.Opposite(), Local: host, LocalPort: 53,
				Peers: flow.Range{First: peer, Last: peer}, PeerPorts: flow.PortRange{First: 4000, Last: 4000},
			}
			ranges := exact
			ranges.Local, ranges.Peers, ranges.PeerPorts = netip.Addr{}, flow.RangeOf(near), flow.PortRange{First: 1024, Last: 65535}
			packet := func(change ...func(*flow.Packet)) *flow.Packet {
				p := flow.Packet{
					Interface: "eth0", Protocol: flow.UDP, HopLimit: 64,
					Source: peer, SourcePort: 4000, Dest: host, DestPort: 53,
				}
				for _, c := range change {
					c(&p)
				}
				if refused == flow.Egress {
					p = p.Reply()
				}
				return &p
			}
			from := func(s string, port uint16) func(*flow.Packet) {
				return func(p *flow.Packet) { p.Source, p.SourcePort = netip.MustParseAddr(s), port }
			}
			to := func(s string, port uint16) func(*flow.Packet) {
				return func(p *flow.Packet) { p.Dest, p.DestPort = netip.MustParseAddr(s), port }
			}
			for _, row := range []struct {
				about          string
				packet         *flow.Packet
				byTuple, bySet bool
			}{
				{"the next packet", packet(), true, true},
				{"a forwarded one", packet(func(p *flow.Packet) { p.Forwarded = true }), true, false},
				{"one of a known flow", packet(func(p *flow.Packet) { p.State = flow.Established }), false, false},
				{"another port of the peer", packet(from(a.peer, 4001)), false, true},
				{"a port outside of the range", packet(from(a.peer, 1023)), false, false},
				{"another peer of the range", packet(from(a.next, 4000)), false, true},
				{"a peer outside of the range", packet(from(a.far, 4000)), false, false},
				{"another address of the host", packet(to(a.other, 53)), false, true},
				{"another port of the host", packet(to(a.host, 54)), false, false},
				{"another interface", packet(func(p *flow.Packet) { p.Interface = "wg0" }), false, false},
				{"TCP", packet(func(p *flow.Packet) { p.Protocol, p.TCPFlags = flow.TCP, flow.SYN }), false, false},
			} {
				for what, want := range map[string]bool{"exact": row.byTuple, "range": row.bySet} {
					h := exact
					if what == "range" {
						h = ranges
					}
					result, err := heldVM(t, h).Run(row.packet)
					if err != nil {
						t.Fatal(err)
					}
					if result.Accept == want {
						t.Errorf("%s %s, %s: %s: accept %t", refused, what, row.about, row.packet, result.Accept)
					}
					back := row.packet.Reply()
					if result, err := heldVM(t, h).Run(&back); err != nil || !result.Accept {
						t.Errorf("%s %s, the other way of %s: %s: accept %t, %v", refused, what, row.about, &back, result.Accept, err)
					}
				}
			}
		}
	}
}
