package policies

import (
	"fmt"
	"net/netip"

	"sgc/internal/flow"
)

// linkLocalServices are the cloud's services that are never filtered (2.6).
var linkLocalServices = [...]struct {
	address netip.Addr
	name    string
}{
	{netip.MustParseAddr("169.254.169.254"), "metadata"},
	{netip.MustParseAddr("fd00:ec2::254"), "metadata"},
	{netip.MustParseAddr("169.254.169.253"), "DNS"},
	{netip.MustParseAddr("fd00:ec2::253"), "DNS"},
	{netip.MustParseAddr("169.254.169.123"), "time"},
	{netip.MustParseAddr("fd00:ec2::123"), "time"},
	{netip.MustParseAddr("169.254.170.2"), "task metadata"},
	{netip.MustParseAddr("169.254.169.250"), "licence activation"},
	{netip.MustParseAddr("169.254.169.251"), "licence activation"},
}

// The ports of what is exempt by port.
const (
	portDNS          = 53
	portDHCPServer   = 67
	portDHCPClient   = 68
	portDHCPv6Client = 546
	portDHCPv6Server = 547
)

// The ICMPv6 messages that are exempt.
const (
	icmpv6ListenerQuery    = 130
	icmpv6ListenerReport   = 131
	icmpv6ListenerDone     = 132
	icmpv6RouterSolicit    = 133
	icmpv6NeighborAdvert   = 136
	icmpv6ListenerReportV2 = 143
)

// hostExemptions is what the host block adds to the exempt traffic.
type hostExemptions struct {
	resolvers, exempted *addressIndex
}

func newHostExemptions(h *Host) hostExemptions {
	return hostExemptions{newAddressIndex(h.DNSResolvers), newAddressIndex(h.Exempt)}
}

// exempt returns why the packet is never filtered (2.6), or "".
func (h hostExemptions) exempt(p *flow.Packet) string {
	peer := p.Peer()
	for _, s := range linkLocalServices {
		if s.address == peer {
			return fmt.Sprintf("%s is the cloud's %s service", peer, s.name)
		}
	}
	switch {
	case h.exempted.contains(peer):
		return fmt.Sprintf("%s is in host.exempt", peer)
	case p.Protocol.HasPorts() && p.PeerPort() == portDNS && h.resolvers.contains(peer):
		return fmt.Sprintf("%s is in host.dns_resolvers", peer)
	case p.Protocol == flow.UDP && isDHCPClient(p):
		return "DHCP client traffic"
	case p.Protocol == flow.ICMPv6 && p.Family() == flow.IPv6:
		return exemptICMPv6(p)
	}
	return ""
}

// isDHCPClient reports whether a UDP packet is between the host's DHCP client
// and a server. The ports tell, since addresses do not exist yet.
func isDHCPClient(p *flow.Packet) bool {
	if p.Family() == flow.IPv4 {
		return p.PeerPort() == portDHCPServer && p.LocalPort() == portDHCPClient
	}
	return p.PeerPort() == portDHCPv6Server && p.LocalPort() == portDHCPv6Client
}

// exemptICMPv6 lets neighbour discovery and multicast listener messages
// through. The hop limits are those that RFC 4861 and RFC 2710 demand: with
// 255, no router has touched the message; with 1, none will. Redirects are not
// needed for a link to work, so the rules decide about them.
func exemptICMPv6(p *flow.Packet) string {
	switch t := p.ICMPType; {
	case icmpv6RouterSolicit <= t && t <= icmpv6NeighborAdvert && p.HopLimit == 255:
		return "IPv6 neighbour discovery"
	case (icmpv6ListenerQuery <= t && t <= icmpv6ListenerDone || t == icmpv6ListenerReportV2) && p.HopLimit == 1:
		return "multicast listener message"
	}
	return ""
}
