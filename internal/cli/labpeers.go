package cli

import (
	"net/netip"

	"sgc/internal/flow"
	"sgc/policies"
)

// peerExample is an address that a rule allows.
type peerExample struct {
	address netip.Addr
	// prefix is the one of the rule's that holds it.
	prefix netip.Prefix
	// name is the address of the list or group that names it, "" for inline
	// CIDRs.
	name string
	rank rank
}

// inlineExamples bounds how many inline CIDRs of a rule are shown.
const inlineExamples = 16

// peerExamples returns an address out of each kind of peers that the rule
// names, in each family, and further ones of lower rank. The first is of the
// highest rank.
func (g *gallery) peerExamples(i labInterface, r *policies.Rule) []peerExample {
	var out, more []peerExample
	for _, kind := range peersOf(g.policy, r) {
		for _, f := range flow.Families {
			if (r.Protocol == flow.ICMP || r.Protocol == flow.ICMPv6) && !r.Protocol.IsICMP(f) {
				continue
			}
			prefixes := exemplary(kind, f)
			for n := 0; n < len(prefixes); n++ {
				e := peerExample{prefix: prefixes[n], name: kind.name, rank: rankBorder}
				if e.address = g.addressIn(i, r, prefixes[n]); !e.address.IsValid() {
					continue
				}
				switch {
				case len(out) == 0:
					e.rank = rankRule
				case kind.name != "":
					e.rank = rankPort
				}
				out = append(out, e)
				for _, prefix := range prefixes[n+1:] {
					if a := g.addressIn(i, r, prefix); a.IsValid() {
						more = append(more, peerExample{a, prefix, kind.name, rankMore})
					}
				}
				break
			}
		}
	}
	return append(out, more...)
}

// exemplary returns the prefixes of a family to show: of inline CIDRs all that
// a person may have written, of lists the first and the last.
func exemplary(kind rulePeers, f flow.Family) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range kind.prefixes {
		if flow.FamilyOf(p.Addr()) == f {
			all = append(all, p)
		}
	}
	switch {
	case len(all) <= 2, kind.name == "" && len(all) <= inlineExamples:
		return all
	default:
		return []netip.Prefix{all[0], all[len(all)-1]}
	}
}

// addressIn returns an address of the prefix that a host may have and that, if
// possible, the rule and no narrower one decides about; the zero value where
// there is none.
func (g *gallery) addressIn(i labInterface, r *policies.Rule, prefix netip.Prefix) netip.Addr {
	var fallback netip.Addr
	for _, a := range g.candidates(prefix) {
		services := g.services(i, r, a)
		if g.own[a] || len(services) == 0 {
			continue
		}
		p := g.packet(i, r.Direction, a, services[0])
		if g.possible(&p) != nil || p.Protocol.IsOther(p.Family()) && g.flows[otherFlow(&p)] {
			continue
		}
		if g.judge.Decide(&p).Rule == r {
			return a
		}
		if !fallback.IsValid() {
			fallback = a
		}
	}
	return fallback
}

// candidates returns addresses of a prefix, the best examples first.
func (g *gallery) candidates(prefix netip.Prefix) []netip.Addr {
	all := flow.RangeOf(prefix)
	if prefix.IsSingleIP() {
		return []netip.Addr{all.First}
	}
	f := flow.FamilyOf(all.First)
	var out []netip.Addr
	// The first address of a network is not a host's, as a rule. Wide
	// prefixes, which are no networks, are shown by an address of the world.
	const wide = 3
	if prefix.Bits() <= wide && prefix.Contains(g.world[f]) {
		out = append(out, g.world[f])
	}
	a := all.First.Next()
	for range 8 {
		if !a.IsValid() || !prefix.Contains(a) {
			break
		}
		out = append(out, a)
		a = a.Next()
	}
	out = append(out, all.Last.Prev(), all.First, all.Last)
	for _, w := range labWorld[f] {
		if prefix.Contains(w) {
			out = append(out, w)
		}
	}
	return out
}

// addAddressesBeside shows the addresses just outside the peer's prefix, if
// nothing else lets them through.
func (g *gallery) addAddressesBeside(i labInterface, d flow.Direction, s service, peer peerExample, first bool) {
	if peer.prefix.Bits() == 0 {
		return
	}
	r := flow.RangeOf(peer.prefix)
	rank := max(peer.rank, rankPort)
	if first {
		rank = rankBorder
	}
	for _, a := range []netip.Addr{r.Last.Next(), r.First.Prev()} {
		if !a.IsValid() || a.Is4() != r.First.Is4() {
			continue
		}
		if g.addDropped(example{packet: g.packet(i, d, a, s), rank: rank, shows: "next to " + peer.prefix.String()}) {
			rank = rankLast
		}
	}
}
