// Package links reads from the kernel which network interfaces there are and
// to which others they belong. It never changes one.
package links

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
)

// Link is a network interface.
type Link struct {
	Name  string
	Index int
	// Kind is the kernel's word for a software interface, such as "bridge" or
	// "veth"; hardware has none, which the library calls "device".
	Kind string
	// Master is the index of the bridge, bond, VRF, team, … that the interface
	// is enslaved to; 0 for none.
	Master int
}

// attempts is how often a list is read anew that changed while it was read.
const attempts = 10

// List returns the interfaces of the network namespace that the calling thread
// is in, sorted by name.
func List() ([]Link, error) {
	for attempt := 1; ; attempt++ {
		found, err := netlink.LinkList()
		switch {
		case errors.Is(err, netlink.ErrDumpInterrupted) && attempt < attempts:
			continue
		case err != nil:
			return nil, fmt.Errorf("list the network interfaces: %w", err)
		}
		out := make([]Link, 0, len(found))
		for _, l := range found {
			a := l.Attrs()
			out = append(out, Link{Name: a.Name, Index: a.Index, Kind: l.Type(), Master: a.MasterIndex})
		}
		slices.SortFunc(out, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
		return out, nil
	}
}

// Top returns the interface whose name the packets of l carry: the last of the
// masters above l. It is not ok if l has no master, or if none of them is in
// the list.
func Top(list []Link, l Link) (top Link, ok bool) {
	// Masters are no circle in the kernel, but the list may be of two moments.
	for range list {
		n := slices.IndexFunc(list, func(m Link) bool { return m.Index == l.Master })
		if l.Master == 0 || n < 0 {
			break
		}
		l, top, ok = list[n], list[n], true
	}
	return top, ok
}
