package policies

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"sgc/internal/flow"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// The range of rule_no; the cloud keeps the numbers above for its own.
const (
	minRuleNumber = 1
	maxRuleNumber = 32766
)

// acl decodes one network_acl block.
func (l *loader) acl(b declared) *ACL {
	d := l.decodeTop(b)
	out := &ACL{Name: b.name, Pos: l.pos(b.header)}
	var numbers [len(flow.Directions)]map[int]hcl.Range
	for i := range numbers {
		numbers[i] = map[int]hcl.Range{}
	}
	for _, in := range d.blocks {
		e, number := l.aclEntry(out, in)
		if number.set {
			if first, taken := numbers[e.Direction][e.Number]; taken {
				l.errorAt(number.at(), "Number used twice", fmt.Sprintf("The %s entry at line %d has rule_no %d already. Entries are taken in the order of their numbers, so each has its own.",
					e.Direction, l.pos(first).Line, e.Number))
			} else {
				numbers[e.Direction][e.Number] = number.at()
			}
		}
		out.Entries = append(out.Entries, e)
	}
	slices.SortStableFunc(out.Entries, func(a, b *ACLEntry) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Number, b.Number))
	})
	return out
}

// aclEntry decodes one entry, and returns its number as it stands there.
func (l *loader) aclEntry(a *ACL, in *instance) (*ACLEntry, field[int]) {
	s := rootSchema.block("network_acl").block(in.kind)
	d := l.decode(in, s)
	e := &ACLEntry{ACL: a.Name, Pos: l.pos(in.header)}
	if in.kind == flow.Egress.String() {
		e.Direction = flow.Egress
	}
	number := d.number("rule_no", minRuleNumber, maxRuleNumber)
	required(d, &number, "rule_no", fmt.Sprintf("Every entry has a number from %d to %d; entries are taken in that order.", minRuleNumber, maxRuleNumber))
	e.Number = number.val

	action := d.choice("action", "allow", "deny")
	required(d, &action, "action", `Say action = "allow" or action = "deny".`)
	e.Allow = action.val == "allow"

	proto := d.protocol()
	required(d, &proto, "protocol", `Every entry has a protocol: protocol = "tcp", "udp", "icmp", "icmpv6", or "-1" for all.`)
	e.AllProtocols, e.Protocol = proto.val.all, proto.val.number
	d.aclPorts(e, proto)
	d.aclPrefix(e, proto)
	return e, number
}

// aclPorts reads the ports, or ICMP type and code, of an entry.
func (d *decoder) aclPorts(e *ACLEntry, proto field[protocol]) {
	from, to := d.number("from_port", math.MinInt32, math.MaxInt32), d.number("to_port", math.MinInt32, math.MaxInt32)
	typ, code := d.number("icmp_type", math.MinInt32, math.MaxInt32), d.number("icmp_code", math.MinInt32, math.MaxInt32)
	if !proto.set || from.broken || to.broken || typ.broken || code.broken {
		return
	}
	// Terraform wants icmp_type = 0 and from_port = 0 to stand where they
	// mean nothing.
	if !proto.val.isICMP() {
		for _, f := range []*field[int]{&typ, &code} {
			if f.set && f.val != 0 && f.val != -1 {
				d.l.errorAt(f.attr.nameRange, "No ICMP", fmt.Sprintf("An entry for protocol %s has no ICMP type and code; remove this line.", proto.val))
				return
			}
		}
	}
	switch {
	case proto.val.hasPorts() && !from.set && !to.set:
		if d.anyMeant("from_port", "to_port") {
			return
		}
		d.l.errorAt(d.in.header, "Missing ports", fmt.Sprintf("Write from_port and to_port. For all ports of %s: from_port = 0 and to_port = 65535.", proto.val))
	case proto.val.hasPorts():
		e.Ports, _ = d.portRange(from, to)
	case proto.val.isICMP():
		for _, f := range []*field[int]{&from, &to} {
			if f.set && f.val != 0 && f.val != -1 {
				d.l.errorAt(f.attr.nameRange, "ICMP has no ports", "In an entry of an ACL, the ICMP type and code are icmp_type and icmp_code, -1 for any.")
				return
			}
		}
		if !typ.set || !code.set {
			missing := "icmp_type"
			if typ.set {
				missing = "icmp_code"
			}
			if d.meant[missing] {
				return
			}
			d.l.errorAt(d.in.header, "Missing "+missing, fmt.Sprintf("An entry for %s has an icmp_type and an icmp_code; -1 is any.", proto.val))
			return
		}
		e.ICMPType, e.ICMPCode = typ.val, code.val
		d.icmp(typ.val, code.val, typ, code, "icmp_type", "icmp_code")
	default:
		for _, f := range []*field[int]{&from, &to} {
			if f.set && (f.val < -1 || f.val > 65535) {
				fail(d, f, "Out of range", portNumbers)
				return
			}
		}
		d.warnPorts(proto.val, from, to, field[[]flow.PortRange]{})
	}
}

// aclPrefix reads the peer of an entry.
func (d *decoder) aclPrefix(e *ACLEntry, proto field[protocol]) {
	v4 := d.prefix("cidr_block", prefixForm{family: flow.IPv4, other: "ipv6_cidr_block"})
	v6 := d.prefix("ipv6_cidr_block", prefixForm{family: flow.IPv6, other: "cidr_block"})
	wrongFamily := field[netip.Prefix]{}
	switch {
	case v4.set && v6.set:
		d.l.errorAt(v6.attr.nameRange, "Two prefixes", "An entry has one prefix: cidr_block or ipv6_cidr_block. Write an entry for each.")
		return
	case v4.set:
		e.Prefix = v4.val
		if proto.set && proto.val.isICMP() && proto.val.number == flow.ICMPv6 {
			wrongFamily = v4
		}
	case v6.set:
		e.Prefix = v6.val
		if proto.set && proto.val.isICMP() && proto.val.number == flow.ICMP {
			wrongFamily = v6
		}
	case !v4.broken && !v6.broken && !d.anyMeant("cidr_block", "ipv6_cidr_block"):
		d.l.errorAt(d.in.header, "Entry without a prefix", `Say whom the entry is about: cidr_block = "0.0.0.0/0" or ipv6_cidr_block = "::/0" is everybody of a family.`)
	}
	if wrongFamily.set {
		right := flow.ICMPOf(flow.FamilyOf(e.Prefix.Addr()))
		d.l.errorAt(wrongFamily.attr.nameRange, "ICMP in the wrong family", fmt.Sprintf("Protocol %s does not exist in %s: write protocol = %q; its types have other numbers.",
			proto.val, flow.FamilyOf(e.Prefix.Addr()), right))
	}
}

// prefix reads one CIDR.
func (d *decoder) prefix(name string, form prefixForm) field[netip.Prefix] {
	v := d.value(name)
	f := typed[netip.Prefix](v)
	if !f.set {
		return f
	}
	if v.val.Type() != cty.String {
		fail(d, &f, "Wrong type", fmt.Sprintf("%s is one CIDR in quotes, not %s.", name, friendly(v.val)))
		return f
	}
	p, canonical, problem := parsePrefix(v.val.AsString(), form)
	if problem != "" {
		fail(d, &f, "Invalid CIDR", problem)
		return f
	}
	if !canonical {
		d.l.warnAt(f.at(), "CIDR with host bits", fmt.Sprintf("%s is taken as %s; write that.", quoteShort(v.val.AsString()), p))
	}
	f.val = p
	return f
}
