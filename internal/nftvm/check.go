package nftvm

import (
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// maxDepth is how many jumps and gotos may follow each other.
//
// Source: Linux net/netfilter/nf_tables_api.c, nft_chain_validate, which
// refuses a chain at level NFT_JUMP_STACK_SIZE (16).
const maxDepth = 15

// Timed is an element in a timed set of the table. The machine has no clock: what
// is there stays.
type Timed struct {
	Set     string
	Element ruleset.TimedElement
}

// New checks a table and makes it ready to run, with some elements in its timed
// sets, which are empty else. It refuses what the kernel
// would refuse, such as a rule that reads a register that nothing has set, a
// jump to nowhere, or a loop, and every expression that the machine does not
// know. The error names chain, rule and expression.
func New(t *ruleset.Table, timed ...Timed) (*VM, error) {
	c := checker{chains: map[string]*chain{}, sets: map[string]*set{}, timeouts: map[string]*ruleset.Timeout{}}
	for _, s := range t.Sets {
		if c.sets[s.Name] != nil {
			return nil, fmt.Errorf("set %s: it is there twice", s.Name)
		}
		checked, err := newSet(s)
		if err != nil {
			return nil, fmt.Errorf("set %s: %w", s.Name, err)
		}
		c.sets[s.Name] = checked
	}
	for _, e := range timed {
		if err := c.addTimed(e); err != nil {
			return nil, fmt.Errorf("set %s: %w", e.Set, err)
		}
	}
	for _, o := range t.Timeouts {
		if c.timeouts[o.Name] != nil {
			return nil, fmt.Errorf("ct timeout %s: it is there twice", o.Name)
		}
		if o.Protocol != flow.TCP && o.Protocol != flow.UDP {
			return nil, fmt.Errorf("ct timeout %s: timeouts of %s are not known", o.Name, o.Protocol)
		}
		c.timeouts[o.Name] = o
	}
	vm := &VM{bases: map[ruleset.HookPoint][]*chain{}}
	for _, from := range t.Chains {
		if c.chains[from.Name] != nil {
			return nil, fmt.Errorf("chain %s: it is there twice", from.Name)
		}
		base := &chain{name: from.Name, hook: from.Hook}
		if err := checkHook(from.Hook); err != nil {
			return nil, fmt.Errorf("chain %s: %w", from.Name, err)
		}
		c.chains[from.Name] = base
		if from.Hook != nil {
			vm.bases[from.Hook.Point] = append(vm.bases[from.Hook.Point], base)
		}
	}
	for _, s := range t.Sets {
		if err := c.findVerdicts(c.sets[s.Name], s); err != nil {
			return nil, fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	for _, from := range t.Chains {
		for n, r := range from.Rules {
			program, err := c.program(r)
			if err != nil {
				return nil, fmt.Errorf("chain %s, rule %d (%s): %w", from.Name, n+1, r.Comment, err)
			}
			c.chains[from.Name].rules = append(c.chains[from.Name].rules, rule{program, r})
		}
	}
	depths := map[*chain]int{}
	for _, from := range t.Chains {
		if _, err := depth(c.chains[from.Name], depths); err != nil {
			return nil, err
		}
	}
	vm.sortBases()
	return vm, nil
}

func checkHook(h *ruleset.Hook) error {
	if h == nil {
		return nil
	}
	switch h.Point {
	case ruleset.Prerouting, ruleset.Output, ruleset.Postrouting:
	default:
		return fmt.Errorf("hook %d is not known", h.Point)
	}
	if h.Priority == conntrackPriority {
		return fmt.Errorf("priority %d is conntrack's own: which comes first is not known", h.Priority)
	}
	return nil
}

// checker holds what the rules of a table may refer to.
type checker struct {
	chains   map[string]*chain
	sets     map[string]*set
	timeouts map[string]*ruleset.Timeout
}

// addTimed puts an element into a timed set.
func (c *checker) addTimed(e Timed) error {
	s := c.sets[e.Set]
	switch {
	case s == nil:
		return fmt.Errorf("there is no such set")
	case !s.timed:
		return fmt.Errorf("it is not timed")
	}
	if err := s.add(ruleset.Element{First: e.Element.First, Last: e.Element.Last}); err != nil {
		return fmt.Errorf("element %x: %w", e.Element.First, err)
	}
	return nil
}

// findVerdicts fills in the verdicts of a map's elements.
func (c *checker) findVerdicts(s *set, from *ruleset.Set) error {
	for n, e := range from.Elements {
		if e.Verdict == nil {
			continue
		}
		v, err := c.verdict(e.Verdict.Kind, e.Verdict.Chain)
		if err != nil {
			return fmt.Errorf("element %q: %w", from.ElementText(e), err)
		}
		if s.interval {
			s.ranges[n].verdict = v
		} else {
			s.exact[e.First].verdict = v
		}
	}
	return nil
}

func (c *checker) verdict(kind ruleset.VerdictKind, target string) (*verdict, error) {
	switch kind {
	case ruleset.Accept, ruleset.Drop, ruleset.Return:
		if target != "" {
			return nil, fmt.Errorf("a verdict that does not go to a chain names chain %s", target)
		}
		return &verdict{kind: kind}, nil
	case ruleset.Jump, ruleset.Goto:
		to := c.chains[target]
		if to == nil {
			return nil, fmt.Errorf("there is no chain %q", target)
		}
		if to.hook != nil {
			return nil, fmt.Errorf("%s is a base chain", target)
		}
		return &verdict{kind, to}, nil
	}
	return nil, fmt.Errorf("verdict %d is not known", kind)
}

// depth returns how many chains follow each other from this one on, at most.
func depth(c *chain, known map[*chain]int) (int, error) {
	const visiting = -1
	if d, ok := known[c]; ok {
		if d == visiting {
			return 0, fmt.Errorf("chain %s: it leads back to itself", c.name)
		}
		return d, nil
	}
	known[c] = visiting
	deepest := 0
	for _, r := range c.rules {
		for _, to := range targets(r) {
			d, err := depth(to, known)
			if err != nil {
				return 0, err
			}
			deepest = max(deepest, d+1)
		}
	}
	if deepest > maxDepth {
		return 0, fmt.Errorf("chain %s: %d chains follow each other, and the kernel allows %d", c.name, deepest, maxDepth)
	}
	known[c] = deepest
	return deepest, nil
}

// targets returns the chains that a rule may go to.
func targets(r rule) []*chain {
	var out []*chain
	add := func(v *verdict) {
		if v.chain != nil {
			out = append(out, v.chain)
		}
	}
	for _, i := range r.program {
		switch i := i.(type) {
		case end:
			add(i.verdict)
		case verdictMap:
			for _, e := range i.set.ranges {
				add(e.verdict)
			}
			for _, e := range i.set.exact {
				add(e.verdict)
			}
		}
	}
	return out
}

// program translates a rule's expressions.
func (c *checker) program(r ruleset.Rule) ([]instruction, error) {
	exprs, err := r.Exprs()
	if err != nil {
		return nil, err
	}
	return c.instructions(exprs)
}

func (c *checker) instructions(exprs []expr.Any) ([]instruction, error) {
	t := translator{checker: c}
	var program []instruction
	for n, e := range exprs {
		i, err := t.translate(e)
		if err != nil {
			return nil, fmt.Errorf("expression %d (%T): %w", n+1, e, err)
		}
		program = append(program, i)
	}
	return program, nil
}

// registers says which bytes of the register file a rule has set so far.
type registers [registerBytes]bool

// place returns where a register of some length lies.
func (r *registers) place(register uint32, length int) (span, error) {
	var offset int
	switch {
	case unix.NFT_REG_1 <= register && register <= unix.NFT_REG_4:
		offset = int(register-unix.NFT_REG_1) * 16
	case unix.NFT_REG32_00 <= register && register <= unix.NFT_REG32_15:
		offset = int(register-unix.NFT_REG32_00) * 4
	default:
		return span{}, fmt.Errorf("there is no register %d for data", register)
	}
	if length <= 0 || offset+length > registerBytes {
		return span{}, fmt.Errorf("register %d does not hold %d bytes", register, length)
	}
	return span{offset, length}, nil
}

// write returns a place to store a value in.
func (r *registers) write(register uint32, length int) (span, error) {
	s, err := r.place(register, length)
	if err != nil {
		return s, err
	}
	for n := range padded(length) {
		r[s.offset+n] = true
	}
	return s, nil
}

// read returns a place to take a value from, which the rule must have set.
func (r *registers) read(register uint32, length int) (span, error) {
	s, err := r.place(register, length)
	if err != nil {
		return s, err
	}
	for n := range padded(length) {
		if !r[s.offset+n] {
			return s, fmt.Errorf("nothing has set the %d bytes of register %d", length, register)
		}
	}
	return s, nil
}
