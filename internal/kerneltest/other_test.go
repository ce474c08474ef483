package kerneltest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/ruleset"
)

// others are protocols that sgc tracks by address and protocol alone: some of
// which conntrack would look at ports or keys, some without either, one that
// nobody has.
var others = []flow.Protocol{47, 50, 132, 33, 136, 253}

// peersOf are the far ends that the rules for other protocols name.
var peersOf = map[flow.Family]string{flow.IPv4: "198.51.100.7", flow.IPv6: "2001:db8:77::7"}

// rulesForOthers are a group of a rule for each of the protocols.
func rulesForOthers(name string, d flow.Direction) string {
	var b strings.Builder
	fmt.Fprintf(&b, "security_group %q {\n", name)
	for _, p := range others {
		fmt.Fprintf(&b, "  %s {\n    protocol = %q\n    cidr_blocks = [\"198.51.100.7/32\"]\n    ipv6_cidr_blocks = [\"2001:db8:77::7/128\"]\n  }\n",
			d, fmt.Sprint(uint8(p)))
	}
	return b.String() + "}\n"
}

// othersInAndOut lets the protocols in at eth0 and out at eth1, all protocols
// out at eth2, and nothing through eth3.
func othersInAndOut() string {
	return rulesForOthers("in", flow.Ingress) + rulesForOthers("out", flow.Egress) + `
security_group "all" {
  egress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
security_group "none" {
  egress "ping" {
    protocol         = "icmpv6"
    from_port        = -1
    to_port          = -1
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "ping4" {
    protocol    = "icmp"
    from_port   = -1
    to_port     = -1
    cidr_blocks = ["0.0.0.0/0"]
  }
}
interface "eth0" { security_groups = ["in"] }
interface "eth1" { security_groups = ["out"] }
interface "eth2" { security_groups = ["all"] }
interface "eth3" { security_groups = ["none"] }
`
}

// headerOf returns a sound header of a protocol; variants differ in ports, or
// in what else tells associations apart.
func headerOf(p flow.Protocol, variant uint16) []byte {
	near, far := 1000+variant, 2000+variant
	portPair := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, near), far)
	switch p {
	case 47: // a key, of IPv4
		return append([]byte{0x20, 0, 8, 0}, portPair...)
	case 50: // the index of the security association, then a number
		return append(portPair, 0, 0, 0, 1)
	case 132: // INIT
		b := append(portPair, 0, 0, 0, 0, 0, 0, 0, 0)
		b = append(b, 1, 0, 0, 20, 1, 2, 3, 4, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 1, 2, 3, 4)
		binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		return b
	case 33: // REQUEST
		return append(portPair, 5, 0, 0, 0, 0x01, 0, 0, 1)
	default:
		return portPair
	}
}

func other(p flow.Packet, variant uint16) lab.Probe {
	return lab.Probe{Packet: p, Envelope: lab.Envelope{Header: headerOf(p.Protocol, variant)}}
}

// answered is the packet when its flow is known.
func answered(p flow.Packet) flow.Packet {
	p.State = flow.Established
	return p
}

func TestOtherProtocolsAreTrackedByAddressAndProtocolAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, othersInAndOut(), "eth0", "eth1", "eth2", "eth3")
	for _, f := range flow.Families {
		stranger := map[flow.Family]string{flow.IPv4: "198.51.100.6", flow.IPv6: "2001:db8:77::6"}[f]
		for iface, d := range map[string]flow.Direction{"eth0": flow.Ingress, "eth1": flow.Egress} {
			for _, protocol := range others {
				opener, reply := packet(iface, d, protocol, peersOf[f]), packet(iface, d.Opposite(), protocol, peersOf[f])
				b.checkProbe(t, "an answer to nothing", other(reply, 1), false)
				open := other(opener, 1)
				open.GoOn = true
				b.checkProbe(t, "a packet that a rule allows", open, true)
				b.checkProbe(t, "the answer", other(answered(reply), 1), true)
				b.checkProbe(t, "other ports", other(answered(reply), 2), true)
				forwarded := answered(reply)
				forwarded.Forwarded = true
				if d == flow.Egress {
					forwarded.Dest = insideOf[f]
				} else {
					forwarded.Source = insideOf[f]
				}
				b.checkProbe(t, "to another local address", other(forwarded, 3), true)

				b.checkProbe(t, "another peer", other(packet(iface, d.Opposite(), protocol, stranger), 1), false)
				b.checkProbe(t, "another protocol", other(packet(iface, d.Opposite(), 99, peersOf[f]), 1), false)
				b.checkProbe(t, "another interface", other(packet("eth3", d.Opposite(), protocol, peersOf[f]), 1), false)
				b.checkProbe(t, "the opener's kind, another peer", other(packet(iface, d, protocol, stranger), 1), false)
			}
		}
	}
}

// The ICMP of the other family is a protocol like any other; a rule for ICMP
// does not mean it.
func TestICMPInTheOtherFamilyIsAnotherProtocol(t *testing.T) {
	t.Parallel()
	b := newBench(t, othersInAndOut(), "eth0", "eth1", "eth2", "eth3")
	for _, f := range flow.Families {
		foreign := flow.ICMPOf(flow.IPv4 + flow.IPv6 - f)
		out, in := packet("eth2", flow.Egress, foreign, peersOf[f]), packet("eth2", flow.Ingress, foreign, peersOf[f])
		b.check(t, "an answer to nothing", in, false)
		b.check(t, "allowed by all protocols", out, true)
		b.check(t, "the answer", answered(in), true)
		b.check(t, "a rule for ICMP", packet("eth3", flow.Egress, foreign, peersOf[f]), false)
		b.check(t, "its own ICMP", packet("eth3", flow.Egress, flow.ICMPOf(f), peersOf[f], typeCode(echoOf[f], 0)), true)
	}
}

// line is a pair of raw sockets of one protocol.
type line struct {
	protocol  flow.Protocol
	near, far *net.IPConn
}

func (l line) String() string {
	return fmt.Sprintf("%s, %s and %s", l.protocol, l.near.LocalAddr(), l.far.LocalAddr())
}

// out and back send a packet; variants have other ports.
func (l line) out(variant uint16) error {
	_, err := l.near.WriteTo(append(headerOf(l.protocol, variant), "sixteen bytes..."...), l.far.LocalAddr())
	return err
}

func (l line) back(variant uint16) error {
	_, err := l.far.WriteTo(append(headerOf(l.protocol, variant), "sixteen bytes..."...), l.near.LocalAddr())
	return err
}

// TestOtherProtocolsEndToEnd lets the kernels of both ends send and receive.
func TestOtherProtocolsEndToEnd(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	enforce(t, s.host, load(t, rulesForOthers("out", flow.Egress)+`interface "eth0" { security_groups = ["out"] }`))
	// The world is what the rules name; the office is not.
	var allowed, refused []line
	for _, f := range flow.Families {
		for _, protocol := range others {
			for ns, local := range map[*lab.Namespace]netip.Addr{s.host: hostOf[f], s.inside: insideOf[f]} {
				allowed = append(allowed, line{protocol, rawSocket(t, ns, local, protocol), rawSocket(t, s.client, worldOf[f], protocol)})
			}
			refused = append(refused, line{protocol, rawSocket(t, s.inside, insideOf[f], protocol), rawSocket(t, s.client, officeOf[f], protocol)})
		}
	}
	for _, l := range allowed {
		if err := l.back(1); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range refused {
		if err := errors.Join(l.out(1), l.back(1)); err != nil {
			t.Fatal(err)
		}
	}
	rest(impatience)
	for _, l := range slices.Concat(allowed, refused) {
		if heard(t, l.near, l.far, time.Millisecond) {
			t.Errorf("%s: it came in unasked", l)
		}
		if heard(t, l.far, l.near, time.Millisecond) {
			t.Errorf("%s: it went out without a rule", l)
		}
	}
	// What goes out lets the same come in, with whatever ports, and again.
	for _, l := range allowed {
		for round := range uint16(3) {
			if err := l.out(1); err != nil {
				t.Fatal(err)
			}
			if !heard(t, l.far, l.near, patience) {
				t.Errorf("%s: it did not go out", l)
			}
			if err := l.back(round); err != nil {
				t.Fatal(err)
			}
			if !heard(t, l.near, l.far, patience) {
				t.Errorf("%s: it did not come back", l)
			}
		}
	}
}

// heard reports whether something from the other socket arrives in time.
func heard(t *testing.T, c, from *net.IPConn, wait time.Duration) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 1500); ; {
		_, source, err := c.ReadFromIP(b)
		if err != nil {
			return false
		}
		if source.String() == from.LocalAddr().String() {
			return true
		}
	}
}

func rawSocket(t *testing.T, ns *lab.Namespace, local netip.Addr, p flow.Protocol) *net.IPConn {
	t.Helper()
	var c *net.IPConn
	err := ns.Do(func() (err error) {
		c, err = net.ListenIP(fmt.Sprintf("ip%d:%d", flow.FamilyOf(local), p), &net.IPAddr{IP: local.AsSlice()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// forgetful makes the table forget flows of other protocols after an idle time
// of d, and remember at most size of them; 0 leaves the number as it is.
func forgetful(table *ruleset.Table, d time.Duration, size uint32) *ruleset.Table {
	for _, s := range table.Sets {
		if s.Dynamic {
			s.Timeout = d
			if size > 0 {
				s.Size = size
			}
		}
	}
	for _, c := range table.Chains {
		for _, r := range c.Rules {
			for i, statement := range r.Statements {
				if u, ok := statement.(ruleset.Update); ok {
					u.Timeout = d
					r.Statements[i] = u
				}
			}
		}
	}
	return table
}

// The 600 seconds are two here, or as many more as the machine needs to ask in
// time; that they are 600 is a matter of the compiled text.
func TestOtherFlowsLiveWhileThereIsTrafficInEitherDirection(t *testing.T) {
	t.Parallel()
	idle := 2 * time.Second
	b := newBench(t, othersInAndOut(), "eth0", "eth1", "eth2", "eth3")
	govern := func(text string) {
		t.Helper()
		p := load(t, text)
		b.commit(t, p, forgetful(compile.Compile(p, compile.Environment{}), idle, 0))
	}

	var openers, replies []lab.Probe
	for _, f := range flow.Families {
		for iface, d := range map[string]flow.Direction{"eth0": flow.Ingress, "eth1": flow.Egress} {
			for _, protocol := range []flow.Protocol{47, 132, 253} {
				openers = append(openers, other(packet(iface, d, protocol, peersOf[f]), 1))
				replies = append(replies, other(packet(iface, d.Opposite(), protocol, peersOf[f]), 1))
			}
		}
	}
	asked := func(probes []lab.Probe) []lab.Outcome {
		t.Helper()
		outcomes, err := b.ask.Ask(probes)
		if err != nil {
			t.Fatal(err)
		}
		return outcomes
	}
	judge := func(about string, probes []lab.Probe, outcomes []lab.Outcome, pass bool) {
		t.Helper()
		for i, o := range outcomes {
			if !o.Arrived || o.Passed != pass {
				t.Errorf("%s: %s: %s, want passed %t", about, &probes[i].Packet, o, pass)
			}
		}
	}
	expect := func(about string, probes []lab.Probe, pass bool) {
		t.Helper()
		judge(about, probes, asked(probes), pass)
	}
	// passBy expects that all pass of flows that have lived since a time, when
	// packets of them were first asked about: where that is too long ago at the end,
	// nobody can say what ought to have passed, and it is false.
	passBy := func(since time.Time, about string, probes []lab.Probe) bool {
		t.Helper()
		outcomes := asked(probes)
		if time.Since(since) > idle*9/10 {
			return false
		}
		judge(about, probes, outcomes, true)
		return true
	}
	// busy lets one half of the flows see openers alone and the other half
	// replies alone, for longer than flows live without traffic. On a machine
	// that stalls, it begins anew, with flows that live longer. open returns when
	// the flows were opened.
	half := len(openers) / 2
	alone := slices.Concat(openers[:half], replies[half:])
	once := func(about string, last time.Time) bool {
		t.Helper()
		for from := last; time.Since(from) < idle*3/2; {
			time.Sleep(idle / 4)
			now := time.Now()
			if !passBy(last, about+", one direction", alone) {
				return false
			}
			last = now
		}
		return passBy(last, about+", openers", openers) && passBy(last, about+", replies", replies)
	}
	busy := func(about string, open func() time.Time) {
		t.Helper()
		for end := time.Now().Add(4 * patience); !once(about, open()); idle *= 2 {
			if time.Now().After(end) {
				t.Fatal("the machine stalls all the time")
			}
			t.Logf("%s: the machine stalls longer than flows live, %s", about, idle)
		}
	}
	opened := func() time.Time {
		govern(othersInAndOut())
		begin := time.Now()
		expect("opened", openers, true)
		return begin
	}
	govern(othersInAndOut())
	expect("to nothing", replies, false)
	busy("traffic", opened)
	time.Sleep(idle * 5 / 4)
	expect("after the idle time", replies, false)

	// They outlast the rule that let them open, and then the same holds.
	busy("without a rule", func() time.Time {
		begin := opened()
		govern(nothing + `interface "eth1" { security_groups = ["nothing"] }`)
		return begin
	})
	strangers := slices.Clone(openers)
	for i := range strangers {
		p := &strangers[i].Packet
		peer := map[flow.Family]string{flow.IPv4: "198.51.100.8", flow.IPv6: "2001:db8:77::8"}[p.Family()]
		*p = packet(p.Interface, p.Direction, p.Protocol, peer)
	}
	expect("without a rule, a new flow", strangers, false)
	time.Sleep(idle * 5 / 4)
	expect("without a rule, replies after the idle time", replies, false)
	expect("without a rule, openers after the idle time", openers, false)
}

func TestFullSetOfFlowsRefusesNothingThatARuleAllows(t *testing.T) {
	t.Parallel()
	text := `
security_group "in" {
  ingress "gre" {
    protocol         = "gre"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
interface "eth0" { security_groups = ["in"] }
`
	b := newBench(t, nothing, "eth0")
	p := load(t, text)
	b.commit(t, p, forgetful(compile.Compile(p, compile.Environment{}), time.Hour, 2))
	for _, format := range []string{"198.51.100.%d", "2001:db8:77::%d"} {
		for n := range 6 {
			opener := packet("eth0", flow.Ingress, 47, fmt.Sprintf(format, n+1))
			b.check(t, "a packet that a rule allows", opener, true)
			reply := opener.Reply()
			if n < 2 {
				reply.State = flow.Established
			}
			// There is no room to remember the others.
			b.check(t, "the answer", reply, n < 2)
			b.check(t, "one more", opener, true)
		}
		first := packet("eth0", flow.Ingress, 47, fmt.Sprintf(format, 1))
		b.check(t, "more of a flow that is known", answered(first), true)
		b.check(t, "and its answer", answered(first.Reply()), true)
	}
}
