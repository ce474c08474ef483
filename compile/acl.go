package compile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// ACLs stand in base chains of their own, before conntrack on the way in and
// after everything else on the way out: what they allow goes on to the next
// base chain, and no state lets a packet around them.

// aclBase returns the base chain in which ACLs judge.
func aclBase(d flow.Direction) *ruleset.Chain {
	if d == flow.Ingress {
		return &ruleset.Chain{Name: "acl.prerouting", Hook: &ruleset.Hook{Point: ruleset.Prerouting, Priority: -301}}
	}
	return &ruleset.Chain{Name: "acl.postrouting", Hook: &ruleset.Hook{Point: ruleset.Postrouting, Priority: 149}}
}

// aclChain returns the name of the chain in which an ACL judges packets of one
// protocol ("tcp4", "icmp6", "other4", …).
func aclChain(acl *policies.ACL, d flow.Direction, proto string) string {
	return shorten(fmt.Sprintf("%s.%s.%s", acl.Address(), d, proto))
}

// addACLs adds the chains of all ACLs that are attached, for one direction, and
// the base chain that leads to them.
func (c *compiler) addACLs(d flow.Direction) {
	added := map[string]string{}
	for _, i := range c.policy.Interfaces {
		if i.ACL != "" && added[i.ACL] == "" {
			added[i.ACL] = c.addACL(c.acls[i.ACL], d)
		}
	}
	if len(added) == 0 {
		return
	}
	c.addBase(aclBase(d), "interfaces.acl."+d.String(), d, func(i *policies.Interface) ruleset.Verdict {
		if i.ACL == "" {
			return accept
		}
		return ruleset.Verdict{Kind: ruleset.Jump, Chain: added[i.ACL]}
	})
}

// addACL adds the chains of an ACL for one direction, and returns the first
// one's name.
func (c *compiler) addACL(acl *policies.ACL, d flow.Direction) string {
	name := shorten(fmt.Sprintf("%s.%s", acl.Address(), d))
	spaces := map[flow.Family]aclSpace{}
	entries := map[flow.Family][]*policies.ACLEntry{}
	for _, f := range flow.Families {
		spaces[f] = aclSpace{acl: acl, direction: d, family: f, refused: c.refused(d, byACL)}
		entries[f] = c.liveEntries(acl, d, f)
	}
	c.addDispatch(comment([]string{acl.Address()}), name, exemptPeers(d), func(f flow.Family, proto flow.Protocol) []ruleset.Rule {
		exempt := c.exemptRules(d, f, proto)
		if proto.IsICMP(f) {
			return append(exempt, c.aclTypeRules(spaces[f], entries[f])...)
		}
		return append(exempt, c.aclRules(spaces[f], aclKeys{
			name: protoName(proto, f), of: "ports", field: ruleset.DestPort, keyType: ruleset.InetService, last: 65535,
		}, portEntries(entries[f], proto))...)
	})
	for _, f := range flow.Families {
		chain := aclChain(acl, d, fmt.Sprintf("other%d", f))
		c.addChain(&ruleset.Chain{Name: chain, Comment: comment([]string{acl.Address()}), Rules: c.aclRules(spaces[f], aclKeys{
			name: fmt.Sprintf("other%d", f), of: "protocols", field: ruleset.L4Protocol, keyType: ruleset.InetProto, last: 255,
		}, otherEntries(entries[f]))})
		c.chains[name].Rules = append(c.chains[name].Rules, ruleset.Rule{
			Statements: []ruleset.Statement{
				ruleset.Match{Field: ruleset.NFProtocol, Value: ruleset.NFProtoKey(f)},
				ruleset.Verdict{Kind: ruleset.Goto, Chain: chain},
			},
			Comment: "other protocols",
		})
	}
	return name
}

// aclSpace is the part of an ACL that one direction and family sees.
type aclSpace struct {
	acl       *policies.ACL
	direction flow.Direction
	family    flow.Family
	refused   ruleset.Verdict
}

type keyedEntry = keyed[*policies.ACLEntry]

// portEntries returns the entries that may decide for a protocol with ports.
func portEntries(entries []*policies.ACLEntry, proto flow.Protocol) []keyedEntry {
	var out []keyedEntry
	for _, e := range entries {
		switch {
		case e.AllProtocols:
			out = append(out, keyedEntry{e, []span{{0, 65535}}})
		case e.Protocol == proto:
			out = append(out, keyedEntry{e, []span{{e.Ports.First, e.Ports.Last}}})
		}
	}
	return out
}

// otherEntries returns the entries that may decide for protocols other than
// TCP, UDP and the family's ICMP.
func otherEntries(entries []*policies.ACLEntry) []keyedEntry {
	var out []keyedEntry
	for _, e := range entries {
		switch {
		case e.AllProtocols:
			out = append(out, keyedEntry{e, []span{codeSpan(-1)}})
		case isOther(e.Protocol):
			out = append(out, keyedEntry{e, []span{codeSpan(int(e.Protocol))}})
		}
	}
	return out
}

// typeEntries returns the entries that may decide for the family's ICMP, by
// type, and whether any of them names a code.
func typeEntries(entries []*policies.ACLEntry, f flow.Family) (types []keyedEntry, byCode bool) {
	for _, e := range entries {
		switch {
		case e.AllProtocols:
			types = append(types, keyedEntry{e, []span{codeSpan(-1)}})
		case e.Protocol.IsICMP(f):
			types = append(types, keyedEntry{e, []span{codeSpan(e.ICMPType)}})
			byCode = byCode || e.ICMPCode >= 0
		}
	}
	return types, byCode
}

// codeEntries returns the entries of one atom of ICMP types, by code.
func codeEntries(entries []*policies.ACLEntry) []keyedEntry {
	out := make([]keyedEntry, len(entries))
	for i, e := range entries {
		code := -1
		if !e.AllProtocols {
			code = e.ICMPCode
		}
		out[i] = keyedEntry{e, []span{codeSpan(code)}}
	}
	return out
}

// aclKeys is a key space as an ACL's entries divide it.
type aclKeys struct {
	// name is the protocol's, for the names of chains and maps.
	name, of string
	field    ruleset.Field
	keyType  ruleset.Type
	last     uint16
}

// aclTypeRules returns the nft rules for the family's ICMP. Entries that name a
// code make the atoms of their type a space of codes.
func (c *compiler) aclTypeRules(s aclSpace, entries []*policies.ACLEntry) []ruleset.Rule {
	types, byCode := typeEntries(entries, s.family)
	keys := aclKeys{
		name: protoName(flow.ICMPOf(s.family), s.family), of: "types",
		field: ruleset.ICMPTypeField(s.family), keyType: ruleset.ICMPType, last: 255,
	}
	codeOf := ruleset.ICMPCode
	if s.family == flow.IPv6 {
		keys.keyType, codeOf = ruleset.ICMPv6Type, ruleset.ICMPv6Code
	}
	if !byCode {
		return c.aclRules(s, keys, types)
	}
	chain := aclChain(s.acl, s.direction, keys.name)
	m := &ruleset.Set{Name: chain + ".types", Key: []ruleset.Type{keys.keyType}, Map: true, Interval: true}
	for _, a := range cut(types) {
		codes := aclKeys{
			name: fmt.Sprintf("%s/%s", keys.name, a.span), of: "codes",
			field: ruleset.ICMPCodeField(s.family), keyType: codeOf, last: 255,
		}
		leaf := aclChain(s.acl, s.direction, codes.name)
		c.addChain(&ruleset.Chain{Name: leaf, Comment: comment([]string{s.acl.Address()}), Rules: c.aclRules(s, codes, codeEntries(a.rules))})
		m.Elements = append(m.Elements, ruleset.Element{
			First: spanKey(keys.keyType, a.first), Last: spanKey(keys.keyType, a.last),
			Verdict: &ruleset.Verdict{Kind: ruleset.Jump, Chain: leaf},
		})
	}
	c.addSet(m)
	return []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.VerdictMap{Fields: []ruleset.Field{keys.field}, Map: m.Name}}, Comment: "entries by types"},
		s.refuse(),
	}
}

// refuse returns the nft rule that ends an ACL's chain.
func (s aclSpace) refuse() ruleset.Rule {
	return ruleset.Rule{
		Statements: []ruleset.Statement{s.refused},
		Comment:    comment([]string{s.acl.Address() + ": no entry allows it"}),
	}
}

// maxEliminated bounds how many entries the atoms of one chain may hold in all
// before elimination gives way to rules in order.
const maxEliminated = 2_000_000

// aclRules returns the nft rules, as the end of a chain, that find the first
// entry that matches a packet by key and peer. The order of the entries is
// worked out here: what is left is a map of keys and, for each, disjoint
// addresses.
//
// Entries for all keys at the beginning of the list decide before the map, and
// those at its end after it, so that neither is repeated for each key.
func (c *compiler) aclRules(s aclSpace, keys aclKeys, entries []keyedEntry) []ruleset.Rule {
	end := len(entries)
	for end > 0 && isWhole(entries[end-1].spans, keys.last) {
		end--
	}
	begin := 0
	for begin < end && isWhole(entries[begin].spans, keys.last) {
		begin++
	}
	head, middle, tail := entriesOf(entries[:begin]), entries[begin:end], entriesOf(entries[end:])

	rules := c.firstMatchRules(s, head)
	switch {
	case len(middle) == 0:
	case weight(middle) > maxEliminated:
		c.notes = append(c.notes, Note{Pos: s.acl.Pos, Text: fmt.Sprintf(
			"%s %s: its %d entries overlap too much to work out which comes first for every packet; %s packets walk them in order",
			s.acl.Address(), s.direction, len(middle), keys.name)})
		rules = append(rules, c.orderedRules(s, keys, middle)...)
	default:
		chain := aclChain(s.acl, s.direction, keys.name)
		m := &ruleset.Set{Name: chain + "." + keys.of, Key: []ruleset.Type{keys.keyType}, Map: true, Interval: true}
		for _, a := range cut(middle) {
			leaf := shorten(chain + "." + entryNumbers(a.rules))
			if c.chains[leaf] == nil {
				c.addChain(&ruleset.Chain{Name: leaf, Comment: comment([]string{s.acl.Address()}), Rules: c.firstMatchRules(s, a.rules)})
			}
			m.Elements = append(m.Elements, ruleset.Element{
				First: spanKey(keys.keyType, a.first), Last: spanKey(keys.keyType, a.last),
				Verdict: &ruleset.Verdict{Kind: ruleset.Jump, Chain: leaf},
			})
		}
		c.addSet(m)
		rules = append(rules, ruleset.Rule{
			Statements: []ruleset.Statement{ruleset.VerdictMap{Fields: []ruleset.Field{keys.field}, Map: m.Name}},
			Comment:    "entries by " + keys.of,
		})
	}
	return append(rules, c.lastMatchRules(s, tail)...)
}

func entriesOf(keyed []keyedEntry) []*policies.ACLEntry {
	out := make([]*policies.ACLEntry, len(keyed))
	for i, k := range keyed {
		out[i] = k.rule
	}
	return out
}

// entryNumbers names a list of entries of one ACL and direction.
func entryNumbers(entries []*policies.ACLEntry) string {
	numbers := make([]string, len(entries))
	for i, e := range entries {
		numbers[i] = strconv.Itoa(e.Number)
	}
	return strings.Join(numbers, "/")
}

// firstMatchRules returns nft rules that decide packets from peers of the
// entries, and let all others go on.
func (c *compiler) firstMatchRules(s aclSpace, entries []*policies.ACLEntry) []ruleset.Rule {
	allow, deny := firstMatch(entries)
	return append(c.decideRules(s, entries, deny, false), c.decideRules(s, entries, allow, true)...)
}

// lastMatchRules is firstMatchRules where no other entry follows: what the
// entries leave open is refused. They decide by the shorter of the two lists.
func (c *compiler) lastMatchRules(s aclSpace, entries []*policies.ACLEntry) []ruleset.Rule {
	allow, _ := firstMatch(entries)
	if deny := complement(allow, s.family); len(deny) < len(allow) {
		rules := c.decideRules(s, entries, deny, false)
		return append(rules, c.decideRules(s, entries, []flow.Range{flow.RangeOf(s.family.Any())}, true)...)
	}
	rules := c.decideRules(s, entries, allow, true)
	if len(allow) == 1 && allow[0].IsAny() {
		return rules
	}
	return append(rules, s.refuse())
}

// decideRules returns nft rules that allow, or refuse, peers in the ranges. The
// set that they may need is named after the entries, so that chains of several
// protocols share it.
func (c *compiler) decideRules(s aclSpace, entries []*policies.ACLEntry, ranges []flow.Range, allow bool) []ruleset.Rule {
	verdict, word := s.refused, "deny"
	if allow {
		verdict, word = accept, "allow"
	}
	why := comment([]string{fmt.Sprintf("%s.%s: %s", s.acl.Address(), s.direction, word)})
	if len(ranges) == 1 && ranges[0].IsAny() {
		return []ruleset.Rule{{Statements: []ruleset.Statement{verdict}, Comment: why}}
	}
	field := ruleset.Peer(s.family, s.direction)
	if len(ranges) > maxInline {
		name := shorten(fmt.Sprintf("%s.%s.%s.%s.%s", s.acl.Address(), s.direction, familySuffix(s.family), word, entryNumbers(entries)))
		return c.memberRules(name, name, comment([]string{s.acl.Address()}), s.family, field, ranges, func(match ruleset.Statement) ruleset.Rule {
			return ruleset.Rule{Statements: []ruleset.Statement{match, verdict}, Comment: why}
		})
	}
	var out []ruleset.Rule
	for _, r := range ranges {
		out = append(out, ruleset.Rule{Statements: []ruleset.Statement{matchRange(field, r), verdict}, Comment: why})
	}
	return out
}

// orderedRules returns one nft rule for each run of entries that differ only
// in their peers.
func (c *compiler) orderedRules(s aclSpace, keys aclKeys, entries []keyedEntry) []ruleset.Rule {
	var out []ruleset.Rule
	for len(entries) > 0 {
		n := 1
		for n < len(entries) && entries[n].rule.Allow == entries[0].rule.Allow && slices.Equal(entries[n].spans, entries[0].spans) {
			n++
		}
		key := ruleset.MatchRange{Field: keys.field, First: spanKey(keys.keyType, entries[0].spans[0].first), Last: spanKey(keys.keyType, entries[0].spans[0].last)}
		run := entriesOf(entries[:n])
		allow, deny := firstMatch(run)
		for _, r := range c.decideRules(s, run, append(allow, deny...), run[0].Allow) {
			r.Statements = append([]ruleset.Statement{key}, r.Statements...)
			out = append(out, r)
		}
		entries = entries[n:]
	}
	return out
}
