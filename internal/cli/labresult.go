package cli

import (
	"context"
	"errors"
	"slices"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/policies"
)

// labResult is an example and what the kernel did with its packet.
type labResult struct {
	*example
	finding lab.Finding
	// tracked says that the kernel's conntrack has an entry of the packet's
	// flow, wantTracked what the policy asks for; neither counts for packets
	// that were dropped.
	tracked, wantTracked bool
	// free says that the policy leaves it open whether the flow is tracked.
	free bool
}

// sent reports whether the packet came to the host at all.
func (r *labResult) sent() bool { return r.finding.Arrived }

// agrees reports whether the kernel did what the policy says.
func (r *labResult) agrees() bool {
	if r.finding.Passed != r.meaning.Allow {
		return false
	}
	return !r.meaning.Allow || r.free || r.tracked == r.wantTracked
}

// send sends the examples' packets and keeps the results.
func (r *labReport) send(ctx context.Context, stand *lab.Stand, policy *policies.Policy, examples []*example) (err error) {
	if len(examples) == 0 {
		return nil
	}
	judge, err := stand.OpenJudge()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, judge.Close()) }()
	// Answers come after their openers.
	order := slices.Clone(examples)
	slices.SortStableFunc(order, func(a, b *example) int { return depth(a) - depth(b) })
	trials := make([]lab.Trial, len(order))
	for i, e := range order {
		trials[i] = lab.Trial{Packet: e.packet, Answers: -1}
		if e.answers != nil {
			trials[i].Answers = slices.Index(order, e.answers)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	findings, err := judge.Try(trials)
	if err != nil {
		return err
	}
	found := map[*example]lab.Finding{}
	for i, e := range order {
		found[e] = findings[i]
	}
	meaning := policies.NewJudge(policy)
	for _, e := range examples {
		r.results = append(r.results, newLabResult(meaning, e, found[e]))
	}
	return nil
}

func depth(e *example) int {
	if e.answers == nil {
		return 0
	}
	return depth(e.answers) + 1
}

func newLabResult(judge *policies.Judge, e *example, f lab.Finding) labResult {
	p := &e.packet
	r := labResult{example: e, finding: f}
	r.tracked = f.Passed && (f.Entry != nil || f.HasEntry())
	switch e.meaning.Class {
	case policies.Tracked:
		r.wantTracked = true
	case policies.Untracked:
		// The kernel is told so, unless the interface forbids it.
		i := judge.Interface(p.Interface)
		r.wantTracked = i != nil && i.NotrackOff
	case policies.Exempt, policies.Unmanaged, policies.Related:
		r.free = true
	}
	return r
}

// count returns how many packets were sent, and what became of them.
func (r *labReport) count() (sent, passed, dropped, disagree int) {
	for i := range r.results {
		x := &r.results[i]
		if !x.sent() {
			continue
		}
		sent++
		if x.finding.Passed {
			passed++
		} else {
			dropped++
		}
		if !x.agrees() {
			disagree++
		}
	}
	return sent, passed, dropped, disagree
}

func (r *labReport) disagreements() int {
	_, _, _, n := r.count()
	return n
}

// maxLabLines is how many packets are sent, unless all are asked for.
const maxLabLines = 36

// choose takes the examples that tell most: by rank, and of the same rank in
// turn from each interface and direction. Answers bring what they answer.
func choose(examples []*example) []*example {
	type group struct {
		name      string
		direction flow.Direction
		rank      rank
	}
	type place struct {
		*example
		turn int
	}
	var places []place
	turns := map[group]int{}
	for _, e := range examples {
		if e.rank > rankPort {
			continue
		}
		g := group{e.packet.Interface, e.packet.Direction, e.rank}
		places = append(places, place{e, turns[g]})
		turns[g]++
	}
	slices.SortStableFunc(places, func(a, b place) int {
		if a.rank != b.rank {
			return int(a.rank) - int(b.rank)
		}
		return a.turn - b.turn
	})
	chosen := map[*example]bool{}
	for _, p := range places {
		if len(chosen) >= maxLabLines {
			break
		}
		chosen[p.example] = true
		if p.answers != nil {
			chosen[p.answers] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(examples), func(e *example) bool { return !chosen[e] })
}
