package apply

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/nlmsg"
)

// fieldKind says how the value of a field is written.
type fieldKind uint8

const (
	hexBytes fieldKind = iota
	bigNumber
	nativeNumber
	address
	interfaceName
	familyNumber
	protocolNumber
	ctState
	addressType
	// portPair is both ports of a header at once.
	portPair
	tcpFlags
	ctDirection
)

func (k fieldKind) text(b []byte) string {
	switch k {
	case bigNumber:
		if len(b) <= 8 {
			var n uint64
			for _, c := range b {
				n = n<<8 | uint64(c)
			}
			return strconv.FormatUint(n, 10)
		}
	case nativeNumber:
		if len(b) == 4 {
			return strconv.FormatUint(uint64(binary.NativeEndian.Uint32(b)), 10)
		}
		if len(b) == 8 {
			return strconv.FormatUint(binary.NativeEndian.Uint64(b), 10)
		}
	case ctDirection:
		if len(b) == 1 && int(b[0]) < len(ctDirections) {
			return ctDirections[b[0]]
		}
	case ctState:
		return stateText(b)
	case tcpFlags:
		if len(b) == 1 {
			return flagsText(b[0])
		}
	case addressType:
		if len(b) == 4 {
			if n := binary.NativeEndian.Uint32(b); n < uint32(len(addressTypes)) {
				return addressTypes[n]
			}
			return nativeNumber.text(b)
		}
	case address:
		if a, ok := netip.AddrFromSlice(b); ok {
			return a.String()
		}
		// nft loads only the whole bytes of a prefix.
		if len(b) < 4 {
			return prefixText(b, 4)
		}
		return prefixText(b, 16)
	case interfaceName:
		name := string(nlmsg.CutNUL(b))
		if len(b) < 16 && len(name) == len(b) {
			name += "*"
		}
		return strconv.Quote(name)
	case familyNumber:
		if len(b) == 1 && b[0] == unix.NFPROTO_IPV4 {
			return "ipv4"
		}
		if len(b) == 1 && b[0] == unix.NFPROTO_IPV6 {
			return "ipv6"
		}
	case protocolNumber:
		if len(b) == 1 {
			return flow.Protocol(b[0]).String()
		}
	}
	return fmt.Sprintf("0x%x", b)
}

func prefixText(b []byte, size int) string {
	full := make([]byte, size)
	copy(full, b)
	a, _ := netip.AddrFromSlice(full)
	return fmt.Sprintf("%s/%d", a, 8*len(b))
}

// maskBits returns the length of the prefix that a mask stands for.
func maskBits(mask []byte) (bits int, ok bool) {
	for i, b := range mask {
		for bit := 7; bit >= 0; bit-- {
			if b&(1<<bit) != 0 {
				if bits != i*8+7-bit {
					return 0, false
				}
				bits++
			}
		}
	}
	return bits, true
}

func stateText(mask []byte) string {
	if len(mask) != 4 {
		return fmt.Sprintf("0x%x", mask)
	}
	var names []string
	n := binary.NativeEndian.Uint32(mask)
	for _, s := range []struct {
		bit  uint32
		name string
	}{{1, "invalid"}, {2, "established"}, {4, "related"}, {8, "new"}, {64, "untracked"}} {
		if n&s.bit != 0 {
			names = append(names, s.name)
			n &^= s.bit
		}
	}
	if n != 0 {
		names = append(names, fmt.Sprintf("0x%x", n))
	}
	return strings.Join(names, ",")
}

type namedField struct {
	name string
	kind fieldKind
}

// metaFields are the keys of "meta" by number.
//
// Source: Linux include/uapi/linux/netfilter/nf_tables.h, enum nft_meta_keys.
var metaFields = []namedField{
	{"length", nativeNumber}, {"protocol", hexBytes}, {"priority", nativeNumber}, {"mark", nativeNumber},
	{"iif", nativeNumber}, {"oif", nativeNumber}, {"iifname", interfaceName}, {"oifname", interfaceName},
	{"iiftype", hexBytes}, {"oiftype", hexBytes}, {"skuid", nativeNumber}, {"skgid", nativeNumber},
	{"nftrace", bigNumber}, {"rtclassid", nativeNumber}, {"secmark", nativeNumber}, {"nfproto", familyNumber},
	{"l4proto", protocolNumber}, {"ibrname", interfaceName}, {"obrname", interfaceName}, {"pkttype", bigNumber},
	{"cpu", nativeNumber}, {"iifgroup", nativeNumber}, {"oifgroup", nativeNumber}, {"cgroup", nativeNumber},
}

func (d *decompiler) meta(a attributeMap) {
	key := a.u32(unix.NFTA_META_KEY)
	field := namedField{fmt.Sprintf("[key %d]", key), hexBytes}
	if int(key) < len(metaFields) {
		field = metaFields[key]
	}
	name := field.name
	if field.kind != interfaceName && name != "iif" && name != "oif" {
		name = "meta " + name
	}
	if _, sets := a[unix.NFTA_META_SREG]; sets {
		d.say(name + " set " + d.values[a.register(unix.NFTA_META_SREG)].as(field.kind))
		return
	}
	d.load(a.register(unix.NFTA_META_DREG), operand{text: name, kind: field.kind})
}

// ctFields are the keys of "ct" by number.
//
// Source: Linux include/uapi/linux/netfilter/nf_tables.h, enum nft_ct_keys.
var ctFields = []namedField{
	{"state", ctState}, {"direction", ctDirection}, {"status", nativeNumber}, {"mark", nativeNumber},
	{"secmark", nativeNumber}, {"expiration", nativeNumber}, {"helper", hexBytes}, {"l3proto", familyNumber},
	{"saddr", address}, {"daddr", address}, {"protocol", protocolNumber}, {"proto-src", bigNumber},
	{"proto-dst", bigNumber}, {"label", hexBytes}, {"packets", nativeNumber}, {"bytes", nativeNumber},
	{"avgpkt", nativeNumber}, {"zone", hexBytes}, {"event", nativeNumber}, {"ip saddr", address},
	{"ip daddr", address}, {"ip6 saddr", address}, {"ip6 daddr", address}, {"id", bigNumber},
}

// ctDirections are the directions of a flow by number.
var ctDirections = []string{"original", "reply"}

func (d *decompiler) conntrack(a attributeMap) {
	key := a.u32(unix.NFTA_CT_KEY)
	field := namedField{fmt.Sprintf("[key %d]", key), hexBytes}
	if int(key) < len(ctFields) {
		field = ctFields[key]
	}
	o := operand{text: "ct " + field.name, kind: field.kind}
	if direction := a[unix.NFTA_CT_DIRECTION]; len(direction) == 1 {
		o.text = "ct " + ctDirection.text(direction) + " " + field.name
	}
	if _, sets := a[unix.NFTA_CT_SREG]; sets {
		d.say(o.text + " set " + d.values[a.register(unix.NFTA_CT_SREG)].as(o.kind))
		return
	}
	// The family's address says the family by itself.
	if family, _, ok := strings.Cut(field.name, " "); ok {
		d.dropDependency(family)
	}
	d.load(a.register(unix.NFTA_CT_DREG), o)
}

// place is where a field lies: header, offset and length in bytes.
type place struct{ base, offset, length uint32 }

// payloadFields are fields by what the rule knows of the packet.
var payloadFields = map[string]map[place]namedField{
	"ip": {
		{1, 12, 4}: {"saddr", address}, {1, 16, 4}: {"daddr", address},
		{1, 8, 1}: {"ttl", bigNumber}, {1, 9, 1}: {"protocol", protocolNumber},
	},
	"ip6": {
		{1, 8, 16}: {"saddr", address}, {1, 24, 16}: {"daddr", address},
		{1, 7, 1}: {"hoplimit", bigNumber}, {1, 6, 1}: {"nexthdr", protocolNumber},
	},
	"tcp":    {{2, 0, 2}: {"sport", bigNumber}, {2, 2, 2}: {"dport", bigNumber}, {2, 13, 1}: {"flags", tcpFlags}, {2, 0, 4}: {"", portPair}},
	"udp":    {{2, 0, 2}: {"sport", bigNumber}, {2, 2, 2}: {"dport", bigNumber}, {2, 0, 4}: {"", portPair}},
	"sctp":   {{2, 0, 2}: {"sport", bigNumber}, {2, 2, 2}: {"dport", bigNumber}},
	"icmp":   {{2, 0, 1}: {"type", bigNumber}, {2, 1, 1}: {"code", bigNumber}},
	"icmpv6": {{2, 0, 1}: {"type", bigNumber}, {2, 1, 1}: {"code", bigNumber}},
	"th":     {{2, 0, 2}: {"sport", bigNumber}, {2, 2, 2}: {"dport", bigNumber}},
}

func (d *decompiler) payload(a attributeMap) {
	at := place{a.u32(unix.NFTA_PAYLOAD_BASE), a.u32(unix.NFTA_PAYLOAD_OFFSET), a.u32(unix.NFTA_PAYLOAD_LEN)}
	bases := []string{"ll", "nh", "th", "ih"}
	base := fmt.Sprint(at.base)
	if int(at.base) < len(bases) {
		base = bases[at.base]
	}
	o := operand{text: fmt.Sprintf("@%s,%d,%d", base, 8*at.offset, 8*at.length), kind: bigNumber}
	for _, header := range []string{d.family, d.protocol, "th"} {
		field, ok := findField(header, at)
		if !ok {
			continue
		}
		// Without a word that only asks for the protocol, a port is one of any.
		dropped := header != "th" && d.dropDependency(header)
		if header == d.protocol && (field.name == "sport" || field.name == "dport") {
			if d.named = d.named || dropped; !d.named {
				header = "th"
			}
		}
		o = operand{text: strings.TrimSpace(header + " " + field.name), kind: field.kind}
		break
	}
	if _, sets := a[unix.NFTA_PAYLOAD_SREG]; sets {
		d.say(o.text + " set " + d.values[a.register(unix.NFTA_PAYLOAD_SREG)].as(o.kind))
		return
	}
	d.load(a.register(unix.NFTA_PAYLOAD_DREG), o)
}

// dropDependency takes back the word that only asked for what a header says by
// itself, if it is one of the last ones. The family's own ICMP says the family,
// too. nft asks in the order of the fields: words before the one that goes are
// there for their own sake.
func (d *decompiler) dropDependency(header string) bool {
	asks := "meta l4proto " + header
	if family := map[string]string{"ip": "ipv4", "ip6": "ipv6"}[header]; family != "" {
		asks = "meta nfproto " + family
	}
	first := len(d.words) - d.dependencies
	for i := first; i < len(d.words); i++ {
		if d.words[i] != asks {
			continue
		}
		end := i + 1
		if i > first && d.words[i-1] == "meta nfproto "+map[string]string{"icmp": "ipv4", "icmpv6": "ipv6"}[header] {
			i--
		}
		d.words = slices.Delete(d.words, i, end)
		d.dependencies = len(d.words) - i
		return true
	}
	return false
}

// findField finds a field of a header; of an address also the first bytes.
func findField(header string, at place) (namedField, bool) {
	fields := payloadFields[header]
	if f, ok := fields[at]; ok {
		return f, true
	}
	for p, f := range fields {
		if f.kind == address && p.base == at.base && p.offset == at.offset && at.length < p.length {
			return f, true
		}
	}
	return namedField{}, false
}
