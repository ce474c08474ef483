package apply

import (
	"errors"
	"fmt"
	"math"
	"time"

	"sgc/internal/ruleset"
)

// TimedChange puts an element into a timed set, or takes one out.
//
// What is put in and is there already stays as it is and keeps its time: to
// give it more, take it out in the same list. Of ranges this is true for each of
// their keys: one that has keys in common with others is put in as the ranges
// that are left of it. What is taken out and is not there any more is no error.
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
