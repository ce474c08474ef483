package compile

import (
	"fmt"
	"slices"
	"strings"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// keySpace is one dimension that rules divide: ports, ICMP types, ICMP codes,
// or protocol numbers, in one direction and family.
type keySpace struct {
	// name is the chain that decides by the key. Its map, its leaf chains and
	// their sets are named after it.
	name string
	// of is what the keys are, for the name of the map: "ports", "types", …
	of        string
	direction flow.Direction
	family    flow.Family
	field     ruleset.Field
	keyType   ruleset.Type
	last      uint16
	// allowed is what happens to packets that a rule lets through.
	allowed ruleset.Verdict
	// temporary spaces are lifted soon: what they let through is not counted, and
	// they add nothing to the table under a name that is not temporary as well.
	temporary bool
	// inner, where it is not nil, adds a chain that decides an atom by a further
	// key, and returns its name, or "" where that is not needed.
	inner func(a atom[*policies.Rule]) string
}

// spanKey returns the raw key of a type for a number.
func spanKey(t ruleset.Type, n uint16) string {
	if t.Size() == 2 {
		return ruleset.PortKey(n)
	}
	return string([]byte{byte(n)})
}

// spaceRules returns the nft rules that decide a packet by its key and peer.
// They let through, or fall through. What they need beside is added to the
// table.
//
// The map jumps to its leaf chains, and a chain that finds nothing returns. In
// the middle of a change a packet may find an element of one generation and
// walk the rules of the other, in which the leaf chain is empty: it then returns
// as well, and is refused by what comes after. From a goto it would fall out of
// the base chain and pass.
func (c *compiler) spaceRules(s *keySpace, rules []keyedRule) []ruleset.Rule {
	all, part := whole(rules, s.last)
	var rest []ruleset.Rule
	if len(all) > 0 {
		rest = c.peerRules(s, all, s.name+"/rest")
		if isUnconditional(rest[0]) {
			return rest // anybody, whatever the key
		}
	}
	var out []ruleset.Rule
	for i, layer := range layers(part) {
		name := s.name + "." + s.of
		if i > 0 {
			name = fmt.Sprintf("%s/layer%d", name, i)
		}
		m := &ruleset.Set{Name: name, Key: []ruleset.Type{s.keyType}, Map: true, Interval: true}
		for _, a := range cut(layer) {
			v := ruleset.Verdict{Kind: ruleset.Jump, Chain: c.addLeaf(s, a)}
			m.Elements = append(m.Elements, ruleset.Element{First: spanKey(s.keyType, a.first), Last: spanKey(s.keyType, a.last), Verdict: &v})
		}
		if s.temporary {
			m.Comment = UntilDeleted
		}
		c.addSet(m)
		out = append(out, ruleset.Rule{
			Statements: []ruleset.Statement{ruleset.VerdictMap{Fields: []ruleset.Field{s.field}, Map: name}},
			Comment:    "rules by " + s.of,
		})
	}
	return append(out, rest...)
}

// decideSpace returns spaceRules as the end of a chain: what no rule lets
// through is refused.
func (c *compiler) decideSpace(s *keySpace, rules []keyedRule) []ruleset.Rule {
	out := c.spaceRules(s, rules)
	if len(out) > 0 && isUnconditional(out[len(out)-1]) {
		return out
	}
	return append(out, ruleset.Rule{
		Statements: []ruleset.Statement{c.refused(s.direction, byGroups)},
		Comment:    "no rule allows it",
	})
}

// comment returns the comment of a leaf chain for rules of these addresses.
func (s *keySpace) comment(addresses []string) string {
	if s.temporary {
		return UntilDeleted
	}
	return comment(addresses)
}

// allow returns the nft rule that lets packets through on behalf of policy
// rules, and counts them.
func (s *keySpace) allow(from []string, match ...ruleset.Statement) ruleset.Rule {
	if s.temporary {
		return ruleset.Rule{Statements: append(match, s.allowed), Comment: comment(from)}
	}
	return ruleset.Rule{Statements: append(match, ruleset.Counter{}, s.allowed), Comment: comment(from), From: from}
}

// isUnconditional reports whether the rule, made by allow, lets everybody
// through.
func isUnconditional(r ruleset.Rule) bool {
	switch r.Statements[0].(type) {
	case ruleset.Counter, ruleset.Verdict:
		return true
	}
	return false
}

// addLeaf adds the chain that decides packets of one atom by their peer, and
// counts them. It returns the chain's name.
func (c *compiler) addLeaf(s *keySpace, a atom[*policies.Rule]) string {
	if s.inner != nil {
		if name := s.inner(a); name != "" {
			return name
		}
	}
	ids := make([]string, len(a.rules))
	addresses := make([]string, len(a.rules))
	for i, r := range a.rules {
		ids[i] = r.ID
		if r.Group != s.scopeName() {
			ids[i] = r.Group + "." + r.ID
		}
		addresses[i] = r.Address()
	}
	name := shorten(s.name + "." + strings.Join(ids, "/"))
	if c.chains[name] == nil {
		c.addChain(&ruleset.Chain{
			Name: name, Comment: s.comment(addresses),
			Rules: c.peerRules(s, a.rules, name),
		})
	}
	return name
}

// scopeName returns the first part of the space's name.
func (s *keySpace) scopeName() string {
	for i := range len(s.name) {
		if s.name[i] == '.' {
			return s.name[:i]
		}
	}
	return s.name
}

// icmpSpace returns the space of the family's ICMP types; types that some rule
// allows in part are decided by code.
func (c *compiler) icmpSpace(name string, d flow.Direction, f flow.Family) *keySpace {
	typeOf, codeOf := ruleset.ICMPType, ruleset.ICMPCode
	if f == flow.IPv6 {
		typeOf, codeOf = ruleset.ICMPv6Type, ruleset.ICMPv6Code
	}
	s := &keySpace{
		name: name, of: "types", direction: d, family: f,
		field: ruleset.ICMPTypeField(f), keyType: typeOf, last: 255,
		allowed: accept,
	}
	s.inner = func(a atom[*policies.Rule]) string {
		if !slices.ContainsFunc(a.rules, func(r *policies.Rule) bool { return icmpCode(r) != -1 }) {
			return ""
		}
		codes := &keySpace{
			name: name + "/" + a.span.String(), of: "codes", direction: d, family: f,
			field: ruleset.ICMPCodeField(f), keyType: codeOf, last: 255,
			allowed: accept,
		}
		keyed := make([]keyedRule, len(a.rules))
		for i, r := range a.rules {
			keyed[i] = keyedRule{r, []span{codeSpan(icmpCode(r))}}
		}
		c.addChain(&ruleset.Chain{Name: codes.name, Rules: c.spaceRules(codes, keyed)})
		return codes.name
	}
	return s
}

// icmpCode returns the code of an ICMP rule, -1 for any.
func icmpCode(r *policies.Rule) int {
	if r.AllProtocols {
		return -1
	}
	return r.ICMPCode
}

// codeSpan returns the part of a space of 256 keys that a number stands for.
func codeSpan(n int) span {
	if n < 0 {
		return span{0, 255}
	}
	return span{uint16(n), uint16(n)}
}

func (s span) String() string { return flow.PortRange{First: s.first, Last: s.last}.String() }
