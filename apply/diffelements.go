package apply

import "sgc/internal/ruleset"

// elementChanges says which elements of a set go and come. Indices are those
// of the set in the kernel and of the wanted set.
type elementChanges struct {
	have *Set
	want *ruleset.Set
	// verdicts holds the kernel's form of the wanted verdicts.
	verdicts map[ruleset.Verdict]verdict
	removed  []int32
	added    []int32
	// updated pairs elements with the same keys and another verdict, renewed
	// those that only have to be made anew for their chain.
	updated, renewed [][2]int32
	// catchAll says that the element "*" goes.
	catchAll bool
}

func (c *elementChanges) empty() bool {
	return len(c.removed)+len(c.added)+len(c.updated)+len(c.renewed) == 0 && !c.catchAll
}

// planElements compares the elements of the sets that stay.
func (p *planner) planElements() error {
	for i := range p.sets {
		s := &p.sets[i]
		if s.want == nil || s.want.Dynamic {
			continue
		}
		if s.want.Timed {
			if s.have == nil || s.fresh {
				s.timed = planAnew(s.want, p.was.Set(s.want.Name), p.timed[s.want])
			} else {
				s.timed = planTimed(s.want, s.have, p.timed[s.want], true)
			}
			continue
		}
		c := &elementChanges{have: s.have, want: s.want, verdicts: map[ruleset.Verdict]verdict{}}
		for _, e := range s.want.Elements {
			if e.Verdict == nil {
				break // the set is none of verdicts: check has seen to that
			}
			if _, ok := c.verdicts[*e.Verdict]; ok {
				continue
			}
			v, err := verdictOf(e.Verdict)
			if err != nil {
				return err
			}
			c.verdicts[*e.Verdict] = v
		}
		if s.have == nil || s.fresh {
			c.added = make([]int32, len(s.want.Elements))
			for i := range c.added {
				c.added[i] = int32(i)
			}
			c.have = nil
		} else {
			p.compareElements(c)
		}
		s.elements = c
	}
	return nil
}

// compareElements walks over both lists, which are sorted.
func (p *planner) compareElements(c *elementChanges) {
	have, want := &c.have.elements, c.want.Elements
	c.catchAll = have.catchAll >= 0
	i, j, n := 0, 0, have.len()
	for i < n && j < len(want) {
		order := compareKey(have.first(i), want[j].First)
		if order == 0 && have.interval {
			order = compareKey(have.last(i), want[j].Last)
		}
		switch {
		case order < 0:
			c.removed = append(c.removed, int32(i))
			i++
		case order > 0:
			c.added = append(c.added, int32(j))
			j++
		default:
			v := have.verdict(i)
			switch {
			case v != c.verdict(j):
				c.updated = append(c.updated, [2]int32{int32(i), int32(j)})
			case v.chain != "" && p.freshChains[v.chain]:
				c.renewed = append(c.renewed, [2]int32{int32(i), int32(j)})
			}
			i++
			j++
		}
	}
	for ; i < n; i++ {
		c.removed = append(c.removed, int32(i))
	}
	for ; j < len(want); j++ {
		c.added = append(c.added, int32(j))
	}
}

// compareKey compares without making a string of the key.
func compareKey(have []byte, want string) int {
	switch {
	case string(have) < want:
		return -1
	case string(have) > want:
		return 1
	}
	return 0
}

// verdict returns the kernel's form of the verdict of wanted element i.
func (c *elementChanges) verdict(i int) verdict {
	v := c.want.Elements[i].Verdict
	if v == nil {
		return verdict{}
	}
	return c.verdicts[*v]
}

// each calls yield with every change, and reports whether it never said stop.
// It does not tell of renewed elements.
func (c *elementChanges) each(yield func(Change) bool) bool {
	base := Change{Kind: ElementKind, Name: c.want.Name, Comment: c.want.Comment}
	if c.catchAll {
		base.Action, base.Text = Remove, "*"
		if !yield(base) {
			return false
		}
	}
	for _, i := range c.removed {
		base.Action, base.Text = Remove, c.haveText(i)
		if !yield(base) {
			return false
		}
	}
	for _, pair := range c.updated {
		base.Action, base.Was, base.Text = Update, c.haveText(pair[0]), c.wantText(pair[1])
		if !yield(base) {
			return false
		}
	}
	base.Was = ""
	for _, j := range c.added {
		base.Action, base.Text = Add, c.wantText(j)
		if !yield(base) {
			return false
		}
	}
	return true
}

func (c *elementChanges) wantText(i int32) string {
	return c.want.ElementText(c.want.Elements[i])
}

func (c *elementChanges) haveText(i int32) string {
	e := &c.have.elements
	v := e.verdict(int(i))
	text := c.want.ElementText(ruleset.Element{
		First: string(e.first(int(i))), Last: string(e.last(int(i))), Verdict: v.ruleset(),
	})
	if v.foreign {
		text += " (with a timeout, counter or comment)"
	}
	return text
}
