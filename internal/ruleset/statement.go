package ruleset

import (
	"net/netip"
	"time"

	"sgc/internal/flow"
)

// Statement is one part of a rule: a match that may end the rule, or
// something that happens to the packet.
type Statement interface{ statement() }

// Match compares a field with one value.
type Match struct {
	Field Field
	// Negate asks for any other value.
	Negate bool
	// Value is the raw value, as long as the field; for IIFName and OIFName a
	// shorter one, without NUL, matches by prefix.
	Value string
}

// MatchPrefix asks for an address inside a prefix. Field is one of the four
// address fields and of the prefix's family.
type MatchPrefix struct {
	Field  Field
	Prefix netip.Prefix
}

// MatchRange asks for a value from First to Last, both included.
type MatchRange struct {
	Field       Field
	First, Last string
}

// MatchState asks for one state of conntrack.
type MatchState struct{ State CtState }

// MatchFlags asks for TCP flags: those in Mask are (or, negated, are not)
// exactly Value.
type MatchFlags struct {
	Mask, Value uint8
	Negate      bool
}

// MatchUDPPorts asks for UDP with both ports.
type MatchUDPPorts struct{ Source, Dest uint16 }

// Lookup asks whether the fields are in a set (or, negated, are not).
type Lookup struct {
	Fields []Field
	Set    string
	Negate bool
}

// VerdictMap looks the fields up in a verdict map; the rule ends with the
// verdict found, and goes on where there is none.
type VerdictMap struct {
	Fields []Field
	Map    string
}

// Update adds the fields to a dynamic set, or sets their element's time to
// live back to Timeout.
type Update struct {
	Fields  []Field
	Set     string
	Timeout time.Duration
}

// Notrack makes conntrack leave the packet alone.
type Notrack struct{}

func (Match) statement()         {}
func (MatchPrefix) statement()   {}
func (MatchRange) statement()    {}
func (MatchState) statement()    {}
func (MatchFlags) statement()    {}
func (MatchUDPPorts) statement() {}
func (Lookup) statement()        {}
func (VerdictMap) statement()    {}
func (Update) statement()        {}
func (Notrack) statement()       {}
func (Verdict) statement()       {}

// CtState is a state of conntrack, with the kernel's bit.
type CtState uint32

// The states.
const (
	CtInvalid     CtState = 1
	CtEstablished CtState = 2
	CtRelated     CtState = 4
	CtNew         CtState = 8
	CtUntracked   CtState = 64
)

// Field is something of a packet that can be compared or looked up.
type Field struct {
	kind fieldKind
	// offset and length, in bits, count for raw fields of the transport header.
	offset, length uint32
}

type fieldKind uint8

const (
	iifname fieldKind = iota
	oifname
	nfproto
	l4proto
	ipSaddr
	ipDaddr
	ip6Saddr
	ip6Daddr
	ip6HopLimit
	thSport
	thDport
	icmpType
	icmpCode
	icmpv6Type
	icmpv6Code
	fibDaddrType
	rawTransport
)

// The fields, by their nft names: "iifname", "meta nfproto", "ip saddr", …
var (
	IIFName     = Field{kind: iifname}
	OIFName     = Field{kind: oifname}
	NFProtocol  = Field{kind: nfproto}
	L4Protocol  = Field{kind: l4proto}
	IPSource    = Field{kind: ipSaddr}
	IPDest      = Field{kind: ipDaddr}
	IP6Source   = Field{kind: ip6Saddr}
	IP6Dest     = Field{kind: ip6Daddr}
	IP6HopLimit = Field{kind: ip6HopLimit}
	SourcePort  = Field{kind: thSport}
	DestPort    = Field{kind: thDport}
	ICMPTypeOf4 = Field{kind: icmpType}
	ICMPCodeOf4 = Field{kind: icmpCode}
	ICMPTypeOf6 = Field{kind: icmpv6Type}
	ICMPCodeOf6 = Field{kind: icmpv6Code}
	FibDestType = Field{kind: fibDaddrType}
)

// Raw is length bits of the transport header from a bit offset on; both are
// multiples of 8.
func Raw(offset, length uint32) Field { return Field{rawTransport, offset, length} }

// Source returns the source address field of a family.
func Source(f flow.Family) Field {
	if f == flow.IPv4 {
		return IPSource
	}
	return IP6Source
}

// Dest is the opposite of Source.
func Dest(f flow.Family) Field {
	if f == flow.IPv4 {
		return IPDest
	}
	return IP6Dest
}

// Peer returns the address field of the far side: the source on ingress, the
// destination on egress.
func Peer(f flow.Family, d flow.Direction) Field {
	if d == flow.Ingress {
		return Source(f)
	}
	return Dest(f)
}

// ICMPTypeField returns the type field of the family's ICMP.
func ICMPTypeField(f flow.Family) Field {
	if f == flow.IPv4 {
		return ICMPTypeOf4
	}
	return ICMPTypeOf6
}

// ICMPCodeField returns the code field of the family's ICMP.
func ICMPCodeField(f flow.Family) Field {
	if f == flow.IPv4 {
		return ICMPCodeOf4
	}
	return ICMPCodeOf6
}
