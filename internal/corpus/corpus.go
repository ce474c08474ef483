package corpus

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"sgc/internal/flow"
	"sgc/policies"
)

// Options say what may be in a policy beside groups, lists, interfaces and the
// host's exemptions.
type Options struct {
	// ACLs, AlwaysTrack and Logs attach network ACLs, always_track blocks and
	// log_denied blocks to some interfaces.
	ACLs, AlwaysTrack, Logs bool
	// Interfaces are the names of the interface blocks to choose from; nil are
	// names of many shapes, wildcards too.
	Interfaces []string
}

// Seeded returns the source of a numbered case.
func Seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x736763)) }

// FromBytes returns a source that spends data first, two bytes a draw, so that
// a fuzzer can steer every choice, and goes on at random, as data decides.
func FromBytes(data []byte) *rand.Rand {
	seed := uint64(len(data))
	for _, b := range data {
		seed = seed*0x100000001b3 ^ uint64(b)
	}
	return rand.New(&byteSource{data, rand.NewPCG(seed, 1)})
}

type byteSource struct {
	data []byte
	rest *rand.PCG
}

// Uint64 puts the data into the highest bits, where rand.Rand looks first.
func (s *byteSource) Uint64() uint64 {
	rest := s.rest.Uint64()
	if len(s.data) < 2 {
		return rest
	}
	high := uint64(s.data[0])<<56 | uint64(s.data[1])<<48
	s.data = s.data[2:]
	return high | rest>>16
}

// Policy makes a random policy.
func Policy(r *rand.Rand, o Options) *policies.Policy {
	g := generator{r}
	p := &policies.Policy{Host: g.host()}
	for _, name := range g.some([]string{"bogons", "office", "partners"}) {
		p.Lists = append(p.Lists, &policies.PrefixList{Name: name, Entries: g.prefixes(1 + r.IntN(6))})
	}
	names := g.some([]string{"app", "db", "ops", "web"})
	if len(names) == 0 {
		names = []string{"web"}
	}
	lists := make([]string, len(p.Lists))
	for i, l := range p.Lists {
		lists[i] = l.Name
	}
	for _, name := range names {
		p.Groups = append(p.Groups, g.group(name, names, lists))
	}
	acls := []string{""}
	if o.ACLs {
		for _, name := range g.some([]string{"core", "edge"}) {
			p.ACLs = append(p.ACLs, g.acl(name))
			acls = append(acls, name)
		}
	}
	blocks := o.Interfaces
	if blocks == nil {
		blocks = []string{"*", "e*", "eth*", "eth0", "eth1", "wg-0.1"}
	}
	chosen := g.some(blocks)
	if len(chosen) == 0 {
		chosen = blocks[len(blocks)-1:]
	}
	for _, name := range slices.Sorted(slices.Values(chosen)) {
		i := &policies.Interface{Name: name, Groups: g.some(names), NotrackOff: g.chance(15), ACL: pick(r, acls)}
		if o.AlwaysTrack && g.chance(50) {
			i.AlwaysTrack = g.alwaysTrack()
		}
		if o.Logs && g.chance(50) {
			i.Log = g.log()
		}
		p.Interfaces = append(p.Interfaces, i)
	}
	return p
}

// generator makes the parts of a policy.
type generator struct{ *rand.Rand }

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// chance is true in so many of a hundred cases.
func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

// some returns a random part of the list, in order; nil for none of it.
func (g generator) some(list []string) []string {
	var out []string
	for _, s := range list {
		if g.chance(60) {
			out = append(out, s)
		}
	}
	return out
}

func (g generator) host() policies.Host {
	var h policies.Host
	if g.chance(40) {
		h.DNSResolvers = g.addresses(1 + g.IntN(2))
	}
	if g.chance(30) {
		h.Exempt = g.addresses(1 + g.IntN(2))
	}
	h.ICMPErrorsByRules = g.chance(25)
	return h
}

// alwaysTrack makes blocks without a prefix in common, which is an error of the
// language; prefixes of one may hold those of another.
func (g generator) alwaysTrack() []*policies.AlwaysTrack {
	var blocks []*policies.AlwaysTrack
	known := map[netip.Prefix]bool{}
	for _, id := range g.some([]string{"balancers", "gateways"}) {
		list := slices.DeleteFunc(g.prefixes(1+g.IntN(3)), func(p netip.Prefix) bool { return known[p] })
		for _, p := range list {
			known[p] = true
		}
		if len(list) > 0 {
			blocks = append(blocks, &policies.AlwaysTrack{ID: id, Prefixes: list})
		}
	}
	return blocks
}

func (g generator) log() *policies.LogDenied {
	l := &policies.LogDenied{
		Rate: 1 + g.IntN(100), Burst: 1 + g.IntN(20),
		Unit: pick(g.Rand, []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour}),
	}
	if g.chance(50) {
		group := g.IntN(65536)
		l.Group = &group
	}
	return l
}

func (g generator) group(name string, groups, lists []string) *policies.Group {
	out := &policies.Group{Name: name}
	if g.chance(60) {
		out.Members = g.prefixes(1 + g.IntN(3))
	}
	seen := map[string]bool{}
	add := func(id string, r *policies.Rule) {
		r.Group = name
		// The same rule twice in a group is an error of the language.
		if same := fmt.Sprintf("%+v", *r); !seen[same] {
			seen[same] = true
			r.ID = id
			out.Rules = append(out.Rules, r)
		}
	}
	for n := range g.IntN(9) {
		add(pick(g.Rand, []string{"r", "rule-", "a_"})+fmt.Sprint(n), g.rule(groups, lists))
	}
	// Families are open or closed as a whole so rarely by chance that some
	// policies get the rule that nearly everybody has.
	if g.chance(50) {
		add("any", g.anyRule(flow.Egress))
	} else if g.chance(25) {
		add("any", g.anyRule(flow.Ingress))
	}
	slices.SortFunc(out.Rules, func(a, b *policies.Rule) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// anyRule makes a rule with the literal any-address and all ports.
func (g generator) anyRule(d flow.Direction) *policies.Rule {
	r := &policies.Rule{Direction: d}
	switch g.IntN(3) {
	case 0:
		r.AllProtocols = true
	case 1:
		r.Protocol, r.Ports = flow.TCP, []flow.PortRange{flow.AllPorts}
	case 2:
		r.Protocol, r.Ports = flow.UDP, []flow.PortRange{flow.AllPorts}
	}
	for n, f := range flow.Families {
		if g.chance(70) || n == 1 && r.Prefixes == nil {
			r.Prefixes = append(r.Prefixes, f.Any())
		}
	}
	return r
}

func (g generator) rule(groups, lists []string) *policies.Rule {
	r := &policies.Rule{Direction: pick(g.Rand, flow.Directions[:])}
	families := flow.Families[:]
	switch n := g.IntN(100); {
	case n < 40:
		r.Protocol, r.Ports = flow.TCP, g.ports()
	case n < 60:
		r.Protocol, r.Ports = flow.UDP, g.ports()
	case n < 72:
		r.AllProtocols = true
	case n < 81:
		r.Protocol, families = flow.ICMP, families[:1]
		r.ICMPType, r.ICMPCode = g.icmp(icmpTypes4)
	case n < 90:
		r.Protocol, families = flow.ICMPv6, families[1:]
		r.ICMPType, r.ICMPCode = g.icmp(icmpTypes6)
	default:
		r.Protocol = pick(g.Rand, otherProtocols)
	}
	for r.Prefixes == nil && r.Lists == nil && r.Groups == nil {
		for _, f := range families {
			if g.chance(30) {
				r.Prefixes = append(r.Prefixes, f.Any())
			}
			if g.chance(40) {
				// More than the eight that a leaf chain may hold inline, at times.
				for range 1 + g.IntN(pick(g.Rand, []int{2, 4, 14})) {
					r.Prefixes = append(r.Prefixes, g.prefix(f))
				}
			}
		}
		r.Prefixes = sorted(r.Prefixes)
		if g.chance(15) {
			r.Lists = g.some(lists)
		}
		if g.chance(15) {
			r.Groups = g.some(groups)
		}
	}
	return r
}

func (g generator) icmp(types []int) (icmpType, icmpCode int) {
	if g.chance(20) {
		return -1, -1
	}
	return pick(g.Rand, types), pick(g.Rand, []int{-1, -1, 0, 1, 4, 255})
}

// ports makes sorted, disjoint and merged ranges.
func (g generator) ports() []flow.PortRange {
	if g.chance(20) {
		return []flow.PortRange{flow.AllPorts}
	}
	var ranges []flow.PortRange
	for range 1 + g.IntN(3) {
		first := g.port()
		last := first
		if g.chance(40) {
			last = uint16(min(65535, int(first)+pick(g.Rand, []int{1, 2, 9, 99, 1023, 40000, 65535})))
		}
		ranges = append(ranges, flow.PortRange{First: first, Last: last})
	}
	slices.SortFunc(ranges, func(a, b flow.PortRange) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	merged := ranges[:1]
	for _, x := range ranges[1:] {
		if last := &merged[len(merged)-1]; int(x.First) <= int(last.Last)+1 {
			last.Last = max(last.Last, x.Last)
		} else {
			merged = append(merged, x)
		}
	}
	return merged
}

func (g generator) port() uint16 {
	if g.chance(15) {
		return uint16(g.IntN(65536))
	}
	return pick(g.Rand, knownPorts)
}

func (g generator) acl(name string) *policies.ACL {
	out := &policies.ACL{Name: name}
	for _, d := range flow.Directions {
		numbers := map[int]bool{}
		for range g.IntN(7) {
			e := &policies.ACLEntry{ACL: name, Direction: d, Number: 1 + g.IntN(32766), Allow: g.chance(60)}
			if numbers[e.Number] {
				continue
			}
			numbers[e.Number] = true
			f := pick(g.Rand, flow.Families[:])
			e.Prefix = g.prefix(f)
			if g.chance(40) {
				e.Prefix = f.Any()
			}
			switch n := g.IntN(100); {
			case n < 30:
				e.AllProtocols = true
			case n < 65:
				e.Protocol, e.Ports = pick(g.Rand, []flow.Protocol{flow.TCP, flow.UDP}), pick(g.Rand, g.ports())
			case n < 90:
				e.Protocol = flow.ICMPOf(f)
				types := icmpTypes4
				if f == flow.IPv6 {
					types = icmpTypes6
				}
				e.ICMPType, e.ICMPCode = g.icmp(types)
			default:
				e.Protocol = pick(g.Rand, otherProtocols)
			}
			out.Entries = append(out.Entries, e)
		}
	}
	slices.SortFunc(out.Entries, func(a, b *policies.ACLEntry) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Number, b.Number))
	})
	return out
}

// prefixes makes a canonical list of both families.
func (g generator) prefixes(n int) []netip.Prefix {
	var out []netip.Prefix
	for range n {
		out = append(out, g.prefix(pick(g.Rand, flow.Families[:])))
	}
	return sorted(out)
}

// addresses makes a canonical list of single addresses, or nearly.
func (g generator) addresses(n int) []netip.Prefix {
	var out []netip.Prefix
	for range n {
		a := pick(g.Rand, knownPrefixes[pick(g.Rand, flow.Families[:])]).Addr()
		out = append(out, netip.PrefixFrom(a, a.BitLen()-pick(g.Rand, []int{0, 0, 0, 1, 3})).Masked())
	}
	return sorted(out)
}

// prefix makes a prefix of a few networks, so that prefixes meet: equal ones,
// nested ones, and neighbours.
func (g generator) prefix(f flow.Family) netip.Prefix {
	known := pick(g.Rand, knownPrefixes[f])
	switch g.IntN(4) {
	case 0:
		return known
	case 1: // narrower
		bits := known.Bits() + g.IntN(f.Bits()-known.Bits()+1)
		return netip.PrefixFrom(within(g.Rand, known), bits).Masked()
	case 2: // wider
		return netip.PrefixFrom(known.Addr(), g.IntN(known.Bits()+1)).Masked()
	default: // the one beside it
		next := flow.RangeOf(known).Last.Next()
		if !next.IsValid() {
			return known
		}
		return netip.PrefixFrom(next, known.Bits()).Masked()
	}
}

// within returns an address of the prefix.
func within(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		for bit := range 8 {
			if i*8+bit >= p.Bits() && r.IntN(2) == 1 {
				b[i] |= 0x80 >> bit
			}
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func sorted(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}
