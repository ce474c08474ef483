package conntrack

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/nlmsg"
)

// A narrowing is what the kernel itself can leave out of a dump: it compares
// whole fields of one of the tuples, and no prefixes or ranges. To walk past an
// entry costs it a tenth of what telling it does.
//
// Source: Linux net/netfilter/nf_conntrack_netlink.c, ctnetlink_filter_match.
type narrowing struct {
	// family is AF_UNSPEC for both.
	family uint8
	// protocol is nil for all.
	protocol *flow.Protocol
	// reply says that source and port are those of the reply's tuple.
	reply bool
	// source is the tuple's source, of IPv4; the zero value is any.
	source netip.Addr
	// port is the destination port of the original tuple, or the source port of
	// the reply's; nil is any.
	port *uint16
}

// Attributes and flags of a filter, in the host's byte order.
//
// Source: linux/netfilter/nfnetlink_conntrack.h, enum ctattr_filter, and
// net/netfilter/nf_conntrack_internal.h, CTA_FILTER_F_*.
const (
	attrFilter = 25

	attrFilterOriginal = 1
	attrFilterReply    = 2

	filterSource     = 1 << 0
	filterProtocol   = 1 << 3
	filterSourcePort = 1 << 4
	filterDestPort   = 1 << 5
)

// narrowings returns dumps that together tell every entry that the filter may
// take, and as few others as the kernel can leave out. An entry may be in
// several.
func (f *Filter) narrowings() []narrowing {
	families := []uint8{f.family()}
	var base narrowing
	protocols := f.Protocols
	if len(f.Ports) > 0 {
		protocols = slices.DeleteFunc(slices.Clone(protocols), func(p flow.Protocol) bool { return !p.HasPorts() })
		if len(f.Protocols) > 0 && len(protocols) == 0 {
			return nil // no entry has both
		}
	}
	// The kernel compares with one port: several are as many dumps.
	if len(f.Ports) == 1 && f.Ports[0].First == f.Ports[0].Last {
		base.port = &f.Ports[0].First
		if len(protocols) == 0 {
			protocols = []flow.Protocol{flow.TCP, flow.UDP}
		}
	}
	// Of IPv6 addresses, the kernel (6.18) leaves out those that are equal.
	if len(f.Peers) == 1 && f.Peers[0].IsSingleIP() && f.Peers[0].Addr().Is4() {
		base.source = f.Peers[0].Addr()
	}
	var each []*flow.Protocol
	for i := range protocols {
		each = append(each, &protocols[i])
	}
	if len(each) == 0 {
		if !base.narrows() {
			base.family = families[0]
			return []narrowing{base}
		}
		each = []*flow.Protocol{nil}
	}
	if families[0] == unix.AF_UNSPEC {
		// The kernel compares fields for one family at a time.
		families = []uint8{unix.AF_INET, unix.AF_INET6}
	}
	var all []narrowing
	for _, family := range families {
		for _, protocol := range each {
			n := base
			n.family, n.protocol = family, protocol
			all = append(all, n)
			if !n.narrows() {
				continue
			}
			// What leaves the host is seen as the reply's tuple has it.
			n.reply = true
			all = append(all, n)
		}
	}
	return all
}

// family returns that of all peers that the filter takes, or AF_UNSPEC.
func (f *Filter) family() uint8 {
	ipv4 := 0
	for _, p := range f.Peers {
		if flow.FamilyOf(p.Addr()) == flow.IPv4 {
			ipv4++
		}
	}
	switch {
	case len(f.Peers) == 0:
		return unix.AF_UNSPEC
	case ipv4 == len(f.Peers):
		return unix.AF_INET
	case ipv4 == 0:
		return unix.AF_INET6
	}
	return unix.AF_UNSPEC
}

// narrows reports whether the narrowing names a field of a tuple that is not
// the same in both.
func (n *narrowing) narrows() bool { return n.source.IsValid() || n.port != nil }

// holds reports whether the narrowing is true of an entry. Kernels before 5.8
// leave nothing out.
func (n *narrowing) holds(e *Entry) bool {
	source, port := e.Original.Source, e.Original.DestPort
	if n.reply {
		source, port = e.Reply.Source, e.Reply.SourcePort
	}
	return (n.family == unix.AF_UNSPEC || n.family == e.family) &&
		(n.protocol == nil || *n.protocol == e.Original.Protocol) &&
		(!n.source.IsValid() || n.source == source) &&
		(n.port == nil || *n.port == port)
}

// appendTo writes the request for the dump.
func (n *narrowing) appendTo(m *nlmsg.Message) {
	m.Netfilter(n.family, 0)
	if n.protocol == nil && !n.source.IsValid() {
		return
	}
	tuple, side, portType, portFlag := uint16(attrTupleOriginal), uint16(attrFilterOriginal), uint16(attrProtoDestPort), uint32(filterDestPort)
	if n.reply {
		tuple, side, portType, portFlag = attrTupleReply, attrFilterReply, attrProtoSourcePort, filterSourcePort
	}
	flags := uint32(0)
	at := m.Nest(tuple)
	if n.source.IsValid() {
		flags |= filterSource
		ip := m.Nest(attrTupleIP)
		m.Bytes(attrIPv4Source, n.source.AsSlice())
		m.End(ip)
	}
	if n.protocol != nil {
		flags |= filterProtocol
		proto := m.Nest(attrTupleProto)
		m.Uint8(attrProtoNumber, uint8(*n.protocol))
		if n.port != nil {
			flags |= portFlag
			m.Uint16(portType, *n.port)
		}
		m.End(proto)
	}
	m.End(at)
	filter := m.Nest(attrFilter)
	m.Bytes(side, binary.NativeEndian.AppendUint32(nil, flags))
	m.End(filter)
}

// narrowed calls each once with every entry that the filter may take, and
// perhaps with others. It ends as Entries does.
func (t *Table) narrowed(ctx context.Context, f *Filter, each func(*Entry) error) error {
	narrowings := f.narrowings()
	var torn error
	for i := range narrowings {
		n, before := &narrowings[i], narrowings[:i]
		fill := n.appendTo
		if t.noFilters {
			fill = wholeTable
		}
		err := t.dumpEntries(ctx, fill, func(e *Entry) error {
			if !n.holds(e) {
				return nil
			}
			for j := range before {
				if before[j].holds(e) {
					return nil // it has come already
				}
			}
			return each(e)
		})
		switch {
		case errors.Is(err, ErrTorn):
			torn = err
		case i == 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)):
			// The kernel knows filters, but not this one.
			return t.Entries(ctx, each)
		case err != nil:
			return err
		}
	}
	return torn
}
