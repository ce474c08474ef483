package lab_test

import (
	"errors"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

var standLocal = prefixes("192.0.2.0/25", "2001:db8:2::/64")

// rules adds a table with rules by port, on both sides of eth0, at the places
// where sgc stands.
func rules(t *testing.T, ns *lab.Namespace, then func(port uint16) []expr.Any, ports ...uint16) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "sgc"})
	for _, h := range []struct {
		name     string
		hook     *nftables.ChainHook
		priority nftables.ChainPriority
		iface    expr.MetaKey
	}{
		{"raw.in", nftables.ChainHookPrerouting, -300, expr.MetaKeyIIFNAME},
		{"raw.out", nftables.ChainHookOutput, -300, expr.MetaKeyOIFNAME},
		{"in", nftables.ChainHookPrerouting, -150, expr.MetaKeyIIFNAME},
		{"out", nftables.ChainHookPostrouting, 150, expr.MetaKeyOIFNAME},
	} {
		chain := c.AddChain(&nftables.Chain{Name: h.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: h.hook, Priority: &h.priority})
		for _, port := range ports {
			last := then(port)
			if _, notrack := last[0].(*expr.Notrack); notrack != (h.priority == -300) {
				continue
			}
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append([]expr.Any{
				&expr.Meta{Key: h.iface, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("eth0\x00")},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
			}, last...)})
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// crossing makes the packets of one protocol to a port in both directions and
// families, forwarded or not.
func crossing(protocol flow.Protocol, port uint16) []flow.Packet {
	var out []flow.Packet
	for _, f := range flow.Families {
		local, peer, beyond := addr("192.0.2.10"), addr("198.51.100.7"), addr("10.99.0.1")
		if f == flow.IPv6 {
			local, peer, beyond = addr("2001:db8:2::10"), addr("2001:db8:77::7"), addr("2001:db8:99::1")
		}
		for _, forwarded := range []bool{false, true} {
			near := local
			if forwarded {
				near = beyond
			}
			in := flow.Packet{
				Interface: "eth0", Direction: flow.Ingress, Protocol: protocol, Source: peer, Dest: near,
				SourcePort: 40000, DestPort: port, TCPFlags: flow.SYN, HopLimit: 64, Forwarded: forwarded,
			}
			out1 := in
			out1.Direction, out1.Source, out1.Dest = flow.Egress, near, peer
			out = append(out, in, out1)
		}
	}
	return out
}

func TestJudgeTellsWhatTheKernelDid(t *testing.T) {
	t.Parallel()
	s := labtest.Stand(t, standLocal, "eth0", "eth1")
	rules(t, s.Host, func(port uint16) []expr.Any {
		if port == 22 {
			return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
		}
		return []expr.Any{&expr.Notrack{}}
	}, 22, 80)
	j := labtest.Judge(t, s)
	for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
		for _, port := range []uint16{22, 80, 443} {
			for _, p := range crossing(protocol, port) {
				// Nothing else has happened to the packets, so asking again
				// gives the same answer.
				for range 2 {
					got, err := j.AskOne(p)
					if err != nil {
						t.Fatal(err)
					}
					// raw.out never sees what is forwarded out.
					untracked := port == 80 && !(p.Forwarded && p.Direction == flow.Egress)
					want := lab.Outcome{Arrived: true, Passed: port != 22, Classified: true, Untracked: untracked}
					if got != want {
						t.Errorf("%s: got %s, want %s", &p, got, want)
					}
				}
			}
		}
	}
	entries, err := j.Witness().Entries()
	if err != nil || len(entries) != 0 {
		t.Errorf("probes left entries: %v, %v", entries, err)
	}
}

func TestJudgeTellsEveryState(t *testing.T) {
	t.Parallel()
	s := labtest.Stand(t, standLocal, "eth0")
	j := labtest.Judge(t, s)
	for _, f := range flow.Families {
		local, peer := addr("192.0.2.10"), addr("198.51.100.7")
		ask, answer, unreachable := uint8(8), uint8(0), uint8(3)
		if f == flow.IPv6 {
			local, peer = addr("2001:db8:2::10"), addr("2001:db8:77::7")
			ask, answer, unreachable = 128, 129, 1
		}
		icmp := flow.ICMPOf(f)
		sport := uint16(1000)
		out := func(p flow.Protocol, set func(*flow.Packet)) flow.Packet {
			sport++
			q := flow.Packet{Interface: "eth0", Direction: flow.Egress, Protocol: p, Source: local, Dest: peer, HopLimit: 64}
			if p.HasPorts() {
				q.SourcePort, q.DestPort = sport, 53
			}
			set(&q)
			return q
		}
		for _, tt := range []struct {
			about  string
			packet flow.Packet
			want   flow.State
		}{
			{"a SYN", out(flow.TCP, func(p *flow.Packet) { p.TCPFlags = flow.SYN }), flow.New},
			{"a segment of a connection", out(flow.TCP, func(p *flow.Packet) { p.TCPFlags, p.State = flow.ACK, flow.Established }), flow.Established},
			{"a segment with impossible flags", out(flow.TCP, func(p *flow.Packet) { p.TCPFlags = flow.SYN | flow.FIN }), flow.Invalid},
			{"a datagram", out(flow.UDP, func(p *flow.Packet) {}), flow.New},
			{"an answer", out(flow.UDP, func(p *flow.Packet) { p.State = flow.Established }), flow.Established},
			{"a ping", out(icmp, func(p *flow.Packet) { p.ICMPType = ask }), flow.New},
			{"an answered ping", out(icmp, func(p *flow.Packet) { p.ICMPType, p.State = ask, flow.Established }), flow.Established},
			{"a pong", out(icmp, func(p *flow.Packet) { p.ICMPType, p.State = answer, flow.Established }), flow.Established},
			{"a pong that nobody asked for", out(icmp, func(p *flow.Packet) { p.ICMPType = answer }), flow.Invalid},
			{"an error about a flow", out(icmp, func(p *flow.Packet) {
				p.ICMPType, p.State = unreachable, flow.Related
				p.Quoted = &flow.Packet{Protocol: flow.UDP, Source: peer, Dest: local, SourcePort: sport, DestPort: 99}
			}), flow.Related},
			{"an error about nothing", out(icmp, func(p *flow.Packet) {
				p.ICMPType = unreachable
				p.Quoted = &flow.Packet{Protocol: flow.TCP, Source: peer, Dest: local, SourcePort: sport, DestPort: 98}
			}), flow.Invalid},
		} {
			in := tt.packet
			in.Direction, in.Source, in.Dest = flow.Ingress, peer, local
			in.SourcePort, in.DestPort = in.SourcePort+10000, in.DestPort+1
			if in.Quoted != nil {
				quoted := *in.Quoted
				quoted.Source, quoted.Dest, quoted.SourcePort = local, peer, quoted.SourcePort+10000
				in.Quoted = &quoted
			}
			if tt.packet.Protocol == icmp {
				if err := j.Witness().Flush(); err != nil {
					t.Fatal(err)
				}
			}
			for i, p := range []flow.Packet{tt.packet, in} {
				got, err := j.AskOne(p)
				if err != nil {
					t.Fatal(err)
				}
				if want := (lab.Outcome{Arrived: true, Passed: true, Classified: true, State: tt.want}); got != want {
					t.Errorf("%s %s (%d, %s): got %s, want %s", f, tt.about, i, &p, got, want)
				}
				if tt.packet.Protocol == icmp {
					if err := j.Witness().Flush(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

func TestOpenerLeavesAnEntryAndNothingAnswers(t *testing.T) {
	t.Parallel()
	s := labtest.Stand(t, standLocal, "eth0")
	j := labtest.Judge(t, s)
	keepEntries(t, j, s.Host)
	for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
		for i, p := range crossing(protocol, 4711) {
			p.SourcePort += uint16(i)
			if o, err := j.Open(p); err != nil || o.State != flow.New || !o.Passed {
				t.Fatalf("%s: %s, %v", &p, o, err)
			}
			reply := p.Reply()
			reply.TCPFlags = flow.SYN | flow.ACK
			if protocol == flow.UDP || !p.Forwarded {
				o, err := j.AskOne(reply)
				if err != nil || o.State != flow.Established {
					t.Errorf("reply %s: %s, %v", &reply, o, err)
				}
			}
			entries, err := j.Witness().Entries()
			if err != nil {
				t.Fatal(err)
			}
			if !lab.Tracks(entries, &p) || !lab.Tracks(entries, &reply) {
				t.Errorf("no entry for %s in %v", &p, entries)
			}
		}
	}
}

func TestJudgeRefusesWhatCannotBe(t *testing.T) {
	t.Parallel()
	s := labtest.Stand(t, standLocal, "eth0")
	j := labtest.Judge(t, s)
	base := crossing(flow.UDP, 1)[0]
	for about, change := range map[string]func(*flow.Packet){
		"another interface":          func(p *flow.Packet) { p.Interface = "eth7" },
		"not the host's":             func(p *flow.Packet) { p.Dest = addr("203.0.113.1") },
		"the host's, but forwarded":  func(p *flow.Packet) { p.Forwarded = true },
		"from a multicast address":   func(p *flow.Packet) { p.Source = addr("224.0.0.1") },
		"out to the host's own":      func(p *flow.Packet) { p.Direction = flow.Egress },
		"loopback":                   func(p *flow.Packet) { p.Source = addr("127.0.0.1") },
		"out to nowhere":             func(p *flow.Packet) { p.Direction, p.Dest = flow.Egress, addr("0.0.0.0") },
		"extension header":           func(p *flow.Packet) { p.Source, p.Dest, p.Protocol = addr("2001:db8::1"), addr("2001:db8:2::1"), 44 },
		"forwarded with highest TTL": func(p *flow.Packet) { *p = crossing(flow.UDP, 1)[3]; p.HopLimit = 255 },
	} {
		p := base
		change(&p)
		o, err := j.AskOne(p)
		if err != nil || o.Arrived || !errors.Is(o.Err, lab.ErrImpossible) {
			t.Errorf("%s: %s: got %s, %v", about, &p, o, err)
		}
	}
}
