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
	// allowed and refused are what happens to packets in the end.
	allowed, refused ruleset.Verdict
	// inner, where it is not nil, decides an atom by a further key, and
	// reports whether it did.
	inner func(a atom[*policies.Rule], refused ruleset.Verdict) (ruleset.Verdict, bool)
}

// spanKey returns the raw key of a type for a number.
func spanKey(t ruleset.Type, n uint16) string {
	if t.Size() == 2 {
		return ruleset.PortKey(n)
	}
	return string([]byte{byte(n)})
}

// spaceRules returns the nft rules that decide a packet by its key and peer,
// as the end of a chain. What they need beside is added to the table.
func (c *compiler) spaceRules(s *keySpace, rules []keyedRule) []ruleset.Rule {
	all, part := whole(rules, s.last)
	rest := c.peerRulesOrNone(all, s, s.name+"/rest")
	if len(rest) == 1 && isUnconditional(rest[0]) {
		return rest // anybody, whatever the key
	}
	if len(part) == 0 {
		return append(rest, end(s.refused))
	}

	otherwise := s.refused
	if len(rest) > 0 {
		otherwise = ruleset.Verdict{Kind: ruleset.Goto, Chain: s.name + "/rest"}
		c.addChain(&ruleset.Chain{Name: otherwise.Chain, Comment: "rules for all " + s.of, Rules: append(rest, end(s.refused))})
	}
	// Each layer falls through to the next; nearly always there is one.
	in := layers(part)
	for i := len(in) - 1; i > 0; i-- {
		layer := *s
		layer.name = fmt.Sprintf("%s/layer%d", s.name, i)
		c.addChain(&ruleset.Chain{Name: layer.name, Comment: "wide overlapping rules in layers", Rules: c.layerRules(&layer, in[i], otherwise)})
		otherwise = ruleset.Verdict{Kind: ruleset.Goto, Chain: layer.name}
	}
	return c.layerRules(s, in[0], otherwise)
}

// layerRules returns the nft rules that decide by one map of the rules' atoms,
// and go on to otherwise where no rule allows.
func (c *compiler) layerRules(s *keySpace, rules []keyedRule, otherwise ruleset.Verdict) []ruleset.Rule {
	m := &ruleset.Set{Name: s.name + "." + s.of, Key: []ruleset.Type{s.keyType}, Map: true, Interval: true}
	for _, a := range cut(rules) {
		v := c.atomVerdict(s, a, otherwise)
		if n := len(m.Elements); n > 0 && *m.Elements[n-1].Verdict == v && m.Elements[n-1].Last == spanKey(s.keyType, a.first-1) {
			m.Elements[n-1].Last = spanKey(s.keyType, a.last)
			continue
		}
		m.Elements = append(m.Elements, ruleset.Element{First: spanKey(s.keyType, a.first), Last: spanKey(s.keyType, a.last), Verdict: &v})
	}
	c.addSet(m)
	return []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.VerdictMap{Fields: []ruleset.Field{s.field}, Map: m.Name}}, Comment: "rules by " + s.of},
		end(otherwise),
	}
}

// isUnconditional reports whether the rule, made by allowRule, lets everybody
// through.
func isUnconditional(r ruleset.Rule) bool { return len(r.Statements) == 2 }

// atomVerdict returns what happens to packets of one atom: a leaf chain that
// looks at the peer, and counts.
func (c *compiler) atomVerdict(s *keySpace, a atom[*policies.Rule], otherwise ruleset.Verdict) ruleset.Verdict {
	if s.inner != nil {
		if v, ok := s.inner(a, otherwise); ok {
			return v
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
		rules := c.peerRules(a.rules, s.direction, s.family, name, s.allowed)
		if !isUnconditional(rules[0]) {
			rules = append(rules, end(otherwise))
		}
		c.addChain(&ruleset.Chain{Name: name, Comment: comment(addresses), Rules: rules})
	}
	return ruleset.Verdict{Kind: ruleset.Goto, Chain: name}
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

func (c *compiler) peerRulesOrNone(rules []*policies.Rule, s *keySpace, own string) []ruleset.Rule {
	if len(rules) == 0 {
		return nil
	}
	return c.peerRules(rules, s.direction, s.family, own, s.allowed)
}

// end is the last rule of a chain.
func end(v ruleset.Verdict) ruleset.Rule {
	text := "no rule allows it"
	if v.Kind == ruleset.Goto && !strings.HasPrefix(v.Chain, "refused.") {
		text = "the other rules"
	}
	return ruleset.Rule{Statements: []ruleset.Statement{v}, Comment: text}
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
		allowed: accept, refused: c.refused(d, byGroups),
	}
	s.inner = func(a atom[*policies.Rule], refused ruleset.Verdict) (ruleset.Verdict, bool) {
		if !slices.ContainsFunc(a.rules, func(r *policies.Rule) bool { return icmpCode(r) != -1 }) {
			return ruleset.Verdict{}, false
		}
		codes := &keySpace{
			name: name + "/" + a.span.String(), of: "codes", direction: d, family: f,
			field: ruleset.ICMPCodeField(f), keyType: codeOf, last: 255,
			allowed: accept, refused: refused,
		}
		keyed := make([]keyedRule, len(a.rules))
		for i, r := range a.rules {
			keyed[i] = keyedRule{r, []span{codeSpan(icmpCode(r))}}
		}
		c.addChain(&ruleset.Chain{Name: codes.name, Rules: c.spaceRules(codes, keyed)})
		return ruleset.Verdict{Kind: ruleset.Goto, Chain: codes.name}, true
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
