package kerneltest

import (
	"net/netip"
	"testing"

	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/internal/ruleset"
	"sgc/policies"
)

var standLocal = prefixes("192.0.2.10/32", "2001:db8:2::10/128")

// bench is a stand that a policy governs, with its judge.
type bench struct {
	*lab.Stand
	ask    *lab.Judge
	policy *policies.Judge
}

func newBench(t testing.TB, text string, interfaces ...string) *bench {
	t.Helper()
	b := &bench{Stand: labtest.Stand(t, standLocal, interfaces...)}
	p := load(t, text)
	enforce(t, b.Host, p)
	b.ask, b.policy = labtest.Judge(t, b.Stand), policies.NewJudge(p)
	return b
}

// govern replaces the policy. The judge's own table reads conntrack's state,
// which is no reason here to keep open flows in conntrack.
func (b *bench) govern(t testing.TB, text string) {
	t.Helper()
	p := load(t, text)
	b.commit(t, p, compile.Compile(p, compile.Environment{}))
}

// commit replaces the policy by a table that was made of it.
func (b *bench) commit(t testing.TB, p *policies.Policy, table *ruleset.Table) {
	t.Helper()
	k := openKernel(t, b.Host)
	commit(t, k, snapshot(t, k), table)
	b.policy = policies.NewJudge(p)
}

// packet makes a packet between the host and a peer.
func packet(iface string, d flow.Direction, protocol flow.Protocol, peer string, set ...func(*flow.Packet)) flow.Packet {
	p := flow.Packet{Interface: iface, Direction: d, Protocol: protocol, HopLimit: 64}
	p.Source, p.Dest = addr(peer), hostOf[flow.FamilyOf(addr(peer))]
	if d == flow.Egress {
		p.Source, p.Dest = p.Dest, p.Source
	}
	if protocol == flow.TCP {
		p.TCPFlags = flow.SYN
	}
	for _, f := range set {
		f(&p)
	}
	return p
}

func ports(source, dest uint16) func(*flow.Packet) {
	return func(p *flow.Packet) { p.SourcePort, p.DestPort = source, dest }
}

func icmp(icmpType, hops uint8) func(*flow.Packet) {
	return func(p *flow.Packet) { p.ICMPType, p.HopLimit = icmpType, hops }
}

// check asks the kernel about a packet that leaves no trace, and holds the
// answer against what the test and the policy expect.
func (b *bench) check(t *testing.T, about string, p flow.Packet, pass bool) lab.Outcome {
	t.Helper()
	return b.checkProbe(t, about, lab.Probe{Packet: p}, pass)
}

// checkAll is check for many packets at once.
func (b *bench) checkAll(t *testing.T, about string, packets []flow.Packet, pass bool) {
	t.Helper()
	probes := make([]lab.Probe, len(packets))
	for i, p := range packets {
		probes[i].Packet = p
	}
	outcomes, err := b.ask.Ask(probes)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		p := &packets[i]
		if !o.Arrived || o.Passed != pass {
			t.Errorf("%s: %s hop limit %d: %s, want passed %t", about, p, p.HopLimit, o, pass)
		}
		if d := b.policy.Decide(p); d.Allow != pass {
			t.Errorf("%s: %s hop limit %d: the policy says %t (%s), want %t", about, p, p.HopLimit, d.Allow, d.Reason, pass)
		}
	}
}

// checkProbe is check for a packet that says more than a flow.Packet.
func (b *bench) checkProbe(t *testing.T, about string, probe lab.Probe, pass bool) lab.Outcome {
	t.Helper()
	p := probe.Packet
	outcomes, err := b.ask.Ask([]lab.Probe{probe})
	if err != nil {
		t.Fatal(err)
	}
	o := outcomes[0]
	if !o.Arrived || o.Passed != pass {
		t.Errorf("%s: %s: %s, want passed %t", about, &p, o, pass)
	}
	if d := b.policy.Decide(&p); d.Allow != pass {
		t.Errorf("%s: %s: the policy says %t (%s), want %t", about, &p, d.Allow, d.Reason, pass)
	}
	return o
}

// echoOf is the ICMP type of an echo request.
var echoOf = map[flow.Family]uint8{flow.IPv4: 8, flow.IPv6: 128}

const nothing = `
security_group "nothing" {
  description = "lets nothing through"
}
host {
  dns_resolvers = ["198.51.100.53", "2001:db8:53::53"]
  exempt        = ["203.0.113.64/26", "2001:db8:e::/48"]
}
interface "eth0" { security_groups = ["nothing"] }
`

func TestReplyOfAnOpenerPasses(t *testing.T) {
	t.Parallel()
	b := newBench(t, onlyIn, "eth0")
	peer := map[flow.Family]netip.Addr{flow.IPv4: worldOf[flow.IPv4], flow.IPv6: worldOf[flow.IPv6]}
	for _, f := range flow.Families {
		syn := packet("eth0", flow.Ingress, flow.TCP, peer[f].String(), ports(40001, 22))
		reply := syn.Reply()
		reply.TCPFlags = flow.SYN | flow.ACK
		b.check(t, "a reply to nothing", reply, false)
		if o, err := b.ask.Open(syn); err != nil || !o.Passed || o.State != flow.New {
			t.Fatalf("%s: %s, %v", &syn, o, err)
		}
		reply.State = flow.Established
		b.check(t, "the reply", reply, true)
		other := reply
		other.SourcePort, other.State = 23, flow.New
		b.check(t, "another reply", other, false)
	}
}
