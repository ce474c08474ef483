package cli

import (
	"fmt"
	"time"

	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/policies"
)

// otherTimeout is for how long the rules remember a flow of another protocol after
// its last packet (2.2).
const otherTimeout = 600 * time.Second

// explainedRemembered is the JSON form of a remembered flow with its explanation.
type explainedRemembered struct {
	rememberedView
	Explanation explanation `json:"explanation"`
}

// remembered explains the flows that the rules remember, the filter takes, and of
// which no entry was shown.
func (o *explanations) remembered(x *explainer, f *conntrack.Filter, shown map[policies.OtherFlow]bool) error {
	var judged conntrack.Judged
	for _, known := range x.others.without(shown, x.judge, f) {
		o.n++
		known.chosen(x.judge, f, &judged)
		x.change.Other(known.OtherFlow, &o.changed)
		explained := x.remembered(&known, &judged, &o.changed)
		if o.json != nil {
			if err := o.json.Encode(explainedRemembered{newRememberedView(&known, &judged), explained}); err != nil {
				return err
			}
			continue
		}
		if _, err := o.Write(o.lines.remembered(&known, &judged)); err != nil {
			return err
		}
		if err := o.sentences(append(explained.Legs[0].Sentences, explained.Sentences...)); err != nil {
			return err
		}
	}
	return nil
}

// remembered explains a flow of which there is no entry.
func (x *explainer) remembered(f *remembered, j *conntrack.Judged, c *conntrack.Changed) explanation {
	l := &j.Legs[0]
	var old *policies.Rule
	if c.Leg() != nil {
		old = c.Leg().Old.Rule
	}
	leg := x.leg(l, old, false)
	if len(j.Legs) > 1 {
		leg.AllowedBy = append(leg.AllowedBy, j.Legs[1].Rule.Address())
		leg.say("%s lets it open the other way; nobody remembers who opened a flow of this protocol.", j.Legs[1].Rule.Address())
	}
	x.sayEnding(&leg, l)
	out := explanation{Legs: []legExplanation{leg}, Timeout: &nextTimeout{Seconds: secondsOf(otherTimeout), From: "sgc"}}
	out.Sentences = append(out.Sentences, sayRemembered(f.left), "Conntrack has no entry of it at the moment, and it needs none.")
	if ending := x.forgetEnding(&l.Packet, "makes sgc forget it"); ending != "" {
		out.Sentences = append(out.Sentences, ending)
	}
	if x.planned != "" {
		out.effect(c.Fate, c.Reason)
	}
	return out
}

// sayRemembered says how long the rules let a flow go on.
func sayRemembered(left time.Duration) string {
	return fmt.Sprintf("It goes on until it is silent for %ds (%s are left): sgc remembers flows of this protocol by address in a set of its own.", otherTimeout/time.Second, exactTime(left))
}

// forgetEnding says what becomes of a flow of another protocol if sgc forgets it,
// or is "".
func (x *explainer) forgetEnding(p *flow.Packet, does string) string {
	if x.inForce == nil || x.planned != "" || !x.remembers(p) {
		return ""
	}
	forth, back := x.opens(p), x.opens(reply(p))
	command, effect := "sgc conntrack flush", ""
	switch {
	case forth == "" && back == "":
		command += " --revoked"
		effect = "that cuts it, since no rule lets its next packet open it anew"
	case forth != "" && back != "":
		effect = fmt.Sprintf("it goes on with its next packet, as %s allow", someNames([]string{forth, back}))
	case forth == "":
		p, forth = reply(p), back
		fallthrough
	default:
		effect = fmt.Sprintf("it goes on with the next packet that %s, as %s allows, and until then no other passes", sends(p), forth)
	}
	return fmt.Sprintf("%s --protocol %s --cidr %s %s, with all flows like it: %s.", command, p.Protocol.Name(p.Family()), p.Peer(), does, effect)
}
