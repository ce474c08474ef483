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

// aclChain returns the name of the chain in which an ACL judges packets of one
// protocol ("tcp4", "icmp6", "other4", …). It is jumped to: what the ACL allows
// returns, everything else is refused there.
func aclChain(acl *policies.ACL, d flow.Direction, proto string) string {
	return shorten(fmt.Sprintf("%s.%s.%s", acl.Address(), d, proto))
}

// jumpACL returns the nft rule that lets an ACL judge a packet.
func jumpACL(acl *policies.ACL, d flow.Direction, proto string) ruleset.Rule {
	return ruleset.Rule{
		Statements: []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Jump, Chain: aclChain(acl, d, proto)}},
		Comment:    comment([]string{acl.Address()}),
	}
}

// addACLs adds the chains of all ACLs that are attached, for one direction.
func (c *compiler) addACLs(profiles []*profile, d flow.Direction) {
	added := map[*policies.ACL]bool{}
	for _, p := range profiles {
		if p.acl != nil && !added[p.acl] {
			added[p.acl] = true
			c.addACL(p.acl, d)
		}
	}
}

// addACL adds the chains of an ACL for one direction.
func (c *compiler) addACL(acl *policies.ACL, d flow.Direction) {
	for _, f := range flow.Families {
		entries := c.liveEntries(acl, d, f)
		space := aclSpace{acl: acl, direction: d, family: f, refused: c.refused(d, byACL)}
		for _, proto := range []flow.Protocol{flow.TCP, flow.UDP} {
			c.addACLChain(space, protoName(proto, f), ruleset.DestPort, ruleset.InetService, "ports", 65535, portEntries(entries, proto))
		}
		c.addACLTypes(space, protoName(flow.ICMPOf(f), f), entries)
		c.addACLChain(space, fmt.Sprintf("other%d", f), ruleset.L4Protocol, ruleset.InetProto, "protocols", 255, otherEntries(entries, f))
	}
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
func otherEntries(entries []*policies.ACLEntry, f flow.Family) []keyedEntry {
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

// addACLTypes adds the chain for the family's ICMP. Entries that name a code
// make the atoms of their type a space of codes.
func (c *compiler) addACLTypes(s aclSpace, name string, entries []*policies.ACLEntry) {
	var types []keyedEntry
	codes := false
	for _, e := range entries {
		switch {
		case e.AllProtocols:
			types = append(types, keyedEntry{e, []span{codeSpan(-1)}})
		case e.Protocol.IsICMP(s.family):
			types = append(types, keyedEntry{e, []span{codeSpan(e.ICMPType)}})
			codes = codes || e.ICMPCode >= 0
		}
	}
	typeOf, codeOf := ruleset.ICMPType, ruleset.ICMPCode
	if s.family == flow.IPv6 {
		typeOf, codeOf = ruleset.ICMPv6Type, ruleset.ICMPv6Code
	}
	if !codes {
		c.addACLChain(s, name, ruleset.ICMPTypeField(s.family), typeOf, "types", 255, types)
		return
	}
	chain := aclChain(s.acl, s.direction, name)
	m := &ruleset.Set{Name: chain + ".types", Key: []ruleset.Type{typeOf}, Map: true, Interval: true}
	for _, a := range cut(types) {
		sub := fmt.Sprintf("%s/%s", name, a.span)
		var byCode []keyedEntry
		for _, e := range a.rules {
			code := -1
			if !e.AllProtocols {
				code = e.ICMPCode
			}
			byCode = append(byCode, keyedEntry{e, []span{codeSpan(code)}})
		}
		c.addACLChain(s, sub, ruleset.ICMPCodeField(s.family), codeOf, "codes", 255, byCode)
		m.Elements = append(m.Elements, ruleset.Element{
			First: string([]byte{byte(a.first)}), Last: string([]byte{byte(a.last)}),
			Verdict: &ruleset.Verdict{Kind: ruleset.Goto, Chain: aclChain(s.acl, s.direction, sub)},
		})
	}
	c.addSet(m)
	c.addChain(&ruleset.Chain{Name: chain, Comment: comment([]string{s.acl.Address()}), Rules: []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.VerdictMap{Fields: []ruleset.Field{ruleset.ICMPTypeField(s.family)}, Map: m.Name}}, Comment: "entries by types"},
		{Statements: []ruleset.Statement{s.refused}, Comment: comment([]string{s.acl.Address() + ": no entry allows it"})},
	}})
}

// maxEliminated bounds how many entries the atoms of one chain may hold in all
// before elimination gives way to rules in order.
const maxEliminated = 2_000_000

// addACLChain adds a chain that finds the first entry that matches a packet by
// key and peer. The order of the entries is worked out here: what is left is a
// map of keys and, for each, disjoint addresses.
//
// Entries for all keys at the beginning of the list decide before the map, and
// those at its end after it, so that neither is repeated for each key.
func (c *compiler) addACLChain(s aclSpace, name string, field ruleset.Field, keyType ruleset.Type, of string, last uint16, entries []keyedEntry) {
	chain := aclChain(s.acl, s.direction, name)
	end := len(entries)
	for end > 0 && isWhole(entries[end-1].spans, last) {
		end--
	}
	begin := 0
	for begin < end && isWhole(entries[begin].spans, last) {
		begin++
	}
	head, middle, tail := entriesOf(entries[:begin]), entries[begin:end], entriesOf(entries[end:])

	rules := c.firstMatchRules(s, head)
	if len(middle) == 0 {
		// One list: head is empty then, since the tail took everything.
		c.addChain(&ruleset.Chain{Name: chain, Comment: comment([]string{s.acl.Address()}), Rules: append(rules, c.lastMatchRules(s, tail)...)})
		return
	}
	rest := ruleset.Verdict{Kind: ruleset.Goto, Chain: chain + "/rest"}
	c.addChain(&ruleset.Chain{Name: rest.Chain, Comment: comment([]string{s.acl.Address() + ": entries for all " + of}), Rules: c.lastMatchRules(s, tail)})

	if weight(middle) > maxEliminated {
		c.notes = append(c.notes, Note{Pos: s.acl.Pos, Text: fmt.Sprintf(
			"%s %s: its %d entries overlap too much to work out which comes first for every packet; %s packets walk them in order",
			s.acl.Address(), s.direction, len(middle), name)})
		rules = append(rules, c.orderedRules(s, field, keyType, middle)...)
	} else {
		m := &ruleset.Set{Name: chain + "." + of, Key: []ruleset.Type{keyType}, Map: true, Interval: true}
		for _, a := range cut(middle) {
			v := ruleset.Verdict{Kind: ruleset.Goto, Chain: shorten(chain + "." + entryNumbers(a.rules))}
			if c.chains[v.Chain] == nil {
				leaf := append(c.firstMatchRules(s, a.rules), ruleset.Rule{Statements: []ruleset.Statement{rest}, Comment: "the other entries"})
				c.addChain(&ruleset.Chain{Name: v.Chain, Comment: comment([]string{s.acl.Address()}), Rules: leaf})
			}
			m.Elements = append(m.Elements, ruleset.Element{First: spanKey(keyType, a.first), Last: spanKey(keyType, a.last), Verdict: &v})
		}
		c.addSet(m)
		rules = append(rules, ruleset.Rule{
			Statements: []ruleset.Statement{ruleset.VerdictMap{Fields: []ruleset.Field{field}, Map: m.Name}},
			Comment:    "entries by " + of,
		})
	}
	rules = append(rules, ruleset.Rule{Statements: []ruleset.Statement{rest}, Comment: "the other entries"})
	c.addChain(&ruleset.Chain{Name: chain, Comment: comment([]string{s.acl.Address()}), Rules: rules})
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
		return append(rules, ruleset.Rule{
			Statements: []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Return}},
			Comment:    comment([]string{s.acl.Address() + ": allowed"}),
		})
	}
	rules := c.decideRules(s, entries, allow, true)
	if len(allow) == 1 && allow[0].IsAny() {
		return rules
	}
	return append(rules, ruleset.Rule{
		Statements: []ruleset.Statement{s.refused},
		Comment:    comment([]string{s.acl.Address() + ": no entry allows it"}),
	})
}

// decideRules returns nft rules that allow, or refuse, peers in the ranges. The
// set that they may need is named after the entries, so that chains of several
// protocols share it.
func (c *compiler) decideRules(s aclSpace, entries []*policies.ACLEntry, ranges []flow.Range, allow bool) []ruleset.Rule {
	verdict, word := s.refused, "deny"
	if allow {
		verdict, word = ruleset.Verdict{Kind: ruleset.Return}, "allow"
	}
	why := comment([]string{fmt.Sprintf("%s.%s: %s", s.acl.Address(), s.direction, word)})
	if len(ranges) == 1 && ranges[0].IsAny() {
		return []ruleset.Rule{{Statements: []ruleset.Statement{verdict}, Comment: why}}
	}
	field := ruleset.Peer(s.family, s.direction)
	if len(ranges) > maxInline {
		name := shorten(fmt.Sprintf("%s.%s.%s.%s.%s", s.acl.Address(), s.direction, familySuffix(s.family), word, entryNumbers(entries)))
		c.addAddressSet(name, comment([]string{s.acl.Address()}), s.family, ranges)
		return []ruleset.Rule{{Statements: []ruleset.Statement{lookup(name, field), verdict}, Comment: why}}
	}
	var out []ruleset.Rule
	for _, r := range ranges {
		out = append(out, ruleset.Rule{Statements: []ruleset.Statement{matchRange(field, r), verdict}, Comment: why})
	}
	return out
}

// orderedRules returns one nft rule for each run of entries that differ only
// in their peers.
func (c *compiler) orderedRules(s aclSpace, field ruleset.Field, keyType ruleset.Type, entries []keyedEntry) []ruleset.Rule {
	var out []ruleset.Rule
	for len(entries) > 0 {
		n := 1
		for n < len(entries) && entries[n].rule.Allow == entries[0].rule.Allow && slices.Equal(entries[n].spans, entries[0].spans) {
			n++
		}
		key := ruleset.MatchRange{Field: field, First: spanKey(keyType, entries[0].spans[0].first), Last: spanKey(keyType, entries[0].spans[0].last)}
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
