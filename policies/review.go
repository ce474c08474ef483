package policies

import (
	"fmt"
	"net/netip"
	"slices"

	"sgc/internal/flow"

	"github.com/hashicorp/hcl/v2"
)

// The cloud's quotas. They are no limits here, but a policy that keeps to them
// can be carried back.
const (
	quotaRules  = 60
	quotaGroups = 5
)

// review warns of what is allowed but probably not meant. It looks at the
// whole policy.
func (l *loader) review(p *Policy) {
	headers := map[string]hcl.Range{}
	for _, kind := range []string{"security_group", "network_acl", "interface"} {
		for _, b := range l.blocks[kind] {
			headers[kind+"."+b.name] = b.header
		}
	}
	attached, referenced := map[string]bool{}, map[string]bool{}
	acls := map[string]bool{}
	for _, i := range p.Interfaces {
		acls[i.ACL] = true
		for _, g := range i.Groups {
			attached[g] = true
		}
		if n := len(i.Groups); n > quotaGroups {
			l.warnAt(headers[i.Address()], "More groups than the cloud allows",
				fmt.Sprintf("%s has %d security groups; the cloud's quota is %d for an interface. That is no limit here.", i.Name, n, quotaGroups))
		}
	}
	for _, a := range p.ACLs {
		if !acls[a.Name] {
			l.warnAt(headers[a.Address()], "ACL attached nowhere", fmt.Sprintf(
				"No interface has the network ACL %q, so its entries do nothing. Attach it: network_acl = network_acl.%s in an interface block.", a.Name, a.Name))
		}
	}
	peers := map[string]bool{}
	for _, g := range p.Groups {
		for _, r := range g.Rules {
			for _, name := range r.Groups {
				peers[name] = true
				if name != g.Name {
					referenced[name] = true
				}
			}
		}
	}
	lists := map[string]*PrefixList{}
	for _, list := range p.Lists {
		lists[list.Name] = list
	}
	for _, g := range p.Groups {
		// A group that only gives its members a name is whole without rules.
		named := len(g.Rules) == 0 && referenced[g.Name]
		at := headers[g.Address()]
		if !attached[g.Name] && !named {
			l.warnAt(at, "Group attached nowhere", fmt.Sprintf(
				"No interface has the group %q, so its rules do nothing. Attach it: security_groups = [security_group.%s] in an interface block.", g.Name, g.Name))
		}
		if !named && !slices.ContainsFunc(g.Rules, func(r *Rule) bool { return r.Direction == flow.Egress }) {
			l.warnAt(at, "Group without egress rules", fmt.Sprintf(
				"Group %q has no egress rules, so it lets nothing new out. The cloud console adds a rule that lets everything out; here, as in Terraform, it has to be written.", g.Name))
		}
		if peers[g.Name] && len(g.Members) == 0 {
			l.warnAt(at, "Group without members", fmt.Sprintf(
				"Rules refer to group %q, but it has no members, so they match nobody. A host cannot know the members of a group by itself: write members = [\"192.0.2.10\", …].", g.Name))
		}
		l.reviewQuota(g, lists, at)
	}
}

// reviewQuota counts the rules of a group as the cloud shows them: one for each
// range of ports and each peer. A prefix list is one in each family that it
// holds, however long it is, and a group is one in both.
func (l *loader) reviewQuota(g *Group, lists map[string]*PrefixList, at hcl.Range) {
	var counts [len(flow.Directions)]map[flow.Family]int
	for i := range counts {
		counts[i] = map[flow.Family]int{}
	}
	for _, r := range g.Rules {
		n := max(1, len(r.Ports))
		for _, p := range r.Prefixes {
			counts[r.Direction][flow.FamilyOf(p.Addr())] += n
		}
		for _, name := range r.Lists {
			for _, f := range flow.Families {
				if list := lists[name]; list != nil && slices.ContainsFunc(list.Entries, func(p netip.Prefix) bool { return flow.FamilyOf(p.Addr()) == f }) {
					counts[r.Direction][f] += n
				}
			}
		}
		for _, f := range flow.Families {
			counts[r.Direction][f] += n * len(r.Groups)
		}
	}
	for _, direction := range flow.Directions {
		for _, f := range flow.Families {
			if n := counts[direction][f]; n > quotaRules {
				l.warnAt(at, "More rules than the cloud allows", fmt.Sprintf(
					"Group %q has %d %s rules for %s, as the cloud shows them; its quota is %d. That is no limit here.", g.Name, n, direction, f, quotaRules))
			}
		}
	}
}
