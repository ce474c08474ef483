package compile

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// maxSet is how many ranges one kernel set holds. The kernel copies an
// interval set for every transaction that changes it, and reads it back in
// pieces, for each of which it begins anew: with 100,000 ranges in one set, one
// more costs a twelfth of the time of all of them, and a million take a minute
// and a half to read. In small sets both costs go by what changes and what is
// there.
const maxSet = 4096

// shard is a part of a large address list: what of it lies in one prefix.
type shard struct {
	prefix netip.Prefix
	ranges []flow.Range
}

// shards divides merged ranges of one family among prefixes, so that none gets
// more than maxSet. A prefix that holds too many is halved, and so on: one entry
// more changes one shard, or now and then cuts one in two. Shards are in order,
// and prefixes without ranges are left out.
func shards(ranges []flow.Range, f flow.Family) []shard {
	var out []shard
	var divide func(p netip.Prefix, in []flow.Range)
	divide = func(p netip.Prefix, in []flow.Range) {
		if len(in) == 0 {
			return
		}
		if len(in) <= maxSet {
			out = append(out, shard{p, in})
			return
		}
		low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
		border := flow.RangeOf(low).Last.Next() // valid: it is inside p
		high := netip.PrefixFrom(border, p.Bits()+1)
		// The ranges before the border, one that may cross it, those after it.
		n, _ := slices.BinarySearchFunc(in, border, func(r flow.Range, a netip.Addr) int {
			if r.Last.Less(a) {
				return -1
			}
			return 1
		})
		below, above := in[:n], in[n:]
		if len(above) > 0 && above[0].First.Less(border) {
			below = append(slices.Clone(below), flow.Range{First: above[0].First, Last: border.Prev()})
			above = append([]flow.Range{{First: border, Last: above[0].Last}}, above[1:]...)
		}
		divide(low, below)
		divide(high, above)
	}
	divide(f.Any(), ranges)
	return out
}

// name returns the shard's prefix as part of an nft identifier.
func (s shard) name() string {
	if a := s.prefix.Addr(); a.Is6() {
		b := a.As16()
		return fmt.Sprintf("%s/%d", hex.EncodeToString(b[:(s.prefix.Bits()+7)/8]), s.prefix.Bits())
	}
	return s.prefix.String()
}

// memberRules returns the nft rules for packets whose address is in a list, made
// by rule from the match. The list is one set called name, or several if it is
// large; owner is the chain that the rules are for.
func (c *compiler) memberRules(owner, name, comment string, f flow.Family, field ruleset.Field, ranges []flow.Range, rule func(ruleset.Statement) ruleset.Rule) []ruleset.Rule {
	if len(ranges) <= maxSet {
		c.addAddressSet(name, comment, f, ranges)
		return []ruleset.Rule{rule(lookup(name, field))}
	}
	// The parts that a list and a chain are called by are long already: the
	// digest at the end of a shortened name comes before the shard's own.
	m := &ruleset.Set{
		Name: shorten(owner + "/" + name), Comment: comment,
		Key: []ruleset.Type{addressType(f)}, Map: true, Interval: true,
	}
	for _, s := range shards(ranges, f) {
		set := name + "/" + s.name()
		c.addAddressSet(set, comment, f, s.ranges)
		chain := m.Name + "/" + s.name()
		c.addChain(&ruleset.Chain{Name: chain, Comment: comment, Rules: []ruleset.Rule{rule(lookup(set, field))}})
		r := flow.RangeOf(s.prefix)
		m.Elements = append(m.Elements, ruleset.Element{
			First: ruleset.AddrKey(r.First), Last: ruleset.AddrKey(r.Last),
			Verdict: &ruleset.Verdict{Kind: ruleset.Jump, Chain: chain},
		})
	}
	c.addSet(m)
	return []ruleset.Rule{{
		Statements: []ruleset.Statement{ruleset.VerdictMap{Fields: []ruleset.Field{field}, Map: m.Name}},
		Comment:    comment,
	}}
}
