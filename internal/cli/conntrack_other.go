package cli

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sgc/apply"
	"sgc/compile"
	"sgc/conntrack"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// rememberedFlows are the flows of other protocols that the rules let go on, and
// for how long. Conntrack may have several entries of one, or none: the kernel
// forgets GRE after 30 seconds, the rules after 600.
type rememberedFlows map[policies.OtherFlow]remembered

// rememberedFlows returns those that the filter may take.
func (s *session) rememberedFlows(ctx context.Context, f *conntrack.Filter) (rememberedFlows, error) {
	if !f.TakesOthers() {
		return nil, nil
	}
	return s.otherFlowsOnce(ctx)
}

// left returns how long the flow of an entry goes on without a packet: as long as
// the rules remember it where they have to. It is false for flows that they do not
// remember.
func (r rememberedFlows) left(j *conntrack.Judged) (left time.Duration, known bool) {
	if len(r) == 0 {
		return 0, false
	}
	for i := range j.Legs {
		p := &j.Legs[i].Packet
		if !isOther(p) {
			return 0, false
		}
		if f, ok := r[policies.OtherFlowOf(p)]; ok && (!known || f.left < left) {
			left, known = f.left, true
		}
	}
	return left, known
}

// without returns those that the filter takes and of which no entry was shown, in
// an order that does not change from run to run.
func (r rememberedFlows) without(shown map[policies.OtherFlow]bool, judge *conntrack.Judge, f *conntrack.Filter) []remembered {
	var out []remembered
	var judged conntrack.Judged
	for _, flow := range r {
		if !shown[flow.OtherFlow] && flow.chosen(judge, f, &judged) {
			out = append(out, flow)
		}
	}
	slices.SortFunc(out, func(a, b remembered) int {
		return cmp.Or(strings.Compare(a.Interface, b.Interface), cmp.Compare(a.Protocol, b.Protocol), a.Peer.Compare(b.Peer))
	})
	return out
}

// chosen judges the flow, and reports whether the filter takes it; the first leg is
// one that it takes then.
func (f *remembered) chosen(judge *conntrack.Judge, filter *conntrack.Filter, out *conntrack.Judged) bool {
	judge.Other(f.OtherFlow, out)
	for i := range out.Legs {
		if filter.Matches(&conntrack.Judged{Legs: out.Legs[i : i+1]}) {
			out.Legs[0], out.Legs[i] = out.Legs[i], out.Legs[0]
			return true
		}
	}
	return false
}

// shown notes the flows of an entry.
func (r rememberedFlows) shown(j *conntrack.Judged, seen map[policies.OtherFlow]bool) {
	for i := range j.Legs {
		p := &j.Legs[i].Packet
		if len(r) == 0 || !isOther(p) {
			return
		}
		flow := policies.OtherFlowOf(p)
		if _, known := r[flow]; known {
			seen[flow] = true
		}
	}
}

// rememberedView is the JSON form of a flow of another protocol without an entry.
// Nobody knows who opened it, nor the near side's address.
type rememberedView struct {
	FormatVersion int    `json:"format_version"`
	Class         string `json:"class"`
	Revoked       bool   `json:"revoked"`
	Protocol      string `json:"protocol"`
	// Remembered says that the rules remember it, and that Remaining is their time.
	Remembered bool                `json:"remembered"`
	Remaining  int                 `json:"remaining_seconds"`
	Legs       []rememberedLegView `json:"legs"`
}

// rememberedLegView is legView for such a flow; there is one.
type rememberedLegView struct {
	Interface string     `json:"interface"`
	Peer      netip.Addr `json:"peer"`
	Class     string     `json:"class"`
	Revoked   bool       `json:"revoked"`
	Rule      *string    `json:"rule"`
	Denied    bool       `json:"denied_by_acl,omitempty"`
}

func newRememberedView(f *remembered, j *conntrack.Judged) rememberedView {
	leg := newLegView(&j.Legs[0])
	return rememberedView{
		FormatVersion: formatVersion, Class: leg.Class, Revoked: j.Revoked(),
		Protocol: j.Legs[0].Packet.Protocol.Name(j.Legs[0].Packet.Family()), Remembered: true, Remaining: seconds(f.left),
		Legs: []rememberedLegView{{Interface: leg.Interface, Peer: f.Peer, Class: leg.Class, Revoked: leg.Revoked, Rule: leg.Rule, Denied: leg.Denied}},
	}
}

// remembered writes such a flow as text.
func (w *entryLines) remembered(f *remembered, j *conntrack.Judged) []byte {
	l := &j.Legs[0]
	w.buf = w.buf[:0]
	w.cell(clean(f.Interface), widthInterface)
	w.cell("either", widthDirection)
	w.cell(l.Packet.Protocol.Name(l.Packet.Family())+" "+f.Peer.String(), widthFlow)
	w.cell(l.Class().String(), widthClass)
	w.cell(shortTime(f.left), widthRemaining)
	w.buf = append(w.buf, w.ruleText(l)...)
	w.buf = append(w.buf, " (remembered by sgc)\n"...)
	return w.buf
}

// forgetChosen makes the rules forget the flows that the filter takes, and returns
// how many they were. One that they let open anew is back with its next packet; of
// the others none passes any more.
func (s *session) forgetChosen(ctx context.Context, t *tracking, f *conntrack.Filter) (n int, err error) {
	if !f.TakesOthers() {
		return 0, nil
	}
	dir, err := s.existingDir()
	if err != nil {
		return 0, err
	}
	if dir != nil {
		// An apply would look again, and a person's approval would be in vain.
		lock, err := s.lock(ctx, dir, lockPatience)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, lock.Unlock()) }()
	}
	k, err := apply.Open(s.Netns)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	table := &ruleset.Table{Name: compile.TableName, Sets: compile.OtherFlows()}
	forgotten := map[policies.OtherFlow]bool{}
	for pass := 1; ; pass++ {
		flows, err := otherFlows(ctx, k)
		if err != nil {
			return 0, err
		}
		var judged conntrack.Judged
		flows = slices.DeleteFunc(flows, func(flow remembered) bool {
			// A flow that no rule allows is back only by a packet that was on its way.
			return !flow.chosen(t.judge, f, &judged) || pass > 1 && !(judged.Revoked() && forgotten[flow.OtherFlow])
		})
		if len(flows) == 0 {
			return len(forgotten), nil
		}
		if err := forget(ctx, k, table, flows, func(apply.Generations) {}); err != nil {
			return len(forgotten), err
		}
		for _, flow := range flows {
			forgotten[flow.OtherFlow] = true
		}
		if pass == forgettings {
			return len(forgotten), nil
		}
		select {
		case <-ctx.Done():
			return len(forgotten), ctx.Err()
		case <-time.After(forgetPause):
		}
	}
}
