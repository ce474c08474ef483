package kerneltest

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// BenchmarkPacket sends small UDP datagrams over a veth pair through policies of
// many rules, through the same rules one below the other, and through none. The
// sender's processor does the receiver's work, too, so that the time of a send
// is the whole cost of a packet. The flow is open: every packet is judged by
// the rules, and the rule that lets it through is the last. Trust the ratios:
// they are medians of turns within the same run.
func BenchmarkPacket(b *testing.B) {
	for _, rules := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) {
			p := manyRules(rules)
			none := newTrack(b, nil)
			ours := newTrack(b, compile.Compile(p, compile.Environment{}))
			linear := newTrack(b, oneBelowTheOther(p))
			tracks := []*track{none, ours, linear}
			pinned(b, func() {
				for b.Loop() {
					for _, t := range tracks {
						t.turn(b)
					}
				}
			})
			base := none.median()
			b.ReportMetric(0, "ns/op") // a turn means nothing
			b.ReportMetric(base, "ns/packet-none")
			b.ReportMetric(ours.median(), "ns/packet-sgc")
			b.ReportMetric(linear.median(), "ns/packet-linear")
			b.ReportMetric(ours.median()/base, "sgc/none")
			b.ReportMetric(linear.median()/base, "linear/none")
			b.ReportMetric(linear.median()/ours.median(), "linear/sgc")
		})
	}
}

const benchPort = 53000

// manyRules is a policy of n rules, of which the last is open to the world.
func manyRules(n int) *policies.Policy {
	g := &policies.Group{Name: "many"}
	for i := range n - 1 {
		g.Rules = append(g.Rules, &policies.Rule{
			Group: g.Name, ID: fmt.Sprintf("r%05d", i), Protocol: flow.UDP,
			Ports:    []flow.PortRange{{First: uint16(1000 + i), Last: uint16(1000 + i)}},
			Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)},
		})
	}
	g.Rules = append(g.Rules,
		&policies.Rule{
			Group: g.Name, ID: "world", Protocol: flow.UDP, Prefixes: []netip.Prefix{flow.IPv4.Any()},
			Ports: []flow.PortRange{{First: benchPort, Last: benchPort}},
		},
		&policies.Rule{
			Group: g.Name, Direction: flow.Egress, ID: "any", AllProtocols: true, Prefixes: []netip.Prefix{flow.IPv4.Any()},
		})
	return &policies.Policy{
		Groups:     []*policies.Group{g},
		Interfaces: []*policies.Interface{{Name: "eth0", Groups: []string{g.Name}}},
	}
}

// oneBelowTheOther is the ingress of manyRules as people write it by hand.
func oneBelowTheOther(p *policies.Policy) *ruleset.Table {
	accept, drop := ruleset.Verdict{Kind: ruleset.Accept}, ruleset.Verdict{Kind: ruleset.Drop}
	chain := &ruleset.Chain{Name: "prerouting", Hook: &ruleset.Hook{Point: ruleset.Prerouting, Priority: -150}}
	for _, r := range p.Groups[0].Rules {
		if r.Direction != flow.Ingress {
			continue
		}
		statements := []ruleset.Statement{
			ruleset.Match{Field: ruleset.IIFName, Value: ruleset.IfNameKey("eth0")},
			ruleset.Match{Field: ruleset.L4Protocol, Value: ruleset.ProtoKey(flow.UDP)},
			ruleset.Match{Field: ruleset.DestPort, Value: ruleset.PortKey(r.Ports[0].First)},
		}
		if r.Prefixes[0].Bits() > 0 {
			statements = append(statements, ruleset.MatchPrefix{Field: ruleset.IPSource, Prefix: r.Prefixes[0]})
		}
		chain.Rules = append(chain.Rules, ruleset.Rule{Statements: append(statements, accept)})
	}
	chain.Rules = append(chain.Rules, ruleset.Rule{Statements: []ruleset.Statement{
		ruleset.Match{Field: ruleset.IIFName, Value: ruleset.IfNameKey("eth0")},
		ruleset.Match{Field: ruleset.L4Protocol, Value: ruleset.ProtoKey(flow.UDP)}, drop,
	}})
	return &ruleset.Table{Name: "sgc", Chains: []*ruleset.Chain{chain}}
}

// track is a sender and a receiver with a ruleset between them.
type track struct {
	conn    *net.UDPConn
	packets []float64 // ns per packet, one each turn
}

func newTrack(b *testing.B, table *ruleset.Table) *track {
	b.Helper()
	client, host := labtest.Namespace(b, "client"), labtest.Namespace(b, "host")
	labtest.Connect(b,
		lab.End{Namespace: host, Interface: "eth0", Addresses: prefixes("192.0.2.10/24")},
		lab.End{Namespace: client, Interface: "wire", Addresses: prefixes("192.0.2.20/24")})
	if table != nil {
		k := openKernel(b, host)
		commit(b, k, snapshot(b, k), table)
	}
	to := netip.AddrPortFrom(hostOf[flow.IPv4], benchPort)
	server, err := host.ListenUDP(to)
	if err != nil {
		b.Fatal(err)
	}
	// Nobody reads: the socket is always full, which costs the same each time.
	b.Cleanup(func() { server.Close() })
	conn, err := client.DialUDP(netip.AddrPort{}, to)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	t := &track{conn: conn}
	// One datagram must get through, or the rest would be quick for nothing.
	if _, err := conn.Write([]byte("first")); err != nil {
		b.Fatal(err)
	}
	if err := server.SetReadDeadline(time.Now().Add(patience)); err != nil {
		b.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 16)); err != nil {
		b.Fatal(err)
	}
	return t
}

func (t *track) turn(b *testing.B) {
	const packets = 500
	payload := []byte("sixteen bytes...")
	from := time.Now()
	for range packets {
		if _, err := t.conn.Write(payload); err != nil {
			b.Fatal(err)
		}
	}
	t.packets = append(t.packets, float64(time.Since(from).Nanoseconds())/packets)
}

func (t *track) median() float64 {
	slices.Sort(t.packets)
	return t.packets[len(t.packets)/2]
}

// pinned runs f on one processor.
func pinned(b *testing.B, f func()) {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		b.Fatal(err)
	}
	for cpu := range len(before) * 64 {
		if before.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := unix.SchedSetaffinity(0, &before); err != nil {
			b.Fatal(err)
		}
	}()
	f()
}
