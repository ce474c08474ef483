package apply

import (
	"fmt"
	"iter"

	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

// elements are the contents of a set, compact, since a set may hold a million:
// 8 bytes for an IPv4 range. They are sorted by key and, in interval sets,
// disjoint.
type elements struct {
	keyLen   int
	interval bool
	// keys holds for every element its key, or in interval sets the first and
	// the last key of its range.
	keys []byte
	// verdicts holds for every element an index into table; nil if all are 0.
	verdicts []uint32
	table    []verdict
	// catchAll is the index of the verdict of the element "*", which sgc never
	// makes; -1 if there is none.
	catchAll int
	// torn sets hold ends of ranges that belong to no range, or ranges without
	// an end. They cannot be mended element by element.
	torn bool
}

// verdict is what an element maps to; the zero value is that of plain sets.
type verdict struct {
	code  int32
	chain string
	// set is true in maps.
	set bool
	// foreign elements have attributes that sgc never gives any, such as a
	// timeout or a counter. They equal no wanted element.
	foreign bool
}

// stride is the number of bytes of keys for every element.
func (e *elements) stride() int {
	if e.interval {
		return 2 * e.keyLen
	}
	return e.keyLen
}

func (e *elements) len() int {
	if e.keyLen == 0 {
		return 0
	}
	return len(e.keys) / e.stride()
}

// first returns the first key of element i, which may not be changed.
func (e *elements) first(i int) []byte {
	at := i * e.stride()
	return e.keys[at : at+e.keyLen]
}

// last returns the last key of element i, which may not be changed.
func (e *elements) last(i int) []byte {
	if !e.interval {
		return e.first(i)
	}
	at := i*e.stride() + e.keyLen
	return e.keys[at : at+e.keyLen]
}

func (e *elements) verdict(i int) verdict {
	if e.verdicts == nil {
		if len(e.table) == 0 {
			return verdict{}
		}
		return e.table[0]
	}
	return e.table[e.verdicts[i]]
}

// Elements returns the elements of the set in the order of their keys.
// Verdicts that ruleset has no word for come as nil.
func (s *Set) Elements() iter.Seq[ruleset.Element] {
	return func(yield func(ruleset.Element) bool) {
		for i := range s.elements.len() {
			e := ruleset.Element{
				First:   string(s.elements.first(i)),
				Last:    string(s.elements.last(i)),
				Verdict: s.elements.verdict(i).ruleset(),
			}
			if !yield(e) {
				return
			}
		}
	}
}

// verdictCodes are the kernel's numbers of the verdicts that sgc uses.
var verdictCodes = map[ruleset.VerdictKind]int32{
	ruleset.Drop: 0, ruleset.Accept: 1, ruleset.Jump: unix.NFT_JUMP, ruleset.Goto: unix.NFT_GOTO, ruleset.Return: unix.NFT_RETURN,
}

// verdictOf returns the kernel's form of a wanted element's verdict.
func verdictOf(v *ruleset.Verdict) (verdict, error) {
	if v == nil {
		return verdict{}, nil
	}
	code, ok := verdictCodes[v.Kind]
	if !ok {
		return verdict{}, fmt.Errorf("unknown verdict %d", v.Kind)
	}
	return verdict{code: code, chain: v.Chain, set: true}, nil
}

// ruleset is the opposite of verdictOf; nil for what it does not know.
func (v verdict) ruleset() *ruleset.Verdict {
	if !v.set {
		return nil
	}
	for kind, code := range verdictCodes {
		if code == v.code {
			return &ruleset.Verdict{Kind: kind, Chain: v.chain}
		}
	}
	return nil
}
