package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sgc/internal/flow"
	"sgc/policies"
)

// labInterface is an interface of the lab's host.
type labInterface struct {
	// name is one that the block governs.
	name  string
	block *policies.Interface
	// host is the host's address there, by family.
	host map[flow.Family]netip.Addr
}

// The addresses of the host, unless the policy has addresses for it, and of
// the rest of the world: documentation addresses that the policy's prefixes do
// not hold are preferred.
var (
	labHosts = map[flow.Family]netip.Addr{
		flow.IPv4: netip.MustParseAddr("192.0.2.10"),
		flow.IPv6: netip.MustParseAddr("2001:db8::10"),
	}
	labWorld = map[flow.Family][]netip.Addr{
		flow.IPv4: {
			netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("192.0.2.77"),
			netip.MustParseAddr("100.99.98.97"), netip.MustParseAddr("9.8.7.6"), netip.MustParseAddr("172.15.8.7"),
		},
		flow.IPv6: {
			netip.MustParseAddr("2001:db8:77::7"), netip.MustParseAddr("2001:db8:ffff::77"),
			netip.MustParseAddr("3fff:77::7"), netip.MustParseAddr("2a00:77::7"),
		},
	}
)

// labInterfaces returns an interface for each block of the policy, wildcards
// with an example of a name.
func labInterfaces(p *policies.Policy) ([]labInterface, error) {
	needed := singlePeers(p)
	var out []labInterface
	for _, block := range p.Interfaces {
		name := exampleName(p, block)
		if name == "" {
			return nil, fmt.Errorf("%s: no name could be found that this block governs", block.Address())
		}
		i := labInterface{name: name, block: block, host: map[flow.Family]netip.Addr{}}
		for _, f := range flow.Families {
			i.host[f] = hostAddress(p, block, f, needed)
		}
		out = append(out, i)
	}
	return out, nil
}

// maxInterfaceName is the longest name of an interface in the kernel.
const maxInterfaceName = 15

// exampleName returns an interface name that the block governs, or "": another
// block may be more exact.
func exampleName(p *policies.Policy, block *policies.Interface) string {
	stem, wildcard := strings.CutSuffix(block.Name, "*")
	if !wildcard {
		return block.Name
	}
	candidates := []string{}
	if stem == "" {
		candidates = append(candidates, "eth0", "ens5", "wlan0", "wg0")
	}
	for _, end := range "0123456789abcdefghijklmnopqrstuvwxyz" {
		candidates = append(candidates, stem+string(end))
	}
	for n := 10; n < 1000; n++ {
		candidates = append(candidates, fmt.Sprint(stem, n))
	}
	// A wildcard stands for its stem alone, too.
	candidates = append(candidates, stem)
	for _, name := range candidates {
		if name != "" && len(name) <= maxInterfaceName && p.Interface(name) == block {
			return name
		}
	}
	return ""
}

// hostAddress chooses the host's address on an interface: a member of the
// groups there, if the examples can do without it as a peer.
func hostAddress(p *policies.Policy, block *policies.Interface, f flow.Family, needed map[netip.Addr]bool) netip.Addr {
	for _, name := range block.Groups {
		members := singleMembers(p.Group(name), f)
		for _, a := range members {
			// Of several members one can be the host, and the others its peers.
			if !needed[a] || len(members) > 1 {
				return a
			}
		}
	}
	a := labHosts[f]
	for needed[a] {
		a = a.Next()
	}
	return a
}

// singleMembers returns the members that are one address, which a host may
// have.
func singleMembers(g *policies.Group, f flow.Family) []netip.Addr {
	var out []netip.Addr
	if g == nil {
		return nil
	}
	for _, m := range g.Members {
		if m.IsSingleIP() && flow.FamilyOf(m.Addr()) == f && (m.Addr().IsGlobalUnicast()) {
			out = append(out, m.Addr())
		}
	}
	return out
}

// singlePeers returns the addresses that stand alone in a rule, as a peer.
func singlePeers(p *policies.Policy) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, g := range p.Groups {
		for _, r := range g.Rules {
			for _, s := range peersOf(p, r) {
				for _, prefix := range s.prefixes {
					if prefix.IsSingleIP() {
						out[prefix.Addr()] = true
					}
				}
			}
		}
	}
	return out
}

// worldAddresses returns, for each family, an address that stands for
// everybody of whom the policy says nothing.
func worldAddresses(p *policies.Policy, interfaces []labInterface) map[flow.Family]netip.Addr {
	var known []netip.Prefix
	add := func(prefixes []netip.Prefix) {
		for _, prefix := range prefixes {
			if prefix.Bits() > 0 {
				known = append(known, prefix)
			}
		}
	}
	add(p.Host.DNSResolvers)
	add(p.Host.Exempt)
	for _, l := range p.Lists {
		add(l.Entries)
	}
	for _, g := range p.Groups {
		add(g.Members)
		for _, r := range g.Rules {
			add(r.Prefixes)
		}
	}
	for _, acl := range p.ACLs {
		for _, e := range acl.Entries {
			add([]netip.Prefix{e.Prefix})
		}
	}
	for _, i := range p.Interfaces {
		for _, t := range i.AlwaysTrack {
			add(t.Prefixes)
		}
	}
	for _, i := range interfaces {
		for _, a := range i.host {
			known = append(known, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	world := map[flow.Family]netip.Addr{}
	for _, f := range flow.Families {
		// Where the policy knows all of them, the first has to do.
		world[f] = labWorld[f][0]
		for _, a := range labWorld[f] {
			if !slices.ContainsFunc(known, func(k netip.Prefix) bool { return k.Contains(a) }) {
				world[f] = a
				break
			}
		}
	}
	return world
}

// rulePeers are the peers of a rule that it names in one way.
type rulePeers struct {
	// name is the address of the prefix list or group, "" for inline CIDRs.
	name     string
	prefixes []netip.Prefix
}

func peersOf(p *policies.Policy, r *policies.Rule) []rulePeers {
	var out []rulePeers
	if len(r.Prefixes) > 0 {
		out = append(out, rulePeers{"", r.Prefixes})
	}
	for _, name := range r.Lists {
		if l := p.List(name); l != nil {
			out = append(out, rulePeers{l.Address(), l.Entries})
		}
	}
	for _, name := range r.Groups {
		if g := p.Group(name); g != nil {
			out = append(out, rulePeers{g.Address(), g.Members})
		}
	}
	return out
}
