package compile

import (
	"maps"
	"slices"

	"sgc/policies"
)

// span is an inclusive range of a key space: ports, ICMP types or codes, or
// protocol numbers.
type span struct{ first, last uint16 }

// keyed is something with the part of a key space that it covers: a rule of a
// group, an entry of an ACL. Spans are sorted and disjoint.
type keyed[T any] struct {
	rule  T
	spans []span
}

// keyedRule is a rule of a group with its part of a key space.
type keyedRule = keyed[*policies.Rule]

// atom is a piece of a key space that the same rules cover.
type atom[T any] struct {
	span
	// rules are in the order in which cut got them, never empty.
	rules []T
}

// isWhole reports whether the spans are all of the key space from 0 to last.
func isWhole(spans []span, last uint16) bool {
	return len(spans) == 1 && spans[0] == span{0, last}
}

// whole splits the rules into those that cover all of the key space (0 to
// last) and the others.
func whole(rules []keyedRule, last uint16) (all []*policies.Rule, part []keyedRule) {
	for _, r := range rules {
		if isWhole(r.spans, last) {
			all = append(all, r.rule)
		} else {
			part = append(part, r)
		}
	}
	return all, part
}

// cut divides the key space into its atoms, in order. Neighbours with the same
// rules are one atom; what no rule covers is in none.
func cut[T comparable](rules []keyed[T]) []atom[T] {
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

	var atoms []atom[T]
	open := map[int]int{} // rule → its spans open here; one may touch the next
	for i := 0; i < len(borders); {
		at := borders[i].at
		for ; i < len(borders) && borders[i].at == at; i++ {
			if borders[i].begin {
				open[borders[i].rule]++
			} else if open[borders[i].rule]--; open[borders[i].rule] == 0 {
				delete(open, borders[i].rule)
			}
		}
		if len(open) == 0 {
			continue
		}
		covering := make([]T, 0, len(open))
		for _, r := range slices.Sorted(maps.Keys(open)) {
			covering = append(covering, rules[r].rule)
		}
		piece := atom[T]{span{uint16(at), uint16(borders[i].at - 1)}, covering}
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
func weight[T any](rules []keyed[T]) int {
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
	if len(rules) == 0 {
		return nil
	}
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
