package compile

import (
	"net/netip"
	"slices"
	"strings"

	"sgc/internal/flow"
	"sgc/policies"
)

// scope is a list of groups that are attached together. The maps and leaf
// chains of its rules serve every interface that has just these groups.
type scope struct {
	name   string
	groups []*policies.Group
}

// profile is everything that interfaces must have in common to share chains.
type profile struct {
	name  string
	scope *scope
	// notrackOff keeps open flows in conntrack.
	notrackOff bool
	// alwaysTrack are the peers whose flows are tracked whatever is open.
	alwaysTrack []netip.Prefix
	// timeouts are those of the interfaces, trackTimeouts those of the
	// always_track blocks.
	timeouts      policies.Timeouts
	trackTimeouts []trackTimeouts
}

// trackTimeouts are the timeouts of an always_track block's peers.
type trackTimeouts struct {
	prefixes []netip.Prefix
	timeouts policies.Timeouts
}

// noGroups names the scope of interfaces without groups; no group can be
// called so.
const noGroups = "_none"

// selectProfiles returns the profiles of the policy, sorted by name, and the
// profile of every interface block.
func (c *compiler) selectProfiles() ([]*profile, map[*policies.Interface]*profile) {
	scopes := map[string]*scope{}
	byName := map[string]*profile{}
	of := map[*policies.Interface]*profile{}
	for _, i := range c.policy.Interfaces {
		name := noGroups
		if len(i.Groups) > 0 {
			name = join(i.Groups)
		}
		s := scopes[name]
		if s == nil {
			s = &scope{name: name}
			for _, g := range i.Groups {
				s.groups = append(s.groups, c.groups[g])
			}
			scopes[name] = s
		}
		p := &profile{name: s.name, scope: s, notrackOff: i.NotrackOff, timeouts: i.EffectiveTimeouts()}
		if i.NotrackOff {
			p.name += ".tracked"
		}
		for _, a := range i.AlwaysTrack {
			p.alwaysTrack = append(p.alwaysTrack, a.Prefixes...)
			p.trackTimeouts = append(p.trackTimeouts, trackTimeouts{a.Prefixes, a.EffectiveTimeouts(i)})
		}
		if len(p.alwaysTrack) > 0 {
			// Its peers are the interface's own: so are the chains.
			p.name += ".if." + identifier(i.Name)
		} else if p.timeouts != c.hostTimeouts {
			p.name += "." + timeoutsName(p.timeouts)
		}
		p.name = shorten(p.name)
		if byName[p.name] == nil {
			byName[p.name] = p
		}
		of[i] = byName[p.name]
	}
	profiles := make([]*profile, 0, len(byName))
	for _, p := range byName {
		profiles = append(profiles, p)
	}
	slices.SortFunc(profiles, func(a, b *profile) int { return strings.Compare(a.name, b.name) })
	return profiles, of
}

// rules returns the scope's rules of one direction that can match a packet of
// the family and protocol.
func (c *compiler) rules(s *scope, d flow.Direction, f flow.Family, match func(*policies.Rule) bool) []*policies.Rule {
	var out []*policies.Rule
	for _, g := range s.groups {
		for _, r := range g.Rules {
			if r.Direction == d && match(r) && c.hasPeers(r, f) {
				out = append(out, r)
			}
		}
	}
	return out
}

// portRules returns the rules for a protocol with ports, each with its ports.
func (c *compiler) portRules(s *scope, d flow.Direction, f flow.Family, p flow.Protocol) []keyedRule {
	var out []keyedRule
	for _, r := range c.rules(s, d, f, func(r *policies.Rule) bool { return r.AllProtocols || r.Protocol == p }) {
		k := keyedRule{rule: r, spans: []span{{0, 65535}}}
		if !r.AllProtocols {
			k.spans = nil
			for _, ports := range r.Ports {
				k.spans = append(k.spans, span{ports.First, ports.Last})
			}
		}
		out = append(out, k)
	}
	return out
}

// isAny reports whether the rule names the literal any-address of the family
// among its own CIDRs. Lists and group references never do (2.3).
func isAny(r *policies.Rule, f flow.Family) bool { return slices.Contains(r.Prefixes, f.Any()) }
