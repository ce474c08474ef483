package conntrack

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// prefixes finds a value by the longest prefix that holds an address, with one
// look-up for each length that there is. The lengths are sorted, the longest
// first.
type prefixes[V any] struct {
	ipv4 []lengthOf[uint32, V]
	ipv6 []lengthOf[netip.Addr, V]
}

// lengthOf are the prefixes of one length, by their first addresses.
type lengthOf[A comparable, V any] struct {
	length int
	values map[A]V
}

// number is an IPv4 address as a number, which a map finds in less time.
func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// set gives a prefix the value that change makes of its old one, if it has any.
func (p *prefixes[V]) set(prefix netip.Prefix, change func(V, bool) V) {
	prefix = prefix.Masked()
	if a := prefix.Addr(); a.Is4() {
		setLength(&p.ipv4, prefix.Bits(), number(a), change)
	} else {
		setLength(&p.ipv6, prefix.Bits(), a, change)
	}
}

func setLength[A comparable, V any](lengths *[]lengthOf[A, V], length int, first A, change func(V, bool) V) {
	n := slices.IndexFunc(*lengths, func(l lengthOf[A, V]) bool { return l.length <= length })
	if n < 0 {
		n = len(*lengths)
	}
	if n == len(*lengths) || (*lengths)[n].length != length {
		*lengths = slices.Insert(*lengths, n, lengthOf[A, V]{length, map[A]V{}})
	}
	values := (*lengths)[n].values
	old, known := values[first]
	values[first] = change(old, known)
}

// longest returns the value of the longest prefix that holds the address.
func (p *prefixes[V]) longest(a netip.Addr) (v V, ok bool) {
	if a.Is4() {
		n := number(a)
		for i := range p.ipv4 {
			l := &p.ipv4[i]
			if v, ok = l.values[n&^(1<<(32-l.length)-1)]; ok {
				return v, true
			}
		}
		return v, false
	}
	for i := range p.ipv6 {
		l := &p.ipv6[i]
		// The length is in range.
		prefix, _ := a.Prefix(l.length)
		if v, ok = l.values[prefix.Addr()]; ok {
			return v, true
		}
	}
	return v, false
}
