package kerneltest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/internal/ruleset"
	"sgc/policies"
)

const packetsPerPolicy = 300

// corpusInterfaces are all names of interfaces that the corpus's packets cross,
// but for the loopback.
var corpusInterfaces = []string{"7", "e", "e7", "eth", "eth7", "eth0", "eth1", "wg-0.1", "zz0"}

// beyond are addresses that are neither the host's nor anything known.
var beyond = map[flow.Family]netip.Addr{flow.IPv4: addr("100.99.98.97"), flow.IPv6: addr("2001:db8:ffff::97")}

func envNumber(t *testing.T, name string, otherwise uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestKernelAgreesWithDecide applies random policies one after the other and
// asks the kernel about packets at their borders. SGC_KERNEL_PACKETS sets the
// number of packets, SGC_KERNEL_SEED the first policy. By default there are
// 30,000 packets, or fewer on a machine that is busy for minutes, and more as long
// as some kind of them is too rare by chance.
func TestKernelAgreesWithDecide(t *testing.T) {
	labtest.Require(t)
	packets := int(envNumber(t, "SGC_KERNEL_PACKETS", 0))
	late := time.Now().Add(4 * time.Minute)
	hasEnough := func(c *comparison) bool { return time.Now().After(late) && c.asked >= manyPackets }
	if packets > 0 {
		hasEnough = func(*comparison) bool { return false }
	} else {
		packets = 30_000
	}
	first := envNumber(t, "SGC_KERNEL_SEED", rand.Uint64N(1<<32))
	t.Logf("SGC_KERNEL_SEED=%d", first)

	c := newComparison(t)
	rounds := uint64(max(1, packets/packetsPerPolicy))
	for n := uint64(0); n < rounds && !hasEnough(c) || n < 4*rounds && len(c.rare()) > 0; n++ {
		if err := c.run(t, first+n, n == 0); err != nil {
			t.Fatalf("%v\nSGC_KERNEL_SEED=%d SGC_KERNEL_PACKETS=1, or if that agrees, SGC_KERNEL_SEED=%d SGC_KERNEL_PACKETS=%d",
				err, first+n, first, (n+1)*packetsPerPolicy)
		}
	}
	t.Logf("%d packets: %v", c.asked, c.seen)
	for _, kind := range c.rare() {
		t.Errorf("only %d of %d packets were %s", c.seen[kind], c.asked, kind)
	}
	if c.asked >= manyPackets && c.lost*1000 > c.asked {
		t.Errorf("%d of %d packets did not arrive", c.lost, c.asked)
	}
}

// manyPackets are so many that each kind of them ought to be among them.
const manyPackets = 10_000

// rare are the kinds of packets of which there were fewer than so many random
// packets ought to hold: a corpus that never gets to some clause would agree
// about it, too. A kind that is rare by chance is not so for long.
func (c *comparison) rare() (kinds []string) {
	if c.asked < manyPackets {
		return nil
	}
	for _, kind := range corpus.Every() {
		if c.seen[kind]*4000 < c.asked {
			kinds = append(kinds, kind)
		}
	}
	for _, kind := range []string{
		"none", "unmanaged", "exempt", "tracked", "untracked", "related", "stateless",
		"new", "established", "invalid", "notrack", "forwarded in", "forwarded out", "answers of other protocols",
	} {
		if c.seen[kind]*1000 < c.asked {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// TestTheComparisonNotices spoils what was compiled, each time in one way, and
// expects the comparison to disagree soon.
func TestTheComparisonNotices(t *testing.T) {
	labtest.Require(t)
	isState := func(s ruleset.Statement, want ruleset.CtState) bool {
		m, ok := s.(ruleset.MatchState)
		return ok && m.State == want
	}
	without := func(unwanted func(ruleset.Statement) bool) func(*ruleset.Table) {
		return func(table *ruleset.Table) {
			for _, chain := range table.Chains {
				chain.Rules = slices.DeleteFunc(chain.Rules, func(r ruleset.Rule) bool { return slices.ContainsFunc(r.Statements, unwanted) })
			}
		}
	}
	for what, spoil := range map[string]func(*ruleset.Table){
		"no notrack":     without(func(s ruleset.Statement) bool { return s == ruleset.Notrack{} }),
		"no established": without(func(s ruleset.Statement) bool { return isState(s, ruleset.CtEstablished) }),
		"no related":     without(func(s ruleset.Statement) bool { return isState(s, ruleset.CtRelated) }),
		"no invalid":     without(func(s ruleset.Statement) bool { return isState(s, ruleset.CtInvalid) }),
		"no SYN rule":    without(func(s ruleset.Statement) bool { _, ok := s.(ruleset.MatchFlags); return ok }),
		"no updates":     without(func(s ruleset.Statement) bool { _, ok := s.(ruleset.Update); return ok }),
		"no drop at the end": func(table *ruleset.Table) {
			for _, chain := range table.Chains {
				n := len(chain.Rules)
				if n > 0 && len(chain.Rules[n-1].Statements) == 1 && chain.Rules[n-1].Statements[0] == (ruleset.Verdict{Kind: ruleset.Drop}) {
					chain.Rules = chain.Rules[:n-1]
				}
			}
		},
		"sets one address short": func(table *ruleset.Table) {
			for _, s := range table.Sets {
				for i, e := range s.Elements {
					if s.Interval && !s.Map && e.First != e.Last {
						last := []byte(e.Last)
						last[len(last)-1]--
						s.Elements[i].Last = string(last)
						break
					}
				}
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := newComparison(t)
			c.spoil = spoil
			const most = 60
			for seed := range uint64(most) {
				if err := c.run(t, seed, seed == 0); err != nil {
					return
				}
			}
			t.Errorf("%d policies and nothing noticed", most)
		})
	}
}

// comparison holds the kernel against policies.Judge.
type comparison struct {
	stand  *lab.Stand
	kernel *apply.Kernel
	judge  *lab.Judge
	// alive and flows hold the flows of other protocols that the kernel's table
	// knows.
	alive map[otherFlow]bool
	flows []otherFlow
	// seen counts packets by what they were; asked are those that were sent,
	// and lost those of them that never arrived.
	seen        map[string]int
	asked, lost int
	// spoil, if not nil, changes what was compiled before it is committed.
	spoil func(*ruleset.Table)
}

func newComparison(t testing.TB) *comparison {
	t.Helper()
	var local []netip.Prefix
	for _, f := range flow.Families {
		local = append(local, netip.PrefixFrom(corpus.Hosts[f], f.Bits()))
	}
	c := &comparison{stand: labtest.Stand(t, local, corpusInterfaces...), seen: map[string]int{}}
	c.kernel, c.judge = openKernel(t, c.stand.Host), labtest.Judge(t, c.stand)
	return c
}

// otherFlow is what sgc tracks of protocols that conntrack does not.
type otherFlow struct {
	iface    string
	protocol flow.Protocol
	peer     netip.Addr
}

// apply makes the policy the kernel's: from nothing, or by the difference to
// the policy before, which live flows of other protocols outlast.
func (c *comparison) apply(t testing.TB, p *policies.Policy, env compile.Environment, fromNothing bool) {
	t.Helper()
	if fromNothing {
		commit(t, c.kernel, snapshot(t, c.kernel), nil)
		c.alive, c.flows = map[otherFlow]bool{}, nil
	}
	table := compile.Compile(p, env)
	if c.spoil != nil {
		c.spoil(table)
	}
	// The judge's own table reads conntrack's state: the snapshot's word on
	// other tables does not count here.
	commit(t, c.kernel, snapshot(t, c.kernel), table)
}

// run applies the policy of a seed, asks about packets, and returns the first
// disagreement.
func (c *comparison) run(t testing.TB, seed uint64, fromNothing bool) error {
	t.Helper()
	r := corpus.Seeded(seed)
	p := corpus.Policy(r, corpus.Options{ACLs: r.IntN(2) == 0, AlwaysTrack: r.IntN(2) == 0, Logs: r.IntN(3) == 0, Timeouts: r.IntN(3) == 0})
	env := compile.Environment{}
	if r.IntN(5) == 0 {
		env.Conntrack = map[flow.Family]string{flow.Families[r.IntN(2)]: "a table of the test does NAT"}
	}
	c.apply(t, p, env, r.IntN(2) == 0 || fromNothing)
	judge := policies.NewJudge(p)
	packets := corpus.NewPackets(r, p)
	for left := packetsPerPolicy; left > 0; {
		probes := c.batch(r, judge, packets, min(left, 100))
		left -= len(probes)
		outcomes, err := c.judge.Ask(probes)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range outcomes {
			if !o.Arrived {
				c.lost++
				t.Logf("seed %d: %s: %s", seed, &probes[i].Packet, o)
				continue
			}
			if err := c.compare(judge, env, probes[i].Packet, o); err != nil {
				return fmt.Errorf("%w\nenvironment: %v\npolicy (seed %d): %s", err, env.Conntrack, seed, describe(p))
			}
		}
		if err := c.judge.Witness().Flush(); err != nil {
			t.Fatal(err)
		}
	}
	return nil
}

// batch makes probes of which no two belong to the same flow of another
// protocol: what the first of two does to the second would depend on the order
// in which the kernel takes them.
func (c *comparison) batch(r *rand.Rand, judge *policies.Judge, packets *corpus.Packets, n int) []lab.Probe {
	var probes []lab.Probe
	others := map[otherFlow]bool{}
	for tries := 0; len(probes) < n && tries < 20*n; tries++ {
		p := packets.Next()
		if len(c.flows) > 0 && r.IntN(50) == 0 {
			c.continueFlow(r, &p)
		}
		c.settle(r, &p)
		if c.stand.Possible(&p) != nil || p.Forwarded && p.Direction == flow.Egress && judge.Interface(lab.PassivePrefix) != nil {
			continue
		}
		if p.Protocol.IsOther(p.Family()) {
			f := otherFlow{p.Interface, p.Protocol, p.Peer()}
			if others[f] {
				continue
			}
			others[f] = true
		}
		probes = append(probes, lab.Probe{Packet: p, Envelope: lab.Envelope{EchoID: uint16(r.Uint32())}})
	}
	return probes
}

// continueFlow makes the packet one more of a live flow, in either direction.
func (c *comparison) continueFlow(r *rand.Rand, p *flow.Packet) {
	f := c.flows[r.IntN(len(c.flows))]
	*p = flow.Packet{
		Interface: f.iface, Direction: p.Direction, Protocol: f.protocol, HopLimit: 64,
		Source: f.peer, Dest: f.peer,
	}
}

// settle gives the packet a local address that the stand has, and makes ICMP
// errors quote a packet that this host sent to this peer, most of the time.
func (c *comparison) settle(r *rand.Rand, p *flow.Packet) {
	f := p.Family()
	near := corpus.Hosts[f]
	if p.Forwarded {
		near = beyond[f]
	}
	if p.Direction == flow.Ingress && !p.Dest.IsMulticast() {
		p.Dest = near
	} else if p.Direction == flow.Egress {
		p.Source = near
	}
	if p.Protocol == flow.TCP && p.State == flow.Established && r.IntN(4) != 0 {
		p.TCPFlags = flow.ACK
	}
	if p.Quoted != nil && r.IntN(8) != 0 {
		q := *p.Quoted
		q.Source, q.Dest = p.Dest, p.Source
		p.Quoted = &q
	}
}

// compare tells whether the kernel did what the policy means, and counts.
func (c *comparison) compare(judge *policies.Judge, env compile.Environment, p flow.Packet, o lab.Outcome) error {
	c.asked++
	other := otherFlow{p.Interface, p.Protocol, p.Peer()}
	isOther := p.Protocol.IsOther(p.Family())
	// Conntrack knows best what it took the packet for.
	p.State = o.State
	if isOther {
		p.State = flow.New
		if c.alive[other] {
			p.State = flow.Established
		}
	}
	d := judge.Decide(&p)
	disagree := func(what string) error {
		return fmt.Errorf("%s\npacket: %s\nkernel: %s\npolicy: allow %t, %s: %s", what, &p, o, d.Allow, d.Class, d.Reason)
	}
	if o.Passed != d.Allow {
		return disagree("the kernel and the policy disagree about the verdict")
	}
	notrack := wantsNotrack(judge, env, &p)
	if p.Protocol.HasPorts() && o.Classified && o.Untracked != notrack {
		return disagree("the kernel and the policy disagree about conntrack")
	}
	if isOther && d.Allow && d.Class == policies.Tracked {
		if !c.alive[other] {
			c.flows = append(c.flows, other)
		}
		c.alive[other] = true
	}
	if i := judge.Interface(p.Interface); i != nil {
		for _, kind := range corpus.Kinds(i, &p, d) {
			c.seen[kind]++
		}
	}
	c.count(p, d, o, notrack)
	return nil
}

func (c *comparison) count(p flow.Packet, d policies.Decision, o lab.Outcome, notrack bool) {
	c.seen[d.Class.String()]++
	switch {
	case p.Protocol.IsOther(p.Family()):
		if p.State == flow.Established {
			c.seen["answers of other protocols"]++
		}
	case o.Classified && !o.Untracked:
		c.seen[o.State.String()]++
	}
	if notrack {
		c.seen["notrack"]++
	}
	if p.Forwarded && p.Direction == flow.Ingress {
		c.seen["forwarded in"]++
	} else if p.Forwarded {
		c.seen["forwarded out"]++
	}
}
