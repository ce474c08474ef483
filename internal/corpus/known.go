package corpus

import (
	"net/netip"

	"sgc/internal/flow"
)

// What is known: the values that policies and packets are mostly made of, so
// that they meet.

var knownPorts = []uint16{
	0, 1, 20, 22, 52, 53, 54, 67, 68, 80, 443, 546, 547, 1023, 1024, 5432, 8000, 32767, 32768, 65534, 65535,
}

var knownPrefixes = map[flow.Family][]netip.Prefix{
	flow.IPv4: parse("0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "192.0.2.0/24",
		"192.0.2.2/32", "198.51.100.0/24", "203.0.113.1/32", "203.0.113.254/31", "169.254.0.0/16", "172.16.0.0/12",
		"240.0.0.0/4", "255.255.255.255/32", "0.0.0.0/32"),
	flow.IPv6: parse("::/1", "8000::/1", "2001:db8::/32", "2001:db8:7::/48", "2001:db8:7::/64", "2001:db8:7::1/128", "2001:db8:1::2/128",
		"2001:db8:1::/127", "fd00:ec2::/32", "fe80::/10", "::/128", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"),
}

func parse(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// services are addresses that are never filtered, and ones beside them.
var services = map[flow.Family][]netip.Addr{
	flow.IPv4: addresses("169.254.169.254", "169.254.169.253", "169.254.169.123", "169.254.170.2", "169.254.169.250",
		"169.254.169.251", "169.254.169.252", "169.254.170.1"),
	flow.IPv6: addresses("fd00:ec2::254", "fd00:ec2::253", "fd00:ec2::123", "fd00:ec2::250", "fd00:ec2::255"),
}

// multicast addresses are for destinations alone.
var multicast = map[flow.Family][]netip.Addr{
	flow.IPv4: addresses("224.0.0.1", "239.255.255.250", "255.255.255.255"),
	flow.IPv6: addresses("ff02::1", "ff02::16", "ff02::1:2"),
}

func addresses(list ...string) []netip.Addr {
	out := make([]netip.Addr, len(list))
	for i, s := range list {
		out[i] = netip.MustParseAddr(s)
	}
	return out
}

// Hosts are the addresses of the near side.
var Hosts = map[flow.Family]netip.Addr{
	flow.IPv4: netip.MustParseAddr("192.0.2.10"),
	flow.IPv6: netip.MustParseAddr("2001:db8::10"),
}

// The types of rules, ACL entries and packets: errors, requests, replies, what
// conntrack does not know, neighbour discovery, and the values beside them.
var (
	icmpTypes4 = []int{0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 17, 130, 133, 255}
	icmpTypes6 = []int{0, 1, 2, 3, 4, 5, 8, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 142, 143, 144, 255}
)

var icmpCodes = []uint8{0, 1, 3, 4, 5, 255}

// otherProtocols are those of rules: address and protocol count alone.
var otherProtocols = []flow.Protocol{2, 4, 41, 47, 50, 51, 89, 132, 136, 253}
