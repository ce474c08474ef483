package kerneltest

import (
	"net/netip"
	"slices"
	"testing"

	"sgc/internal/flow"
)

const exemptHost = `
host {
  dns_resolvers = ["198.51.100.53", "198.51.100.96/29", "2001:db8:53::53"]
  exempt        = ["203.0.113.64/26", "2001:db8:e::/48"]
}
`

const (
	emptyGroup = "security_group \"empty\" {}\n"
	emptyACL   = "network_acl \"empty\" {}\n"
)

// nothingPasses are policies of eth0 that let nothing through but what is
// exempt.
var nothingPasses = map[string]string{
	"an empty group":         emptyGroup + atEth0("empty"),
	"an ACL without entries": everything + emptyACL + behindACL("everything", "empty"),
	"both":                   emptyGroup + emptyACL + behindACL("empty", "empty"),
	"no group":               "interface \"eth0\" { security_groups = [] }\n",
}

var services = []string{
	"169.254.169.254", "169.254.169.253", "169.254.169.123", "169.254.170.2", "169.254.169.250", "169.254.169.251",
	"fd00:ec2::254", "fd00:ec2::253", "fd00:ec2::123",
}

// oneBitOff returns the addresses that differ in one of the last bits.
func oneBitOff(a netip.Addr, bits int) []netip.Addr {
	var out []netip.Addr
	for bit := range bits {
		b := a.AsSlice()
		b[len(b)-1-bit/8] ^= 1 << (bit % 8)
		off, _ := netip.AddrFromSlice(b)
		out = append(out, off)
	}
	return out
}

// portsOff returns what a port is with one bit changed, and its neighbours.
func portsOff(port uint16) []uint16 {
	out := []uint16{port - 1, port + 1}
	for bit := range 16 {
		out = append(out, port^1<<bit)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ofAnyKind are packets of all protocols between the host and a peer, and
// between others and the peer.
func ofAnyKind(peer string) []flow.Packet {
	f := flow.FamilyOf(addr(peer))
	var out []flow.Packet
	for _, d := range flow.Directions {
		for _, p := range []flow.Packet{
			packet("eth0", d, flow.TCP, peer, ports(40000, 80)), packet("eth0", d, flow.TCP, peer, ports(80, 40000), state(flow.New)),
			packet("eth0", d, flow.UDP, peer, ports(123, 123)), packet("eth0", d, flow.UDP, peer, ports(40000, 54)),
			packet("eth0", d, flow.ICMPOf(f), peer, icmp(echoOf[f], 64)), packet("eth0", d, flow.ICMPOf(f), peer, icmp(3, 64)),
			packet("eth0", d, 47, peer), packet("eth0", d, 253, peer),
		} {
			forwarded := p
			forwarded.Forwarded = true
			if d == flow.Ingress {
				forwarded.Dest = insideOf[f]
			} else {
				forwarded.Source = insideOf[f]
			}
			out = append(out, p, forwarded)
		}
	}
	return out
}

// exemptPackets returns packets that are exempt, and packets that nearly are.
func exemptPackets() (pass, drop []flow.Packet) {
	in, out := flow.Ingress, flow.Egress
	for _, s := range services {
		pass = append(pass, ofAnyKind(s)...)
		for _, off := range append(oneBitOff(addr(s), 16), addr(s).Next(), addr(s).Prev()) {
			if !slices.Contains(services, off.String()) {
				drop = append(drop, packet("eth0", out, flow.TCP, off.String(), ports(40000, 80)), packet("eth0", in, flow.UDP, off.String(), ports(123, 123)))
			}
		}
		// Somebody else who wants to get to the service through the host.
		f := flow.FamilyOf(addr(s))
		through := packet("eth0", in, flow.TCP, peersOf[f], ports(40000, 80))
		through.Dest, through.Forwarded = addr(s), true
		drop = append(drop, through)
	}
	for _, peer := range []string{"203.0.113.64", "203.0.113.127", "2001:db8:e::", "2001:db8:e:ffff:ffff:ffff:ffff:ffff"} {
		pass = append(pass, ofAnyKind(peer)...)
	}
	for _, peer := range []string{"203.0.113.63", "203.0.113.128", "2001:db8:d:ffff:ffff:ffff:ffff:ffff", "2001:db8:f::"} {
		drop = append(drop, ofAnyKind(peer)...)
	}

	for _, resolver := range []string{"198.51.100.53", "198.51.100.96", "198.51.100.103", "2001:db8:53::53"} {
		f := flow.FamilyOf(addr(resolver))
		for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
			pass = append(pass,
				packet("eth0", out, protocol, resolver, ports(40000, 53)), packet("eth0", in, protocol, resolver, ports(53, 40000)),
				packet("eth0", out, protocol, resolver, ports(53, 53)), packet("eth0", in, protocol, resolver, ports(53, 53)))
			for _, off := range portsOff(53) {
				drop = append(drop, packet("eth0", out, protocol, resolver, ports(53, off)), packet("eth0", in, protocol, resolver, ports(off, 53)))
			}
		}
		drop = append(drop, packet("eth0", out, 132, resolver), packet("eth0", in, 136, resolver),
			packet("eth0", out, flow.ICMPOf(f), resolver, icmp(echoOf[f], 64)))
	}
	for _, peer := range []string{"198.51.100.52", "198.51.100.54", "198.51.100.95", "198.51.100.104", "2001:db8:53::52", "2001:db8:53::54"} {
		drop = append(drop, packet("eth0", out, flow.UDP, peer, ports(40000, 53)), packet("eth0", in, flow.TCP, peer, ports(53, 40000)))
	}

	dhcpPass, dhcpDrop := dhcpPackets()
	linkPass, linkDrop := linkPackets()
	return slices.Concat(pass, dhcpPass, linkPass), slices.Concat(drop, dhcpDrop, linkDrop)
}

func dhcpPackets() (pass, drop []flow.Packet) {
	in, out := flow.Ingress, flow.Egress
	for _, tt := range []struct {
		servers        []string
		client, server uint16
		foreign        string
	}{
		{[]string{"192.0.2.1", "10.0.0.1"}, 68, 67, "2001:db8:77::7"},
		{[]string{"fe80::1", "2001:db8:77::1"}, 546, 547, "198.51.100.7"},
	} {
		for _, peer := range tt.servers {
			asks := packet("eth0", out, flow.UDP, peer, ports(tt.client, tt.server))
			answers := packet("eth0", in, flow.UDP, peer, ports(tt.server, tt.client))
			pass = append(pass, asks, answers)
			for _, off := range portsOff(tt.client) {
				drop = append(drop, packet("eth0", out, flow.UDP, peer, ports(off, tt.server)), packet("eth0", in, flow.UDP, peer, ports(tt.server, off)))
			}
			for _, off := range portsOff(tt.server) {
				drop = append(drop, packet("eth0", out, flow.UDP, peer, ports(tt.client, off)), packet("eth0", in, flow.UDP, peer, ports(off, tt.client)))
			}
			// The host is no server, and DHCP is UDP.
			drop = append(drop,
				packet("eth0", in, flow.UDP, peer, ports(tt.client, tt.server)), packet("eth0", out, flow.UDP, peer, ports(tt.server, tt.client)),
				packet("eth0", out, flow.TCP, peer, ports(tt.client, tt.server)), packet("eth0", in, flow.TCP, peer, ports(tt.server, tt.client)),
				packet("eth0", in, 136, peer))
		}
		drop = append(drop,
			packet("eth0", out, flow.UDP, tt.foreign, ports(tt.client, tt.server)), packet("eth0", in, flow.UDP, tt.foreign, ports(tt.server, tt.client)))
	}
	offer := packet("eth0", in, flow.UDP, "192.0.2.1", ports(67, 68))
	offer.Dest = addr("255.255.255.255")
	return append(pass, offer,
		packet("eth0", out, flow.UDP, "255.255.255.255", ports(68, 67)), packet("eth0", out, flow.UDP, "ff02::1:2", ports(546, 547))), drop
}

// linkPackets are what makes an IPv6 link work, and its ICMPv6 types and hop
// limits with a bit changed.
func linkPackets() (pass, drop []flow.Packet) {
	in, out := flow.Ingress, flow.Egress
	for _, hops := range []uint8{1, 2, 3, 5, 64, 127, 191, 247, 251, 253, 254, 255} {
		for kind := uint8(127); kind <= 148; kind++ {
			discovery := 133 <= kind && kind <= 136
			listeners := 130 <= kind && kind <= 132 || kind == 143
			packets := []flow.Packet{
				packet("eth0", in, flow.ICMPv6, "fe80::1", icmp(kind, hops)), packet("eth0", out, flow.ICMPv6, "fe80::1", icmp(kind, hops)),
				packet("eth0", in, flow.ICMPv6, "2001:db8:77::7", icmp(kind, hops)), packet("eth0", out, flow.ICMPv6, "ff02::16", icmp(kind, hops)),
			}
			if discovery && hops == 255 || listeners && hops == 1 {
				pass = append(pass, packets...)
			} else {
				drop = append(drop, packets...)
			}
			// The same numbers mean nothing in the other family.
			drop = append(drop, packet("eth0", in, flow.ICMP, "198.51.100.7", icmp(kind, hops)),
				packet("eth0", out, flow.ICMP, "198.51.100.7", icmp(kind, hops)))
		}
	}
	return pass, drop
}

func TestExemptTrafficPassesAndNothingBesideIt(t *testing.T) {
	t.Parallel()
	b := newBench(t, nothing, "eth0")
	pass, drop := exemptPackets()
	t.Logf("%d packets are exempt, %d nearly", len(pass), len(drop))
	for name, text := range nothingPasses {
		b.govern(t, text+exemptHost)
		b.checkAll(t, name, pass, true)
		b.checkAll(t, name, drop, false)
	}
}

func TestResolversAnswerOnTheirPortAlone(t *testing.T) {
	t.Parallel()
	for name, text := range nothingPasses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, far := newLink(t, text+`host { dns_resolvers = ["192.0.2.20", "2001:db8:2::20"] }`,
				prefixes("192.0.2.10/24", "2001:db8:2::10/64"), prefixes("192.0.2.20/24", "2001:db8:2::20/64")...)
			for _, resolver := range []string{"192.0.2.20", "2001:db8:2::20"} {
				here := hostOf[flow.FamilyOf(addr(resolver))]
				dns, beside := netip.AddrPortFrom(addr(resolver), 53), netip.AddrPortFrom(addr(resolver), 54)
				if err := exchangeUDP(host, far, here, dns, dns, patience); err != nil {
					t.Error(err)
				}
				serve(t, far, addr(resolver), 53)
				connect(t, host, here, dns)
				if err := exchangeUDP(host, far, here, beside, beside, impatience); err == nil {
					t.Errorf("%s answered on port 54", resolver)
				}
			}
		})
	}
}
