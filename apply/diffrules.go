package apply

import (
	"fmt"
	"slices"

	"sgc/internal/ruleset"
)

// rulePlan says which rules of a chain go and come.
type rulePlan struct {
	// gone are the indices of rules in the kernel that are deleted.
	gone []int
	// come are the wanted rules that are inserted, in order.
	come []comingRule
	// changes are the differences behind that. Rules that go and come back
	// because of what they refer to are not among them.
	changes []ruleChange
	// refs are the names that the wanted rules refer to, haveRefs those that the
	// rules in the kernel refer to.
	refs, haveRefs references
}

type comingRule struct {
	index       int
	expressions []byte
	// anchor is the handle of the rule to insert before; 0 appends.
	anchor uint64
}

// ruleChange is a difference by the indices of the rules; those that do not
// apply to the action are -1.
type ruleChange struct {
	action     Action
	have, want int
}

func (p *planner) planRules() error {
	for i := range p.chains {
		c := &p.chains[i]
		if c.want == nil {
			continue
		}
		have := c.have
		if have == nil {
			have = &Chain{}
		}
		plan, err := p.planChain(have, c.want, c.fresh)
		if err != nil {
			return err
		}
		c.rules = plan
	}
	return nil
}

// planChain compares the rules of one chain. In a fresh chain nothing stays.
func (p *planner) planChain(have *Chain, want *ruleset.Chain, fresh bool) (*rulePlan, error) {
	m, err := matchRules(have, want)
	if err != nil {
		return nil, err
	}
	renew := make([]bool, len(have.Rules))
	for i, refs := range m.refs {
		renew[i] = m.have[i] != unmatched && (fresh || p.refersToFresh(refs))
	}
	plan := &rulePlan{changes: ruleChanges(have, want, m.have, m.want, m.matched), refs: m.wantRefs}
	for _, refs := range m.refs {
		plan.haveRefs.add(refs)
	}
	plan.place(have, m.encoded, m.matched, renew)
	return plan, nil
}

// ruleMatch says which rule of a chain in the kernel is which wanted one.
type ruleMatch struct {
	// have and want are ids: rules that mean the same, and have the same
	// comment, have the same one. Rules that cannot be read are unmatched.
	have, want []int32
	// matched holds, for every rule in the kernel, the index of the wanted one
	// that it is, or -1.
	matched []int32
	// encoded are the expressions of the wanted rules, and wantRefs the names
	// that any of them refers to; refs are those that the rules in the kernel
	// refer to.
	encoded  [][]byte
	wantRefs references
	refs     []references
}

// matchRules compares rules by meaning and comment, in their order.
func matchRules(have *Chain, want *ruleset.Chain) (*ruleMatch, error) {
	ids := map[string]int32{}
	id := func(form, comment string) int32 {
		key := form + comment
		n, ok := ids[key]
		if !ok {
			n = int32(len(ids))
			ids[key] = n
		}
		return n
	}
	m := &ruleMatch{
		have: make([]int32, len(have.Rules)), want: make([]int32, len(want.Rules)),
		encoded: make([][]byte, len(want.Rules)), refs: make([]references, len(have.Rules)),
	}
	for i, r := range want.Rules {
		var form string
		var refs references
		var err error
		if m.encoded[i], err = encodeRule(r); err == nil {
			form, refs, err = canonical(m.encoded[i])
		}
		if err != nil {
			return nil, fmt.Errorf("encode rule %s #%d (%s): %w", want.Name, i+1, r.Comment, err)
		}
		m.want[i] = id(form, r.Comment)
		m.wantRefs.add(refs)
	}
	for i, r := range have.Rules {
		form, refs, err := canonical(r.expressions)
		if err != nil {
			// Whatever it is, it is not ours.
			m.have[i] = unmatched
			continue
		}
		m.have[i] = id(form, r.Comment)
		m.refs[i] = refs
	}
	m.matched = align(m.have, m.want)
	return m, nil
}

func (p *planner) refersToFresh(refs references) bool {
	return slices.ContainsFunc(refs.sets, func(name string) bool { return p.freshSets[name] }) ||
		slices.ContainsFunc(refs.chains, func(name string) bool { return p.freshChains[name] }) ||
		slices.ContainsFunc(refs.objects, func(name string) bool { return p.freshObjects[name] })
}

// place lists what goes and what comes, and finds for every rule that comes
// the rule that stays behind it. Only such a rule is a safe anchor: one that
// is deleted in the same transaction is gone for the messages after it.
func (plan *rulePlan) place(have *Chain, encoded [][]byte, matched []int32, renew []bool) {
	handles := make([]uint64, len(encoded))
	for i, w := range matched {
		if w < 0 || renew[i] {
			plan.gone = append(plan.gone, i)
		} else {
			handles[w] = have.Rules[i].Handle
		}
	}
	anchor := uint64(0)
	for w := len(encoded) - 1; w >= 0; w-- {
		if handles[w] != 0 {
			anchor = handles[w]
			continue
		}
		plan.come = append(plan.come, comingRule{index: w, expressions: encoded[w], anchor: anchor})
	}
	slices.Reverse(plan.come)
}

// ruleChanges pairs the rules that go with those that come: the same rule at
// another place was moved, one with the same comment was changed.
func ruleChanges(have *Chain, want *ruleset.Chain, haveIDs, wantIDs, matched []int32) []ruleChange {
	stays := make([]bool, len(wantIDs))
	byID, byComment := map[int32][]int{}, map[string][]int{}
	for i, w := range matched {
		if w >= 0 {
			stays[w] = true
		} else if haveIDs[i] != unmatched {
			byID[haveIDs[i]] = append(byID[haveIDs[i]], i)
		}
	}
	// paired holds, by index of the wanted rule, the change that brings it.
	paired := make([]ruleChange, len(wantIDs))
	used := make([]bool, len(haveIDs))
	take := func(action Action, w int, candidates []int) []int {
		paired[w] = ruleChange{action, candidates[0], w}
		used[candidates[0]] = true
		return candidates[1:]
	}
	for w, id := range wantIDs {
		paired[w] = ruleChange{Add, -1, w}
		if at := byID[id]; !stays[w] && len(at) > 0 {
			byID[id] = take(Move, w, at)
		}
	}
	for i, w := range matched {
		if comment := have.Rules[i].Comment; w < 0 && !used[i] && comment != "" {
			byComment[comment] = append(byComment[comment], i)
		}
	}
	for w, r := range want.Rules {
		if at := byComment[r.Comment]; !stays[w] && paired[w].action == Add && len(at) > 0 {
			byComment[r.Comment] = take(Update, w, at)
		}
	}
	var changes []ruleChange
	for i, w := range matched {
		if w < 0 && !used[i] {
			changes = append(changes, ruleChange{Remove, i, -1})
		}
	}
	for w, c := range paired {
		if !stays[w] {
			changes = append(changes, c)
		}
	}
	return changes
}
