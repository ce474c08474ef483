package kerneltest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// aclText writes a network ACL. An entry is direction, number, action,
// protocol with ports or ICMP type and code, and CIDR: "ingress 10 deny
// tcp:80-89 198.51.100.0/24", "egress 20 allow icmp:3/4 0.0.0.0/0".
func aclText(name string, entries ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "network_acl %q {\n", name)
	for _, e := range entries {
		f := strings.Fields(e)
		protocol, keys, hasKeys := strings.Cut(f[3], ":")
		fmt.Fprintf(&b, "  %s {\n    rule_no = %s\n    action = %q\n    protocol = %q\n", f[0], f[1], f[2], protocol)
		icmpType, code, isICMP := strings.Cut(keys, "/")
		first, last, isRange := strings.Cut(keys, "-")
		switch {
		case isICMP:
			fmt.Fprintf(&b, "    icmp_type = %s\n    icmp_code = %s\n", icmpType, code)
		case isRange:
			fmt.Fprintf(&b, "    from_port = %s\n    to_port = %s\n", first, last)
		case hasKeys:
			fmt.Fprintf(&b, "    from_port = %s\n    to_port = %[1]s\n", keys)
		}
		attribute := "cidr_block"
		if strings.Contains(f[4], "::") {
			attribute = "ipv6_cidr_block"
		}
		fmt.Fprintf(&b, "    %s = %q\n  }\n", attribute, f[4])
	}
	return b.String() + "}\n"
}

// everything is a group that lets everything in and out.
const everything = `
security_group "everything" {
  ingress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
`

// behindACL attaches a group and an ACL to eth0.
func behindACL(group, acl string) string {
	return fmt.Sprintf("interface \"eth0\" {\n  security_groups = [%q]\n  network_acl = %q\n}\n", group, acl)
}

var allowAll = []string{
	"ingress 100 allow -1 0.0.0.0/0", "ingress 101 allow -1 ::/0",
	"egress 100 allow -1 0.0.0.0/0", "egress 101 allow -1 ::/0",
}

func typeCode(icmpType, code uint8) func(*flow.Packet) {
	return func(p *flow.Packet) { p.ICMPType, p.ICMPCode = icmpType, code }
}

func state(s flow.State) func(*flow.Packet) {
	return func(p *flow.Packet) {
		if p.State = s; p.Protocol == flow.TCP {
			p.TCPFlags = flow.ACK
		}
	}
}

func TestACLEntriesAreTakenInOrder(t *testing.T) {
	t.Parallel()
	const near, world = "198.51.100.7", "192.0.2.99"
	b := newBench(t, everything+aclText("edge",
		"ingress 10 deny tcp:80-89 198.51.100.0/25",
		"ingress 20 allow tcp:80 198.51.100.0/24",
		"ingress 30 deny tcp:0-65535 198.51.100.0/24",
		"ingress 40 allow tcp:443 0.0.0.0/0",
		"ingress 45 allow tcp:80-89 ::/0",
		"ingress 46 deny -1 2001:db8:66::/48",
		"ingress 47 allow icmpv6:1/4 2001:db8::/32",
		"ingress 48 deny icmpv6:1/-1 2001:db8::/32",
		"ingress 49 allow -1 2001:db8::/32",
		"ingress 50 deny icmp:8/3 0.0.0.0/0",
		"ingress 51 allow icmp:8/-1 0.0.0.0/0",
		"ingress 52 allow icmp:3/4 0.0.0.0/0",
		"ingress 60 deny gre 198.51.100.7/32",
		"ingress 61 allow gre 198.51.100.0/24",
		"ingress 62 allow 253 198.51.100.0/24",
		"ingress 70 deny udp:53 198.51.100.0/24",
		"ingress 71 allow udp:0-65535 198.51.100.0/24",
		"ingress 32766 allow -1 203.0.113.0/24",
		"egress 10 deny udp:1-1023 0.0.0.0/0",
		"egress 20 allow -1 198.51.100.0/24",
		"egress 21 deny esp 2001:db8:77::7/128",
		"egress 22 allow -1 2001:db8:77::/48",
	)+behindACL("everything", "edge"), "eth0")
	in := func(pass bool, protocol flow.Protocol, peer string, set ...func(*flow.Packet)) {
		t.Helper()
		b.check(t, "ingress", packet("eth0", flow.Ingress, protocol, peer, set...), pass)
	}
	out := func(pass bool, protocol flow.Protocol, peer string, set ...func(*flow.Packet)) {
		t.Helper()
		b.check(t, "egress", packet("eth0", flow.Egress, protocol, peer, set...), pass)
	}

	for port, pass := range map[uint16]bool{79: false, 80: false, 89: false, 90: false, 443: false} {
		in(pass, flow.TCP, near, ports(4000, port))
	}
	for port, pass := range map[uint16]bool{79: false, 80: true, 81: false, 443: false} {
		in(pass, flow.TCP, "198.51.100.200", ports(4000, port))
	}
	in(true, flow.TCP, world, ports(4000, 443))
	in(false, flow.TCP, world, ports(443, 444)) // the source port counts for nothing
	in(false, flow.TCP, world, ports(4000, 80))

	// The first entry of IPv6 that matches, whatever those of IPv4 before it say.
	in(true, flow.TCP, "2001:db8:66::1", ports(4000, 89))
	in(false, flow.TCP, "2001:db8:66::1", ports(4000, 90))
	in(true, flow.TCP, "2001:db8:67::1", ports(4000, 90))
	in(false, flow.TCP, "2001:db9::1", ports(4000, 90))
	in(true, flow.TCP, "2001:db9::1", ports(4000, 80))

	in(true, flow.ICMPv6, "2001:db8::1", typeCode(1, 4))
	in(false, flow.ICMPv6, "2001:db8::1", typeCode(1, 3))
	in(true, flow.ICMPv6, "2001:db8::1", typeCode(2, 0))
	in(false, flow.ICMPv6, "2001:db8:66::1", typeCode(1, 4))
	in(false, flow.ICMPv6, "2001:db9::1", typeCode(2, 0))
	in(false, flow.ICMP, world, typeCode(8, 3))
	in(true, flow.ICMP, world, typeCode(8, 0))
	in(true, flow.ICMP, world, typeCode(8, 4))
	in(true, flow.ICMP, world, typeCode(3, 4))
	in(false, flow.ICMP, world, typeCode(3, 3))
	in(false, flow.ICMP, world, typeCode(11, 4))

	in(false, 47, near)
	in(true, 47, "198.51.100.8")
	in(false, 47, world)
	in(true, 253, near)
	in(false, 254, near)
	in(false, 132, near)
	in(true, 132, "203.0.113.9")
	in(false, flow.UDP, near, ports(4000, 53))
	in(true, flow.UDP, near, ports(53, 54))
	in(true, flow.UDP, near, ports(4000, 0))
	in(true, flow.UDP, near, ports(4000, 65535))

	out(false, flow.UDP, near, ports(4000, 1))
	out(true, flow.UDP, near, ports(1, 0))
	out(true, flow.UDP, near, ports(1, 1024))
	out(false, flow.UDP, near, ports(4000, 1023))
	out(true, flow.TCP, near, ports(4000, 1023))
	out(false, flow.TCP, world, ports(4000, 1023))
	out(false, 50, "2001:db8:77::7")
	out(true, 50, "2001:db8:77::8")
	out(true, 51, "198.51.100.7")
	out(false, 50, "2001:db8:78::8")
	out(true, flow.ICMPv6, "2001:db8:77::7", typeCode(128, 0))
	out(false, flow.ICMPv6, "2001:db8:76::7", typeCode(128, 0))
}

func TestACLOfOneFamilySaysNothingOfTheOther(t *testing.T) {
	t.Parallel()
	b := newBench(t, everything+aclText("edge", allowAll...)+behindACL("everything", "edge"), "eth0")
	peers := map[flow.Family]string{flow.IPv4: "198.51.100.7", flow.IPv6: "2001:db8:77::7"}
	for _, f := range flow.Families {
		other := flow.IPv4 + flow.IPv6 - f
		for name, entries := range map[string][]string{
			"allowed alone": {"ingress 100 allow -1 " + f.Any().String(), "egress 100 allow -1 " + f.Any().String()},
			"denied before the other is allowed": {
				"ingress 100 deny -1 " + other.Any().String(), "ingress 110 allow -1 " + f.Any().String(),
				"egress 100 deny -1 " + other.Any().String(), "egress 110 allow -1 " + f.Any().String(),
			},
		} {
			b.govern(t, everything+aclText("edge", entries...)+behindACL("everything", "edge"))
			for _, of := range flow.Families {
				for _, d := range flow.Directions {
					for _, p := range []flow.Packet{
						packet("eth0", d, flow.TCP, peers[of], ports(4000, 80)), packet("eth0", d, flow.UDP, peers[of], ports(4000, 80)),
						packet("eth0", d, flow.ICMPOf(of), peers[of], typeCode(echoOf[of], 0)), packet("eth0", d, 47, peers[of]),
						packet("eth0", d, flow.ICMPOf(flow.IPv4+flow.IPv6-of), peers[of]),
					} {
						b.check(t, name, p, of == f)
					}
				}
			}
		}
	}
}

func TestACLBindsRepliesAndTrackedFlows(t *testing.T) {
	t.Parallel()
	rules := `
security_group "in" {
  ingress "ssh" {
    protocol         = "tcp"
    ports            = [22]
    cidr_blocks      = ["198.51.100.0/24"]
    ipv6_cidr_blocks = ["2001:db8:77::/48"]
  }
  ingress "udp" {
    protocol         = "udp"
    ports            = [22]
    cidr_blocks      = ["198.51.100.0/24"]
    ipv6_cidr_blocks = ["2001:db8:77::/48"]
  }
  ingress "gre" {
    protocol         = "gre"
    cidr_blocks      = ["198.51.100.0/24"]
    ipv6_cidr_blocks = ["2001:db8:77::/48"]
  }
}
`
	in := []string{"ingress 100 allow -1 0.0.0.0/0", "ingress 101 allow -1 ::/0"}
	b := newBench(t, rules+aclText("edge", allowAll...)+behindACL("in", "edge"), "eth0")
	for _, peer := range []string{"198.51.100.7", "2001:db8:77::7"} {
		for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP, 47} {
			set := []func(*flow.Packet){state(flow.Established)}
			if protocol.HasPorts() {
				set = append(set, ports(22, 4000))
			}
			reply := packet("eth0", flow.Egress, protocol, peer, set...)
			again := reply.Reply()
			opener := again
			if opener.State = flow.New; protocol == flow.TCP {
				opener.TCPFlags = flow.SYN
			}
			b.govern(t, rules+aclText("edge", allowAll...)+behindACL("in", "edge"))
			b.check(t, "the opener", opener, true)
			b.check(t, "the reply, allowed", reply, true)
			b.govern(t, rules+aclText("edge", in...)+behindACL("in", "edge"))
			b.check(t, "the reply, no egress entry", reply, false)
			b.check(t, "more of the tracked flow", again, true)
			b.govern(t, rules+aclText("edge", "egress 100 allow -1 0.0.0.0/0", "egress 101 allow -1 ::/0")+behindACL("in", "edge"))
			b.check(t, "the reply, no ingress entry", reply, true)
			b.check(t, "more of the tracked flow, no ingress entry", again, false)
		}
	}
}

// webAndOffice lets the world into an open port and the office into another.
const webAndOffice = `
security_group "web" {
  ingress "http" {
    protocol         = "tcp"
    ports            = [80, 81]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "ssh" {
    protocol         = "tcp"
    ports            = [22]
    cidr_blocks      = ["203.0.113.1/32"]
    ipv6_cidr_blocks = ["2001:db8:78::1/128"]
  }
  egress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
`

func TestACLStopsLiveFlowsInItsDirectionAlone(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	denied := func(direction string) []string {
		var entries []string
		for n, cidr := range []string{"198.51.100.0/24", "203.0.113.0/24", "2001:db8:77::/48", "2001:db8:78::/48"} {
			entries = append(entries, fmt.Sprintf("%s %d deny -1 %s", direction, 10+n, cidr))
		}
		return append(entries, allowAll...)
	}
	govern := func(entries []string) {
		t.Helper()
		enforce(t, s.host, load(t, webAndOffice+aclText("edge", entries...)+behindACL("web", "edge")))
	}
	govern(allowAll)

	// All but the last two are of addresses that will be denied.
	var chats []*chat
	begin := func(name string, to *lab.Namespace, client, server netip.Addr, port uint16, tracked bool) {
		t.Helper()
		from := netip.AddrPortFrom(client, uint16(40001+len(chats)))
		c := newChat(t, name, s.client, to, from, netip.AddrPortFrom(server, port))
		p := flow.Packet{Protocol: flow.TCP, Source: client, Dest: server, SourcePort: from.Port(), DestPort: port}
		if got := s.tracked(t, &p); got != tracked {
			t.Errorf("%s: tracked %t, want %t", name, got, tracked)
		}
		chats = append(chats, c)
	}
	for _, f := range flow.Families {
		begin("tracked, "+f.String(), s.host, officeOf[f], hostOf[f], 22, true)
		begin("untracked, "+f.String(), s.host, worldOf[f], hostOf[f], 80, false)
		begin("forwarded, "+f.String(), s.inside, worldOf[f], insideOf[f], 80, true)
	}
	const controls = 2
	begin("somebody else's, IPv4", s.host, addr("192.0.2.20"), hostOf[flow.IPv4], 81, false)
	begin("somebody else's, IPv6", s.host, addr("2001:db8:2::20"), hostOf[flow.IPv6], 81, false)
	cut, others := chats[:len(chats)-controls], chats[len(chats)-controls:]

	wire := newCrossings(t, s.host, "eth0", cut)
	goOn := func(when string, chats []*chat) {
		t.Helper()
		for _, c := range chats {
			c.goesOn(t, when)
		}
	}
	goOn("before", chats)
	for _, d := range flow.Directions {
		when := d.String() + " denied"
		govern(denied(d.String()))
		labtest.Settle(t)
		before, back := wire.count(t, d), wire.count(t, d.Opposite())
		goOn(when, others)
		// The other direction is not touched: what is not acknowledged is sent
		// again and again.
		if !eventually(func() bool {
			for n, packets := range wire.count(t, d.Opposite()) {
				if packets <= back[n] {
					return false
				}
			}
			return true
		}) {
			t.Errorf("%s: %v packets the other way at first, and %v in the end", when, back, wire.count(t, d.Opposite()))
		}
		rest(impatience)
		if after := wire.count(t, d); !slices.Equal(before, after) {
			t.Errorf("%s: %v packets, then %v, want none more", when, before, after)
		}
		govern(allowAll)
		goOn("allowed again, "+when, chats)
	}
}

// bigACL has an entry of every number: TCP ports of a network each, allowed or
// denied, at random.
type bigACL struct {
	allow  []bool
	ports  []flow.PortRange
	prefix []netip.Prefix
}

const lastEntry = 32766

func newBigACL(r *rand.Rand) *bigACL {
	a := &bigACL{}
	for range lastEntry {
		first := uint16(1 + r.IntN(400))
		a.allow = append(a.allow, r.IntN(2) == 0)
		a.ports = append(a.ports, flow.PortRange{First: first, Last: first + uint16(r.IntN(6))})
		ip := netip.AddrFrom4([4]byte{10, byte(r.IntN(16)), byte(r.IntN(256)), byte(r.IntN(256))})
		a.prefix = append(a.prefix, netip.PrefixFrom(ip, 16+r.IntN(17)).Masked())
	}
	return a
}

func (a *bigACL) String() string {
	entries := make([]string, 0, len(a.ports)+1)
	for n, p := range a.ports {
		action := "deny"
		if a.allow[n] {
			action = "allow"
		}
		entries = append(entries, fmt.Sprintf("ingress %d %s tcp:%d-%d %s", n+1, action, p.First, p.Last, a.prefix[n]))
	}
	return aclText("big", append(entries, allowAll[2:]...)...)
}

// allows takes the entries one by one.
func (a *bigACL) allows(p *flow.Packet) bool {
	for n, ports := range a.ports {
		if ports.Contains(p.DestPort) && a.prefix[n].Contains(p.Source) {
			return a.allow[n]
		}
	}
	return false
}

func TestACLOfAsManyEntriesAsThereAreNumbers(t *testing.T) {
	t.Parallel()
	b := newBench(t, everything, "eth0")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	acl := newBigACL(r)
	p := load(t, everything+acl.String()+behindACL("everything", "big"))
	// What else the machine does costs no time of this thread's processor.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// What a virtual machine is not given may count as its processor's time.
	for end := time.Now().Add(2 * patience); ; b.govern(t, everything) {
		from, begin := spent(t), time.Now()
		b.commit(t, p, compile.Compile(p, compile.Environment{}))
		took := spent(t) - from
		t.Logf("compiled, applied and read back in %s, of which the processor took %s", time.Since(begin), took)
		if took < 10*time.Second { // about one
			break
		}
		if time.Now().After(end) {
			t.Errorf("%d entries took %s", lastEntry, took)
			break
		}
	}
	passed := 0
	var probes []lab.Probe
	for len(probes) < 2000 {
		n := r.IntN(lastEntry)
		peer := flow.RangeOf(acl.prefix[n])
		border := []netip.Addr{peer.First, peer.First.Prev(), peer.Last, peer.Last.Next()}[r.IntN(4)]
		port := []uint16{acl.ports[n].First, acl.ports[n].First - 1, acl.ports[n].Last, acl.ports[n].Last + 1}[r.IntN(4)]
		probes = append(probes, lab.Probe{Packet: packet("eth0", flow.Ingress, flow.TCP, border.String(), ports(4000, port))})
	}
	outcomes, err := b.ask.Ask(probes)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		p := probes[i].Packet
		want := acl.allows(&p)
		if !o.Arrived || o.Passed != want {
			t.Errorf("%s: %s, want passed %t", &p, o, want)
		}
		if d := b.policy.Decide(&p); d.Allow != want {
			t.Errorf("%s: the policy says %t (%s), want %t", &p, d.Allow, d.Reason, want)
		}
		if want {
			passed++
		}
	}
	if passed < 200 || passed > len(probes)-200 {
		t.Errorf("%d of %d packets passed: the sample says little", passed, len(probes))
	}
}
