package apply

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sgc/internal/ruleset"
)

// TimedChange puts an element into a timed set, or takes one out.
//
// What is put in and is there already stays as it is and keeps its time: to
// give it more, take it out in the same list. What is taken out and is not
// there any more is no error.
type TimedChange struct {
	Set    string
	Remove bool
	// Element is told by First and Last alone where it is removed.
	Element ruleset.TimedElement
}

// maxElementComment is the longest comment of an element that nft keeps.
//
// Source: libnftnl include/libnftnl/udata.h, NFTNL_UDATA_COMMENT_MAXLEN.
const maxElementComment = 128

// maxElementTimeout is the longest time to live that the kernel can count in
// nanoseconds.
const maxElementTimeout = math.MaxInt64 / time.Millisecond * time.Millisecond

// maxTimedErrors bounds how many changes that cannot be made are told of.
const maxTimedErrors = 10

// timedChanges says which elements of a timed set go and come.
type timedChanges struct {
	set *ruleset.Set
	// removed are those that are there. Time may take them out at any moment.
	removed []ruleset.TimedElement
	// added have the time to live that the kernel is told. Those that are there
	// are among them, with the one that they have and no remaining time: the
	// kernel leaves them alone, or adds them if they end before it comes to it.
	added []addedElement
	// catchAll says that the element "*" goes.
	catchAll bool
	// blind says that the set was not read: what is removed may not be there, and
	// what is added is refused if it is.
	blind bool
}

// addedElement is an element that is put in; there says that it was there when
// the kernel was read.
type addedElement struct {
	ruleset.TimedElement
	there bool
}

func (c *timedChanges) empty() bool {
	return len(c.removed)+len(c.added) == 0 && !c.catchAll
}

// span is the key, or the range of keys, of a timed element.
type span struct{ first, last string }

// planTimed works out what the changes of one set come to. have is nil if the set is not there, or is made anew.
func planTimed(set *ruleset.Set, have *Set, changes []TimedChange) (*timedChanges, error) {
	c := &timedChanges{set: set}
	live := map[span]*ruleset.TimedElement{}
	if have != nil {
		for i := range have.Timed {
			if e := &have.Timed[i]; e.Timeout != 0 {
				live[span{e.First, e.Last}] = e
			}
		}
	}
	for _, change := range changes {
		key := span{change.Element.First, change.Element.Last}
		if e := live[key]; e != nil && change.Remove {
			c.removed = append(c.removed, *e)
			delete(live, key)
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
		there := live[key]
		if there != nil {
			e.Timeout, e.Expires = there.Timeout, 0
		}
		c.added = append(c.added, addedElement{e, there != nil})
	}
	if !set.Interval {
		return c, nil
	}
	for key := range live {
		comes[key] = true
	}
	return c, checkOverlap(set, comes)
}

// planBlind is planTimed for a set whose elements are not known.
func planBlind(set *ruleset.Set, changes []TimedChange) *timedChanges {
	c := &timedChanges{set: set, blind: true}
	comes := map[span]bool{}
	for _, change := range changes {
		e := change.Element
		key := span{e.First, e.Last}
		switch {
		case change.Remove:
			c.removed = append(c.removed, e)
		case !comes[key]:
			comes[key] = true
			c.added = append(c.added, addedElement{TimedElement: e})
		}
	}
	return c
}

// drift adds what somebody put into the set to stay for ever to what goes.
func (c *timedChanges) drift(have *Set) {
	c.catchAll = have.timedCatchAll
	for _, e := range have.Timed {
		if e.Timeout == 0 {
			c.removed = append(c.removed, e)
		}
	}
}

// checkOverlap fails if ranges of a set have keys in common. The kernel refuses
// some of these, and takes others for each other when one is removed.
//
// Source: Linux net/netfilter/nft_set_pipapo.c, nft_pipapo_insert and
// nft_pipapo_deactivate.
func checkOverlap(set *ruleset.Set, spans map[span]bool) error {
	list := make([]span, 0, len(spans))
	for s := range spans {
		list = append(list, s)
	}
	first := set.Key[0].Size()
	slices.SortFunc(list, compareSpans)
	for i, a := range list {
		for _, b := range list[i+1:] {
			if b.first[:first] > a.last[:first] {
				break
			}
			if overlap(set, a, b) {
				return fmt.Errorf("element %s of set %s has keys in common with %s", timedText(set, b), set.Name, timedText(set, a))
			}
		}
	}
	return nil
}

func overlap(set *ruleset.Set, a, b span) bool {
	aFirst, aLast, bFirst, bLast := set.Fields(a.first), set.Fields(a.last), set.Fields(b.first), set.Fields(b.last)
	for i := range aFirst {
		if aLast[i] < bFirst[i] || bLast[i] < aFirst[i] {
			return false
		}
	}
	return true
}

func compareSpans(a, b span) int {
	switch {
	case a.first < b.first || a.first == b.first && a.last < b.last:
		return -1
	case a == b:
		return 0
	}
	return 1
}

func timedText(set *ruleset.Set, s span) string {
	return set.TimedText(ruleset.TimedElement{First: s.first, Last: s.last})
}

// bySet sorts changes by the timed sets of a table, and fails for those that
// cannot be made.
func bySet(t *ruleset.Table, changes []TimedChange) (map[*ruleset.Set][]TimedChange, error) {
	sets := make(map[string]*ruleset.Set, len(t.Sets))
	for _, s := range t.Sets {
		sets[s.Name] = s
	}
	out := map[*ruleset.Set][]TimedChange{}
	var errs []error
	for _, change := range changes {
		s := sets[change.Set]
		var err error
		switch {
		case s == nil:
			err = fmt.Errorf("timed elements of set %s: there is no such set", change.Set)
		case !s.Timed:
			err = fmt.Errorf("timed elements of set %s: the set is not timed", change.Set)
		default:
			err = checkTimedElement(s, change)
		}
		if err != nil {
			if errs = append(errs, err); len(errs) == maxTimedErrors {
				break
			}
			continue
		}
		if !s.Interval {
			change.Element.Last = change.Element.First
		}
		out[s] = append(out[s], change)
	}
	return out, errors.Join(errs...)
}

func checkTimedElement(s *ruleset.Set, change TimedChange) error {
	e := change.Element
	size := s.KeySize()
	if len(e.First) != size || s.Interval && len(e.Last) != size || !s.Interval && e.Last != "" && e.Last != e.First {
		return fmt.Errorf("a timed element of set %s has a key of the wrong length: %d bytes are wanted", s.Name, size)
	}
	if s.Interval {
		first, last := s.Fields(e.First), s.Fields(e.Last)
		for i := range first {
			if last[i] < first[i] {
				return fmt.Errorf("field %d of a timed element of set %s ends before it begins", i+1, s.Name)
			}
		}
	}
	if change.Remove {
		return nil
	}
	switch {
	case e.Timeout <= 0 || e.Timeout%time.Millisecond != 0 || e.Timeout > maxElementTimeout:
		return fmt.Errorf("element %s of set %s has a timeout of %s: whole milliseconds above 0 are wanted", s.TimedText(e), s.Name, e.Timeout)
	case e.Expires < 0 || e.Expires%time.Millisecond != 0 || e.Expires > e.Timeout:
		return fmt.Errorf("element %s of set %s has %s left of a timeout of %s: whole milliseconds up to that are wanted", s.TimedText(e), s.Name, e.Expires, e.Timeout)
	case len(e.Comment) > maxElementComment:
		return fmt.Errorf("the comment of element %s of set %s has %d bytes: %d are possible", s.TimedText(e), s.Name, len(e.Comment), maxElementComment)
	}
	return nil
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
		base.Text = c.set.TimedText(e.TimedElement)
		if !yield(base) {
			return false
		}
	}
	return true
}
