package nftvm

import (
	"fmt"
	"slices"
	"strings"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// set is a checked ruleset.Set.
type set struct {
	name     string
	key      []ruleset.Type
	keySize  int
	isMap    bool
	interval bool
	dynamic  bool
	timed    bool
	// exact holds the elements of sets without intervals; ranges those of sets
	// with, sorted and disjoint; boxes those of sets with several fields of which
	// each is a range.
	exact  map[string]*element
	ranges []element
	boxes  []element
}

type element struct {
	first, last string
	verdict     *verdict
}

// find returns the element that holds the key, or nil.
func (s *set) find(m *machine, key []byte) *element {
	switch {
	case s.dynamic:
		if p := m.packet; p.State == flow.Established && p.Protocol.IsOther(p.Family()) && s.keyOf(p) == string(key) {
			return &element{}
		}
		return nil
	case s.ofBoxes():
		for n := range s.boxes {
			if s.within(&s.boxes[n], string(key)) {
				return &s.boxes[n]
			}
		}
		return nil
	case s.interval:
		// The last range that begins at or before the key.
		n, found := slices.BinarySearchFunc(s.ranges, string(key), func(e element, key string) int { return strings.Compare(e.first, key) })
		if !found {
			n--
		}
		if n < 0 || s.ranges[n].last < string(key) {
			return nil
		}
		return &s.ranges[n]
	default:
		return s.exact[string(key)]
	}
}

// ofBoxes reports whether the set holds ranges field by field.
func (s *set) ofBoxes() bool { return s.interval && len(s.key) > 1 }

// within reports whether each field of the key lies in the element's range of
// that field.
func (s *set) within(e *element, key string) bool {
	at := 0
	for _, t := range s.key {
		end := at + t.Size()
		if key[at:end] < e.first[at:end] || e.last[at:end] < key[at:end] {
			return false
		}
		at += padded(t.Size())
	}
	return true
}

// keyOf returns the key by which a dynamic set knows the packet's flow: its
// interface, protocol and peer, as the set's key names them.
func (s *set) keyOf(p *flow.Packet) string {
	var fields []string
	for _, t := range s.key {
		switch t {
		case ruleset.IfName:
			fields = append(fields, ruleset.IfNameKey(p.Interface))
		case ruleset.InetProto:
			fields = append(fields, ruleset.ProtoKey(p.Protocol))
		case ruleset.IPv4Addr, ruleset.IPv6Addr:
			if len(ruleset.AddrKey(p.Peer())) != t.Size() {
				return ""
			}
			fields = append(fields, ruleset.AddrKey(p.Peer()))
		}
	}
	return ruleset.Concat(fields...)
}

// newSet checks a set. The verdicts of its elements are found later, when all
// chains are known.
func newSet(s *ruleset.Set) (*set, error) {
	out := &set{
		name: s.Name, key: s.Key, keySize: s.KeySize(), isMap: s.Map, interval: s.Interval, dynamic: s.Dynamic, timed: s.Timed,
		exact: map[string]*element{},
	}
	switch {
	case len(s.Key) == 0:
		return nil, fmt.Errorf("it has no key")
	case s.Interval && len(s.Key) > 1 && !s.Timed:
		return nil, fmt.Errorf("intervals of concatenated keys are not known in sets that are not timed")
	case s.Timed && (s.Dynamic || s.Map || len(s.Elements) > 0):
		return nil, fmt.Errorf("a timed set is not filled by rules, has no verdicts, and begins empty")
	case s.Dynamic && (s.Interval || s.Map || len(s.Elements) > 0):
		return nil, fmt.Errorf("a dynamic set has neither intervals nor verdicts nor elements")
	case s.Dynamic && (s.Timeout <= 0 || s.Size == 0):
		return nil, fmt.Errorf("a dynamic set has a timeout and a size")
	}
	if s.Dynamic {
		for _, t := range s.Key {
			switch t {
			case ruleset.IfName, ruleset.InetProto, ruleset.IPv4Addr, ruleset.IPv6Addr:
			default:
				return nil, fmt.Errorf("dynamic sets with a key of %s are not known", t.Name())
			}
		}
	}
	for n, e := range s.Elements {
		if err := out.add(e); err != nil {
			// Its text cannot be written while its length is in doubt.
			return nil, fmt.Errorf("element %d (%x): %w", n+1, e.First, err)
		}
	}
	return out, nil
}

func (s *set) add(e ruleset.Element) error {
	last := e.Last
	if !s.interval {
		if last != "" && last != e.First {
			return fmt.Errorf("a range, in a set without intervals")
		}
		last = e.First
	}
	switch {
	case len(e.First) != s.keySize || len(last) != s.keySize:
		return fmt.Errorf("its key has %d and %d bytes, the set's %d", len(e.First), len(last), s.keySize)
	case s.ofBoxes():
		return s.addBox(element{first: e.First, last: last})
	case e.First > last:
		return fmt.Errorf("it ends before it begins")
	case (e.Verdict != nil) != s.isMap:
		return fmt.Errorf("elements of maps, and only they, have a verdict")
	}
	if !s.interval {
		if s.exact[e.First] != nil {
			return fmt.Errorf("it is there twice")
		}
		s.exact[e.First] = &element{first: e.First, last: last}
		return nil
	}
	if n := len(s.ranges); n > 0 && s.ranges[n-1].last >= e.First {
		return fmt.Errorf("it overlaps the one before it, or is out of order")
	}
	s.ranges = append(s.ranges, element{first: e.First, last: last})
	return nil
}

// addBox adds an element of ranges field by field. The kernel refuses one that
// overlaps another one in part; which of them a packet is in makes no difference
// here.
func (s *set) addBox(e element) error {
	at := 0
	for _, t := range s.key {
		end := at + t.Size()
		if e.first[at:end] > e.last[at:end] {
			return fmt.Errorf("its %s ends before it begins", t.Name())
		}
		at += padded(t.Size())
	}
	s.boxes = append(s.boxes, e)
	return nil
}
