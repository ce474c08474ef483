package apply

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Surroundings are the tables of others, as far as they keep packets from going
// where sgc lets them go, or lead them past sgc.
type Surroundings struct {
	// Legacy are the tables of the iptables before nf_tables that may drop
	// packets, such as "legacy iptables table filter". Nobody looks into them.
	Legacy []string
	tables []*foreignTable
}

// Device is what sgc manages: an interface, or with a "*" at the end of its
// name all whose names begin so.
type Device struct {
	Name string
	// Indexes are the kernel's numbers of the interfaces there are.
	Indexes []int
	// Bridge is set if one of them is a bridge: its packets also pass the
	// hooks of the bridge family.
	Bridge bool
}

// Obstacle is a table of somebody else that may drop what sgc accepts.
type Obstacle struct {
	// Table is the table as nft names it, "table inet filter".
	Table string
	// Chains are the base chains that may drop, sorted by name.
	Chains []ObstacleChain
	// Devices are the names of those whose packets may be dropped, in the order
	// in which they were given.
	Devices []string
}

// ObstacleChain is a base chain that may drop packets.
type ObstacleChain struct {
	Name string
	// Policy is set if the chain's policy is drop and may be reached.
	Policy bool
	// Drops are the chains, sorted, whose rules drop or reject: the base chain
	// itself, or one that it leads to.
	Drops []string
}

// Shortcut is a flowtable of somebody else that takes flows past sgc.
type Shortcut struct {
	// Table and Flowtable are its names, "table inet fw" and "f".
	Table, Flowtable string
	// Takes are the devices on which it takes packets. Those of the interfaces
	// that sgc manages are no longer judged as they come in, and those of others
	// as they leave by one of these.
	Takes []string
	// Devices are the names of those whose flows it may take, in the order in
	// which they were given.
	Devices []string
}

// Obstacles returns the tables that may drop packets of the devices that sgc
// let through, sorted by name. It follows the rules as far as they depend on
// interfaces: a rule for another interface counts for nothing, and what stands
// behind an accept of the device neither. All other conditions may or may not
// hold. Left out are
//
//   - rules for packets that conntrack calls invalid, which sgc drops itself;
//   - rules ahead of sgc's own chains, which shield the host from floods and
//     forgeries before sgc says anything; the policy of such a chain counts;
//   - dormant tables, tables of the families netdev and bridge that none of the
//     devices is in, and packets that are queued to a program.
//
// Whether the host forwards is not asked: that is a setting, and its forward
// chains wait for it.
func (s *Surroundings) Obstacles(devices []Device) []Obstacle {
	var out []Obstacle
	for _, t := range s.tables {
		o := Obstacle{Table: t.String()}
		merged := map[string]*ObstacleChain{}
		for _, d := range devices {
			found := t.obstacles(d)
			for _, c := range found {
				if m := merged[c.Name]; m != nil {
					m.Policy = m.Policy || c.Policy
					m.Drops = append(m.Drops, c.Drops...)
				} else {
					merged[c.Name] = &c
				}
			}
			if len(found) > 0 {
				o.Devices = append(o.Devices, d.Name)
			}
		}
		for _, c := range merged {
			slices.Sort(c.Drops)
			c.Drops = slices.Compact(c.Drops)
			o.Chains = append(o.Chains, *c)
		}
		if len(o.Chains) > 0 {
			slices.SortFunc(o.Chains, func(a, b ObstacleChain) int { return cmp.Compare(a.Name, b.Name) })
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b Obstacle) int { return cmp.Compare(a.Table, b.Table) })
	return out
}

// Shortcuts returns the flowtables that may take flows of the devices past
// sgc, sorted by table and name. A flowtable that takes packets on no device
// or that no rule uses counts for nothing; nor does one whose rules ask for
// other interfaces.
func (s *Surroundings) Shortcuts(devices []Device) []Shortcut {
	var out []Shortcut
	for _, t := range s.tables {
		for _, table := range t.flowtables {
			cut := Shortcut{Table: t.String(), Flowtable: table.name, Takes: table.devices}
			for _, d := range devices {
				if len(cut.Takes) > 0 && t.offloads(d, table.name) {
					cut.Devices = append(cut.Devices, d.Name)
				}
			}
			if len(cut.Devices) > 0 {
				out = append(out, cut)
			}
		}
	}
	slices.SortFunc(out, func(a, b Shortcut) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Flowtable, b.Flowtable))
	})
	return out
}

// TakesFrom reports whether the flowtable takes the packets that come in on the
// device, or on one that its name means.
func (s Shortcut) TakesFrom(d Device) bool {
	return slices.ContainsFunc(s.Takes, func(name string) bool { return d.is(patternValue(name)) != no })
}

func patternValue(pattern string) interfaceValue {
	stem, prefix := strings.CutSuffix(pattern, "*")
	return interfaceValue{name: stem, prefix: prefix}
}

// obstacles returns the base chains that may drop packets of one device.
func (t *foreignTable) obstacles(d Device) []ObstacleChain {
	var out []ObstacleChain
	for _, c := range t.chains {
		ways, ahead := t.ways(c, d)
		o := ObstacleChain{Name: c.name}
		for _, w := range ways {
			end := t.follow(c, w)
			if end.falls && c.base.Policy == policyDrop {
				o.Policy = true
			}
			if !ahead {
				o.Drops = append(o.Drops, end.drops...)
			}
		}
		if o.Policy || len(o.Drops) > 0 {
			out = append(out, o)
		}
	}
	return out
}

// offloads reports whether a rule may put flows of the device into the
// flowtable.
func (t *foreignTable) offloads(d Device, flowtable string) bool {
	for _, c := range t.chains {
		ways, _ := t.ways(c, d)
		for _, w := range ways {
			if slices.Contains(t.follow(c, w).offloads, flowtable) {
				return true
			}
		}
	}
	return false
}

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
}

// follow follows packets through a base chain.
func (t *foreignTable) follow(c *foreignChain, w way) ending {
	f := follower{table: t, way: w, ends: map[string]bool{}}
	e := ending{falls: f.chain(c)}
	e.drops, e.offloads = f.drops, f.offloads
	return e
}

type follower struct {
	table *foreignTable
	way   way
	// ends says of every chain that was followed whether packets fall out at
	// its end.
	ends            map[string]bool
	drops, offloads []string
}

// chain reports whether packets may come to the chain's end, or return.
func (f *follower) chain(c *foreignChain) bool {
	if c == nil {
		return true
	}
	if falls, done := f.ends[c.name]; done {
		return falls
	}
	f.ends[c.name] = false // The kernel has no circles; this keeps the promise.
	falls := false
	for _, rule := range c.rules {
		returned, stops := f.rule(c, rule)
		falls = falls || returned
		if stops {
			f.ends[c.name] = falls
			return falls
		}
	}
	f.ends[c.name] = true
	return true
}

// rule follows packets through one rule of a chain: whether some may return
// from the chain, and whether none goes on behind the rule.
func (f *follower) rule(c *foreignChain, rule foreignRule) (returned, stops bool) {
	certain := !rule.more
	for _, m := range rule.where {
		switch f.matches(m) {
		case no:
			return false, false
		case maybe:
			certain = false
		}
	}
	for _, e := range rule.effects {
		possible := []effect{e}
		if e.kind == looksUp {
			var found bool
			possible, found = f.lookUp(e)
			certain = certain && found
		}
		goesOn := len(possible) == 0
		for _, e := range possible {
			back, on := f.effect(c, e)
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
func (f *follower) effect(c *foreignChain, e effect) (returned, goesOn bool) {
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
		return false, f.chain(f.table.chains[e.target])
	case goes:
		return f.chain(f.table.chains[e.target]), false
	case offloadsFlow:
		if !slices.Contains(f.offloads, e.target) {
			f.offloads = append(f.offloads, e.target)
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
	if f.way.unnamed || key.isOut() == f.way.in {
		return maybe
	}
	return f.way.device.is(v)
}

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
