package policies

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"sgc/internal/flow"
)

// Judge answers for one policy what it means for a packet. It indexes the
// policy once, so that a packet costs a few look-ups however long the address
// lists are. A Judge is read-only: any number of goroutines may ask it.
type Judge struct {
	exact     map[string]*attachment
	wildcards []*attachment // longest name first
	host      hostExemptions
	// rules are those of each group, attached or not.
	rules map[string][]*judgedRule
	// refusals is what nothing allows; it remembers what it was asked.
	refusals func() *refusals
}

// attachment is what one interface block attaches: its groups' rules, its ACL
// and its always_track blocks.
type attachment struct {
	iface *Interface
	// rules holds the rules of all attached groups, by direction.
	rules [2]ruleIndex
	// anyRules holds those of them that name the literal any-address, by
	// direction; wholeRules those of these that also name all ports.
	anyRules, wholeRules [2]ruleIndex
	acl                  *ACL
	alwaysTrack          []trackedPeers
	icmpErrorsByRules    bool
}

// trackedPeers is an always_track block.
type trackedPeers struct {
	block     *AlwaysTrack
	addresses *addressIndex
}

// NewJudge indexes p, which must be resolved and valid, as Load returns it.
// Names that p does not define stand for nothing: an unknown group allows
// nothing, and an unknown ACL denies everything.
func NewJudge(p *Policy) *Judge {
	j := &Judge{exact: map[string]*attachment{}, host: newHostExemptions(&p.Host), rules: indexRules(p)}
	j.refusals = sync.OnceValue(func() *refusals { return newRefusals(j) })
	acls := map[string]*ACL{}
	for _, a := range p.ACLs {
		acls[a.Name] = a
	}
	for _, i := range p.Interfaces {
		a := &attachment{iface: i, icmpErrorsByRules: p.Host.ICMPErrorsByRules}
		for _, name := range i.Groups {
			for _, r := range j.rules[name] {
				a.attach(r)
			}
		}
		if i.ACL != "" {
			if a.acl = acls[i.ACL]; a.acl == nil {
				a.acl = &ACL{Name: i.ACL}
			}
		}
		for _, block := range i.AlwaysTrack {
			a.alwaysTrack = append(a.alwaysTrack, trackedPeers{block, newAddressIndex(block.Prefixes)})
		}
		if isWildcard(i.Name) {
			j.wildcards = append(j.wildcards, a)
		} else {
			j.exact[i.Name] = a
		}
	}
	slices.SortStableFunc(j.wildcards, func(a, b *attachment) int {
		return cmp.Compare(len(b.iface.Name), len(a.iface.Name))
	})
	return j
}

func isWildcard(name string) bool { return name != "" && name[len(name)-1] == '*' }

func (a *attachment) attach(r *judgedRule) {
	d := r.Direction
	a.rules[d].add(r)
	if r.any[0] || r.any[1] {
		a.anyRules[d].add(r)
		if r.coversAllPorts() {
			a.wholeRules[d].add(r)
		}
	}
}

// attachment returns what governs the interface: the block of exactly that
// name, else the longest wildcard, else nil. Nothing governs the loopback.
func (j *Judge) attachment(name string) *attachment {
	if name == Loopback {
		return nil
	}
	if a := j.exact[name]; a != nil {
		return a
	}
	for _, a := range j.wildcards {
		if a.iface.Matches(name) {
			return a
		}
	}
	return nil
}

// Interface returns the block that governs the interface of that name, or nil.
// It is Policy.Interface, indexed.
func (j *Judge) Interface(name string) *Interface {
	if a := j.attachment(name); a != nil {
		return a.iface
	}
	return nil
}

// Open reports whether the packet's flow lies in the open space (2.3): the
// policy calls it untracked, and judges each of its packets by the rules
// alone. It asks only for interface, direction, protocol, peer and ports; a
// flow is open in both of its directions or in none. Exempt flows may be open
// too: nothing judges them, and nothing needs them tracked.
func (j *Judge) Open(p *flow.Packet) bool {
	a := j.attachment(p.Interface)
	if a == nil {
		return false
	}
	here, _ := a.open(p)
	return here != nil
}

// AlwaysTrack returns the always_track block of the packet's interface that
// holds the peer, the one with the longest prefix, or nil.
func (j *Judge) AlwaysTrack(p *flow.Packet) *AlwaysTrack {
	if a := j.attachment(p.Interface); a != nil {
		return a.tracks(p.Peer())
	}
	return nil
}

func (a *attachment) tracks(peer netip.Addr) *AlwaysTrack {
	var best *AlwaysTrack
	longest := -1
	for _, t := range a.alwaysTrack {
		if prefix, ok := t.addresses.longest(peer); ok && prefix.Bits() > longest {
			best, longest = t.block, prefix.Bits()
		}
	}
	return best
}

// open returns the two rules that together make the packet's flow untracked:
// the one of the packet's direction and the one of the other. Both are nil
// where the flow is tracked.
func (a *attachment) open(p *flow.Packet) (here, back *judgedRule) {
	if !p.Protocol.HasPorts() || a.tracks(p.Peer()) != nil {
		return nil, nil
	}
	family := p.Family()
	// The peer opened it, to the local port; or the host did, to the peer's.
	ports := [2]uint16{flow.Ingress: p.LocalPort(), flow.Egress: p.PeerPort()}
	for _, opener := range flow.Directions {
		forth := a.anyRules[opener].anyRule(p.Protocol, family, ports[opener])
		whole := a.wholeRules[opener.Opposite()].anyRule(p.Protocol, family, 0)
		if forth == nil || whole == nil {
			continue
		}
		if p.Direction == opener {
			return forth, whole
		}
		return whole, forth
	}
	return nil, nil
}
