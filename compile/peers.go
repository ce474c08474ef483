package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

const (
	// maxInline is how many prefixes a chain holds as plain rules.
	maxInline = 8
	// maxSets is how many shared sets a chain looks up before it merges the
	// smaller ones into a set of its own: the look-ups of a packet stay bounded.
	maxSets = 8
)

// peerSet is a named set of addresses that several chains may use.
type peerSet struct {
	name, comment string
	ranges        []flow.Range
	// from are the rules that brought it to a chain.
	from []string
}

// hasPeers reports whether any address of the family is a peer of the rule.
func (c *compiler) hasPeers(r *policies.Rule, f flow.Family) bool {
	return len(c.inline(r, f)) > 0 || len(c.shared(r, f)) > 0
}

// inline returns the merged ranges of the rule's own CIDRs.
func (c *compiler) inline(r *policies.Rule, f flow.Family) []flow.Range {
	key := ruleFamily{r, f}
	ranges, ok := c.inlineOf[key]
	if !ok {
		ranges = mergePrefixes(r.Prefixes, f)
		c.inlineOf[key] = ranges
	}
	return ranges
}

// shared returns the lists and groups that the rule names and that hold
// addresses of the family.
func (c *compiler) shared(r *policies.Rule, f flow.Family) []*peerSet {
	var out []*peerSet
	add := func(address string, prefixes []netip.Prefix) {
		name := shorten(address + "." + familySuffix(f))
		s, ok := c.peerSets[name]
		if !ok {
			s = &peerSet{name: name, comment: comment([]string{address}), ranges: mergePrefixes(prefixes, f)}
			c.peerSets[name] = s
		}
		if len(s.ranges) > 0 {
			out = append(out, s)
		}
	}
	for _, name := range r.Lists {
		l := c.lists[name]
		add(l.Address(), l.Entries)
	}
	for _, name := range r.Groups {
		g := c.groups[name]
		add(g.Address(), g.Members)
	}
	return out
}

// mergePrefixes returns the address space of the prefixes of one family in the
// fewest ranges.
func mergePrefixes(prefixes []netip.Prefix, f flow.Family) []flow.Range {
	var ranges []flow.Range
	for _, p := range prefixes {
		if flow.FamilyOf(p.Addr()) == f {
			ranges = append(ranges, flow.RangeOf(p))
		}
	}
	return flow.MergeRanges(ranges)
}

// peerRules returns nft rules that let packets of the space through whose peer
// is one of the rules' peers. own names the set that they may need for
// themselves. The list is of bounded length.
func (c *compiler) peerRules(space *keySpace, rules []*policies.Rule, own string) []ruleset.Rule {
	f := space.family
	for _, r := range rules {
		if in := c.inline(r, f); len(in) == 1 && in[0].IsAny() {
			return []ruleset.Rule{space.allow([]string{r.Address()})}
		}
	}

	// The rules with the fewest CIDRs of their own are plain nft rules; those
	// of the others are sets, as are lists and groups.
	var sets []*peerSet
	byName := map[string]*peerSet{}
	addSet := func(s *peerSet, from string) {
		if have := byName[s.name]; have != nil {
			have.from = append(have.from, from)
			return
		}
		use := *s
		use.from = []string{from}
		byName[s.name] = &use
		sets = append(sets, &use)
	}
	field := ruleset.Peer(f, space.direction)
	var out []ruleset.Rule
	bySize := slices.Clone(rules)
	slices.SortStableFunc(bySize, func(a, b *policies.Rule) int { return len(c.inline(a, f)) - len(c.inline(b, f)) })
	for _, r := range bySize {
		in := c.inline(r, f)
		if len(out)+len(in) <= maxInline {
			for _, p := range in {
				out = append(out, space.allow([]string{r.Address()}, matchRange(field, p)))
			}
		} else {
			name := fmt.Sprintf("%s.%s.%s.%s", r.Group, r.Direction, r.ID, familySuffix(f))
			addSet(&peerSet{name: shorten(name), comment: comment([]string{r.Address()}), ranges: in}, r.Address())
		}
		for _, s := range c.shared(r, f) {
			addSet(s, r.Address())
		}
	}

	// Too many sets: the smallest become one.
	if len(sets) > maxSets {
		slices.SortStableFunc(sets, func(a, b *peerSet) int { return len(b.ranges) - len(a.ranges) })
		merged := peerSet{name: own}
		for _, s := range sets[maxSets-1:] {
			merged.ranges = append(merged.ranges, s.ranges...)
			merged.from = append(merged.from, s.from...)
		}
		merged.ranges = flow.MergeRanges(merged.ranges)
		slices.Sort(merged.from)
		merged.comment = comment(slices.Compact(slices.Clone(merged.from)))
		sets = append(sets[:maxSets-1], &merged)
	}
	slices.SortFunc(sets, func(a, b *peerSet) int { return compareNames(a.name, b.name) })
	for _, s := range sets {
		slices.Sort(s.from)
		from := slices.Compact(s.from)
		if space.temporary {
			s.name = c.temporarySet(s.name, f, s.ranges)
		}
		out = append(out, c.memberRules(own, s.name, s.comment, f, field, s.ranges, func(match ruleset.Statement) ruleset.Rule {
			return space.allow(from, match)
		})...)
	}
	return out
}

// matchRange asks for an address in a range, as a prefix where it is one.
func matchRange(field ruleset.Field, r flow.Range) ruleset.Statement {
	if p := r.Prefixes(); len(p) == 1 {
		return ruleset.MatchPrefix{Field: field, Prefix: p[0]}
	}
	return ruleset.MatchRange{Field: field, First: ruleset.AddrKey(r.First), Last: ruleset.AddrKey(r.Last)}
}

// addAddressSet adds an interval set of addresses, once for each name.
func (c *compiler) addAddressSet(name, comment string, f flow.Family, ranges []flow.Range) {
	c.addRanges(name, comment, addressType(f), ranges)
}

// addRanges is addAddressSet for any type that holds addresses.
func (c *compiler) addRanges(name, comment string, typ ruleset.Type, ranges []flow.Range) {
	if c.sets[name] != nil {
		return
	}
	s := &ruleset.Set{Name: name, Comment: comment, Key: []ruleset.Type{typ}, Interval: true}
	// A list may hold a million ranges: their keys are pieces of one string.
	size := typ.Size()
	buf := make([]byte, 0, 2*size*len(ranges))
	for _, r := range ranges {
		buf = append(append(buf, r.First.AsSlice()...), r.Last.AsSlice()...)
	}
	keys := string(buf)
	s.Elements = make([]ruleset.Element, len(ranges))
	for i := range ranges {
		s.Elements[i] = ruleset.Element{First: keys[:size], Last: keys[size : 2*size]}
		keys = keys[2*size:]
	}
	c.sets[name] = s
}

func addressType(f flow.Family) ruleset.Type {
	if f == flow.IPv4 {
		return ruleset.IPv4Addr
	}
	return ruleset.IPv6Addr
}
