package apply

import (
	"errors"
	"fmt"

	"sgc/internal/ruleset"
)

// Limits of the kernel and of nft's user data.
const (
	maxName    = 255
	maxComment = 254
)

// check fails if the wanted table is not one that the kernel could hold.
func check(t *ruleset.Table) error {
	var errs []error
	names := func(kind, name, comment string, seen map[string]bool) {
		switch {
		case name == "" || len(name) > maxName:
			errs = append(errs, fmt.Errorf("the name of %s %q has %d bytes: 1 to %d are possible", kind, name, len(name), maxName))
		case seen[name]:
			errs = append(errs, fmt.Errorf("there are two of %s %s", kind, name))
		case len(comment) > maxComment:
			errs = append(errs, fmt.Errorf("the comment of %s %s has %d bytes: %d are possible", kind, name, len(comment), maxComment))
		}
		seen[name] = true
	}
	chains, sets := map[string]bool{}, map[string]bool{}
	names("table", t.Name, t.Comment, map[string]bool{})
	for _, c := range t.Chains {
		names("chain", c.Name, c.Comment, chains)
		for i, r := range c.Rules {
			if len(r.Comment) > maxComment {
				errs = append(errs, fmt.Errorf("the comment of rule %s #%d has %d bytes: %d are possible", c.Name, i+1, len(r.Comment), maxComment))
			}
		}
	}
	objects := map[string]bool{}
	for _, o := range t.Timeouts {
		names("ct timeout", o.Name, "", objects)
		errs = append(errs, checkTimeout(o))
	}
	for _, s := range t.Sets {
		names("set", s.Name, s.Comment, sets)
		errs = append(errs, checkElements(s))
	}
	return errors.Join(errs...)
}

// checkElements fails if a set's elements are not sorted, disjoint and of the
// right length: the kernel would refuse them, or read them otherwise.
func checkElements(s *ruleset.Set) error {
	if len(s.Key) == 0 {
		return fmt.Errorf("set %s has no key", s.Name)
	}
	if s.Interval && (len(s.Key) != 1) != s.Timed {
		return fmt.Errorf("set %s: ranges of several fields are timed, and those of one field are not", s.Name)
	}
	if s.Timed && (len(s.Elements) != 0 || s.Map || s.Dynamic || s.Timeout != 0) {
		return fmt.Errorf("timed set %s must hold neither elements nor verdicts, and have no timeout of its own", s.Name)
	}
	if s.Dynamic && (len(s.Elements) != 0 || s.Map) {
		return fmt.Errorf("dynamic set %s must hold neither elements nor verdicts", s.Name)
	}
	size := s.KeySize()
	last := ""
	for i := range s.Elements {
		e := &s.Elements[i]
		switch {
		case len(e.First) != size || s.Interval && len(e.Last) != size:
			return fmt.Errorf("element %d of set %s has a key of the wrong length: %d bytes are wanted", i+1, s.Name, size)
		case s.Interval && e.Last < e.First:
			return fmt.Errorf("element %d of set %s ends before it begins", i+1, s.Name)
		case i > 0 && e.First <= last:
			return fmt.Errorf("element %s of set %s is not above the one before it", s.ElementText(*e), s.Name)
		case (e.Verdict != nil) != s.Map:
			return fmt.Errorf("element %s of set %s: maps hold verdicts, sets hold none", s.ElementText(*e), s.Name)
		}
		last = e.First
		if s.Interval {
			last = e.Last
		}
	}
	return nil
}
