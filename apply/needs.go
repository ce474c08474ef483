package apply

import "golang.org/x/sys/unix"

// needs are the tables of others that Foreign is about. What is compiled of a
// policy depends on whether there is any for a family, and on nothing else in
// other tables.
type needs struct {
	// tables need conntrack to see their packets.
	tables map[tableKey]bool
	// nat are those with a chain for NAT, in which a rule that comes does NAT.
	nat map[tableKey]bool
	// legacy4 and legacy6 are set if a table of the older iptables does.
	legacy4, legacy6 bool
}

func (n *needs) add(key tableKey) {
	if n.tables == nil {
		n.tables = map[tableKey]bool{}
	}
	n.tables[key] = true
}

func (n *needs) natChain(key tableKey) {
	if n.nat == nil {
		n.nat = map[tableKey]bool{}
	}
	n.nat[key] = true
}

func (n *needs) legacy(ipv4 bool) {
	if ipv4 {
		n.legacy4 = true
	} else {
		n.legacy6 = true
	}
}

// isAbout reports whether a table sees packets of a family.
func (k tableKey) isAbout(ipv4 bool) bool {
	switch k.family {
	case unix.NFPROTO_INET:
		return true
	case unix.NFPROTO_IPV4:
		return ipv4
	case unix.NFPROTO_IPV6:
		return !ipv4
	}
	return false
}

// has reports whether conntrack is needed for a family, by more than the tables
// of without.
func (n *needs) has(ipv4 bool, without map[tableKey]bool) bool {
	if ipv4 && n.legacy4 || !ipv4 && n.legacy6 {
		return true
	}
	for key := range n.tables {
		if key.isAbout(ipv4) && !without[key] {
			return true
		}
	}
	return false
}

// gained reports whether a table needs conntrack since a generation, for a family
// for which nobody did.
func (n *needs) gained(others []tableChange, since uint32) bool {
	for _, t := range others {
		came := happened(t.gained, since) || happened(t.nat, since) || n.nat[t.tableKey] && happened(t.ruled, since)
		if !came {
			continue
		}
		for _, ipv4 := range []bool{true, false} {
			if t.isAbout(ipv4) && !n.has(ipv4, nil) {
				return true
			}
		}
	}
	return false
}

// lost returns the tables that needed conntrack and lost something since a
// generation, if there is a family for which nobody else needs it; else none.
func (n *needs) lost(others []tableChange, since uint32) map[tableKey]bool {
	suspects := map[tableKey]bool{}
	for _, t := range others {
		if n.tables[t.tableKey] && happened(t.lost, since) {
			suspects[t.tableKey] = true
		}
	}
	for _, ipv4 := range []bool{true, false} {
		if n.has(ipv4, nil) && !n.has(ipv4, suspects) {
			return suspects
		}
	}
	return nil
}

// happened reports whether something happened at a generation, and after another.
func happened(generation, since uint32) bool {
	return generation != 0 && later(generation, since)
}
