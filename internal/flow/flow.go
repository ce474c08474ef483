package flow

import (
	"fmt"
	"net/netip"
)

// Family is an IP version.
type Family uint8

// The two families. Their numbers are the IP versions.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families lists both, in the order in which everything is sorted.
var Families = [2]Family{IPv4, IPv6}

// FamilyOf returns the family of a. An IPv4-mapped IPv6 address is IPv6.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Any returns the literal any-address of the family, 0.0.0.0/0 or ::/0.
func (f Family) Any() netip.Prefix {
	if f == IPv4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// Bits returns the length of an address of the family in bits.
func (f Family) Bits() int {
	if f == IPv4 {
		return 32
	}
	return 128
}

func (f Family) String() string { return fmt.Sprintf("IPv%d", uint8(f)) }

// Direction says which way a packet crosses an interface of the host.
type Direction uint8

// A packet comes in from the wire or goes out to it.
const (
	Ingress Direction = iota
	Egress
)

// Directions lists both, in the order in which everything is sorted.
var Directions = [2]Direction{Ingress, Egress}

// Opposite returns the direction of the reply.
func (d Direction) Opposite() Direction {
	if d == Ingress {
		return Egress
	}
	return Ingress
}

func (d Direction) String() string {
	if d == Ingress {
		return "ingress"
	}
	return "egress"
}

// Preposition returns the word that stands before the peer: "from" for
// ingress, "to" for egress.
func (d Direction) Preposition() string {
	if d == Ingress {
		return "from"
	}
	return "to"
}

// PortRange is an inclusive range of ports.
type PortRange struct {
	First, Last uint16
}

// AllPorts is 0–65535.
var AllPorts = PortRange{0, 65535}

// Contains reports whether port lies in the range.
func (r PortRange) Contains(port uint16) bool { return r.First <= port && port <= r.Last }

func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}
