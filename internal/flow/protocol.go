package flow

import (
	"fmt"
	"strconv"
	"strings"
)

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that have a meaning of their own in sgc.
const (
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
)

// ICMPOf returns the ICMP protocol of a family.
func ICMPOf(f Family) Protocol {
	if f == IPv4 {
		return ICMP
	}
	return ICMPv6
}

// HasPorts reports whether rules for the protocol name ports. SCTP, DCCP and
// UDP-Lite have ports on the wire, but security groups treat them by address
// and protocol alone.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP }

// IsICMP reports whether p is the ICMP of family f. ICMPv6 inside IPv4, or
// ICMP inside IPv6, is a protocol like any other.
func (p Protocol) IsICMP(f Family) bool { return p == ICMPOf(f) }

// IsOther reports whether p, in family f, is tracked by address and protocol
// alone: everything but TCP, UDP and the family's ICMP.
func (p Protocol) IsOther(f Family) bool { return !p.HasPorts() && !p.IsICMP(f) }

// Name returns the protocol's IANA name in lower case, or its number.
// The family only makes clear that ICMPv6 in IPv4 (and the reverse) is foreign
// there: it is then a number.
func (p Protocol) Name(f Family) string {
	if (p == ICMP || p == ICMPv6) && !p.IsICMP(f) {
		return strconv.Itoa(int(p))
	}
	return p.String()
}

func (p Protocol) String() string {
	if n := protocolNames[p]; n != "" {
		return n
	}
	return strconv.Itoa(int(p))
}

// ParseProtocol reads a protocol: an IANA name in any case, or a number from 0
// to 255. It knows nothing of "-1" and "all", which are no protocol.
func ParseProtocol(s string) (Protocol, error) {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		if n > 255 {
			return 0, fmt.Errorf("protocol number %d is larger than 255", n)
		}
		return Protocol(n), nil
	}
	s = strings.ToLower(s)
	for n, name := range protocolNames {
		if name != "" && name == s {
			return Protocol(n), nil
		}
	}
	for alias, n := range protocolAliases {
		if alias == s {
			return n, nil
		}
	}
	return 0, fmt.Errorf("unknown protocol %q", s)
}

// ProtocolNames returns the names that ParseProtocol knows, for suggestions.
func ProtocolNames() []string {
	var names []string
	for _, name := range protocolNames {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}
