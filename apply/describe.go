package apply

import (
	"fmt"
	"strings"
	"time"

	"sgc/internal/ruleset"
)

// change notes a difference. Texts are made only when somebody asks.
func (p *planner) change(action Action, kind Kind, name, comment string, text, was func() string) {
	p.delta.changes = append(p.delta.changes, change{
		Change: Change{Action: action, Kind: kind, Name: name, Comment: comment},
		text:   text, was: was,
	})
}

// gone notes that a chain, a set or an object of timeouts goes, or a rule with
// its chain.
func (p *planner) gone(n node, kind Kind, comment string, text func() string) {
	p.delta.changes = append(p.delta.changes, change{
		Change: Change{Action: Remove, Kind: kind, Name: n.name, Comment: comment, Unused: !p.used[n]}, text: text,
	})
}

func text(s string) func() string { return func() string { return s } }

// report notes the differences of objects, chains, rules, sets and elements.
func (p *planner) report() {
	for _, o := range p.objects {
		p.reportObject(o)
	}
	for _, c := range p.chains {
		p.reportChain(c)
		p.reportRules(c)
	}
	for _, s := range p.sets {
		p.reportSet(s)
	}
}

func (p *planner) reportChain(c chainPlan) {
	switch {
	case c.want == nil:
		p.gone(node{ChainKind, c.have.Name}, ChainKind, c.have.Comment, func() string { return chainText(c.have) })
	case c.have == nil:
		p.change(Add, ChainKind, c.want.Name, c.want.Comment, func() string { return wantedChainText(c.want) }, nil)
	case c.fresh || c.policy:
		p.change(Update, ChainKind, c.want.Name, c.want.Comment,
			func() string { return wantedChainText(c.want) }, func() string { return chainText(c.have) })
	}
}

func (p *planner) reportRules(c chainPlan) {
	if c.want == nil {
		for _, r := range c.have.Rules {
			p.gone(node{ChainKind, c.have.Name}, RuleKind, r.Comment, r.Text)
		}
		return
	}
	for _, r := range c.rules.changes {
		switch r.action {
		case Remove:
			have := c.have.Rules[r.have]
			p.change(Remove, RuleKind, c.want.Name, have.Comment, have.Text, nil)
		case Update:
			want := c.want.Rules[r.want]
			p.change(Update, RuleKind, c.want.Name, want.Comment, want.Text, c.have.Rules[r.have].Text)
		default:
			want := c.want.Rules[r.want]
			p.change(r.action, RuleKind, c.want.Name, want.Comment, want.Text, nil)
		}
	}
}

func (p *planner) reportSet(s setPlan) {
	switch {
	case s.want == nil:
		p.gone(node{SetKind, s.have.Name}, SetKind, s.have.Comment, func() string { return setText(s.have) })
	case s.have == nil:
		p.change(Add, SetKind, s.want.Name, s.want.Comment, func() string { return wantedSetText(s.want) }, nil)
	case s.fresh:
		p.change(Update, SetKind, s.want.Name, s.want.Comment,
			func() string { return wantedSetText(s.want) }, func() string { return setText(s.have) })
	case s.elements != nil && !s.elements.empty():
		p.delta.changes = append(p.delta.changes, change{elements: s.elements})
	}
	if s.timed != nil && !s.timed.empty() {
		p.delta.changes = append(p.delta.changes, change{timed: s.timed})
	}
}

func tableText(flags uint32, comment string) func() string {
	return func() string {
		var parts []string
		if flags&tableDormant != 0 {
			parts = append(parts, "dormant")
		}
		if rest := flags &^ tableDormant; rest != 0 {
			parts = append(parts, fmt.Sprintf("flags %#x", rest))
		}
		return join("table inet "+tableName, comment, parts...)
	}
}

// join puts a declaration together from its parts.
func join(first, comment string, parts ...string) string {
	if comment != "" {
		parts = append(parts, fmt.Sprintf("comment %q", comment))
	}
	return strings.Join(append([]string{first}, parts...), "; ")
}

func wantedChainText(c *ruleset.Chain) string {
	if c.Hook == nil {
		return join("chain "+c.Name, c.Comment)
	}
	return join("chain "+c.Name, c.Comment,
		fmt.Sprintf("type filter hook %s priority %d", c.Hook.Point, c.Hook.Priority), "policy accept")
}

func chainText(c *Chain) string {
	if c.Base == nil {
		return join("chain "+c.Name, c.Comment)
	}
	policy := "policy accept"
	if c.Base.Policy != policyAccept {
		policy = "policy drop"
	}
	points := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	point := fmt.Sprint(c.Base.Hook)
	if int(c.Base.Hook) < len(points) {
		point = points[c.Base.Hook]
	}
	return join("chain "+c.Name, c.Comment,
		fmt.Sprintf("type %s hook %s priority %d", c.Base.Type, point, c.Base.Priority), policy)
}

func wantedSetText(s *ruleset.Set) string {
	kind := "set "
	if s.Map {
		kind = "map "
	}
	names := make([]string, len(s.Key))
	for i, t := range s.Key {
		names[i] = t.Name()
	}
	parts := []string{"type " + strings.Join(names, " . ")}
	return join(kind+s.Name, s.Comment, append(parts, setParts(setFlags(s), s.Timeout, s.Size, len(s.Elements))...)...)
}

func setText(s *Set) string {
	kind := "set "
	if s.dataType != 0 {
		kind = "map "
	}
	parts := []string{fmt.Sprintf("key of %d bytes", s.keyLen)}
	if s.dataType != 0 && s.dataType != verdictType {
		parts = append(parts, "maps to data")
	}
	if s.stateful {
		parts = append(parts, "with counters or other state")
	}
	if s.policy != 0 {
		parts = append(parts, "policy memory")
	}
	if s.gc != 0 {
		parts = append(parts, fmt.Sprintf("gc-interval %s", time.Duration(s.gc)*time.Millisecond))
	}
	return join(kind+s.Name, s.Comment, append(parts, setParts(s.flags, s.timeout, s.size, s.Size())...)...)
}

func setParts(flags uint32, timeout time.Duration, size uint32, elements int) []string {
	var parts, names []string
	for _, f := range []struct {
		bit  uint32
		name string
	}{{0x2, "constant"}, {0x4, "interval"}, {0x10, "timeout"}, {0x20, "dynamic"}} {
		if flags&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	if len(names) > 0 {
		parts = append(parts, "flags "+strings.Join(names, ","))
	}
	if timeout != 0 {
		parts = append(parts, fmt.Sprintf("timeout %s", timeout))
	}
	if size != 0 {
		parts = append(parts, fmt.Sprintf("size %d", size))
	}
	return append(parts, fmt.Sprintf("%d elements", elements))
}

// keyText returns a key as nft writes it.
func keyText(s *ruleset.Set, key string) string {
	return s.ElementText(ruleset.Element{First: key, Last: key})
}
