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
	// entry says that the kernel's conntrack has an entry of the packet's
	// flow, wantEntry what the policy asks for where the packet passes.
	entry, wantEntry bool
	// anyEntry says that the policy leaves it open.
	anyEntry bool
	// acl is the interface's network ACL, "" for none.
	acl string
}

// sent reports whether the packet came to the host at all.
func (r *labResult) sent() bool { return r.finding.Arrived }

// agrees reports whether the kernel did what the policy says.
func (r *labResult) agrees() bool {
	if r.finding.Passed != r.meaning.Allow {
		return false
	}
	return !r.meaning.Allow || r.anyEntry || r.entry == r.wantEntry
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
	other := p.Protocol.IsOther(p.Family())
	// What passed and has no entry afterwards may have got no further than
	// sgc's chains; then the state tells. Entries know no interface: that of a
	// dropped packet of another protocol may be a flow of another one.
	r.entry = f.Passed && (f.Entry != nil || f.HasEntry()) || f.Entry != nil && !other
	i := judge.Interface(p.Interface)
	if i != nil {
		r.acl = i.ACL
	}
	switch e.meaning.Class {
	case policies.Tracked:
		// sgc tracks the other protocols by itself, since conntrack calls some
		// of them invalid.
		r.wantEntry, r.anyEntry = true, other
	case policies.Untracked:
		// The kernel is told so, unless the interface forbids it.
		r.wantEntry = i != nil && i.NotrackOff
	case policies.Exempt, policies.Unmanaged, policies.Related:
		r.anyEntry = true
	}
	return r
}

// labCounts sum up the results.
type labCounts struct {
	// Packets are those that came to the host; each passed or was dropped.
	Packets int `json:"packets"`
	Passed  int `json:"passed"`
	Dropped int `json:"dropped"`
	// Disagreements are those of them that the policy wanted otherwise.
	Disagreements int `json:"disagreements"`
	// Lost are those that never came to the host.
	Lost int `json:"lost"`
}

func (r *labReport) count() labCounts {
	var c labCounts
	for i := range r.results {
		x := &r.results[i]
		switch {
		case !x.sent():
			c.Lost++
			continue
		case x.finding.Passed:
			c.Passed++
		default:
			c.Dropped++
		}
		c.Packets++
		if !x.agrees() {
			c.Disagreements++
		}
	}
	return c
}

// maxLabLines is how many packets are sent, unless all are asked for.
const maxLabLines = 36

// choose takes the examples that tell most: by rank, and of the same rank in
// turn from each interface and direction. However many there are of one rank,
// a third of the lines is left to those below. Answers bring what they answer.
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
	var ranked [rankPort + 1][]place
	turns := map[group]int{}
	for _, e := range examples {
		if e.rank > rankPort {
			continue
		}
		g := group{e.packet.Interface, e.packet.Direction, e.rank}
		ranked[e.rank] = append(ranked[e.rank], place{e, turns[g]})
		turns[g]++
	}
	chosen := map[*example]bool{}
	for r, places := range ranked {
		slices.SortStableFunc(places, func(a, b place) int { return a.turn - b.turn })
		below := 0
		for _, lower := range ranked[r+1:] {
			below += len(lower)
		}
		left := maxLabLines - len(chosen)
		end := maxLabLines - min(left/3, below)
		for _, p := range places {
			if len(chosen) >= end {
				break
			}
			chosen[p.example] = true
			if p.answers != nil {
				chosen[p.answers] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(examples), func(e *example) bool { return !chosen[e] })
}
