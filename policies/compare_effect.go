package policies

import (
	"net/netip"
	"slices"
	"sort"

	"sgc/internal/flow"
)

// effects tells how the flows that a rule lets open are treated. It looks at
// the destination ports that the rule names, at the families that its peers
// are of, and at TCP and UDP alone if the rule is for all protocols.
type effects struct {
	rules map[*Rule]*judgedRule
	// attached are the interfaces that each group is attached to.
	attached map[string][]*attachment
	open     map[openKey][]flow.PortRange
}

type openKey struct {
	on        *attachment
	direction flow.Direction
	protocol  flow.Protocol
	family    flow.Family
}

func newEffects(p *Policy) *effects {
	e := &effects{rules: map[*Rule]*judgedRule{}, attached: map[string][]*attachment{}, open: map[openKey][]flow.PortRange{}}
	j := NewJudge(p)
	for _, rules := range j.rules {
		for _, r := range rules {
			e.rules[r.Rule] = r
		}
	}
	attachments := slices.Clone(j.wildcards)
	for _, a := range j.exact {
		attachments = append(attachments, a)
	}
	for _, a := range attachments {
		for _, name := range a.iface.Groups {
			e.attached[name] = append(e.attached[name], a)
		}
	}
	return e
}

// of returns "tracked", "untracked", or "mixed" where it depends on port,
// family, peer or interface; "" where the rule's group is attached nowhere.
func (e *effects) of(rule *Rule) string {
	r := e.rules[rule]
	var all tally
	for _, a := range e.attached[rule.Group] {
		all.add(e.on(a, r))
	}
	if len(e.attached[rule.Group]) == 0 {
		return ""
	}
	return all.String()
}

// tally counts what is tracked and what is not.
type tally struct{ tracked, untracked bool }

func (t *tally) add(u tally) {
	t.tracked = t.tracked || u.tracked
	t.untracked = t.untracked || u.untracked
}

func (t tally) String() string {
	switch {
	case t.tracked && t.untracked:
		return "mixed"
	case t.untracked:
		return Untracked.String()
	default:
		return Tracked.String()
	}
}

// on returns the rule's effect on one interface.
func (e *effects) on(a *attachment, r *judgedRule) tally {
	var all tally
	for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
		if !r.AllProtocols && r.Protocol != protocol {
			continue
		}
		for _, family := range flow.Families {
			if !r.hasPeers(family) {
				continue
			}
			ports := tallyPorts(r, e.openPorts(openKey{a, r.Direction, protocol, family}))
			if ports.untracked {
				// Of these, always_track takes some back.
				peers := a.tallyPeers(r, family)
				ports.tracked = ports.tracked || peers.tracked
				ports.untracked = peers.untracked
			}
			all.add(ports)
		}
	}
	return all
}

// openPorts returns the destination ports on which flows that open in one
// direction are untracked, sorted and disjoint.
func (e *effects) openPorts(k openKey) []flow.PortRange {
	if ports, ok := e.open[k]; ok {
		return ports
	}
	open := k.on.openPorts(k.direction, k.protocol, k.family)
	e.open[k] = open
	return open
}

// each calls visit with every rule, once or more.
func (x *ruleIndex) each(visit func(*judgedRule)) {
	for _, r := range x.everyProtocol {
		visit(r)
	}
	for _, rules := range x.byProtocol {
		for _, r := range rules {
			visit(r)
		}
	}
	for _, rules := range x.byPort {
		for _, r := range rules {
			visit(r)
		}
	}
}

// tallyPorts says which of the rule's ports are among the open ones.
func tallyPorts(r *judgedRule, open []flow.PortRange) tally {
	ports := r.Ports
	if r.AllProtocols {
		ports = []flow.PortRange{flow.AllPorts}
	}
	var t tally
	for _, x := range ports {
		covered := 0
		n := sort.Search(len(open), func(n int) bool { return open[n].Last >= x.First })
		for ; n < len(open) && open[n].First <= x.Last; n++ {
			covered += int(min(open[n].Last, x.Last)) - int(max(open[n].First, x.First)) + 1
		}
		t.add(tally{tracked: covered <= int(x.Last)-int(x.First), untracked: covered > 0})
	}
	return t
}

// hasPeers reports whether the rule names any address of the family.
func (r *judgedRule) hasPeers(f flow.Family) bool {
	return slices.ContainsFunc(r.peers, func(x *addressIndex) bool { return len(x.of(f)) > 0 })
}

// of returns the prefixes of one family.
func (x *addressIndex) of(f flow.Family) []netip.Prefix {
	n := sort.Search(len(x.prefixes), func(n int) bool { return x.prefixes[n].Addr().Is6() })
	if f == flow.IPv4 {
		return x.prefixes[:n]
	}
	return x.prefixes[n:]
}

// tallyPeers says which of the rule's peers always_track takes: those are
// tracked.
func (a *attachment) tallyPeers(r *judgedRule, f flow.Family) tally {
	var t tally
	for _, x := range r.peers {
		for _, p := range x.of(f) {
			inside, meets := false, false
			for _, block := range a.alwaysTrack {
				inside = inside || block.addresses.covers(p)
				meets = meets || block.addresses.meets(p)
			}
			t.add(tally{tracked: inside || meets, untracked: !inside})
			if t.tracked && t.untracked {
				return t
			}
		}
	}
	return t
}

// covers reports whether one prefix of the index holds all of p.
func (x *addressIndex) covers(p netip.Prefix) bool {
	for i := x.lastAtOrBefore(p.Addr()); i >= 0; i = x.parents[i] {
		if q := x.prefixes[i]; q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// meets reports whether any prefix of the index and p have an address in
// common.
func (x *addressIndex) meets(p netip.Prefix) bool {
	if x.contains(p.Addr()) {
		return true
	}
	// Else one may begin inside p: the first behind its first address would.
	next := x.lastAtOrBefore(p.Addr()) + 1
	return int(next) < len(x.prefixes) && p.Contains(x.prefixes[next].Addr())
}
