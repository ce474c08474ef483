package policies

import (
	"fmt"
	"net/netip"
	"slices"
)

// Action is what happens to something between two policies.
type Action uint8

// The actions.
const (
	Add Action = iota + 1
	Update
	Remove
)

func (a Action) String() string {
	switch a {
	case Add:
		return "add"
	case Update:
		return "update"
	case Remove:
		return "remove"
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// Sign is the mark of the action in a plan: +, ~ or -.
func (a Action) Sign() string {
	switch a {
	case Add:
		return "+"
	case Update:
		return "~"
	case Remove:
		return "-"
	}
	return "?"
}

// MarshalText is the action's name, for JSON.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Change is one line of a plan: what happens to a block of the policy, or to
// one of its parts.
type Change struct {
	Action Action `json:"action"`
	// Address is the whole policy address, security_group.web.ingress.ssh.
	Address string `json:"address"`
	// Parent is the address of the block, security_group.web, and Name that of
	// the part within it, ingress.ssh or security_groups. Name is "" where the
	// block itself is added or removed; all its parts are listed then, too.
	Parent string `json:"parent"`
	Name   string `json:"name,omitempty"`
	// Old and New are nil where there was, or will be, nothing. Both are nil
	// for blocks, and for plain lists of values, which have only Added and
	// Removed.
	Old *Columns `json:"old,omitempty"`
	New *Columns `json:"new,omitempty"`
	// Added and Removed are the values that a list gains and loses: members,
	// entries, attached groups, addresses of the host; and, of a rule or an
	// always_track block that is updated, the peers. They are in the lists'
	// order.
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
}

// Columns are what a plan tells of a rule, an ACL entry or a setting. Columns
// that have no meaning there are empty.
type Columns struct {
	// Direction is ingress or egress.
	Direction string `json:"direction,omitempty"`
	// Verdict is allow or deny, for ACL entries alone.
	Verdict string `json:"verdict,omitempty"`
	// Protocol is a name, a number, or "all".
	Protocol string `json:"protocol,omitempty"`
	// Ports are "22", "80, 8000-8099" or "all"; for ICMP, "type 3 code 4",
	// "type 8" or "all".
	Ports string `json:"ports,omitempty"`
	// Peers are CIDRs, prefix_list.partners, security_group.app and self.
	Peers []string `json:"peers,omitempty"`
	// Class says how the flows that a rule allows are treated on the interfaces
	// that its group is attached to: tracked, untracked, or mixed (effects.of). It is "" where the group
	// is attached nowhere.
	Class string `json:"class,omitempty"`
	// Value is that of a setting.
	Value string `json:"value,omitempty"`
}

// Compare says what changes from one policy to another, by address: groups,
// prefix lists, ACLs, interfaces, the host, each sorted by name. A rule whose
// own text stays, but whose flows become tracked or untracked by another
// change, is an update too. Descriptions, positions and tests are no change.
// old may be nil: everything is added then.
func Compare(old, new *Policy) []Change {
	if old == nil {
		old = &Policy{}
	}
	c := comparison{oldEffects: newEffects(old), newEffects: newEffects(new)}
	inPairs(old.Groups, new.Groups, func(g *Group) string { return g.Name }, c.groups)
	inPairs(old.Lists, new.Lists, func(l *PrefixList) string { return l.Name }, c.lists)
	inPairs(old.ACLs, new.ACLs, func(a *ACL) string { return a.Name }, c.acls)
	inPairs(old.Interfaces, new.Interfaces, func(i *Interface) string { return i.Name }, c.interfaces)
	c.host(&old.Host, &new.Host)
	return c.changes
}

// comparison collects the changes.
type comparison struct {
	oldEffects, newEffects *effects
	changes                []Change
	// parent is the block that is being compared.
	parent string
}

// inPairs calls visit with the old and the new element of each key, in the
// order of the keys; one of them is nil where it is missing.
func inPairs[T any](old, new []*T, key func(*T) string, visit func(old, new *T)) {
	type pair struct{ old, new *T }
	pairs := map[string]pair{}
	for _, e := range old {
		pairs[key(e)] = pair{old: e}
	}
	for _, e := range new {
		pairs[key(e)] = pair{pairs[key(e)].old, e}
	}
	keys := make([]string, 0, len(pairs))
	for k := range pairs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		visit(pairs[k].old, pairs[k].new)
	}
}

// add appends a change of a part of the parent.
func (c *comparison) add(change Change) {
	change.Parent = c.parent
	change.Address = c.parent
	if change.Name != "" {
		change.Address += "." + change.Name
	}
	c.changes = append(c.changes, change)
}

// block begins a block, and appends it if it is added or removed as a whole.
func (c *comparison) block(parent string, old, new bool) {
	c.parent = parent
	switch {
	case !old:
		c.add(Change{Action: Add})
	case !new:
		c.add(Change{Action: Remove})
	}
}

// columns appends a rule, an entry or a setting, if it differs.
func (c *comparison) columns(name string, old, new *Columns) {
	switch {
	case old == nil && new == nil:
	case old == nil:
		c.add(Change{Action: Add, Name: name, New: new})
	case new == nil:
		c.add(Change{Action: Remove, Name: name, Old: old})
	case !old.equal(new):
		added, removed := difference(old.Peers, new.Peers)
		c.add(Change{Action: Update, Name: name, Old: old, New: new, Added: added, Removed: removed})
	}
}

func (x *Columns) equal(y *Columns) bool {
	return x.Direction == y.Direction && x.Verdict == y.Verdict && x.Protocol == y.Protocol && x.Ports == y.Ports &&
		slices.Equal(x.Peers, y.Peers) && x.Value == y.Value &&
		// A group that is attached for the first time, or no longer, changes the
		// class of all its rules: the interface's own line says that.
		(x.Class == y.Class || x.Class == "" || y.Class == "")
}

// setting appends a setting whose value differs; "" is no value.
func (c *comparison) setting(name, old, new string) {
	value := func(s string) *Columns {
		if s == "" {
			return nil
		}
		return &Columns{Value: s}
	}
	c.columns(name, value(old), value(new))
}

// list appends a list of values that differs.
func (c *comparison) list(name string, old, new []string) {
	added, removed := difference(old, new)
	if len(added) == 0 && len(removed) == 0 {
		return
	}
	c.add(Change{Action: listAction(len(old), len(new)), Name: name, Added: added, Removed: removed})
}

// difference returns what new has and old has not, and the reverse, in order.
func difference(old, new []string) (added, removed []string) {
	return without(new, old), without(old, new)
}

func without(list, other []string) []string {
	known := make(map[string]struct{}, len(other))
	for _, s := range other {
		known[s] = struct{}{}
	}
	var out []string
	for _, s := range list {
		if _, ok := known[s]; !ok {
			out = append(out, s)
		}
	}
	return out
}

// prefixes is list for addresses. It makes text of the differences alone, since
// a list may hold a million.
func (c *comparison) prefixes(name string, old, new []netip.Prefix) {
	added, removed := prefixDifference(old, new)
	if len(added) == 0 && len(removed) == 0 {
		return
	}
	c.add(Change{Action: listAction(len(old), len(new)), Name: name, Added: texts(added), Removed: texts(removed)})
}

// listAction says what happens to a list: an empty one is not there.
func listAction(old, new int) Action {
	switch {
	case old == 0:
		return Add
	case new == 0:
		return Remove
	default:
		return Update
	}
}

// prefixDifference returns what new has and old has not, and the reverse, in
// order.
func prefixDifference(old, new []netip.Prefix) (added, removed []netip.Prefix) {
	old, new = sortedPrefixes(old), sortedPrefixes(new)
	for len(old) > 0 && len(new) > 0 {
		switch c := old[0].Compare(new[0]); {
		case c < 0:
			removed, old = append(removed, old[0]), old[1:]
		case c > 0:
			added, new = append(added, new[0]), new[1:]
		default:
			old, new = old[1:], new[1:]
		}
	}
	return append(added, new...), append(removed, old...)
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = x.String()
	}
	return out
}
