package compile

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sgc/policies"
)

// wideRules returns n rules with wide random port ranges.
func wideRules(rng *rand.Rand, n int) []keyedRule {
	var rules []keyedRule
	for i := range n {
		a, b := uint16(rng.IntN(65536)), uint16(rng.IntN(65536))
		rules = append(rules, keyedRule{tcpRule(fmt.Sprintf("r%d", i), 0, 0), []span{{min(a, b), max(a, b)}}})
	}
	return rules
}

func TestLayersCoverWhatTheRulesCover(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	rules := wideRules(rng, 500)
	split := layers(rules)
	if len(split) < 2 {
		t.Fatalf("500 wide rules are %d layer", len(split))
	}
	for range 3000 {
		r := rules[rng.IntN(len(rules))]
		key := uint16(rng.IntN(65536))
		if rng.IntN(2) == 0 { // at the border of the rule
			key = []uint16{r.spans[0].first, r.spans[0].last, r.spans[0].first - 1, r.spans[0].last + 1}[rng.IntN(4)]
		}
		if got, want := covers(slices.Concat(split...), r.rule, key), covers(rules, r.rule, key); got != want {
			t.Fatalf("key %d of rule %v: layers cover it: %v, the rule does: %v", key, r.spans, got, want)
		}
	}
}

func covers(rules []keyedRule, r *policies.Rule, key uint16) bool {
	return slices.ContainsFunc(rules, func(k keyedRule) bool {
		return k.rule == r && slices.ContainsFunc(k.spans, func(s span) bool { return s.first <= key && key <= s.last })
	})
}

func TestLayersKeepWideRulesSmall(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	rules := wideRules(rng, 5000)
	sum := 0
	for _, layer := range layers(rules) {
		sum += weight(layer)
	}
	if flat := weight(rules); sum > flat/20 || sum > 120*len(rules) {
		t.Errorf("5,000 wide rules weigh %d in layers and %d without", sum, flat)
	}
}

func TestWeightIsWhatTheAtomsHold(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		rules := wideRules(rng, rng.IntN(30))
		want := 0
		for _, a := range cut(rules) {
			want += len(a.rules)
		}
		// Neighbours with the same rules are one atom and count once there, so
		// the weight may only be more.
		if got := weight(rules); got < want || got > 2*want {
			t.Fatalf("weight %d, the atoms hold %d", got, want)
		}
	}
}

func TestPoliciesOfSinglePortsAreOneLayer(t *testing.T) {
	var rules []keyedRule
	for i := range 10000 {
		rules = append(rules, keyedRule{tcpRule(fmt.Sprint(i), 0, 0), []span{{uint16(i), uint16(i)}}})
	}
	if n := len(layers(rules)); n != 1 {
		t.Errorf("%d layers", n)
	}
}
