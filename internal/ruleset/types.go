package ruleset

import (
	"fmt"
	"math/big"
	"net/netip"
	"strconv"
	"strings"

	"sgc/internal/flow"
)

// Type is the type of one field of a set's key.
type Type uint8

// The types, by nft's names for them.
const (
	IPv4Addr    Type = iota // ipv4_addr
	IPv6Addr                // ipv6_addr
	InetService             // inet_service, a port
	InetProto               // inet_proto, an IP protocol
	NFProto                 // nf_proto, an IP version as netfilter counts them
	IfName                  // ifname, padded with zeros
	ICMPType                // icmp_type
	ICMPCode                // icmp_code
	ICMPv6Type              // icmpv6_type
	ICMPv6Code              // icmpv6_code
	// QuotedPort, QuotedAddr4 and QuotedAddr6 are what the packet that an ICMP
	// error quotes has at offsets without a name; nft calls such a type by an
	// example, "typeof @th,224,16".
	QuotedPort
	QuotedAddr4
	QuotedAddr6
)

// typeInfo is what nft and libnftnl know of a type.
type typeInfo struct {
	name      string
	number    uint32 // the number of nft's datatype, which the kernel only stores
	size      int    // bytes
	hostOrder bool
	quoted    uint32 // the bit offset of the example, of types that need one
}

// Source: nftables include/datatype.h, enum datatypes.
var typeInfos = [...]typeInfo{
	IPv4Addr:    {"ipv4_addr", 7, 4, false, 0},
	IPv6Addr:    {"ipv6_addr", 8, 16, false, 0},
	InetService: {"inet_service", 13, 2, false, 0},
	InetProto:   {"inet_proto", 12, 1, false, 0},
	NFProto:     {"nf_proto", 2, 1, false, 0},
	IfName:      {"ifname", 41, 16, true, 0},
	ICMPType:    {"icmp_type", 14, 1, false, 0},
	ICMPCode:    {"icmp_code", 32, 1, false, 0},
	ICMPv6Type:  {"icmpv6_type", 29, 1, false, 0},
	ICMPv6Code:  {"icmpv6_code", 33, 1, false, 0},
	QuotedPort:  {"@th,224,16", 4, 2, false, 224},
	QuotedAddr4: {"@th,192,32", 4, 4, false, 192},
	QuotedAddr6: {"@th,256,128", 4, 16, false, 256},
}

// Name returns nft's name of the type.
func (t Type) Name() string { return typeInfos[t].name }

// Number returns the number that nft stores with a set of the type, so that
// it can list the set. The kernel gives it no meaning.
func (t Type) Number() uint32 { return typeInfos[t].number }

// Size returns the length of a value in bytes.
func (t Type) Size() int { return typeInfos[t].size }

// HostOrder reports whether nft holds values of the type in host byte order.
func (t Type) HostOrder() bool { return typeInfos[t].hostOrder }

// protoNames are the protocols that nft writes by name in text of ours; all
// others are numbers, which every nft reads alike.
var protoNames = map[byte]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}

// text renders a raw value of the type as nft writes it.
func (t Type) text(value string) string {
	switch t {
	case IPv4Addr, IPv6Addr:
		a, ok := netip.AddrFromSlice([]byte(value))
		if !ok {
			panic(fmt.Sprintf("ruleset: %d bytes are no address", len(value)))
		}
		return a.String()
	case InetService:
		return strconv.Itoa(int(value[0])<<8 | int(value[1]))
	case QuotedPort, QuotedAddr4, QuotedAddr6:
		return fmt.Sprintf("0x%x", new(big.Int).SetBytes([]byte(value)))
	case NFProto:
		switch value[0] {
		case nfprotoIPv4:
			return "ipv4"
		case nfprotoIPv6:
			return "ipv6"
		}
	case InetProto:
		if name := protoNames[value[0]]; name != "" {
			return name
		}
	case IfName:
		return `"` + strings.TrimRight(value, "\x00") + `"`
	}
	return strconv.Itoa(int(value[0]))
}

// keyText renders a key, or in interval sets a range of keys, as nft writes it:
// several fields are a concatenation.
func (s *Set) keyText(first, last string) string {
	parts := make([]string, len(s.Key))
	for i, t := range s.Key {
		n := t.Size()
		if !s.Interval || first[:n] == last[:n] {
			parts[i] = t.text(first[:n])
		} else {
			parts[i] = t.rangeText(first[:n], last[:n])
		}
		if i < len(s.Key)-1 {
			first = first[padded(n):]
			if s.Interval {
				last = last[padded(n):]
			}
		}
	}
	return strings.Join(parts, " . ")
}

// Fields splits a key of several fields into the values of each.
func (s *Set) Fields(key string) []string {
	if len(s.Key) == 1 {
		return []string{key}
	}
	fields := make([]string, len(s.Key))
	for i, t := range s.Key {
		fields[i] = key[:t.Size()]
		key = key[padded(t.Size()):]
	}
	return fields
}

// padded returns the room that n bytes take in a concatenation.
func padded(n int) int { return (n + 3) &^ 3 }

// KeySize returns the length of the set's key in bytes, as the kernel counts
// it: fields of a concatenation fill units of four bytes.
func (s *Set) KeySize() int {
	if len(s.Key) == 1 {
		return s.Key[0].Size()
	}
	n := 0
	for _, t := range s.Key {
		n += padded(t.Size())
	}
	return n
}

// KeyType returns the number that nft stores for the set's key: the type's, or
// for a concatenation six bits a field.
//
// Source: nftables include/datatype.h, concat_subtype_add.
func (s *Set) KeyType() uint32 {
	var n uint32
	for _, t := range s.Key {
		n = n<<6 | t.Number()
	}
	return n
}

// Concat joins values to the key of a concatenation.
func Concat(values ...string) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteString(v)
		b.WriteString("\x00\x00\x00"[:padded(len(v))-len(v)])
	}
	return b.String()
}

// AddrKey returns the key for an address.
func AddrKey(a netip.Addr) string { return string(a.AsSlice()) }

// PortKey returns the key for a port.
func PortKey(port uint16) string { return string([]byte{byte(port >> 8), byte(port)}) }

// IfNameKey returns the key for an interface's name.
func IfNameKey(name string) string { return name + strings.Repeat("\x00", 16-len(name)) }

// rangeText renders a range of values as nft writes it: a prefix where it is
// one, else first-last.
func (t Type) rangeText(first, last string) string {
	if t == IPv4Addr || t == IPv6Addr {
		a, _ := netip.AddrFromSlice([]byte(first))
		b, _ := netip.AddrFromSlice([]byte(last))
		if p := (flow.Range{First: a, Last: b}).Prefixes(); len(p) == 1 {
			if p[0].IsSingleIP() {
				return a.String()
			}
			return p[0].String()
		}
	}
	return t.text(first) + "-" + t.text(last)
}
