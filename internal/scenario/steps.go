package scenario

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"sgc/policies"
)

// steps reads the steps, and follows which flows there are.
type steps struct {
	*loader
	s *Scenario
	// topology is nil where the hosts have faults.
	topology *Topology
	// flows are those that have been started, running those that have not been
	// stopped.
	flows   map[string]*Flow
	running map[string]bool
	// order are the names of flows, as they were started.
	order []string
}

// maxWait bounds a single wait, as the scenario has it.
const maxWait = 30 * 24 * time.Hour

func (t *steps) step(b *hclsyntax.Block) {
	r := t.open(b)
	for _, o := range t.s.Steps {
		if o.Name == r.label {
			t.errorAt(r.labelAt, "Second step of this name", "There is a step %q already, at line %d.", r.label, o.At.Start.Line)
		}
	}
	if r.label == overStep || r.label == overFlow {
		t.errorAt(r.labelAt, "Reserved name", "%q is a window of expectations; give the step another name.", r.label)
	}
	step := &Step{Name: r.label, At: r.labelAt}
	step.Description, _ = r.string("description")
	t.s.Steps = append(t.s.Steps, step)
	// A step may expect something of its own flows wherever it says so: they
	// are read first.
	for _, inner := range b.Body.Blocks {
		if a := t.action(inner); a != nil {
			step.Actions = append(step.Actions, a)
		}
	}
	for _, inner := range b.Body.Blocks {
		switch inner.Type {
		case "expect":
			step.Expects = append(step.Expects, t.expect(inner))
		case "counter":
			step.Counters = append(step.Counters, t.counter(inner))
		case "allowance":
			step.Allowances = append(step.Allowances, t.allowance(inner))
		}
	}
}

// action reads a block that does something; nil for all others.
func (t *steps) action(b *hclsyntax.Block) Action {
	switch b.Type {
	case "apply", "destroy", "start", "stop", "wait", "check", "fill", "drain":
	default:
		return nil
	}
	r := t.open(b)
	switch b.Type {
	case "apply":
		a := &Apply{At: r.labelAt, Policy: t.s.policy(r.label)}
		if a.Policy == nil && r.label != "" {
			var names []string
			for _, p := range t.s.Policies {
				names = append(names, p.Name)
			}
			t.errorAt(r.labelAt, "Unknown policy", "There is no policy %q.%s", r.label, orList(policies.Suggest(r.label, names), names))
		}
		a.Flush = r.choice("flush", "cloud", "revoked", "none")
		a.Hold, _ = r.bool("hold")
		return a
	case "destroy":
		hold, _ := r.bool("hold")
		return &Destroy{Hold: hold, At: r.header}
	case "start":
		f := t.flow(r)
		t.alone(r, f)
		if first := t.flows[f.Name]; first != nil {
			t.errorAt(r.labelAt, "Second flow of this name", "The flow %q was started at line %d; give this one another name.", f.Name, first.At.Start.Line)
		}
		t.flows[f.Name], t.running[f.Name] = f, true
		t.order = append(t.order, f.Name)
		return &Begin{f}
	case "stop":
		if t.known(r.label, r.labelAt) {
			if !t.running[r.label] {
				t.errorAt(r.labelAt, "Flow stopped already", "The flow %q does not run any more.", r.label)
			}
			delete(t.running, r.label)
		}
		return &Stop{r.label, r.labelAt}
	case "wait":
		return t.wait(r)
	case "fill":
		return t.fill(r)
	case "drain":
		return &Drain{r.header}
	}
	f := t.flow(r)
	t.alone(r, f)
	c := &Check{Flow: f, At: r.header, Tracked: r.optionalBool("tracked")}
	r.required("traffic", `Say what is expected: traffic = "allowed" or "refused".`)
	c.Traffic = t.traffic(r, Allowed, Refused)
	for _, name := range []string{"count", "interval"} {
		if r.has(name) {
			t.errorAt(r.place(name), "No "+name, "A check sends until it knows; remove this line.")
		}
	}
	return c
}

// known reports a flow that was not started.
func (t *steps) known(name string, at hcl.Range) bool {
	if t.flows[name] != nil {
		return true
	}
	if name != "" {
		detail := policies.Suggest(name, t.order)
		if detail == "" && len(t.order) == 0 {
			detail = " Start it first: start \"" + name + "\" { … }."
		}
		t.errorAt(at, "Unknown flow", "No flow %q was started before.%s", name, orList(detail, t.order))
	}
	return false
}

func (t *steps) wait(r *reader) Action {
	w := &Wait{At: r.header, Over: overFlow}
	name, byFlow := r.string("flow")
	switch {
	case r.label != "" && r.has("flow"):
		t.errorAt(r.header, "Two waits", "A wait has a time or a flow, not both.")
	case r.label != "":
		w.For, _ = t.durationText(r.label, "A wait", r.labelAt, 0, maxWait)
		w.Real, _ = r.bool("real")
		for _, name := range []string{"sent", "passed", "over"} {
			if r.has(name) {
				t.errorAt(r.place(name), "No flow", "%s is of a wait for a flow: flow = \"…\"; a wait for a time goes without.", name)
			}
		}
	case !r.has("flow"):
		t.errorAt(r.header, "Wait for what?", "Write wait \"10s\" { }, or wait { flow = \"…\"; sent = 10 }.")
	case byFlow && t.known(name, r.place("flow")):
		w.Flow = name
		w.Sent, _ = r.number("sent", 1, 1_000_000)
		w.Passed, _ = r.number("passed", 1, 1_000_000)
		if !r.has("sent") && !r.has("passed") {
			t.errorAt(r.header, "Wait for what?", "Say how far the flow shall be: sent = 10, or passed = 10.")
		}
		t.over(r, &w.Over)
	}
	return w
}

// traffic reads what is expected to pass.
func (t *steps) traffic(r *reader, kinds ...Traffic) Traffic {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = k.String()
	}
	if i := slices.Index(words, r.choice("traffic", words...)); i >= 0 {
		return kinds[i]
	}
	return Any
}

func (t *steps) expect(b *hclsyntax.Block) *Expectation {
	r := t.open(b)
	e := &Expectation{Flow: r.label, At: r.header, Over: overStep}
	t.known(r.label, r.labelAt)
	e.Traffic = t.traffic(r, Allowed, Refused, Survives, Cut)
	e.Tracked = r.optionalBool("tracked")
	e.Timeout, _ = r.duration("timeout", time.Second, maxWait)
	e.Within, _ = r.duration("within", time.Millisecond, time.Minute)
	e.Sent = r.optionalNumber("sent", 0, 1_000_000)
	e.Passed = r.optionalNumber("passed", 0, 1_000_000)
	e.FirstPassed = r.optionalNumber("first_passed", 1, 1_000_000)
	t.lost(r, e)
	t.over(r, &e.Over)
	nothing := true
	for _, name := range []string{"traffic", "tracked", "timeout", "sent", "passed", "first_passed", "within"} {
		nothing = nothing && !r.has(name)
	}
	if nothing {
		t.errorAt(r.header, "Nothing expected", `Say what is expected of the flow: traffic = "allowed", tracked = true, or a number such as passed = 10.`)
	}
	return e
}

// over reads where a window begins, which is left as it is where the block does
// not say it.
func (t *steps) over(r *reader, window *string) {
	over, ok := r.string("over")
	if !ok {
		return
	}
	*window = over
	var names []string
	for _, s := range t.s.Steps {
		names = append(names, s.Name)
	}
	if over != overStep && over != overFlow && !slices.Contains(names, over) {
		t.errorAt(r.place("over"), "Unknown window", "over is %q, %q or the name of a step up to this one, not %q.%s", overStep, overFlow, over, policies.Suggest(over, append(names, overStep, overFlow)))
	}
}

// lost reads how much may be lost: a number, or percent.
func (t *steps) lost(r *reader, e *Expectation) {
	if !r.has("lost") {
		return
	}
	if e.Traffic == Any && r.has("traffic") {
		return // reported
	}
	if e.Traffic != Allowed && e.Traffic != Survives {
		t.errorAt(r.place("lost"), "Nothing passes", `Only of traffic that is "allowed" or "survives" something may be lost; remove this line.`)
		return
	}
	v, ok := r.value("lost")
	if !ok {
		return
	}
	if v.Type().FriendlyName() == "string" {
		if s, found := strings.CutSuffix(v.AsString(), "%"); found {
			if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 100 {
				e.LostPercent = n
				return
			}
		}
		r.wrong("lost", `a number of packets, or text such as "5%"`, v)
		return
	}
	e.Lost, _ = r.number("lost", 0, 1_000_000)
}

func (t *steps) counter(b *hclsyntax.Block) *Counter {
	r := t.open(b)
	c := &Counter{Rule: r.label, At: r.header, Packets: r.optionalNumber("packets", 0, 1<<40)}
	c.AtLeast, _ = r.number("at_least", 0, 1<<40)
	if r.has("packets") == r.has("at_least") {
		t.errorAt(r.header, "Nothing expected", "Say how many packets the rule has let through: packets = 1, or at_least = 1.")
	}
	t.knownRule(r)
	return c
}

// knownRule reports the address of a rule that no policy has.
func (t *steps) knownRule(r *reader) {
	var names []string
	for _, p := range t.s.Policies {
		if p.Loaded.Policy == nil {
			return
		}
		for _, g := range p.Loaded.Policy.Groups {
			for _, rule := range g.Rules {
				names = append(names, rule.Address())
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if r.label != "" && !slices.Contains(names, r.label) {
		t.errorAt(r.labelAt, "Unknown rule", "No policy of the scenario has a rule %q.%s", r.label, orList(policies.Suggest(r.label, names), names))
	}
}
