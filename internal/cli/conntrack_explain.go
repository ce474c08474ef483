package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sgc/apply"
	"sgc/compile"
	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/policies"
)

// explainer says in sentences what a policy means for live flows. It asks those
// whom an apply asks: conntrack.Change for what becomes of a flow, and the judges
// of the policy.
type explainer struct {
	*tracking
	step   *transition
	change *conntrack.Change
	// planned is the policy's path if it is not the one that is enforced; "" if
	// it is.
	planned string
	// inForce is what the kernel enforces, nil if nothing is known to be.
	inForce *enforced
	// since is when what is enforced was applied.
	since time.Time
	// had knows the rules that were in force before that, and ever those that an
	// apply still counts, see policies.PastJudge.OnlyDeleted.
	had, ever *policies.PastJudge
	timeouts  *timeoutSource
	// others are the live flows of protocols that sgc tracks by itself.
	others rememberedFlows
	// held is what is refused for a while.
	held heldFlows
	// window says that routed TCP flows without entries go on from any segment.
	window bool
}

// conntrackExplain explains flows: those of entries, those of the host's sockets
// that have none, and those of other protocols that have none and that the rules
// remember.
func (s *session) conntrackExplain(ctx context.Context, path string, chosen choice) error {
	return s.withExplainer(ctx, path, conntrackExplain, chosen, func(x *explainer, f *conntrack.Filter) error {
		out := s.explanations()
		sockets, err := x.sockets(ctx, f)
		if err != nil {
			return err
		}
		var judged conntrack.Judged
		shown := map[policies.OtherFlow]bool{}
		err = x.table.Entries(ctx, func(e *conntrack.Entry) error {
			if err := x.judge.Entry(e, &judged); err != nil {
				return err
			}
			if key, ok := x.change.SocketKey(e); ok {
				delete(sockets, key)
			}
			if !f.Matches(&judged) {
				return nil
			}
			x.others.shown(&judged, shown)
			return out.entry(x, e, &judged)
		})
		if err != nil && !errors.Is(err, conntrack.ErrTorn) {
			return errors.Join(err, out.Flush())
		}
		for _, socket := range sorted(sockets) {
			if x.classless(socket) && len(f.Classes) > 0 {
				continue
			}
			if failed := out.socket(x, socket); failed != nil {
				return failed
			}
		}
		if failed := out.remembered(x, f, shown); failed != nil {
			return failed
		}
		if failed := out.Flush(); failed != nil {
			return failed
		}
		if out.n == 0 {
			s.inform("No live flow is like that.")
		}
		return s.explainTorn(err)
	})
}

// listExplained is listEntries with explanations.
func (s *session) listExplained(ctx context.Context, path string, chosen choice) error {
	return s.withExplainer(ctx, path, conntrackList, chosen, func(x *explainer, f *conntrack.Filter) error {
		out := s.explanations()
		shown := map[policies.OtherFlow]bool{}
		err := x.table.Select(ctx, x.judge, f, func(e *conntrack.Entry, j *conntrack.Judged) error {
			x.others.shown(j, shown)
			return out.entry(x, e, j)
		})
		if err == nil || errors.Is(err, conntrack.ErrTorn) {
			if failed := out.remembered(x, f, shown); failed != nil {
				return failed
			}
		}
		if failed := out.Flush(); failed != nil {
			return failed
		}
		if err == nil && out.n == 0 {
			s.inform(noEntry)
		}
		return s.explainTorn(err)
	})
}

// withExplainer finds out what is enforced, and calls f with what the flags
// choose.
func (s *session) withExplainer(ctx context.Context, path, command string, chosen choice, f func(*explainer, *conntrack.Filter) error) (err error) {
	var policy *policies.Policy
	if path != "" {
		if policy, err = s.knownPolicy(ctx, path); err != nil {
			return err
		}
	}
	v, err := s.lookOnce(ctx)
	if err != nil {
		return err
	}
	s.explainPending(v)
	x := &explainer{planned: path}
	switch {
	case v.last != nil && (policy == nil || policy.Digest() == v.last.Policy.Digest()):
		policy, x.planned = v.last.Policy, ""
	case policy == nil:
		return noPolicy(command)
	}
	if err := chosen.resolve(policy); err != nil {
		return err
	}
	x.step = v.transition(&enforced{Policy: policy, Conntrack: environment(v.snapshot.Foreign)})
	if x.inForce = x.step.old; x.step.lost {
		x.inForce = nil
		s.inform("Nothing is enforced at the moment: what follows holds from the next apply on.")
	}
	var past *policies.Past
	if v.last != nil {
		x.since, past = v.record.Applied, v.last.Past
	}
	x.had, x.ever = policies.NewPastJudge(past, nil, policy), policies.NewPastJudge(x.step.past(), nil, policy)
	if x.inForce != nil && x.step.recorded {
		x.timeouts = newTimeoutSource(x.inForce.Policy, v.settings)
	} else {
		x.timeouts = newTimeoutSource(nil, v.settings)
	}
	if set, _ := compile.Adoption(); v.snapshot.Table != nil && v.snapshot.Table.Set(set) != nil {
		x.window = len(v.snapshot.Table.Set(set).Timed) > 0
	}
	x.held = newHeldFlows(v.snapshot.Table)
	if x.others, err = s.rememberedFlows(ctx, &chosen.filter); err != nil {
		return err
	}
	return s.withTracking(ctx, policy, func(t *tracking) error {
		x.tracking = t
		openers, err := t.table.Openers(ctx)
		if err != nil && !errors.Is(err, conntrack.ErrNoSockets) {
			return err
		}
		x.change = x.step.change(t.routes, openers)
		return f(x, &chosen.filter)
	})
}

// lookOnce looks at the host for a command that changes nothing.
func (s *session) lookOnce(ctx context.Context) (v *sight, err error) {
	dir, err := s.existingDir()
	if err != nil {
		return nil, err
	}
	k, err := apply.Open(s.Netns)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	return s.look(ctx, k, dir)
}

// socketFlow is a flow of the host of which there is no entry.
type socketFlow struct {
	socket conntrack.Socket
	leg    conntrack.Leg
	fate   conntrack.Fate
	reason conntrack.Reason
	// keptOut says that the rules in the kernel keep such flows out of conntrack,
	// seed that an apply of the policy makes an entry of it.
	keptOut, seed bool
}

// sockets returns those of the host's sockets whose flows the filter takes.
func (x *explainer) sockets(ctx context.Context, f *conntrack.Filter) (map[conntrack.SocketKey]*socketFlow, error) {
	found := map[conntrack.SocketKey]*socketFlow{}
	var out conntrack.Changed
	err := x.table.Sockets(ctx, func(socket *conntrack.Socket) error {
		if err := x.change.Socket(socket, &out); err != nil || len(out.Legs) == 0 {
			return err
		}
		leg := conntrack.Leg{Packet: out.Legs[0].Packet, Standing: out.Legs[0].New}
		if f.Matches(&conntrack.Judged{Legs: []conntrack.Leg{leg}}) {
			found[socket.Key()] = &socketFlow{*socket, leg, out.Fate, out.Reason, out.KeptOut, out.Seed}
		}
		return nil
	})
	if errors.Is(err, conntrack.ErrNoSockets) {
		err = nil // this kernel shows entries alone
	}
	return found, err
}

// sorted puts sockets into an order that does not change from run to run.
func sorted(sockets map[conntrack.SocketKey]*socketFlow) []*socketFlow {
	var out []*socketFlow
	for _, f := range sockets {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b *socketFlow) int {
		p, q := &a.leg.Packet, &b.leg.Packet
		return cmp.Or(
			strings.Compare(p.Interface, q.Interface), cmp.Compare(p.Direction, q.Direction), cmp.Compare(p.Protocol, q.Protocol),
			p.Source.Compare(q.Source), cmp.Compare(p.SourcePort, q.SourcePort), p.Dest.Compare(q.Dest), cmp.Compare(p.DestPort, q.DestPort),
		)
	})
	return out
}

// explainedEntry is the JSON form of an entry with its explanation.
type explainedEntry struct {
	entryView
	Explanation explanation `json:"explanation"`
}

// explainedSocket is the JSON form of a flow without an entry.
type explainedSocket struct {
	FormatVersion int `json:"format_version"`
	// Class is "none" where neither an entry nor a rule lets packets of it pass.
	Class    string `json:"class"`
	Revoked  bool   `json:"revoked"`
	Protocol string `json:"protocol"`
	// Socket is the state of the socket by which the flow is known.
	Socket      string      `json:"socket"`
	Remaining   *int        `json:"remaining_seconds"`
	Legs        []legView   `json:"legs"`
	Explanation explanation `json:"explanation"`
}

// explanations prints them as they come.
type explanations struct {
	*bufio.Writer
	json    *json.Encoder // nil for text
	lines   entryLines
	changed conntrack.Changed
	// n is how many there were.
	n int
}

func (s *session) explanations() *explanations {
	out := &explanations{Writer: bufio.NewWriterSize(s.Out, 1<<16), lines: entryLines{paint: s.outPaint()}}
	if s.JSON {
		out.json = json.NewEncoder(out)
		out.json.SetEscapeHTML(false)
	}
	return out
}

// indent stands before each sentence.
const indent = "    "

func (o *explanations) entry(x *explainer, e *conntrack.Entry, j *conntrack.Judged) error {
	o.n++
	if err := x.change.Entry(e, &o.changed); err != nil {
		return err
	}
	explained := x.entry(e, j, &o.changed)
	if o.json != nil {
		return o.json.Encode(explainedEntry{newEntryView(e, j, x.others), explained})
	}
	o.lines.known = x.others
	lines := bytes.SplitAfter(o.lines.of(e, j), []byte("\n"))
	for i := range explained.Legs {
		if _, err := o.Write(lines[i]); err != nil {
			return err
		}
		if err := o.sentences(explained.Legs[i].Sentences); err != nil {
			return err
		}
	}
	return o.sentences(explained.Sentences)
}

func (o *explanations) socket(x *explainer, f *socketFlow) error {
	o.n++
	explained := x.socket(f)
	class := f.leg.Class().String()
	if x.classless(f) {
		class = "none"
	}
	if o.json != nil {
		return o.json.Encode(explainedSocket{
			FormatVersion: formatVersion, Class: class, Revoked: f.leg.Revoked(),
			Protocol: f.leg.Packet.Protocol.Name(f.leg.Packet.Family()), Socket: f.socket.State.String(),
			Legs: []legView{newLegView(&f.leg)}, Explanation: explained,
		})
	}
	o.lines.buf = o.lines.buf[:0]
	o.lines.leg(&f.leg, class, "-", fmt.Sprintf("socket %s, no entry", f.socket.State))
	if _, err := o.Write(o.lines.buf); err != nil {
		return err
	}
	if err := o.sentences(explained.Legs[0].Sentences); err != nil {
		return err
	}
	return o.sentences(explained.Sentences)
}

func (o *explanations) sentences(all []string) error {
	for _, text := range all {
		if _, err := o.WriteString(indent + clean(text) + "\n"); err != nil {
			return err
		}
	}
	return nil
}

// reply is the first packet of the other direction, as one that would open the
// flow.
func reply(p *flow.Packet) *flow.Packet {
	r := p.Reply()
	return &r
}
