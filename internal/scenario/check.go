package scenario

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// A check sends at its own pace, whatever the speed.
const (
	checkInterval = 50 * time.Millisecond
	// refusedAttempt is how long an attempt to connect may take that should be
	// refused. One that comes too soon to its end is made again.
	refusedAttempt = 250 * time.Millisecond
	// allowedAttempt is that of one that should succeed. It ends before the kernel
	// sends its second SYN, after 1 s: whether the first one was lost is to be seen.
	allowedAttempt = 900 * time.Millisecond
	// checkPackets are enough to call a flow refused.
	checkPackets = 3
	// checkPatience is how long a flow may take that should be allowed.
	checkPatience = 3 * time.Second
)

// check opens a new flow, looks what becomes of it, and ends it.
func (r *Run) check(c *Check) ([]Verdict, error) {
	spec := *c.Flow
	enough, attempt := checkPackets, allowedAttempt
	if c.Traffic == Refused {
		spec.Count, attempt = checkPackets, refusedAttempt
		if spec.Protocol != protocolTCP && !spec.Sends[Opener] {
			// The one that opens the flow; TCP tries as often as any.
			enough = 1
		}
	}
	p, err := r.begin(&spec, checkInterval, attempt)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	v := Verdict{At: c.At, Flow: spec.Name, Expected: trafficWords[c.Traffic], Met: true}
	var n counts
	look := func() bool {
		n = p.window(0, r.now(), r.now())
		if c.Traffic == Refused {
			// One packet is too many.
			return n.passed[Opener]+n.passed[Responder] > 0
		}
		return n.passed[Opener] > 0 && (!spec.Sends[Responder] || n.passed[Responder] > 0)
	}
	problem := ""
	switch c.Traffic {
	case Refused:
		all := r.until(patience, func() bool { return look() || n.sent[Opener] >= enough })
		if !all {
			problem = fmt.Sprintf("%s sent too little", spec.From)
		}
		if r.until(badGrace, look) {
			problem = fmt.Sprintf("%d passed", n.passed[Opener]+n.passed[Responder])
		} else if n.unheard > 0 {
			problem = spec.unheardText(n.unheard)
		}
	default:
		switch {
		case r.until(checkPatience, look):
			// What is merely late was not lost.
			lost := 0
			if !r.until(checkPatience, func() bool { lost = r.lostBefore(p); return lost == 0 }) {
				problem = fmt.Sprintf("%d lost before one passed", lost)
			}
		case n.passed[Opener] > 0:
			problem = fmt.Sprintf("nothing that %s sent passed", spec.host(Responder))
		default:
			problem = "none passed"
		}
	}
	v.Seen = p.seen(&n)
	if problem != "" {
		v.Met = false
		v.Seen += "; " + problem
	}
	j := r.sight(p, p.lane.Begun, r.now())
	if c.Tracked != nil {
		v.Expected += "; " + trackedWords(*c.Tracked)
		entries, err := r.witness.Entries()
		if err != nil {
			return nil, err
		}
		j.look(entries)
		if (j.entry != nil) != *c.Tracked {
			v.Met = false
			v.Seen += "; conntrack has " + map[bool]string{true: "an", false: "no"}[j.entry != nil] + " entry of it"
		}
	}
	if !v.Met {
		j.explain(&v)
	}
	return []Verdict{v}, r.ctx.Err()
}

// lostBefore returns how many packets of a flow that should be allowed did not pass
// although a later one of the same side did. Hosts and links of the lab keep the
// order, and hold what comes before a neighbour is known, so that all of these are
// lost for good, but for:
//   - what path MTU discovery may lose, unless the sender's own rules refused it;
//   - what no rule kept from being sent, such as by a port that is taken;
//   - what was sent shortly before the machine stood still, such as an attempt to
//     connect that its limit cut off.
func (r *Run) lostBefore(p *player) (lost int) {
	lane := p.snapshot()
	var seen [2]bool
	for i := len(lane.Packets) - 1; i >= 0; i-- {
		k := &lane.Packets[i]
		switch {
		case lane.Passed(k) != 0:
			seen[k.Side] = true
		case !seen[k.Side]:
		case k.Failed == refusedBySender:
			lost++
		case k.Failed != "" || r.isTooLarge(p.spec):
		case r.clock.longest(k.Sent, k.Sent+p.attempt) > 0:
		default:
			lost++
		}
	}
	return lost
}

// largestHeaders are those that precede a packet's payload at most: of IPv6, and of
// TCP with its options, or what the lab puts before that of other protocols.
const largestHeaders = 40 + 60

// defaultMTU is that of the links of a network that says nothing: Ethernet's.
const defaultMTU = 1500

// isTooLarge reports whether a packet of the flow may not fit into one of the
// scenario's networks and into another one, so that its sender has to be told.
func (r *Run) isTooLarge(f *Flow) bool {
	if len(r.scenario.Networks) == 0 {
		return false
	}
	mtu := func(n *Network) int { return cmp.Or(n.MTU, defaultMTU) }
	order := func(a, b *Network) int { return cmp.Compare(mtu(a), mtu(b)) }
	least, most := mtu(slices.MinFunc(r.scenario.Networks, order)), mtu(slices.MaxFunc(r.scenario.Networks, order))
	return least < most && f.Size+largestHeaders > least
}
