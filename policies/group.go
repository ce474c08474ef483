package policies

import (
	"cmp"
	"fmt"
	"slices"

	"sgc/internal/flow"

	"github.com/zclconf/go-cty/cty"
)

// group decodes one security_group block.
func (l *loader) group(b declared) *Group {
	d := l.decodeTop(b)
	g := &Group{Name: b.name, Description: d.description(), Pos: l.pos(b.header)}
	members := d.prefixes("members", prefixForm{addresses: true})
	g.Members = d.uniqueOrError("members", members.val)

	var found []*ruleBlock
	for _, in := range d.blocks {
		found = append(found, l.rule(g, in))
	}
	l.nameRules(found)
	l.sameRules(found)
	for _, r := range found {
		g.Rules = append(g.Rules, r.rule)
	}
	slices.SortStableFunc(g.Rules, func(a, b *Rule) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.ID, b.ID))
	})
	return g
}

// ruleBlock is a rule and the block that it comes from.
type ruleBlock struct {
	rule *Rule
	in   *instance
	// broken rules are not compared with others.
	broken bool
}

// rule decodes one ingress or egress block.
func (l *loader) rule(g *Group, in *instance) *ruleBlock {
	s := ingressRule
	direction := flow.Ingress
	if in.kind == egressRule.kind {
		s, direction = egressRule, flow.Egress
	}
	d := l.decode(in, s)
	r := &Rule{Group: g.Name, Direction: direction, Pos: l.pos(in.header), Description: d.description()}
	out := &ruleBlock{rule: r, in: in}

	proto := d.protocol()
	required(d, &proto, "protocol", `Every rule has a protocol: protocol = "tcp", "udp", "icmp", "icmpv6", or "-1" for all.`)
	ports := d.rulePorts(proto)
	r.AllProtocols, r.Protocol = proto.val.all, proto.val.number
	r.Ports, r.ICMPType, r.ICMPCode = ports.ports, ports.icmpType, ports.icmpCode
	peersBroken := d.peers(r, proto)
	out.broken = proto.broken || ports.broken || peersBroken
	return out
}

// peers reads the sources of an ingress rule, or the destinations of an egress
// rule, into r. It reports whether there is a fault.
func (d *decoder) peers(r *Rule, proto field[protocol]) (broken bool) {
	v4 := d.prefixes("cidr_blocks", prefixForm{family: flow.IPv4, other: "ipv6_cidr_blocks"})
	v6 := d.prefixes("ipv6_cidr_blocks", prefixForm{family: flow.IPv6, other: "cidr_blocks"})
	r.Prefixes = append(d.uniqueOrError("cidr_blocks", v4.val), d.uniqueOrError("ipv6_cidr_blocks", v6.val)...)
	lists := d.names("prefix_list_ids", listRef)
	groups := d.names("security_groups", groupRef)
	self := d.boolean("self")
	r.Lists = sortedNames(lists.val)
	r.Groups = sortedNames(groups.val)
	if self.val && !slices.Contains(r.Groups, r.Group) {
		r.Groups = append(r.Groups, r.Group)
		slices.Sort(r.Groups)
	}
	misspelt := d.anyMeant("cidr_blocks", "ipv6_cidr_blocks", "prefix_list_ids", "security_groups", "self")
	broken = misspelt || v4.broken || v6.broken || lists.broken || groups.broken || self.broken
	if !broken && len(r.Prefixes)+len(r.Lists)+len(r.Groups) == 0 {
		broken = true
		end, other := "source", "from"
		if r.Direction == flow.Egress {
			end, other = "destination", "to"
		}
		detail := fmt.Sprintf("Say what the rule allows traffic %s: cidr_blocks, ipv6_cidr_blocks, prefix_list_ids, security_groups or self = true.", other)
		if v4.set || v6.set || lists.set || groups.set {
			detail = "Its lists are empty. " + detail
		}
		d.l.errorAt(d.in.header, "Rule without a "+end, detail)
	}
	if proto.set && !proto.val.all {
		broken = d.familyOf(proto.val.number, v4, v6) || broken
	}
	return broken
}

// familyOf reports CIDRs of a family in which an ICMP rule could never match.
func (d *decoder) familyOf(p flow.Protocol, v4, v6 field[[]located]) bool {
	switch {
	case p == flow.ICMP && len(v6.val) > 0:
		d.l.errorAt(v6.attr.nameRange, "ICMP in the wrong family", `Protocol icmp is IPv4 only. Write a rule with protocol = "icmpv6" for ipv6_cidr_blocks; its types have other numbers (echo request is 128).`)
	case p == flow.ICMPv6 && len(v4.val) > 0:
		d.l.errorAt(v4.attr.nameRange, "ICMP in the wrong family", `Protocol icmpv6 is IPv6 only. Write a rule with protocol = "icmp" for cidr_blocks; its types have other numbers (echo request is 8).`)
	default:
		return false
	}
	return true
}

// named is a reference to a block by its name.
type named struct {
	name string
	item item
}

// names reads a list of references, which may be names in quotes too. Only
// names that exist are in the result.
func (d *decoder) names(attribute string, kind refKind) field[[]named] {
	list := d.list(attribute, kind.noun()+"s")
	f := field[[]named]{set: list.set, broken: list.broken, expr: list.expr, attr: list.attr}
	seen := map[string]bool{}
	for _, i := range list.val {
		name, ok := d.resolveName(attribute, kind, i)
		if ok && seen[name] {
			d.l.errorIn(i.expr, d.in.ctx, capital(kind.noun())+" listed twice", fmt.Sprintf("%s stands twice in %s%s; remove one of the two.", name, attribute, i.which))
			ok = false
		}
		if !ok {
			f.broken = true
			continue
		}
		seen[name] = true
		f.val = append(f.val, named{name, i})
	}
	return f
}

// attributeFor is the attribute that takes references of a kind.
var attributeFor = [refKinds]string{groupRef: "security_groups", listRef: "prefix_list_ids", aclRef: "network_acl"}

// resolveName returns the name of the block that an element refers to.
func (d *decoder) resolveName(attribute string, kind refKind, i item) (string, bool) {
	var name string
	k, ref, isRef := reference(i.val)
	switch {
	case isRef && k != kind:
		where := fmt.Sprintf(" Write it in %s.", attributeFor[k])
		if k == aclRef || d.in.kind == "interface" {
			where = ""
		}
		d.l.errorIn(i.expr, d.in.ctx, "Wrong reference", fmt.Sprintf("%s takes a %s, and %s%s is a %s.%s", attribute, kind.noun(), ref, i.which, k.noun(), where))
		return "", false
	case isRef:
		name = ref
	case i.val.Type() == cty.String:
		name = i.val.AsString()
	default:
		d.l.errorIn(i.expr, d.in.ctx, "Wrong type", fmt.Sprintf("%s takes a %s, such as %s.NAME, not %s%s.", attribute, kind.noun(), kind.root(), friendly(i.val), i.which))
		return "", false
	}
	if !d.l.names[kind].has(name) {
		if !d.l.incomplete {
			d.l.errorIn(i.expr, d.in.ctx, "Unknown "+kind.noun(), d.l.unknownName(kind, name))
		}
		return "", false
	}
	return name, true
}

func sortedNames(in []named) []string {
	var out []string
	for _, n := range in {
		out = append(out, n.name)
	}
	slices.Sort(out)
	return out
}
