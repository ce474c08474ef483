package compile

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// tcpRule returns an ingress rule of group web.
func tcpRule(id string, first, last uint16, peers ...string) *policies.Rule {
	return &policies.Rule{
		Group: "web", Direction: flow.Ingress, ID: id, Protocol: flow.TCP,
		Ports: []flow.PortRange{{First: first, Last: last}}, Prefixes: prefixes(peers...),
	}
}

// webPolicy attaches group web with these rules to eth0.
func webPolicy(rules ...*policies.Rule) *policies.Policy {
	slices.SortFunc(rules, func(a, b *policies.Rule) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.ID, b.ID))
	})
	return &policies.Policy{
		Groups:     []*policies.Group{{Name: "web", Rules: rules}},
		Interfaces: []*policies.Interface{{Name: "eth0", Groups: []string{"web"}}},
	}
}

func text(t *testing.T, table *ruleset.Table) string {
	t.Helper()
	var b bytes.Buffer
	if err := table.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// chain returns the rules of a chain as text, or fails.
func chain(t *testing.T, table *ruleset.Table, name string) []string {
	t.Helper()
	for _, c := range table.Chains {
		if c.Name == name {
			var out []string
			for _, r := range c.Rules {
				out = append(out, r.Text())
			}
			return out
		}
	}
	t.Fatalf("no chain %s", name)
	return nil
}

func set(t *testing.T, table *ruleset.Table, name string) *ruleset.Set {
	t.Helper()
	for _, s := range table.Sets {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no set %s", name)
	return nil
}

func elements(s *ruleset.Set) []string {
	var out []string
	for _, e := range s.Elements {
		out = append(out, s.ElementText(e))
	}
	return out
}

func TestEveryPortHasItsLeafChain(t *testing.T) {
	table := Compile(webPolicy(tcpRule("http", 80, 80, "0.0.0.0/0"), tcpRule("ssh", 22, 22, "203.0.113.1/32")), Environment{})
	got := elements(set(t, table, "web.ingress.tcp4.ports"))
	want := []string{"22 : jump web.ingress.tcp4.ssh", "80 : jump web.ingress.tcp4.http"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := chain(t, table, "web.ingress.tcp4.http"), []string{`counter accept comment "security_group.web.ingress.http"`}; !slices.Equal(got, want) {
		t.Errorf("a port that is open to anybody: got %q, want %q", got, want)
	}
}

func TestPiecesWithTheSameRulesShareAChain(t *testing.T) {
	r := tcpRule("many", 80, 80, "10.0.0.0/8")
	r.Ports = append(r.Ports, flow.PortRange{First: 8000, Last: 8099})
	table := Compile(webPolicy(r, tcpRule("hole", 8050, 8050, "11.0.0.0/8")), Environment{})
	got := elements(set(t, table, "web.ingress.tcp4.ports"))
	want := []string{
		"80 : jump web.ingress.tcp4.many",
		"8000-8049 : jump web.ingress.tcp4.many",
		"8050 : jump web.ingress.tcp4.hole/many",
		"8051-8099 : jump web.ingress.tcp4.many",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRulesForAllPortsStandBehindTheMap(t *testing.T) {
	table := Compile(webPolicy(tcpRule("all", 0, 65535, "10.0.0.0/8"), tcpRule("ssh", 22, 22, "203.0.113.1/32")), Environment{})
	got := chain(t, table, "web.ingress.tcp4")
	want := []string{
		`th dport vmap @web.ingress.tcp4.ports comment "rules by ports"`,
		`ip saddr 10.0.0.0/8 counter accept comment "security_group.web.ingress.all"`,
		`drop comment "no rule allows it"`,
	}
	if !slices.Equal(got[len(got)-3:], want) {
		t.Errorf("the chain ends in %q, want %q", got[len(got)-3:], want)
	}
	if leaf := chain(t, table, "web.ingress.tcp4.ssh"); len(leaf) != 1 {
		t.Errorf("the leaf chain is %q", leaf)
	}
}

// An edit of a rule's CIDRs must be the smallest change, whatever the form in
// which the chain holds them.
func TestAnEditOfCIDRsKeepsEveryName(t *testing.T) {
	many := func(n int) []string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf("10.%d.%d.0/24", i/128, i%128*2))
		}
		return out
	}
	for _, n := range []int{2, maxInline + 2} {
		before := Compile(webPolicy(tcpRule("ssh", 22, 22, many(n)...)), Environment{})
		after := Compile(webPolicy(tcpRule("ssh", 22, 22, many(n + 1)[1:]...)), Environment{})
		if b, a := names(before), names(after); !slices.Equal(b, a) {
			t.Errorf("%d CIDRs: names were %q and are %q", n, b, a)
		}
	}
}

func names(t *ruleset.Table) []string {
	var out []string
	for _, c := range t.Chains {
		out = append(out, "chain "+c.Name)
	}
	for _, s := range t.Sets {
		out = append(out, "set "+s.Name)
	}
	return out
}

func TestNoSetIsEmptyButThoseThatFillLater(t *testing.T) {
	for _, s := range Compile(webPolicy(tcpRule("ssh", 22, 22, "203.0.113.1/32")), Environment{}).Sets {
		if len(s.Elements) == 0 && !s.Dynamic && !s.Timed {
			t.Errorf("set %s is empty", s.Name)
		}
	}
}

func TestNoChainGrowsWithThePolicy(t *testing.T) {
	var rules []*policies.Rule
	for i := range 3000 {
		// All on one port, all with CIDRs of their own, every tenth with many.
		r := tcpRule(fmt.Sprintf("r%d", i), 443, 443, fmt.Sprintf("10.%d.%d.0/25", i/256, i%256))
		if i%10 == 0 {
			for j := range 64 {
				r.Prefixes = append(r.Prefixes, netip.MustParsePrefix(fmt.Sprintf("11.%d.%d.0/24", i/10%256, j*2)))
			}
		}
		rules = append(rules, r)
	}
	const limit = maxInline + maxSets + 3
	for _, c := range Compile(webPolicy(rules...), Environment{}).Chains {
		if len(c.Rules) > limit {
			t.Errorf("chain %s has %d rules, more than %d", c.Name, len(c.Rules), limit)
		}
	}
}

func TestInterfacesWithTheSameGroupsShareChains(t *testing.T) {
	p := webPolicy(tcpRule("ssh", 22, 22, "203.0.113.1/32"))
	one := len(Compile(p, Environment{}).Chains)
	p.Interfaces = append(p.Interfaces, &policies.Interface{Name: "eth1", Groups: []string{"web"}})
	if two := len(Compile(p, Environment{}).Chains); two != one {
		t.Errorf("a second interface made %d chains of %d", two, one)
	}
}

func TestTheLongestWildcardComesFirst(t *testing.T) {
	p := webPolicy()
	p.Interfaces = []*policies.Interface{{Name: "*"}, {Name: "e*"}, {Name: "eth*", Groups: []string{"web"}}, {Name: "wan*"}}
	got := chain(t, Compile(p, Environment{}), "prerouting")
	want := []string{
		`iifname vmap @interfaces.ingress comment "by interface"`,
		`iifname "eth*" jump web.ingress comment "interface.eth*"`,
		`iifname "wan*" jump _none.ingress comment "interface.wan*"`,
		`iifname "e*" jump _none.ingress comment "interface.e*"`,
		`jump _none.ingress comment "interface.*"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestOpenFlows(t *testing.T) {
	open := func(extra ...*policies.Rule) *policies.Policy {
		return webPolicy(append(extra, &policies.Rule{Group: "web", Direction: flow.Egress, ID: "any", AllProtocols: true, Prefixes: prefixes("0.0.0.0/0")})...)
	}
	has := func(p *policies.Policy, env Environment) bool {
		return strings.Contains(text(t, Compile(p, env)), "notrack")
	}
	http := tcpRule("http", 80, 80, "0.0.0.0/0")
	halves := tcpRule("halves", 80, 80, "0.0.0.0/1", "128.0.0.0/1")
	off := open(http)
	off.Interfaces[0].NotrackOff = true
	for _, c := range []struct {
		name string
		p    *policies.Policy
		env  Environment
		want bool
	}{
		{"anybody in, anything out", open(http), Environment{}, true},
		{"anybody in, nothing out", webPolicy(http), Environment{}, false},
		{"two halves of the address space are not the any-address", open(halves), Environment{}, false},
		{"notrack is off", off, Environment{}, false},
		{"another table needs conntrack for IPv4", open(http), Environment{Conntrack: map[flow.Family]string{flow.IPv4: "NAT"}}, false},
		{"another table needs conntrack for IPv6", open(http), Environment{Conntrack: map[flow.Family]string{flow.IPv6: "NAT"}}, true},
	} {
		if got := has(c.p, c.env); got != c.want {
			t.Errorf("%s: notrack is %v, want %v", c.name, got, c.want)
		}
	}
}

func TestCompileIsDeterministic(t *testing.T) {
	var rules []*policies.Rule
	for i := range 200 {
		rules = append(rules, tcpRule(fmt.Sprintf("r%d", i), uint16(i), uint16(i*3), fmt.Sprintf("10.0.%d.0/24", i)))
	}
	first := text(t, Compile(webPolicy(rules...), Environment{}))
	for range 5 {
		if again := text(t, Compile(webPolicy(rules...), Environment{})); again != first {
			t.Fatal("two runs differ")
		}
	}
}

// Every key must be in an atom with exactly the rules that cover it.
func TestCutAgreesWithTheRules(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		var rules []keyedRule
		for i := range rng.IntN(8) {
			k := keyedRule{rule: tcpRule(fmt.Sprintf("r%d", i), 0, 0)}
			at := 0
			for range 1 + rng.IntN(3) {
				first := at + rng.IntN(60)
				last := first + rng.IntN(60)
				if rng.IntN(8) == 0 {
					last = 255
				}
				if first > last || last > 255 {
					break
				}
				k.spans = append(k.spans, span{uint16(first), uint16(last)})
				at = last + 1 // the next may touch this one
			}
			rules = append(rules, k)
		}
		atoms := cut(rules)
		for key := range uint16(256) {
			var want, got []string
			for _, r := range rules {
				if slices.ContainsFunc(r.spans, func(s span) bool { return s.first <= key && key <= s.last }) {
					want = append(want, r.rule.ID)
				}
			}
			for _, a := range atoms {
				if a.first <= key && key <= a.last {
					for _, r := range a.rules {
						got = append(got, r.ID)
					}
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("key %d is in an atom of %v, and rules %v cover it", key, got, want)
			}
		}
	}
}

func TestNamesStayDifferent(t *testing.T) {
	long := strings.Repeat("x", 250)
	seen := map[string]string{}
	for _, list := range [][]string{{"a"}, {"a", "b"}, {"ab"}, {"a-b"}, {"a_b"}, {long}, {long + "y"}, {long, "a"}, {long, "b"}} {
		name := join(list)
		if other, ok := seen[name]; ok {
			t.Errorf("%q and %q are both called %s", list, other, name)
		}
		seen[name] = strings.Join(list, " ")
		if len(name) > maxName {
			t.Errorf("the name of %q has %d bytes", list, len(name))
		}
	}
}

func TestNamesFitTheKernel(t *testing.T) {
	long := strings.Repeat("g", 255)
	r := tcpRule(strings.Repeat("r", 255), 22, 22, "203.0.113.1/32")
	r.Group = long
	r.Groups = []string{long}
	for i := range 64 {
		r.Prefixes = append(r.Prefixes, netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i*2)))
	}
	p := &policies.Policy{
		Groups:     []*policies.Group{{Name: long, Members: prefixes("192.0.2.1/32"), Rules: []*policies.Rule{r}}},
		Interfaces: []*policies.Interface{{Name: "eth0", Groups: []string{long}}},
	}
	table := Compile(p, Environment{})
	for _, c := range table.Chains {
		if len(c.Name) > 255 || len(c.Comment) > maxComment {
			t.Errorf("chain %s or its comment is too long", c.Name)
		}
		for _, r := range c.Rules {
			if len(r.Comment) > maxComment {
				t.Errorf("chain %s: the comment %q is too long", c.Name, r.Comment)
			}
		}
	}
	for _, s := range table.Sets {
		if len(s.Name) > 255 || len(s.Comment) > maxComment {
			t.Errorf("set %s or its comment is too long", s.Name)
		}
	}
}
