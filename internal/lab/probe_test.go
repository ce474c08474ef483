package lab_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// dropFrom makes the host drop what an IPv4 address sends, and track all else.
func dropFrom(t *testing.T, ns *lab.Namespace, source netip.Addr) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "drop"})
	chain := conn.AddChain(&nftables.Chain{
		Name: "in", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(-150),
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: source.AsSlice()},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

// keepEntries makes the host's conntrack entries last for ten minutes: from a packet
// to the look at its entry, a busy machine may take as long as the kernel keeps it.
func keepEntries(t *testing.T, j *lab.Judge, host *lab.Namespace) {
	t.Helper()
	// Asking for entries makes the kernel load conntrack, which shows its settings
	// then.
	if _, err := j.Witness().Entries(); err != nil {
		t.Fatal(err)
	}
	err := host.Do(func() error {
		files, err := filepath.Glob("/proc/sys/net/netfilter/nf_conntrack_*timeout*")
		if err != nil || len(files) == 0 {
			t.Errorf("no timeouts of conntrack: %v", err)
		}
		for _, file := range files {
			if err := os.WriteFile(file, []byte("600"), 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTry(t *testing.T) {
	t.Parallel()
	host4, host6 := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")
	good, bad := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
	good6 := netip.MustParseAddr("2001:db8:1::1")
	s := labtest.Stand(t, []netip.Prefix{netip.PrefixFrom(host4, 32), netip.PrefixFrom(host6, 128)}, "eth0")
	dropFrom(t, s.Host, bad)
	j := labtest.Judge(t, s)
	keepEntries(t, j, s.Host)

	packet := func(d flow.Direction, protocol flow.Protocol, peer netip.Addr) flow.Packet {
		p := flow.Packet{Interface: "eth0", Direction: d, Protocol: protocol, Source: peer, Dest: host4, HopLimit: 64}
		if peer.Is6() {
			p.Dest = host6
		}
		if d == flow.Egress {
			p.Source, p.Dest = p.Dest, p.Source
		}
		switch {
		case protocol.HasPorts():
			p.SourcePort, p.DestPort = 40000, 80
		case protocol == flow.ICMP:
			p.ICMPType = 8
		case protocol == flow.ICMPv6:
			p.ICMPType = 128
		}
		if protocol == flow.TCP {
			p.TCPFlags = flow.SYN
		}
		return p
	}
	answer := func(p flow.Packet) flow.Packet {
		r := p.Reply()
		switch r.Protocol {
		case flow.TCP:
			r.TCPFlags = flow.SYN | flow.ACK
		case flow.ICMP:
			r.ICMPType = 0
		case flow.ICMPv6:
			r.ICMPType = 129
		}
		// What the packet claims does not count.
		r.State = flow.Established
		return r
	}
	var trials []lab.Trial
	type want struct {
		passed, entry bool
		state         flow.State
	}
	var wants []want
	for _, d := range flow.Directions {
		for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP, flow.ICMP, 47} {
			trials = append(trials, lab.Trial{Packet: packet(d, protocol, good), Answers: -1})
			wants = append(wants, want{true, true, flow.New})
			trials = append(trials, lab.Trial{Packet: answer(packet(d, protocol, good)), Answers: len(trials) - 1})
			wants = append(wants, want{true, true, flow.Established})
		}
	}
	// The second GRE flow has the addresses of the first.
	wants[len(wants)-2].state = flow.Established
	p6 := packet(flow.Ingress, flow.ICMPv6, good6)
	trials = append(trials, lab.Trial{Packet: p6, Answers: -1}, lab.Trial{Packet: answer(p6), Answers: len(trials)})
	wants = append(wants, want{true, true, flow.New}, want{true, true, flow.Established})
	// A packet that is dropped leaves no entry, and its answer is none.
	trials = append(trials, lab.Trial{Packet: packet(flow.Ingress, flow.TCP, bad), Answers: -1})
	wants = append(wants, want{false, false, flow.New})
	trials = append(trials, lab.Trial{Packet: answer(packet(flow.Ingress, flow.TCP, bad)), Answers: len(trials) - 1})
	wants = append(wants, want{true, false, flow.Invalid})

	// A second run finds nothing that the first left.
	for range 2 {
		findings, err := j.Try(trials)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range findings {
			got := want{f.Passed, f.Entry != nil, f.State}
			if !f.Arrived || !f.Classified || got != wants[i] {
				t.Errorf("%s: %s, entry %v; want %+v", &trials[i].Packet, f, f.Entry, wants[i])
			}
		}
		entries, err := j.Witness().Entries()
		if err != nil || len(entries) > 0 {
			t.Errorf("%v are left, %v", entries, err)
		}
	}
}

// More flows than are open at once are tried in turn, each with its answer.
func TestTryOfManyFlows(t *testing.T) {
	t.Parallel()
	host := netip.MustParseAddr("192.0.2.10")
	s := labtest.Stand(t, []netip.Prefix{netip.PrefixFrom(host, 32)}, "eth0")
	dropFrom(t, s.Host, netip.MustParseAddr("198.51.100.2"))
	j := labtest.Judge(t, s)
	keepEntries(t, j, s.Host)
	const flows = 2500
	trials := make([]lab.Trial, 2*flows)
	for n := range flows {
		p := flow.Packet{
			Interface: "eth0", Direction: flow.Ingress, Protocol: flow.UDP, HopLimit: 64,
			Source: netip.MustParseAddr("198.51.100.1"), Dest: host, SourcePort: uint16(10000 + n), DestPort: 53,
		}
		trials[n] = lab.Trial{Packet: p, Answers: -1}
		trials[flows+n] = lab.Trial{Packet: p.Reply(), Answers: n}
	}
	findings, err := j.Try(trials)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range findings {
		state := flow.New
		if i >= flows {
			state = flow.Established
		}
		if !f.Passed || f.Entry == nil || f.State != state {
			t.Fatalf("%d: %s: %s, entry %v", i, &trials[i].Packet, f, f.Entry)
		}
	}
}

func TestTryRefusesAnswersToWhatComesLater(t *testing.T) {
	t.Parallel()
	s := labtest.Stand(t, nil, "eth0")
	j := labtest.Judge(t, s)
	if _, err := j.Try([]lab.Trial{{Answers: 0}}); err == nil {
		t.Error("a packet that answers itself is taken")
	}
}
