package policies_test

import (
	"slices"
	"testing"
	"time"

	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/policies"
)

// ByGroups is Standing with words, and Allowing names its rule, and every other
// one that would do in its place.
func TestByGroupsAndAllowingAgreeWithStanding(t *testing.T) {
	several, denied := 0, 0
	for seed := range uint64(100) {
		r := corpus.Seeded(seed)
		p := corpus.Policy(r, corpus.Options{ACLs: seed%2 == 0, AlwaysTrack: true})
		j := policies.NewJudge(p)
		only := map[*policies.Rule]*policies.Judge{}
		for _, g := range p.Groups {
			for _, rule := range g.Rules {
				q := *p
				q.Groups = nil
				for _, other := range p.Groups {
					bare := *other
					bare.Rules = nil
					if other == g {
						bare.Rules = []*policies.Rule{rule}
					}
					q.Groups = append(q.Groups, &bare)
				}
				only[rule] = policies.NewJudge(&q)
			}
		}
		packets := corpus.NewPackets(r, p)
		for range 100 {
			packet := packets.Next()
			packet.State = flow.New
			if packet.Protocol == flow.TCP {
				packet.TCPFlags = flow.SYN
			}
			s, d := j.Standing(&packet), j.ByGroups(&packet)
			if d.Class != s.Class || d.Rule != s.Rule || d.Reason == "" {
				t.Fatalf("seed %d, %v: %+v, but its standing is %+v\n%s", seed, &packet, d, s, corpus.HCL(p))
			}
			if s.Denied {
				denied++
			}
			if s.Class == policies.Exempt {
				continue // no rule is asked
			}
			allowing := j.Allowing(&packet)
			if s.Rule != nil && !slices.Contains(allowing, s.Rule) {
				t.Fatalf("seed %d, %v: %s is not among the rules that allow it\n%s", seed, &packet, s.Rule.Address(), corpus.HCL(p))
			}
			for rule, judge := range only {
				alone := judge.Standing(&packet).Rule != nil
				if got := slices.Contains(allowing, rule); got != alone {
					t.Fatalf("seed %d, %v: allowed by %s: %t, but %t by it alone\n%s", seed, &packet, rule.Address(), got, alone, corpus.HCL(p))
				}
			}
			if len(allowing) > 1 {
				several++
			}
			for i := 1; i < len(allowing); i++ {
				if allowing[i-1].Address() >= allowing[i].Address() {
					t.Fatalf("seed %d: %s comes before %s", seed, allowing[i-1].Address(), allowing[i].Address())
				}
			}
		}
	}
	if several < 50 || denied < 50 {
		t.Errorf("several rules allowed only %d packets, ACLs denied only %d", several, denied)
	}
}

func TestAllowedNamesPastRules(t *testing.T) {
	everybody := rule(flow.Ingress, "web", flow.TCP, ports(port(80)), "0.0.0.0/0")
	old := policyOn(blocks(block("eth*", "a", "b"), block("eth9")),
		group("a", ssh("203.0.113.0/24"), everybody), group("b", ssh("203.0.113.1"), everything(flow.Egress, "any", "0.0.0.0/0")))
	now := policyOn(blocks(block("eth*", "a"), block("eth9")), group("a", ssh("203.0.113.128/25")))
	var none *policies.Past
	j := policies.NewPastJudge(throughJSON(t, none.Add(old, now, time.Time{})), nil, now)
	for _, tc := range []struct {
		name   string
		packet flow.Packet
		groups []string
	}{
		{"a rule that is gone", in(flow.TCP, "198.51.100.7", 1, 80), []string{"a"}},
		{"one that is narrowed, and one of a group that is deleted", session("eth0", "203.0.113.1"), []string{"a", "b"}},
		{"one that is narrowed", session("eth1", "203.0.113.2"), []string{"a"}},
		{"what it still allows is not past", session("eth0", "203.0.113.200"), nil},
		{"what was never allowed", session("eth0", "198.51.100.7"), nil},
		{"another interface", session("eth9", "203.0.113.1"), nil},
		{"the other direction", out(flow.UDP, "198.51.100.7", 53, 40000), []string{"b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, r := range j.Allowed(&tc.packet) {
				got = append(got, r.Group)
			}
			if !slices.Equal(got, tc.groups) {
				t.Errorf("groups %v, want %v", got, tc.groups)
			}
		})
	}
	if got := policies.NewPastJudge(nil, nil, now).Allowed(&flow.Packet{}); got != nil {
		t.Errorf("without a past: %v", got)
	}
	for packet, want := range map[string]policies.Columns{
		"ssh": {Direction: "ingress", Protocol: "tcp", Ports: "22"}, "any": {Direction: "egress", Protocol: "all"},
	} {
		p := session("eth1", "203.0.113.2")
		if packet == "any" {
			p = out(flow.UDP, "198.51.100.7", 53, 40000)
		}
		if got := j.Allowed(&p)[0].Columns(); got.Direction != want.Direction || got.Protocol != want.Protocol || got.Ports != want.Ports {
			t.Errorf("%s: %+v, want %+v", packet, got, want)
		}
	}
}

// Only deleted groups have allowed what past rules of theirs allowed, and no other.
func TestAllowedAgreesWithOnlyDeleted(t *testing.T) {
	several := 0
	for seed := range uint64(100) {
		r := corpus.Seeded(seed)
		old, new := corpus.Policy(r, corpus.Options{}), corpus.Policy(r, corpus.Options{})
		new.Groups = slices.DeleteFunc(new.Groups, func(*policies.Group) bool { return r.IntN(3) == 0 })
		var none *policies.Past
		j := policies.NewPastJudge(none.Add(old, new, time.Time{}), nil, new)
		packets := corpus.NewPackets(r, old)
		for range 200 {
			p := packets.Next()
			rules := j.Allowed(&p)
			want := len(rules) > 0
			for _, r := range rules {
				want = want && new.Group(r.Group) == nil
			}
			if len(rules) > 1 {
				several++
			}
			if got := j.OnlyDeleted(&p); got != want {
				t.Fatalf("seed %d, %v: only deleted groups: %t, but %d past rules allowed it", seed, &p, got, len(rules))
			}
		}
	}
	if several < 50 {
		t.Errorf("only %d packets with several past rules", several)
	}
}
