package apply

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const policyDrop = 0

// sgcPrerouting is the priority at which sgc judges what comes in; what has
// the same may come before or behind.
const sgcPrerouting = -150

// Hooks of other families than the IP ones, and the ingress hook of inet.
//
// Source: Linux include/uapi/linux/netfilter.h and netfilter_bridge.h.
const (
	netdevIngress, netdevEgress = 0, 1
	inetIngress                 = 5
)

// way is what is known of packets that come to a base chain: the managed
// device is the one they came in on or the one they go out by. Of the other
// one, nothing is known.
type way struct {
	device Device
	in     bool
	// unnamed is set where packets have other interfaces than the device: the
	// ports of a bridge.
	unnamed bool
}

// ways returns the ways on which packets of the device come to a chain, none
// for a regular chain, and whether that is ahead of sgc.
func (t *foreignTable) ways(c *foreignChain, d Device) (ways []way, ahead bool) {
	if c.base == nil || t.dormant {
		return nil, false
	}
	in, out := way{device: d, in: true}, way{device: d}
	bound := slices.ContainsFunc(c.devices, func(name string) bool { return d.is(patternValue(name)) != no })
	hook := c.base.Hook
	switch {
	case t.family == unix.NFPROTO_NETDEV && bound && hook == netdevIngress, t.family == unix.NFPROTO_INET && bound && hook == inetIngress:
		return []way{in}, true
	case t.family == unix.NFPROTO_NETDEV && bound && hook == netdevEgress:
		return []way{out}, false
	case t.family == unix.NFPROTO_BRIDGE && d.Bridge:
		switch hook {
		case unix.NF_INET_PRE_ROUTING, unix.NF_INET_LOCAL_IN:
			return []way{{unnamed: true}}, true
		case unix.NF_INET_LOCAL_OUT, unix.NF_INET_POST_ROUTING:
			return []way{{unnamed: true}}, false
		}
	case t.isIP():
		switch hook {
		case unix.NF_INET_PRE_ROUTING:
			return []way{in}, c.base.Priority < sgcPrerouting
		case unix.NF_INET_LOCAL_IN:
			return []way{in}, false
		case unix.NF_INET_FORWARD, unix.NF_INET_POST_ROUTING:
			return []way{in, out}, false
		case unix.NF_INET_LOCAL_OUT:
			return []way{out}, false
		}
	}
	return nil, false
}

// ending is what may become of packets in a chain.
type ending struct {
	// falls is set if a packet may come to the chain's end, or return.
	falls bool
	// drops are the chains in which packets may be dropped, and offloads the
	// flowtables that their flows may be put into.
	drops, offloads []string
	// untracks are the chains in which packets may be kept out of conntrack, zones
	// those in which they may be put into a zone of it.
	untracks, zones []string
}

// follow follows packets through a base chain. quiet leaves rules out that are
// about the interface on the other side of the host.
func (t *foreignTable) follow(c *foreignChain, w way, quiet bool) ending {
	f := follower{table: t, way: w, quiet: quiet, ends: map[visit]bool{}}
	e := ending{falls: f.chain(c, false)}
	e.drops, e.offloads, e.untracks, e.zones = f.drops, f.offloads, f.untracks, f.zones
	return e
}

type follower struct {
	table *foreignTable
	way   way
	quiet bool
	// ends says of every chain that was followed whether packets fall out at
	// its end.
	ends            map[visit]bool
	drops, offloads []string
	untracks, zones []string
}

// visit is a chain, and whether a rule on the way there asked for the device.
type visit struct {
	chain string
	named bool
}

// chain reports whether packets may come to the chain's end, or return.
func (f *follower) chain(c *foreignChain, named bool) bool {
	if c == nil {
		return true
	}
	here := visit{c.name, named}
	if falls, done := f.ends[here]; done {
		return falls
	}
	f.ends[here] = false // The kernel has no circles; this keeps the promise.
	falls := false
	for _, rule := range c.rules {
		returned, stops := f.rule(c, rule, named)
		falls = falls || returned
		if stops {
			f.ends[here] = falls
			return falls
		}
	}
	f.ends[here] = true
	return true
}

// rule follows packets through one rule of a chain: whether some may return
// from the chain, and whether none goes on behind the rule.
func (f *follower) rule(c *foreignChain, rule foreignRule, named bool) (returned, stops bool) {
	certain, others := !rule.more, false
	for _, m := range rule.where {
		switch f.matches(m) {
		case no:
			return false, false
		case maybe:
			certain = false
		}
		if !m.negate {
			named, others = named || f.knows(m.key), others || !f.knows(m.key)
		}
	}
	for _, e := range rule.effects {
		possible := []effect{e}
		if e.kind == looksUp {
			if e.by.isInterface() {
				named, others = named || f.knows(e.by), others || !f.knows(e.by)
			}
			var found bool
			possible, found = f.lookUp(e)
			certain = certain && found
		}
		if f.quiet && others && !named {
			return returned, false
		}
		goesOn := len(possible) == 0
		for _, e := range possible {
			back, on := f.effect(c, e, named)
			returned, goesOn = returned || back, goesOn || on
		}
		if certain && !goesOn {
			return returned, true
		}
	}
	return returned, false
}

// effect carries out what a rule does: whether packets may return from the
// chain, and whether they may go on behind the rule.
func (f *follower) effect(c *foreignChain, e effect, named bool) (returned, goesOn bool) {
	switch e.kind {
	case accepts:
		return false, false
	case drops:
		if !slices.Contains(f.drops, c.name) {
			f.drops = append(f.drops, c.name)
		}
		return false, false
	case returns:
		return true, false
	case jumps:
		return false, f.chain(f.table.chains[e.target], named)
	case goes:
		return f.chain(f.table.chains[e.target], named), false
	case offloadsFlow:
		if !slices.Contains(f.offloads, e.target) {
			f.offloads = append(f.offloads, e.target)
		}
		return false, true
	case untracksPacket:
		if !slices.Contains(f.untracks, c.name) {
			f.untracks = append(f.untracks, c.name)
		}
		return false, true
	case setsZone:
		if !slices.Contains(f.zones, c.name) {
			f.zones = append(f.zones, c.name)
		}
		return false, true
	}
	panic(fmt.Sprintf("a rule with effect %d", e.kind))
}

// lookUp returns what a verdict map may say to the packets, and whether it
// says one of that to all of them.
func (f *follower) lookUp(e effect) (possible []effect, certain bool) {
	set := f.table.sets[e.target]
	if set == nil {
		return nil, false
	}
	var rest []effect
	for _, element := range set.elements {
		switch {
		case element.catchAll && set.plain:
			rest = append(rest, element.verdict)
			continue
		case element.catchAll:
		case e.by == loadedState && element.key == keyOfIndex(stateInvalid):
			continue
		case e.by.isInterface():
			switch f.is(e.by, newInterfaceValue(e.by, []byte(element.key))) {
			case no:
				continue
			case yes:
				return []effect{element.verdict}, true
			}
		}
		possible = append(possible, element.verdict)
	}
	// "*" is for what no other element is for.
	return append(possible, rest...), len(rest) > 0
}

// answer is that to a question about packets of which not all is known.
type answer uint8

const (
	no answer = iota
	maybe
	yes
)

func (a answer) not() answer { return yes - a }

// matches says whether the packets have the interface that a rule asks for.
func (f *follower) matches(m interfaceMatch) answer {
	a := maybe
	if m.set == "" {
		a = f.is(m.key, m.value)
	} else if set := f.table.sets[m.set]; set != nil && set.plain {
		a = no
		for _, e := range set.elements {
			a = max(a, f.is(m.key, newInterfaceValue(m.key, []byte(e.key))))
		}
	}
	if m.negate {
		return a.not()
	}
	return a
}

// is says whether an interface of the packets is the one that v stands for.
func (f *follower) is(key loadedKey, v interfaceValue) answer {
	if !f.knows(key) {
		return maybe
	}
	return f.way.device.is(v)
}

// knows reports whether the interface is the one that is known of the packets.
func (f *follower) knows(key loadedKey) bool { return !f.way.unnamed && key.isOut() != f.way.in }

// is says whether the interfaces that the device's name means are those that v
// stands for.
func (d Device) is(v interfaceValue) answer {
	stem, wildcard := strings.CutSuffix(d.Name, "*")
	if v.isIndex {
		switch {
		case !slices.Contains(d.Indexes, int(v.index)):
			return no
		case wildcard:
			return maybe
		}
		return yes
	}
	switch {
	case !wildcard && v.prefix:
		return certainly(strings.HasPrefix(stem, v.name))
	case !wildcard:
		return certainly(stem == v.name)
	case v.prefix && strings.HasPrefix(stem, v.name):
		return yes
	case strings.HasPrefix(v.name, stem):
		return maybe
	}
	return no
}

func certainly(b bool) answer {
	if b {
		return yes
	}
	return no
}
