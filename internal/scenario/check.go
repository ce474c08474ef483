package scenario

import (
	"fmt"
	"time"
)

// A check sends at its own pace, whatever the speed.
const (
	checkInterval = 50 * time.Millisecond
	// checkAttempt is how long an attempt to connect may take. One that comes too
	// soon to its end is made again.
	checkAttempt = 250 * time.Millisecond
	// checkPackets are enough to call a flow refused.
	checkPackets = 3
	// checkPatience is how long a flow may take that should be allowed.
	checkPatience = 3 * time.Second
)

// check opens a new flow, looks what becomes of it, and ends it.
func (r *Run) check(c *Check) ([]Verdict, error) {
	spec := *c.Flow
	if c.Traffic == Refused {
		spec.Count = checkPackets
	}
	p, err := r.begin(&spec, checkInterval, checkAttempt)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	v := Verdict{At: c.At, Flow: spec.Name, Expected: trafficWords[c.Traffic], Met: true}
	var n counts
	look := func() bool {
		n = p.window(0, r.now(), r.now())
		// Of a flow that should be refused, one packet is too many.
		return n.passed[Opener] > 0 && (c.Traffic == Refused && spec.Sends[Opener] || !spec.Sends[Responder] || n.passed[Responder] > 0)
	}
	problem := ""
	switch c.Traffic {
	case Refused:
		all := r.until(patience, func() bool { return look() || n.sent[Opener] >= checkPackets })
		if !all {
			problem = fmt.Sprintf("%s sent too little", spec.From)
		}
		if r.until(badGrace, look) {
			problem = fmt.Sprintf("%d passed", n.passed[Opener]+n.passed[Responder])
		} else if n.unheard > 0 {
			problem = spec.unheardText(n.unheard)
		}
	default:
		if !r.until(checkPatience, look) {
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
