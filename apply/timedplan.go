package apply

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

// timedChanges says which elements of a timed set go and come.
type timedChanges struct {
	set *ruleset.Set
	// removed are those that are there. Time may take them out at any moment.
	removed []ruleset.TimedElement
	added   []addedElement
	// catchAll says that the element "*" goes.
	catchAll bool
	// blind says that the set was not read: what is removed may not be there, and
	// what is added is refused if it is.
	blind bool
}

// addedElement is an element that is put in.
type addedElement struct {
	ruleset.TimedElement
	// there says that it was there when the kernel was read. It has the time to
	// live that it had then, and no remaining one: the kernel leaves it alone, or
	// adds it if it ends before the kernel comes to it.
	there bool
	// carried says that it is only kept while its set is made anew.
	carried bool
	// ahead says that it is put in before all is switched.
	ahead bool
}

func (c *timedChanges) empty() bool {
	return len(c.removed)+len(c.added) == 0 && !c.catchAll
}

// advance marks the ranges that can be put in before all is switched, and reports
// whether there are any: packets meet them a while after the rules otherwise. What
// takes the place of a range that goes comes with the switch.
func (c *timedChanges) advance() bool {
	if !c.set.Interval {
		return false
	}
	var gone []box
	for _, e := range c.removed {
		gone = append(gone, newBox(c.set, span{e.First, e.Last}))
	}
	found := false
	for i := range c.added {
		e := &c.added[i]
		b := newBox(c.set, span{e.First, e.Last})
		e.ahead = !e.there && !e.carried && !slices.ContainsFunc(gone, b.overlaps)
		found = found || e.ahead
	}
	return found
}

// span is the key, or the range of keys, of a timed element.
type span struct{ first, last string }

func sortedSpans(m map[span]*ruleset.TimedElement) []span {
	return slices.SortedFunc(maps.Keys(m), func(a, b span) int {
		return cmp.Or(strings.Compare(a.first, b.first), strings.Compare(a.last, b.last))
	})
}

// planTimed works out what the changes of a set that stays come to. With drift,
// what somebody put in to stay for ever goes.
func planTimed(set *ruleset.Set, have *Set, changes []TimedChange, drift bool) *timedChanges {
	c := &timedChanges{set: set, catchAll: drift && have.timedCatchAll}
	live := make(map[span]*ruleset.TimedElement, len(have.Timed))
	for i := range have.Timed {
		e := &have.Timed[i]
		if drift && e.Timeout == 0 {
			c.removed = append(c.removed, *e)
			continue
		}
		live[span{e.First, e.Last}] = e
	}
	for _, change := range changes {
		key := span{change.Element.First, change.Element.Last}
		if e := live[key]; e != nil && change.Remove {
			c.removed = append(c.removed, *e)
			delete(live, key)
		}
	}
	c.add(live, changes)
	return c
}

// planAnew is planTimed for a set that is made anew, or is new: have is what it
// was, or nil. It keeps its elements if it had the same keys.
func planAnew(set *ruleset.Set, have *Set, changes []TimedChange) *timedChanges {
	c := &timedChanges{set: set}
	kept := map[span]*ruleset.TimedElement{}
	if have != nil && have.sameKeys(set) {
		for i := range have.Timed {
			if e := &have.Timed[i]; e.Timeout != 0 {
				kept[span{e.First, e.Last}] = e
			}
		}
	}
	for _, change := range changes {
		if change.Remove {
			delete(kept, span{change.Element.First, change.Element.Last})
		}
	}
	c.add(kept, changes)
	c.added = slices.DeleteFunc(c.added, func(e addedElement) bool { return e.there })
	for _, key := range sortedSpans(kept) {
		c.added = append(c.added, addedElement{TimedElement: *kept[key], carried: true})
	}
	return c
}

// sameKeys reports whether a set in the kernel holds keys as those of a timed one.
func (s *Set) sameKeys(want *ruleset.Set) bool {
	interval := s.flags&unix.NFT_SET_INTERVAL != 0
	return s.timed() && s.keyType == want.KeyType() && s.keyLen == uint32(want.KeySize()) && interval == want.Interval &&
		(!interval || slices.Equal(s.lengths, fieldLengths(want)))
}

// add notes what the changes add to the elements that there are.
func (c *timedChanges) add(live map[span]*ruleset.TimedElement, changes []TimedChange) {
	var taken []box
	if c.set.Interval {
		for _, key := range sortedSpans(live) {
			taken = append(taken, newBox(c.set, key))
		}
	}
	comes := map[span]bool{}
	for _, change := range changes {
		e := change.Element
		key := span{e.First, e.Last}
		if change.Remove || comes[key] {
			continue
		}
		comes[key] = true
		if there := live[key]; there != nil {
			if there.Timeout != 0 {
				e.Timeout, e.Expires = there.Timeout, 0
			}
			c.added = append(c.added, addedElement{TimedElement: e, there: true})
			continue
		}
		if !c.set.Interval {
			c.added = append(c.added, addedElement{TimedElement: e})
			continue
		}
		for _, rest := range newBox(c.set, key).without(taken) {
			taken = append(taken, rest)
			key := rest.span()
			e.First, e.Last = key.first, key.last
			c.added = append(c.added, addedElement{TimedElement: e})
		}
	}
}

// planBlind is planTimed for a set whose elements are not known.
func planBlind(set *ruleset.Set, changes []TimedChange) *timedChanges {
	c := &timedChanges{set: set, blind: true}
	for _, change := range changes {
		if change.Remove {
			c.removed = append(c.removed, change.Element)
		}
	}
	c.add(nil, changes)
	return c
}

// box is a range of keys, field by field. The ranges of a set never overlap: the
// kernel refuses some that do, and takes others for each other when one is
// removed.
//
// Source: Linux net/netfilter/nft_set_pipapo.c, nft_pipapo_insert and
// nft_pipapo_deactivate.
type box struct{ first, last []string }

func newBox(set *ruleset.Set, s span) box { return box{set.Fields(s.first), set.Fields(s.last)} }

func (b box) span() span { return span{ruleset.Concat(b.first...), ruleset.Concat(b.last...)} }

func (b box) clone() box { return box{slices.Clone(b.first), slices.Clone(b.last)} }

func (b box) overlaps(other box) bool {
	for i := range b.first {
		if b.last[i] < other.first[i] || other.last[i] < b.first[i] {
			return false
		}
	}
	return true
}

// without returns what is left of a box when others are taken out of it, as
// boxes that do not overlap.
func (b box) without(others []box) []box {
	left := []box{b}
	for _, other := range others {
		var next []box
		for _, l := range left {
			next = append(next, l.minus(other)...)
		}
		left = next
	}
	return left
}

// minus cuts off what lies before and behind another box, field by field.
func (b box) minus(other box) []box {
	if !b.overlaps(other) {
		return []box{b}
	}
	var out []box
	rest := b.clone()
	for i := range b.first {
		if rest.first[i] < other.first[i] {
			before := rest.clone()
			end := []byte(other.first[i])
			decrement(end)
			before.last[i] = string(end)
			out = append(out, before)
			rest.first[i] = other.first[i]
		}
		if other.last[i] < rest.last[i] {
			behind := rest.clone()
			begin := []byte(other.last[i])
			increment(begin)
			behind.first[i] = string(begin)
			out = append(out, behind)
			rest.last[i] = other.last[i]
		}
	}
	return out
}

// each calls yield with every change, and reports whether it never said stop.
func (c *timedChanges) each(yield func(Change) bool) bool {
	base := Change{Action: Remove, Kind: ElementKind, Name: c.set.Name, Comment: c.set.Comment}
	if c.catchAll {
		base.Text = "*"
		if !yield(base) {
			return false
		}
	}
	for _, e := range c.removed {
		base.Text = c.set.TimedText(e)
		if e.Timeout == 0 {
			base.Text += " (without a timeout)"
		}
		if !yield(base) {
			return false
		}
	}
	base.Action = Add
	for _, e := range c.added {
		if e.carried {
			continue
		}
		base.Text = c.set.TimedText(e.TimedElement)
		if !yield(base) {
			return false
		}
	}
	return true
}
