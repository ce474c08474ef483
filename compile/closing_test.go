package compile_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sgc/compile"
	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/internal/nftvm"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// TestClosingCutsWhatWasOpenAndIsNotAllowed holds the rules that cut against
// the meaning of both policies, on packets of flows that conntrack knows, and
// everything else against the table without them. SGC_CLOSING_PACKETS and
// SGC_CLOSING_SEED are as in the test of agreement.
func TestClosingCutsWhatWasOpenAndIsNotAllowed(t *testing.T) {
	packets := envNumber(t, "SGC_CLOSING_PACKETS", 160_000)
	first := envNumber(t, "SGC_CLOSING_SEED", 1)
	seen := map[string]int{}
	for n := range uint64(max(1, packets/packetsPerPolicy)) {
		seed := uint64(first) + n
		if err := closes(corpus.Seeded(seed), packetsPerPolicy, seen); err != nil {
			t.Fatalf("SGC_CLOSING_SEED=%d SGC_CLOSING_PACKETS=%d\n%v", seed, packetsPerPolicy, err)
		}
	}
	for _, kind := range []string{
		"cut", "was open, goes on", "logged", "a list is shared", "nothing closes",
		"cut tcp IPv4 opened ingress, packet ingress", "cut tcp IPv4 opened ingress, packet egress",
		"cut tcp IPv4 opened egress, packet ingress", "cut tcp IPv4 opened egress, packet egress",
		"cut tcp IPv6 opened ingress, packet ingress", "cut tcp IPv6 opened ingress, packet egress",
		"cut tcp IPv6 opened egress, packet ingress", "cut tcp IPv6 opened egress, packet egress",
		"cut udp IPv4 opened ingress, packet ingress", "cut udp IPv6 opened egress, packet egress",
	} {
		if seen[kind] == 0 {
			t.Errorf("nothing was %s", kind)
		}
	}
	t.Logf("%d packets: %v", packets, seen)
}

// closes makes a policy, its successor and packets, and returns the first
// disagreement.
func closes(r *rand.Rand, packets int, seen map[string]int) error {
	options := corpus.Options{ACLs: r.IntN(3) == 0, AlwaysTrack: r.IntN(2) == 0, Logs: r.IntN(3) == 0}
	old := corpus.Policy(r, options)
	next := successor(r, old, options)
	peace, cutting := compile.Compile(next, compile.Environment{}), compile.Compile(next, compile.Environment{Closing: old})
	about := func(err error) error {
		return fmt.Errorf("%w\nold policy:\n%s\nnew policy:\n%s", err, corpus.HCL(old), corpus.HCL(next))
	}
	if err := onlyAdds(peace, cutting, compile.Closes(old, next), seen); err != nil {
		return about(err)
	}
	if !compile.Closes(old, next) {
		seen["nothing closes"]++
	}
	vms := [2]*nftvm.VM{}
	for i, table := range []*ruleset.Table{peace, cutting} {
		vm, err := nftvm.New(table)
		if err != nil {
			return about(err)
		}
		vms[i] = vm
	}
	before, after := policies.NewJudge(old), policies.NewJudge(next)
	makes := [2]*corpus.Packets{corpus.NewPackets(r, old), corpus.NewPackets(r, next)}
	for range packets {
		p := makes[r.IntN(2)].Next()
		if r.IntN(4) > 0 {
			p.State = flow.Established
		}
		p.IsReply = p.State == flow.Established && r.IntN(2) == 0
		var results [2]nftvm.Result
		for i, vm := range vms {
			result, err := vm.Run(&p)
			if err != nil {
				return about(err)
			}
			results[i] = result
		}
		want := results[0]
		opener := openerOf(&p)
		if wantsCut(before, after, &p, &opener) && want.Accept {
			want.Accept = false
			if i := after.Interface(p.Interface); i.Log != nil {
				want.Logged = []string{compile.LogPrefix(i.Name, p.Direction, "groups")}
				seen["logged"]++
			}
			seen["cut"]++
			seen[fmt.Sprintf("cut %s %s opened %s, packet %s", p.Protocol, p.Family(), opener.Direction, p.Direction)]++
		} else if p.State == flow.Established && want.Accept && before.Open(&opener) {
			seen["was open, goes on"]++
		}
		if got := results[1]; !reflect.DeepEqual(got, want) {
			trace, _ := vms[1].Trace(&p)
			return about(fmt.Errorf("%s, opened by %s: got %+v, want %+v\nopen before: %t, class now: %s\ntrace:\n  %s", &p, &opener, got, want,
				before.Open(&opener), after.Standing(&opener).Class, strings.Join(trace.Trace, "\n  ")))
		}
	}
	return nil
}

// openerOf returns the packet that opened the flow of an established one.
func openerOf(p *flow.Packet) flow.Packet {
	opener := *p
	if p.IsReply {
		opener = p.Reply()
	}
	opener.State, opener.IsReply = flow.New, false
	return opener
}

// wantsCut says which packets a commit cuts (2.4).
func wantsCut(before, after *policies.Judge, p, opener *flow.Packet) bool {
	return p.State == flow.Established && before.Open(opener) && after.Standing(opener).Class == policies.None
}

// onlyAdds: what is there to cut is marked as temporary, and taking it away
// leaves the table as it is in peace. Nothing of it counts for a rule.
func onlyAdds(peace, cutting *ruleset.Table, closes bool, seen map[string]int) error {
	if differs := !reflect.DeepEqual(peace, cutting); differs != closes {
		return fmt.Errorf("Closes says %t, the tables differ: %t", closes, differs)
	}
	rest := *cutting
	rest.Sets = slices.DeleteFunc(slices.Clone(cutting.Sets), func(s *ruleset.Set) bool { return compile.IsTemporary(s.Name) })
	rest.Chains = nil
	for _, c := range cutting.Chains {
		if compile.IsTemporary(c.Name) {
			for _, r := range c.Rules {
				if r.From != nil || slices.Contains(r.Statements, ruleset.Statement(ruleset.Counter{})) {
					return fmt.Errorf("chain %s counts: %s", c.Name, r.Text())
				}
				for _, s := range r.Statements {
					if l, ok := s.(ruleset.Lookup); ok && strings.HasPrefix(l.Set, "prefix_list") {
						seen["a list is shared"]++
					}
				}
			}
			continue
		}
		base := *c
		base.Rules = slices.DeleteFunc(slices.Clone(c.Rules), func(r ruleset.Rule) bool {
			v, ok := r.Statements[len(r.Statements)-1].(ruleset.Verdict)
			return ok && compile.IsTemporary(v.Chain)
		})
		if n := len(c.Rules) - len(base.Rules); n > 0 && (n > 1 || c.Hook == nil || !reflect.DeepEqual(c.Rules[1:], base.Rules)) {
			return fmt.Errorf("chain %s leads to temporary ones by other than its first rule", c.Name)
		}
		rest.Chains = append(rest.Chains, &base)
	}
	if !reflect.DeepEqual(&rest, peace) {
		return fmt.Errorf("lifting what is temporary does not lead back to the table of peace")
	}
	return nil
}

// successor makes a policy that follows: one that has little to do with the old
// one, or the old one with something taken away, narrowed or put elsewhere.
func successor(r *rand.Rand, old *policies.Policy, options corpus.Options) *policies.Policy {
	if r.IntN(4) == 0 {
		return corpus.Policy(r, options)
	}
	p := *old
	p.Groups, p.Interfaces = nil, nil
	for _, g := range old.Groups {
		group := *g
		group.Rules = nil
		for _, rule := range g.Rules {
			switch n := r.IntN(10); {
			case n < 2:
			case n < 4:
				narrow := *rule
				narrow.Prefixes = nil
				for _, prefix := range rule.Prefixes {
					bits := min(prefix.Bits()+r.IntN(3), prefix.Addr().BitLen())
					narrow.Prefixes = append(narrow.Prefixes, netip.PrefixFrom(prefix.Addr(), bits))
				}
				group.Rules = append(group.Rules, &narrow)
			case n < 5 && len(rule.Ports) > 0:
				narrow := *rule
				narrow.Ports = []flow.PortRange{{First: rule.Ports[0].First, Last: rule.Ports[0].First + (rule.Ports[0].Last-rule.Ports[0].First)/2}}
				group.Rules = append(group.Rules, &narrow)
			default:
				group.Rules = append(group.Rules, rule)
			}
		}
		p.Groups = append(p.Groups, &group)
	}
	names := map[string]bool{}
	for _, i := range old.Interfaces {
		block := *i
		if r.IntN(4) == 0 {
			block.Name = []string{"*", "e*", "eth*", "eth0", "eth1", "eth", "wg-0.1", "w*"}[r.IntN(8)]
		}
		if r.IntN(6) == 0 && len(block.Groups) > 0 {
			block.Groups = block.Groups[1:]
		}
		if r.IntN(6) == 0 {
			block.AlwaysTrack = nil
		}
		if !names[block.Name] && r.IntN(8) > 0 {
			names[block.Name] = true
			p.Interfaces = append(p.Interfaces, &block)
		}
	}
	slices.SortFunc(p.Interfaces, func(a, b *policies.Interface) int { return strings.Compare(a.Name, b.Name) })
	return &p
}
