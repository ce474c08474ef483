package ruleset

import (
	"net/netip"
	"time"
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

// MatchEndsHere asks for a destination that is one of the host's own addresses,
// or a broadcast or multicast address: a packet that will not be forwarded; or,
// negated, for one that will be.
type MatchEndsHere struct{ Negate bool }

// MatchForwarded asks, where packets leave, for one that came in before; or,
// negated, for one that begins on the host.
type MatchForwarded struct{ Negate bool }

// MatchDirection asks for a packet of a flow that conntrack knows, which goes the
// way of the flow's first one, or the other way.
type MatchDirection struct{ Reply bool }

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

// Counter counts packets and bytes. Its numbers are no part of the table.
type Counter struct{}

// Limit ends the rule for packets beyond a rate. Unit is a second, a minute, an
// hour or a day.
type Limit struct {
	Rate  uint64
	Unit  time.Duration
	Burst uint32
}

// Log reports the packet: to the nflog group, or to the kernel log if Group is
// nil. Prefix has at most 127 bytes and no quotes.
type Log struct {
	Prefix string
	Group  *uint16
}

// SetTimeout gives a flow that begins with this packet the timeouts of an
// object of the table, for as long as it lives.
type SetTimeout struct{ Object string }

// Notrack makes conntrack leave the packet alone.
type Notrack struct{}

func (Match) statement()          {}
func (MatchPrefix) statement()    {}
func (MatchRange) statement()     {}
func (MatchState) statement()     {}
func (MatchFlags) statement()     {}
func (MatchUDPPorts) statement()  {}
func (MatchEndsHere) statement()  {}
func (MatchForwarded) statement() {}
func (MatchDirection) statement() {}
func (SetTimeout) statement()     {}
func (Lookup) statement()         {}
func (VerdictMap) statement()     {}
func (Update) statement()         {}
func (Counter) statement()        {}
func (Limit) statement()          {}
func (Log) statement()            {}
func (Notrack) statement()        {}
func (Verdict) statement()        {}

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
