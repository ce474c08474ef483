package corpus

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"sgc/policies"
)

// Options say what may be in a policy beside groups, lists, interfaces and the
// host's exemptions.
type Options struct {
	// ACLs, AlwaysTrack and Logs attach network ACLs, always_track blocks and
	// log_denied blocks to some interfaces.
	ACLs, AlwaysTrack, Logs bool
	// Timeouts gives some interfaces and always_track blocks idle timeouts.
	Timeouts bool
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
		if o.Timeouts {
			g.timeouts(i)
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

// timeouts gives an interface and its always_track blocks timeouts, of so few
// values that some are the same.
func (g generator) timeouts(i *policies.Interface) {
	seconds := func(of ...int) time.Duration { return time.Duration(pick(g.Rand, of)) * time.Second }
	if g.chance(60) {
		i.Timeouts = &policies.Timeouts{
			TCPEstablished: seconds(60, 350, 432000), UDP: seconds(30, 30, 60), UDPStream: seconds(60, 120, 180),
		}
	}
	for _, t := range i.AlwaysTrack {
		if g.chance(50) {
			t.TCPEstablished = seconds(1, 350, 432000)
		}
		if g.chance(50) {
			t.UDPStream = seconds(1, 120, 180)
		}
	}
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
