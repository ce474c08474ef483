package apply

import (
	"cmp"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// Aside is a table of somebody else that says what conntrack makes of packets,
// before it has seen them: that it leaves them alone (notrack), or in which zone it
// looks for their flows.
type Aside struct {
	// Table is the table as nft names it, "table ip raw".
	Table string
	// Chains are those whose rules do it, sorted.
	Chains []string
	// Devices are the names of those whose packets it may do it to, in the order in
	// which they were given.
	Devices []string
}

// Untracking returns the tables that may keep packets of the devices out of
// conntrack, sorted by name. It follows the rules as Obstacles does. Rules that come
// behind conntrack keep nothing out of it.
func (s *Surroundings) Untracking(devices []Device) []Aside {
	return s.aside(devices, func(e ending) []string { return e.untracks })
}

// Zoning is Untracking for the tables that may put packets of the devices into
// zones of conntrack.
func (s *Surroundings) Zoning(devices []Device) []Aside {
	return s.aside(devices, func(e ending) []string { return e.zones })
}

func (s *Surroundings) aside(devices []Device, chains func(ending) []string) []Aside {
	var out []Aside
	for _, t := range s.tables {
		a := Aside{Table: t.String()}
		for _, d := range devices {
			found := t.aside(d, chains)
			if len(found) > 0 {
				a.Chains, a.Devices = append(a.Chains, found...), append(a.Devices, d.Name)
			}
		}
		if len(a.Devices) > 0 {
			slices.Sort(a.Chains)
			a.Chains = slices.Compact(a.Chains)
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b Aside) int { return cmp.Compare(a.Table, b.Table) })
	return out
}

func (t *foreignTable) aside(d Device, chains func(ending) []string) []string {
	var out []string
	for _, c := range t.chains {
		if !t.precedesConntrack(c) {
			continue
		}
		ways, _ := t.ways(c, d)
		for _, w := range ways {
			out = append(out, chains(t.follow(c, w, false))...)
		}
	}
	return out
}

// conntrackPriority is that at which conntrack looks at packets.
//
// Source: Linux include/uapi/linux/netfilter_ipv4.h, NF_IP_PRI_CONNTRACK.
const conntrackPriority = -200

// precedesConntrack reports whether a base chain sees packets before conntrack.
func (t *foreignTable) precedesConntrack(c *foreignChain) bool {
	if c.base == nil {
		return false
	}
	hook := c.base.Hook
	switch {
	case t.family == unix.NFPROTO_NETDEV:
		return hook == netdevIngress
	case t.family == unix.NFPROTO_INET && hook == inetIngress:
		return true
	case t.isIP() && (hook == unix.NF_INET_PRE_ROUTING || hook == unix.NF_INET_LOCAL_OUT):
		return c.base.Priority < conntrackPriority
	}
	return false
}

// targetCT reads the target of iptables by the name of CT, or NOTRACK, which is an
// older one of it: whether it keeps packets out of conntrack, and whether it sets a
// zone.
//
// Source: Linux include/uapi/linux/netfilter/xt_CT.h, struct xt_ct_target_info.
func targetCT(data []byte) (untracks, zones bool, err error) {
	const notrack, zoneMark, size = 1 << 0, 1 << 4, 4
	var name string
	var info []byte
	a := nlmsg.Walk(data)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_TARGET_NAME:
			name = a.CString()
		case unix.NFTA_TARGET_INFO:
			info = a.Data
		}
	}
	switch {
	case name == "NOTRACK":
		return true, false, a.Err
	case name != "CT" || len(info) < size:
		return false, false, a.Err
	}
	flags, zone := binary.NativeEndian.Uint16(info), binary.NativeEndian.Uint16(info[2:])
	untracks = flags&notrack != 0
	return untracks, !untracks && (zone != 0 || flags&zoneMark != 0), a.Err
}
