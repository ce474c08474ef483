package compile

import (
	"slices"
	"strings"

	"sgc/internal/flow"
	"sgc/policies"
)

// What a policy left open and its successor does not allow: the flows that the
// commit of the successor cuts (2.4). closing_rules.go makes rules of it.

// Closes reports whether new forbids any flow that old left open, so that a
// table compiled with Environment.Closing differs from the one without. A rule
// for a port counts as allowing everybody there if one of its own CIDRs or lists
// is all of the address space; several that make it up together do not, so that
// there may be less to cut than Closes says, never more. It reads both policies
// alone, and panics as Compile does.
func Closes(old, new *policies.Policy) bool {
	return old != nil && len(newCompiler(new, Environment{}).selectClosings(old)) > 0
}

// closing is what closes on the interfaces that two blocks govern, one before the
// change and one after it. Interfaces that have the same groups before and the
// same groups after it share a closing, unless always_track makes peers their own.
type closing struct {
	// name begins the names of everything that is added for it.
	name string
	// old says what was open, and to whom not; new what is allowed now.
	old *profile
	new *scope
	// closed has an element for every opening that closes anything.
	closed map[opening]openSpace
}

// opening is the flows of a family and protocol that were opened in one
// direction. It is judged by the rules of that direction, by the destination
// port of the packet that opened it.
type opening struct {
	family    flow.Family
	protocol  flow.Protocol
	direction flow.Direction
}

// closingOn is a closing with the interfaces that it is for: a name, or a wildcard
// without what a more particular name of either policy stands for. closing is nil
// where nothing closes.
type closingOn struct {
	iface   *policies.Interface // has a name, no more
	closing *closing
}

// selectClosings returns the closing of every name that either policy has for
// interfaces, sorted by name; none if nothing closes on any.
func (c *compiler) selectClosings(old *policies.Policy) []closingOn {
	o := newCompiler(anyRulesOf(old), Environment{})
	_, oldOf := o.selectProfiles()
	_, newOf := c.selectProfiles()
	before, after := newBlocks(o.policy), newBlocks(c.policy)

	var names []string
	for _, i := range slices.Concat(o.policy.Interfaces, c.policy.Interfaces) {
		names = append(names, i.Name)
	}
	slices.Sort(names)
	known := map[string]*closing{}
	var out []closingOn
	for _, name := range slices.Compact(names) {
		on := closingOn{iface: &policies.Interface{Name: name}}
		was, is := before.governing(name), after.governing(name)
		// An interface that the new policy does not manage is not filtered,
		// and where the old one did not, nothing was open or closed.
		if was != nil && is != nil {
			on.closing = c.selectClosing(o, oldOf[was], newOf[is].scope, known)
		}
		out = append(out, on)
	}
	// What nothing closes on matters only where a wildcard would take its place
	// on which something does.
	var wildcards []string
	for _, on := range out {
		if on.closing != nil && isWildcard(on.iface.Name) {
			wildcards = append(wildcards, strings.TrimSuffix(on.iface.Name, "*"))
		}
	}
	return slices.DeleteFunc(out, func(on closingOn) bool {
		return on.closing == nil && !slices.ContainsFunc(wildcards, func(stem string) bool { return strings.HasPrefix(on.iface.Name, stem) })
	})
}

// selectClosing returns the closing of a pair of blocks, nil if nothing closes. o is
// the compiler of the old policy, known holds those made before.
func (c *compiler) selectClosing(o *compiler, old *profile, new *scope, known map[string]*closing) *closing {
	// No scope has a dot in its name: the last ".to." is this one.
	name := shorten(cutPrefix + old.name + ".to." + new.name)
	if x, ok := known[name]; ok {
		return x
	}
	x := &closing{name: name, old: old, new: new, closed: map[opening]openSpace{}}
	for _, f := range flow.Families {
		for _, proto := range []flow.Protocol{flow.TCP, flow.UDP} {
			open := o.open(old.scope, f, proto)
			if open.empty() {
				continue
			}
			for _, d := range flow.Directions {
				of := opening{f, proto, d}
				if closed := c.closed(open, new, of); !closed.empty() {
					x.closed[of] = closed
				}
			}
		}
	}
	if len(x.closed) == 0 {
		x = nil
	}
	known[name] = x
	return x
}

// closed returns the part of the open space in which the new rules do not
// allow everybody to open a flow in a direction. Either port of a flow may have
// made it open, while the rules look at the port that it was opened to: where
// that is the other port, all that was open is returned, and the rules must be
// asked for every packet.
func (c *compiler) closed(open openSpace, new *scope, of opening) openSpace {
	var toAnybody []keyedRule
	for _, r := range c.portRules(new, of.direction, of.family, of.protocol) {
		if c.allowsAnybody(r.rule, of.family) {
			toAnybody = append(toAnybody, r)
		}
	}
	allowed := union(toAnybody)
	var closed openSpace
	if isWhole(allowed, 65535) {
		return closed
	}
	byKey, byOther := &closed.in, &closed.out
	if of.direction == flow.Egress {
		byKey, byOther = byOther, byKey
	}
	*byKey = minus(open.ports(of.direction), allowed)
	// Where every port opened a flow, the other one adds nothing.
	if !isWhole(open.ports(of.direction), 65535) {
		*byOther = open.ports(of.direction.Opposite())
	}
	return closed
}

// allowsAnybody reports whether one of the rule's lists of peers is all of the
// family's address space.
func (c *compiler) allowsAnybody(r *policies.Rule, f flow.Family) bool {
	isAll := func(ranges []flow.Range) bool { return len(ranges) == 1 && ranges[0].IsAny() }
	return isAll(c.inline(r, f)) || slices.ContainsFunc(c.shared(r, f), func(s *peerSet) bool { return isAll(s.ranges) })
}

// minus returns the keys of a that are not in b. Both are sorted and disjoint,
// as is the result.
func minus(a, b []span) []span {
	var out []span
	for _, s := range a {
		next := int(s.first)
		for _, t := range b {
			if int(t.last) < next || t.first > s.last {
				continue
			}
			if int(t.first) > next {
				out = append(out, span{uint16(next), t.first - 1})
			}
			next = int(t.last) + 1
		}
		if next <= int(s.last) {
			out = append(out, span{uint16(next), s.last})
		}
	}
	return out
}

// both returns the keys that are in a and in b.
func both(a, b []span) []span { return minus(a, minus(a, b)) }

// anyRulesOf returns the policy without the rules that cannot open anything:
// those that do not name the literal any-address of a family. Its lists, which
// may be long, are then hardly ever looked at.
func anyRulesOf(p *policies.Policy) *policies.Policy {
	out := *p
	out.Groups = make([]*policies.Group, len(p.Groups))
	for i, g := range p.Groups {
		group := *g
		group.Rules = slices.DeleteFunc(slices.Clone(g.Rules), func(r *policies.Rule) bool {
			return !isAny(r, flow.IPv4) && !isAny(r, flow.IPv6)
		})
		out.Groups[i] = &group
	}
	return &out
}

// blocks finds the block that governs an interface.
type blocks struct {
	exact map[string]*policies.Interface
	// wildcards are sorted, the longest first.
	wildcards []*policies.Interface
}

func newBlocks(p *policies.Policy) blocks {
	b := blocks{exact: map[string]*policies.Interface{}}
	for _, i := range p.Interfaces {
		if isWildcard(i.Name) {
			b.wildcards = append(b.wildcards, i)
		} else {
			b.exact[i.Name] = i
		}
	}
	slices.SortFunc(b.wildcards, func(x, y *policies.Interface) int { return len(y.Name) - len(x.Name) })
	return b
}

func isWildcard(name string) bool { return strings.HasSuffix(name, "*") }

// governing returns the block that governs an interface, or all interfaces
// that a wildcard matches and no longer one and no exact name of the policy;
// nil if none does.
func (b blocks) governing(name string) *policies.Interface {
	if name == policies.Loopback {
		return nil
	}
	if i := b.exact[name]; i != nil {
		return i
	}
	stem := strings.TrimSuffix(name, "*")
	for _, i := range b.wildcards {
		if strings.HasPrefix(stem, strings.TrimSuffix(i.Name, "*")) {
			return i
		}
	}
	return nil
}
