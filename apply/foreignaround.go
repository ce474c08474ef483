package apply

import (
	"cmp"
	"slices"
	"strings"
)

// Surroundings are the tables of others, as far as they keep packets from going
// where sgc lets them go, or lead them past sgc.
type Surroundings struct {
	// Legacy are the tables of the iptables before nf_tables that may drop
	// packets, such as "legacy iptables table filter". Nobody looks into them.
	Legacy []string
	// LegacyRaw are those of them that may keep packets out of conntrack, such as
	// "legacy iptables table raw".
	LegacyRaw []string
	tables    []*foreignTable
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
//   - rules for what is routed to or from another interface, if they do not ask
//     for the device, too: they are about that one;
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
			end := t.follow(c, w, !w.unnamed)
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
			if slices.Contains(t.follow(c, w, false).offloads, flowtable) {
				return true
			}
		}
	}
	return false
}
