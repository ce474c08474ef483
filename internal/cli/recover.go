package cli

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"sgc/apply"
	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// recovered is the group of a policy that recoverOpen makes; no policy can
// have one of that name.
const recovered = "(recovered)"

// wildcardRule is how the table sends interfaces whose names begin alike to their
// chain; the block "*" has no name in its rule.
var wildcardRule = regexp.MustCompile(`^(?:iifname "([^"]*)\*" )?jump (\S+)\.ingress\b`)

// recoverOpen returns what the kernel's own table says of the flows that it
// leaves open, for when nobody has a record of the policy that it stands for: a
// policy in which just those are open, and nothing else is known. It says
// nothing of flows that are tracked.
func recoverOpen(t *apply.Table) *enforced {
	e := &enforced{Policy: &policies.Policy{}, Conntrack: map[flow.Family]string{}}
	for name, profile := range profilesOf(t) {
		scope, _, _ := strings.Cut(profile, ".")
		i := &policies.Interface{Name: name, NotrackOff: strings.HasPrefix(strings.TrimPrefix(profile, scope), ".tracked")}
		g := &policies.Group{Name: scope + recovered}
		for _, f := range flow.Families {
			i.AlwaysTrack = append(i.AlwaysTrack, recoverAlwaysTrack(t, profile, f)...)
			for _, proto := range []flow.Protocol{flow.TCP, flow.UDP} {
				rules := recoverRules(t, scope, f, proto)
				if len(rules) > 0 && !i.NotrackOff && t.Chain(profile+".raw.ingress."+protocolName(proto, f)) == nil {
					e.Conntrack[f] = "the table in the kernel does not take open flows out of conntrack"
				}
				g.Rules = append(g.Rules, rules...)
			}
		}
		for _, r := range g.Rules {
			r.Group = g.Name
		}
		if e.Policy.Group(g.Name) == nil {
			e.Policy.Groups = append(e.Policy.Groups, g)
		}
		i.Groups = []string{g.Name}
		e.Policy.Interfaces = append(e.Policy.Interfaces, i)
	}
	slices.SortFunc(e.Policy.Groups, func(a, b *policies.Group) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(e.Policy.Interfaces, func(a, b *policies.Interface) int { return strings.Compare(a.Name, b.Name) })
	return e
}

// profilesOf returns for the name of every interface block what the names of
// its chains begin with.
func profilesOf(t *apply.Table) map[string]string {
	profiles := map[string]string{}
	if byName := t.Set("interfaces.ingress"); byName != nil {
		for element := range byName.Elements() {
			if v := element.Verdict; v != nil && v.Kind == ruleset.Jump {
				profiles[strings.TrimRight(element.First, "\x00")] = strings.TrimSuffix(v.Chain, ".ingress")
			}
		}
	}
	if base := t.Chain("prerouting"); base != nil {
		for _, r := range base.Rules {
			if m := wildcardRule.FindStringSubmatch(r.Text()); m != nil {
				profiles[m[1]+"*"] = m[2]
			}
		}
	}
	return profiles
}

// recoverRules returns the rules that leave open what the sets of open ports
// hold.
func recoverRules(t *apply.Table, scope string, f flow.Family, proto flow.Protocol) []*policies.Rule {
	var rules []*policies.Rule
	for _, d := range flow.Directions {
		set := t.Set(scope + ".open." + d.String() + "." + protocolName(proto, f))
		if set == nil {
			// The same ports, for the packets that errors quote.
			set = t.Set(scope + ".open." + d.String() + "." + protocolName(proto, f) + ".quoted")
		}
		if set == nil {
			continue
		}
		rule := func(d flow.Direction, id string, ports ...flow.PortRange) *policies.Rule {
			return &policies.Rule{
				Direction: d, ID: protocolName(proto, f) + "." + id, Protocol: proto,
				Ports: ports, Prefixes: []netip.Prefix{f.Any()},
			}
		}
		open := rule(d, "open")
		for element := range set.Elements() {
			open.Ports = append(open.Ports, flow.PortRange{First: portOf(element.First), Last: portOf(element.Last)})
		}
		if len(open.Ports) > 0 {
			rules = append(rules, open, rule(d.Opposite(), "returning", flow.PortRange{First: 0, Last: 65535}))
		}
	}
	return rules
}

func portOf(key string) uint16 { return uint16(key[0])<<8 | uint16(key[1]) }

// protocolName is how the compiler names a protocol of a family.
func protocolName(p flow.Protocol, f flow.Family) string {
	if f == flow.IPv4 {
		return p.Name(f) + "4"
	}
	return p.Name(f) + "6"
}

func recoverAlwaysTrack(t *apply.Table, profile string, f flow.Family) []*policies.AlwaysTrack {
	suffix := ".always_track.ipv4"
	if f == flow.IPv6 {
		suffix = ".always_track.ipv6"
	}
	set := t.Set(profile + suffix)
	if set == nil {
		return nil
	}
	block := &policies.AlwaysTrack{ID: f.String() + recovered}
	for element := range set.Elements() {
		first, _ := netip.AddrFromSlice([]byte(element.First))
		last, _ := netip.AddrFromSlice([]byte(element.Last))
		block.Prefixes = append(block.Prefixes, flow.Range{First: first, Last: last}.Prefixes()...)
	}
	return []*policies.AlwaysTrack{block}
}
