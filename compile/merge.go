package compile

import (
	"slices"

	"sgc/policies"
)

// span is an inclusive range of a key space: ports, ICMP types or codes, or
// protocol numbers.
type span struct{ first, last uint16 }

// keyedRule is a policy rule with the part of a key space that it covers.
// Spans are sorted and disjoint.
type keyedRule struct {
	rule  *policies.Rule
	spans []span
}

// atom is a piece of a key space that the same rules cover.
type atom struct {
	span
	// rules are sorted by address, never empty.
	rules []*policies.Rule
}

// whole splits the rules into those that cover all of the key space (0 to
// last) and the others.
func whole(rules []keyedRule, last uint16) (all []*policies.Rule, part []keyedRule) {
	for _, r := range rules {
		if len(r.spans) == 1 && r.spans[0] == (span{0, last}) {
			all = append(all, r.rule)
		} else {
			part = append(part, r)
		}
	}
	sortRules(all)
	return all, part
}

// cut divides the key space into its atoms, in order. Neighbours with the same
// rules are one atom; what no rule covers is in none.
func cut(rules []keyedRule) []atom {
	// A border is where a rule begins to cover (at a key) or ceases to (after
	// it); borders count one beyond the last key, hence int.
	type border struct {
		at    int
		rule  int
		begin bool
	}
	var borders []border
	for i, r := range rules {
		for _, s := range r.spans {
			borders = append(borders, border{int(s.first), i, true}, border{int(s.last) + 1, i, false})
		}
	}
	slices.SortFunc(borders, func(a, b border) int { return a.at - b.at })

	var atoms []atom
	active := map[int]int{} // rule index → spans open; a rule may touch itself
	for i := 0; i < len(borders); {
		at := borders[i].at
		for ; i < len(borders) && borders[i].at == at; i++ {
			if borders[i].begin {
				active[borders[i].rule]++
			} else if active[borders[i].rule]--; active[borders[i].rule] == 0 {
				delete(active, borders[i].rule)
			}
		}
		if len(active) == 0 {
			continue
		}
		covering := make([]*policies.Rule, 0, len(active))
		for r := range active {
			covering = append(covering, rules[r].rule)
		}
		sortRules(covering)
		piece := atom{span{uint16(at), uint16(borders[i].at - 1)}, covering}
		if n := len(atoms); n > 0 && int(atoms[n-1].last)+1 == at && slices.Equal(atoms[n-1].rules, covering) {
			atoms[n-1].last = piece.last
			continue
		}
		atoms = append(atoms, piece)
	}
	return atoms
}

// weight returns how many rules the atoms of these rules hold in all, which is
// what leaf chains would hold of their addresses.
func weight(rules []keyedRule) int {
	var begins, ends []int
	for _, r := range rules {
		for _, s := range r.spans {
			begins, ends = append(begins, int(s.first)), append(ends, int(s.last)+1)
		}
	}
	slices.Sort(begins)
	slices.Sort(ends)
	// Walk both in order: at each new border, the spans open after it make an
	// atom.
	sum, open := 0, 0
	for b, e := 0, 0; e < len(ends); {
		at := ends[e]
		if b < len(begins) {
			at = min(at, begins[b])
		}
		for ; b < len(begins) && begins[b] == at; b++ {
			open++
		}
		for ; e < len(ends) && ends[e] == at; e++ {
			open--
		}
		sum += open
	}
	return sum
}

// layerSizes are the block sizes of the layers, the widest first.
var layerSizes = [...]int{4096, 256, 16, 1}

// layers splits rules that overlap so much that their atoms would hold each of
// them very often: n wide port ranges have up to 2n atoms with up to n rules
// each. Each span then falls into aligned blocks of a few sizes, at most 30 of
// each, and every size is a layer with atoms of its own. Most policies are one
// layer.
func layers(rules []keyedRule) [][]keyedRule {
	if weight(rules) <= 16*len(rules)+10000 {
		return [][]keyedRule{rules}
	}
	var out [][]keyedRule
	rest := rules
	for _, size := range layerSizes {
		var layer, next []keyedRule
		for _, r := range rest {
			in, left := keyedRule{rule: r.rule}, keyedRule{rule: r.rule}
			for _, s := range r.spans {
				// The aligned part goes into this layer, its two sides into
				// narrower ones.
				first := (int(s.first) + size - 1) / size * size
				beyond := (int(s.last) + 1) / size * size
				if first >= beyond {
					left.spans = append(left.spans, s)
					continue
				}
				in.spans = append(in.spans, span{uint16(first), uint16(beyond - 1)})
				if int(s.first) < first {
					left.spans = append(left.spans, span{s.first, uint16(first - 1)})
				}
				if beyond <= int(s.last) {
					left.spans = append(left.spans, span{uint16(beyond), s.last})
				}
			}
			if len(in.spans) > 0 {
				layer = append(layer, in)
			}
			if len(left.spans) > 0 {
				next = append(next, left)
			}
		}
		if len(layer) > 0 {
			out = append(out, layer)
		}
		rest = next
	}
	return out
}

// sortRules sorts by group and ID; the rules are of one direction.
func sortRules(rules []*policies.Rule) {
	slices.SortFunc(rules, func(a, b *policies.Rule) int {
		if a.Group != b.Group {
			if a.Group < b.Group {
				return -1
			}
			return 1
		}
		if a.ID < b.ID {
			return -1
		}
		if a.ID > b.ID {
			return 1
		}
		return 0
	})
}
