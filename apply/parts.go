package apply

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

// part says when an object is dealt with, see the package's documentation.
type part uint8

const (
	// preparing is for what comes, or changes, while nothing uses it.
	preparing part = iota
	// switching is for all that packets notice.
	switching
	// cleaning is for what goes when nothing uses it any more.
	cleaning
)

var parts = [...]part{preparing, switching, cleaning}

// smallApply is how many elements of interval sets a first apply adds in the
// transaction that begins to enforce them.
const smallApply = 1000

// assign gives every chain and every set its part, and decides whether the
// parts are transactions of their own.
func (p *planner) assign(recreate bool) {
	g := p.graph()
	used := g.reach(g.have, func(c *chainPlan) bool { return c.have != nil && c.have.Base != nil })
	wanted := references{}
	for _, refs := range g.want {
		wanted.add(refs)
	}
	mentioned := nodesOf(wanted)
	p.used = used
	for i := range p.chains {
		c := &p.chains[i]
		n := node{ChainKind, c.name()}
		switch {
		case c.want == nil && c.have.Base == nil:
			c.part = cleaning
		case c.base() || c.fresh || used[n] || !mentioned[n]:
			c.part = switching
		}
	}
	for i := range p.sets {
		s := &p.sets[i]
		n := node{SetKind, s.name()}
		switch {
		case s.want == nil:
			s.part = cleaning
		case s.fresh || used[n] || !mentioned[n]:
			s.part = switching
		}
	}
	g.settle()
	ahead := !recreate && len(used) > 0 && p.advance()
	p.split = !recreate && (p.split || ahead || g.unpublished(used) || p.strands())
}

// advance finds the timed ranges that are put in before all is switched. They are
// what a switch closes: until they are there, packets that meet the new rules
// could open what is closed.
func (p *planner) advance() bool {
	found := false
	for _, s := range p.sets {
		// There is nothing to put them into where a set comes with the switch.
		if s.timed != nil && (s.part == preparing || s.have != nil && !s.fresh) {
			found = s.timed.advance() || found
		}
	}
	return found
}

// node names a chain, a set or an object of timeouts.
type node struct {
	kind Kind
	name string
}

func nodesOf(refs references) map[node]bool {
	out := make(map[node]bool, len(refs.sets)+len(refs.chains))
	for n := range refs.nodes() {
		out[n] = true
	}
	return out
}

// nodes calls yield with every name.
func (r references) nodes() func(yield func(node) bool) {
	return func(yield func(node) bool) {
		for _, name := range r.sets {
			if !yield(node{SetKind, name}) {
				return
			}
		}
		for _, name := range r.chains {
			if !yield(node{ChainKind, name}) {
				return
			}
		}
		for _, name := range r.objects {
			if !yield(node{ObjectKind, name}) {
				return
			}
		}
	}
}

func (r *references) add(other references) {
	r.sets = append(r.sets, other.sets...)
	r.chains = append(r.chains, other.chains...)
	r.objects = append(r.objects, other.objects...)
}

// graph says what chains and sets refer to: chains by their rules, maps by the
// verdicts of their elements.
type graph struct {
	chains map[string]*chainPlan
	sets   map[string]*setPlan
	// objects names the objects that are made anew.
	objects map[string]bool
	// have holds the references in the kernel, want those of the wanted table.
	have, want map[node]references
}

func (p *planner) graph() *graph {
	g := &graph{
		chains: make(map[string]*chainPlan, len(p.chains)), sets: make(map[string]*setPlan, len(p.sets)),
		objects: p.freshObjects, have: make(map[node]references), want: make(map[node]references),
	}
	for i := range p.chains {
		c := &p.chains[i]
		n := node{ChainKind, c.name()}
		g.chains[n.name] = c
		if c.want != nil {
			g.have[n], g.want[n] = c.rules.haveRefs, c.rules.refs
		} else {
			g.have[n] = c.have.references()
		}
	}
	for i := range p.sets {
		s := &p.sets[i]
		n := node{SetKind, s.name()}
		g.sets[n.name] = s
		if s.have != nil {
			var refs references
			for _, v := range s.have.elements.table {
				if v.chain != "" {
					refs.chains = append(refs.chains, v.chain)
				}
			}
			g.have[n] = refs
		}
		if s.elements != nil {
			var refs references
			for v := range s.elements.verdicts {
				if v.Chain != "" {
					refs.chains = append(refs.chains, v.Chain)
				}
			}
			g.want[n] = refs
		}
	}
	return g
}

// references returns the names that the rules refer to. A rule that cannot be
// read refers to nothing that is known.
func (c *Chain) references() references {
	var refs references
	for _, r := range c.Rules {
		if _, of, err := canonical(r.expressions); err == nil {
			refs.add(of)
		}
	}
	return refs
}

// reach returns what can be come to from the chains that start accepts.
func (g *graph) reach(refs map[node]references, start func(*chainPlan) bool) map[node]bool {
	reached := map[node]bool{}
	var visit func(n node)
	visit = func(n node) {
		if reached[n] {
			return
		}
		reached[n] = true
		for next := range refs[n].nodes() {
			visit(next)
		}
	}
	for name, c := range g.chains {
		if start(c) {
			visit(node{ChainKind, name})
		}
	}
	return reached
}

// switched reports whether something goes, or is made anew, or comes only when
// all is switched.
func (g *graph) switched(n node, goes bool) bool {
	switch n.kind {
	case ChainKind:
		if c := g.chains[n.name]; c != nil && c.part == switching {
			return c.fresh || goes && c.want == nil || !goes && c.have == nil
		}
	case ObjectKind:
		return g.objects[n.name]
	default:
		if s := g.sets[n.name]; s != nil && s.part == switching {
			return s.fresh || goes && s.want == nil || !goes && s.have == nil
		}
	}
	return false
}

// settle moves what cannot be done before, or after, all is switched to where
// it can: nothing comes before what it refers to, or goes after that.
func (g *graph) settle() {
	// A map without a name is part of its rule, and what it refers to is not
	// known.
	anonymous := func(n node) bool { return n.kind == SetKind && strings.HasPrefix(n.name, "__") }
	for moved := true; moved; {
		moved = false
		move := func(n node, at *part) {
			bound := func(refs references, goes bool) bool {
				for other := range refs.nodes() {
					if g.switched(other, goes) || anonymous(other) {
						return true
					}
				}
				return false
			}
			if *at == preparing && bound(g.want[n], false) || *at == cleaning && bound(g.have[n], true) {
				*at, moved = switching, true
			}
		}
		for name, c := range g.chains {
			move(node{ChainKind, name}, &c.part)
		}
		for name, s := range g.sets {
			move(node{SetKind, name}, &s.part)
		}
	}
}

// unpublished reports whether packets that meet the new rules could find an
// interval set that these bring before its elements are there.
//
// What only a new element of an interval map leads to does not count: the
// kernel publishes the sets of a transaction in the order in which it first
// touches them, and what is prepared comes first.
func (g *graph) unpublished(used map[node]bool) bool {
	late, seen := 0, map[node]bool{}
	var visit func(n node)
	visit = func(n node) {
		if seen[n] {
			return
		}
		seen[n] = true
		if s := g.sets[n.name]; n.kind == SetKind && s != nil && s.want != nil && s.want.Interval {
			switch {
			case s.part == preparing:
				if s.elements != nil && !s.elements.empty() {
					late += max(1, len(s.elements.added))
				}
			case s.have != nil && !s.fresh && used[n]:
				return // its new elements are late too, and the old ones are used
			}
		}
		for next := range g.want[n].nodes() {
			visit(next)
		}
	}
	for name, c := range g.chains {
		if c.want != nil && c.part == switching {
			visit(node{ChainKind, name})
		}
	}
	if len(used) == 0 {
		return late > smallApply // nothing is enforced yet
	}
	return late > 0
}

// strands reports whether packets that meet the new rules could find an old
// element of an interval map, and be sent to a chain that goes, where a new
// element is to send them elsewhere. A key that simply goes is none of these: a
// jump into an empty chain comes back to the rule behind the map, as a key that
// is not there does.
func (p *planner) strands() bool {
	goes := map[string]bool{}
	for _, c := range p.chains {
		if c.want == nil && c.part == cleaning {
			goes[c.have.Name] = true
		}
	}
	for _, s := range p.sets {
		if s.want == nil || s.have == nil || s.fresh || !s.want.Interval || !s.want.Map {
			continue
		}
		have, want := &s.have.elements, s.want.Elements
		stranded := func(i int32) bool {
			v := have.verdict(int(i))
			if !goes[v.chain] {
				return false
			}
			if v.code != unix.NFT_JUMP {
				return true
			}
			// The first wanted element that does not end before this one begins.
			n, _ := slices.BinarySearchFunc(want, have.first(int(i)), func(e ruleset.Element, key []byte) int {
				if e.Last < string(key) {
					return -1
				}
				return 1
			})
			return n < len(want) && want[n].First <= string(have.last(int(i)))
		}
		if slices.ContainsFunc(s.elements.removed, stranded) ||
			slices.ContainsFunc(s.elements.updated, func(pair [2]int32) bool { return stranded(pair[0]) }) {
			return true
		}
	}
	return false
}
