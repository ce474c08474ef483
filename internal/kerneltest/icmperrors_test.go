package kerneltest

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// atEth0 attaches groups to eth0.
func atEth0(groups ...string) string {
	return fmt.Sprintf("interface \"eth0\" {\n  security_groups = [\"%s\"]\n}\n", strings.Join(groups, `", "`))
}

// onlyPorts makes TCP and UDP to port 80 untracked and lets the office, and
// nobody else, into port 22. It says nothing of ICMP.
const onlyPorts = `
security_group "ports" {
  ingress "http" {
    protocol         = "tcp"
    ports            = [80]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "http3" {
    protocol         = "udp"
    ports            = [80]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "ssh" {
    protocol         = "tcp"
    ports            = [22]
    cidr_blocks      = ["203.0.113.1/32"]
    ipv6_cidr_blocks = ["2001:db8:78::1/128"]
  }
  ingress "udp" {
    protocol         = "udp"
    ports            = [22]
    cidr_blocks      = ["203.0.113.1/32"]
    ipv6_cidr_blocks = ["2001:db8:78::1/128"]
  }
  egress "tcp" {
    protocol         = "tcp"
    ports            = ["0-65535"]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "udp" {
    protocol         = "udp"
    ports            = ["0-65535"]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
`

// outToAll makes TCP and UDP from the host to port 443 untracked. It says
// nothing of ICMP.
const outToAll = `
security_group "out" {
  egress "udp" {
    protocol         = "udp"
    ports            = [443]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "tcp" {
    protocol         = "tcp"
    ports            = [443]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "tcp" {
    protocol         = "tcp"
    ports            = ["0-65535"]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "udp" {
    protocol         = "udp"
    ports            = ["0-65535"]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
`

// errorTypes are the errors that belong to flows, and otherTypes messages that
// quote a packet, too, and yet pass by rules alone: advice that a host must not
// take unasked, and what nobody knows.
var (
	errorTypes = map[flow.Family][][2]uint8{
		flow.IPv4: {{3, 0}, {3, 1}, {3, 3}, {3, 4}, {3, 13}, {11, 0}, {11, 1}, {12, 0}, {12, 2}},
		flow.IPv6: {{1, 0}, {1, 3}, {1, 4}, {2, 0}, {3, 0}, {3, 1}, {4, 0}, {4, 1}, {4, 2}},
	}
	otherTypes = map[flow.Family][][2]uint8{
		flow.IPv4: {{4, 0}, {5, 0}, {5, 1}},
		flow.IPv6: {{5, 0}, {100, 0}, {127, 0}},
	}
)

// routerOf is somebody on the way to the peers, for whom there is no rule.
var routerOf = map[flow.Family]string{flow.IPv4: "192.0.2.77", flow.IPv6: "2001:db8:99::77"}

// about makes an ICMP message, in direction d, about a packet between the
// host's port and the peer's.
func about(iface string, d flow.Direction, kind [2]uint8, protocol flow.Protocol, peer string, local, remote uint16) flow.Packet {
	f := flow.FamilyOf(addr(peer))
	quoted := packet("", d.Opposite(), protocol, peer)
	if quoted.TCPFlags = 0; protocol == flow.TCP {
		quoted.TCPFlags = flow.ACK
	}
	if quoted.SourcePort, quoted.DestPort = remote, local; d == flow.Ingress {
		quoted.SourcePort, quoted.DestPort = local, remote
	}
	quoted.Direction = flow.Ingress // no direction: it is a quotation
	to := routerOf[f]
	if d == flow.Egress {
		to = peer // errors go to the sender
	}
	p := packet(iface, d, flow.ICMPOf(f), to, typeCode(kind[0], kind[1]))
	p.Quoted = &quoted
	return p
}

// errorPolicy leaves port 80 open at eth0, and port 443 of all peers at eth1
// but for some that are always tracked; eth2 is open for nobody.
const errorPolicy = onlyPorts + outToAll + `
security_group "closed" {
  ingress "udp" {
    protocol         = "udp"
    ports            = [22]
    cidr_blocks      = ["198.51.100.0/24"]
    ipv6_cidr_blocks = ["2001:db8:77::/48"]
  }
}
interface "eth0" { security_groups = ["ports"] }
interface "eth1" {
  security_groups = ["out"]
  always_track {
    cidr_blocks      = ["198.51.100.64/26"]
    ipv6_cidr_blocks = ["2001:db8:77:1::/64"]
  }
}
interface "eth2" { security_groups = ["closed"] }
`

func TestErrorsPassWithTheFlowsThatTheyAreAbout(t *testing.T) {
	t.Parallel()
	b := newBench(t, nothing, "eth0", "eth1", "eth2")
	// The judge is open already: from here on the policy alone decides what is
	// left out of conntrack.
	for _, byRules := range []bool{false, true} {
		text := errorPolicy
		if byRules {
			text += "host { icmp_errors = \"rules\" }\n"
		}
		b.govern(t, text)
		for _, f := range flow.Families {
			always := map[flow.Family]string{flow.IPv4: "198.51.100.65", flow.IPv6: "2001:db8:77:1::1"}[f]
			for _, d := range flow.Directions {
				for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
					name := fmt.Sprintf("by rules %t", byRules)
					for _, kind := range errorTypes[f] {
						related := func(iface string, p flow.Packet) {
							t.Helper()
							p.State = flow.Related
							b.check(t, name+", tracked, at "+iface, p, !byRules)
						}
						invalid := func(p flow.Packet, open bool) {
							t.Helper()
							p.State = flow.Invalid
							b.check(t, name+", not tracked", p, open && !byRules)
						}
						invalid(about("eth0", d, kind, protocol, peersOf[f], 80, 4000), true)
						invalid(about("eth0", d, kind, protocol, peersOf[f], 79, 80), false)
						invalid(about("eth0", d, kind, protocol, peersOf[f], 4000, 443), false)
						invalid(about("eth1", d, kind, protocol, peersOf[f], 4000, 443), true)
						invalid(about("eth1", d, kind, protocol, peersOf[f], 443, 4000), false)
						invalid(about("eth1", d, kind, protocol, always, 4000, 443), false)
						invalid(about("eth2", d, kind, protocol, peersOf[f], 22, 4000), false)
						invalid(about("eth0", d, kind, 132, peersOf[f], 0, 0), false)
						related("eth1", about("eth1", d, kind, protocol, always, 4000, 443))
						related("eth2", about("eth2", d, kind, protocol, peersOf[f], 22, 4000))
						if err := b.ask.Witness().Flush(); err != nil {
							t.Fatal(err)
						}
					}
					for _, kind := range otherTypes[f] {
						p := about("eth0", d, kind, protocol, peersOf[f], 80, 4000)
						p.State = flow.Invalid
						b.check(t, name+", no error", p, false)
						p = about("eth2", d, kind, protocol, peersOf[f], 22, 4000)
						p.State = flow.Related
						b.check(t, name+", no error, about a tracked flow", p, false)
						if err := b.ask.Witness().Flush(); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
	}
}

// Of a datagram that the host has cut, the first fragment tells the ports.
func TestErrorsAboutFragmentsOfOpenFlows(t *testing.T) {
	t.Parallel()
	b := newBench(t, nothing, "eth0", "eth1", "eth2")
	b.govern(t, errorPolicy)
	peer, always := peersOf[flow.IPv6], "2001:db8:77:1::1"
	for _, tt := range []struct {
		about, iface, peer string
		direction          flow.Direction
		source, dest       uint16
		protocol           flow.Protocol
		offset             uint16
		pass               bool
	}{
		{"an answer from an open port", "eth0", peer, flow.Ingress, 80, 4000, flow.UDP, 1, true},
		{"a question to an open port", "eth0", peer, flow.Egress, 4000, 80, flow.UDP, 1, true},
		{"a question to all", "eth1", peer, flow.Ingress, 4000, 443, flow.UDP, 1, true},
		{"an answer from anybody", "eth1", peer, flow.Egress, 443, 4000, flow.UDP, 1, true},
		{"the ports reversed", "eth0", peer, flow.Ingress, 4000, 80, flow.UDP, 1, false},
		{"a closed port", "eth0", peer, flow.Ingress, 81, 4000, flow.UDP, 1, false},
		{"a peer that is always tracked", "eth1", always, flow.Ingress, 4000, 443, flow.UDP, 1, false},
		{"nothing is open", "eth2", peer, flow.Ingress, 22, 4000, flow.UDP, 1, false},
		{"not the first fragment", "eth0", peer, flow.Ingress, 80, 4000, flow.UDP, 9, false},
		{"TCP, which is never cut", "eth0", peer, flow.Ingress, 80, 4000, flow.TCP, 1, false},
	} {
		const fragment = 44
		p := about(tt.iface, tt.direction, [2]uint8{2, 0}, fragment, tt.peer, 0, 0)
		header := []byte{byte(tt.protocol), 0, byte(tt.offset >> 8), byte(tt.offset), 0, 0, 0, 7}
		header = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(header, tt.source), tt.dest)
		outcomes, err := b.ask.Ask([]lab.Probe{{Packet: p, Envelope: lab.Envelope{Header: header}}})
		if err != nil {
			t.Fatal(err)
		}
		if o := outcomes[0]; !o.Arrived || o.Passed != tt.pass {
			t.Errorf("%s: %s: %s, want passed %t", tt.about, &p, o, tt.pass)
		}
	}
}

// Errors about pings, and about other protocols, pass as those of any flow
// that conntrack knows.
func TestErrorsAboutPingsAndTunnelsPass(t *testing.T) {
	t.Parallel()
	text := `
security_group "out" {
  egress "gre" {
    protocol         = "gre"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "ping" {
    protocol    = "icmp"
    from_port   = 8
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }
  egress "ping6" {
    protocol         = "icmpv6"
    from_port        = 128
    to_port          = 0
    ipv6_cidr_blocks = ["::/0"]
  }
}
interface "eth0" { security_groups = ["out"] }
`
	b := newBench(t, text, "eth0")
	for _, f := range flow.Families {
		for _, opener := range []flow.Packet{
			packet("eth0", flow.Egress, flow.ICMPOf(f), peersOf[f], typeCode(echoOf[f], 0)),
			packet("eth0", flow.Egress, 47, peersOf[f]),
		} {
			quoted := opener
			quoted.Interface, quoted.Direction = "", flow.Ingress
			p := packet("eth0", flow.Ingress, flow.ICMPOf(f), routerOf[f], typeCode(errorTypes[f][0][0], 0))
			p.Quoted, p.State = &quoted, flow.Invalid
			b.check(t, "about nothing", p, false)
			if o, err := b.ask.Open(opener); err != nil || !o.Passed {
				t.Fatalf("%s: %s, %v", &opener, o, err)
			}
			p.State = flow.Related
			if o := b.check(t, "about a flow", p, true); o.State != flow.Related {
				t.Errorf("%s: %s, want it related", &p, o)
			}
		}
	}
}

// What the kernel has no entries for obeys the rules, each packet by itself.
func TestMessagesWithoutEntriesObeyTheirRules(t *testing.T) {
	t.Parallel()
	stateless := map[flow.Family][]uint8{flow.IPv4: {4, 5, 9, 10, 0, 14, 30, 255}, flow.IPv6: {129, 134, 135, 137, 138, 143, 151, 200}}
	queries := map[flow.Family]map[uint8]uint8{flow.IPv4: {8: 0, 13: 14, 15: 16, 17: 18}, flow.IPv6: {128: 129}}
	for _, f := range flow.Families {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			text := "security_group \"in\" {\n"
			rule := func(n uint8) {
				attribute := map[flow.Family]string{flow.IPv4: "cidr_blocks", flow.IPv6: "ipv6_cidr_blocks"}[f]
				text += fmt.Sprintf("  ingress {\n    protocol = %q\n    from_port = %d\n    to_port = -1\n    %s = [%q]\n  }\n",
					flow.ICMPOf(f), n, attribute, peersOf[f]+fmt.Sprintf("/%d", f.Bits()))
			}
			for _, n := range stateless[f] {
				rule(n)
			}
			for query := range queries[f] {
				rule(query)
			}
			b := newBench(t, text+"}\n"+atEth0("in"), "eth0")
			for _, n := range stateless[f] {
				in := packet("eth0", flow.Ingress, flow.ICMPOf(f), peersOf[f], typeCode(n, 3))
				in.HopLimit = 77
				in.State = flow.Invalid
				b.check(t, "allowed by a rule", in, true)
				out := in.Reply()
				b.check(t, "the other way there is none", out, false)
				b.check(t, "and again", in, true)
				stranger := packet("eth0", flow.Ingress, flow.ICMPOf(f), routerOf[f], typeCode(n, 3))
				stranger.HopLimit, stranger.State = 77, flow.Invalid
				b.check(t, "no rule names the peer", stranger, false)
			}
			for query, reply := range queries[f] {
				in := packet("eth0", flow.Ingress, flow.ICMPOf(f), peersOf[f], typeCode(query, 0))
				out := in.Reply()
				out.ICMPType, out.State = reply, flow.Invalid
				b.check(t, "a reply to nothing", out, false)
				if o, err := b.ask.Open(in); err != nil || !o.Passed {
					t.Fatalf("%s: %s, %v", &in, o, err)
				}
				out.State = flow.Established
				b.check(t, "the reply", out, true)
			}
		})
	}
}
