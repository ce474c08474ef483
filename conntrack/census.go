package conntrack

import (
	"cmp"
	"context"
	"slices"
)

// Census counts the entries of a namespace by what a policy says of them.
type Census struct {
	// Entries are counted once each, by the class of the whole entry.
	Entries Count
	// Elsewhere are the entries that cross no interface of the policy.
	Elsewhere int
	// Interfaces are those of the policy that exist, sorted by name. A routed
	// flow counts on both of its own.
	Interfaces []InterfaceCount
}

// Count are numbers of entries, by class. Revoked are those of any class that
// no rule allows any more.
type Count struct {
	Tracked int `json:"tracked"`
	Open    int `json:"open"`
	Exempt  int `json:"exempt"`
	Revoked int `json:"revoked"`
}

func (c *Count) add(class Class, revoked bool) {
	switch class {
	case ClassElsewhere:
	case ClassExempt:
		c.Exempt++
	case ClassTracked:
		c.Tracked++
	case ClassOpen:
		c.Open++
	}
	if revoked {
		c.Revoked++
	}
}

// InterfaceCount are the legs on one interface.
type InterfaceCount struct {
	Name string `json:"name"`
	Count
}

// Census takes a census of the namespace. It ends as Entries does; the census
// is there with ErrTorn, too.
func (t *Table) Census(ctx context.Context, judge *Judge) (*Census, error) {
	c := &Census{}
	counts := map[string]*Count{}
	for _, name := range judge.routes.names {
		if judge.policy.Interface(name) != nil {
			counts[name] = &Count{}
		}
	}
	var judged Judged
	err := t.Entries(ctx, func(e *Entry) error {
		if err := judge.Entry(e, &judged); err != nil {
			return err
		}
		if len(judged.Legs) == 0 {
			c.Elsewhere++
			return nil
		}
		c.Entries.add(judged.Class(), judged.Revoked())
		for i := range judged.Legs {
			l := &judged.Legs[i]
			counts[l.Packet.Interface].add(l.Class(), l.Revoked())
		}
		return nil
	})
	for name, count := range counts {
		c.Interfaces = append(c.Interfaces, InterfaceCount{name, *count})
	}
	slices.SortFunc(c.Interfaces, func(a, b InterfaceCount) int { return cmp.Compare(a.Name, b.Name) })
	return c, err
}
