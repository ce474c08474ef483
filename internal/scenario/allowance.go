package scenario

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"sgc/internal/flow"
)

// Fill makes entries of flows that nobody has in the managed host's conntrack
// table, until it has room for no more than Leave others.
type Fill struct {
	Leave int
	At    hcl.Range
}

// Drain takes the entries of Fill away.
type Drain struct{ At hcl.Range }

func (*Fill) action()  {}
func (*Drain) action() {}

// Allowance is what a step expects of how full the managed host's conntrack
// table is, in the numbers of sgc conntrack stats.
type Allowance struct {
	// Available is the room left, nil for any.
	Available *int
	// Exceeded is the exact number of packets that were dropped for want of
	// room, nil for any; AtLeast the least.
	Exceeded *int
	AtLeast  int
	At       hcl.Range
}

// AllowanceCounts are the numbers of sgc conntrack stats.
type AllowanceCounts struct{ Available, Exceeded uint64 }

// NotHereError says why this machine cannot play a scenario. It is no fault of
// the scenario's, nor of what it shows.
type NotHereError struct{ Reason string }

func (e *NotHereError) Error() string { return "this machine cannot play it: " + e.Reason }

// mostLeft is more than any table has room for.
const mostLeft = 1 << 30

func (t *steps) fill(r *reader) Action {
	f := &Fill{At: r.header}
	f.Leave, _ = r.number("leave", 0, mostLeft)
	return f
}

func (t *steps) allowance(b *hclsyntax.Block) *Allowance {
	r := t.open(b)
	a := &Allowance{At: r.header, Available: r.optionalNumber("available", 0, mostLeft), Exceeded: r.optionalNumber("exceeded", 0, mostLeft)}
	a.AtLeast, _ = r.number("exceeded_at_least", 0, mostLeft)
	switch {
	case r.has("exceeded") && r.has("exceeded_at_least"):
		t.errorAt(r.header, "Expected twice", "Say exceeded or exceeded_at_least, not both.")
	case !r.has("available") && !r.has("exceeded") && !r.has("exceeded_at_least"):
		t.errorAt(r.header, "Nothing expected", "Say how much room is left or how many packets found none: available = 0, exceeded = 0, or exceeded_at_least = 1.")
	}
	return a
}

// fillTable fills the managed host's table with flows to one of its addresses.
func (r *Run) fillTable(f *Fill) error {
	h := r.scenario.Managed()
	to, ok := h.Address(flow.IPv4)
	if !ok {
		to, _ = h.Address(flow.IPv6)
	}
	return r.change("fill the conntrack table", false, func() error { return r.options.Enforcer.Fill(r.ctx, r.place, to, f.Leave) })
}

func (r *Run) drainTable() error {
	return r.change("drain the conntrack table", false, func() error { return r.options.Enforcer.Drain(r.ctx, r.place) })
}

// allowanceName stands where the verdicts on flows have the flow's name.
const allowanceName = "the allowance"

// allowanceNote explains them.
const allowanceNote = "Each tracked flow takes one place in the table until its entry ends, whatever it sends; exceeded counts packets that would have opened a tracked flow and found no place, and untracked flows need none"

// judgeAllowance holds the numbers of the table against what is expected.
func (r *Run) judgeAllowance(a *Allowance) (Verdict, error) {
	n, err := r.options.Enforcer.Allowance(r.ctx, r.place)
	if err != nil {
		return Verdict{}, fmt.Errorf("read the allowance: %w", err)
	}
	v := Verdict{At: a.At, Flow: allowanceName, Seen: fmt.Sprintf("available %d, exceeded %d", n.Available, n.Exceeded), Met: true}
	var parts []string
	expect := func(met bool, format string, args ...any) {
		parts = append(parts, fmt.Sprintf(format, args...))
		v.Met = v.Met && met
	}
	if a.Available != nil {
		expect(n.Available == uint64(*a.Available), "room for %d", *a.Available)
	}
	switch {
	case a.Exceeded != nil:
		expect(n.Exceeded == uint64(*a.Exceeded), "exceeded by %d packets", *a.Exceeded)
	case a.AtLeast > 0:
		expect(n.Exceeded >= uint64(a.AtLeast), "exceeded by %d packets at least", a.AtLeast)
	}
	v.Expected = strings.Join(parts, "; ")
	if !v.Met {
		v.Note = allowanceNote
	}
	return v, nil
}
