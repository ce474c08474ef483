package ruleset

import "time"

// Table is a table of the inet family.
type Table struct {
	Name    string
	Comment string
	// Sets and Chains are in the order in which they are printed: sorted by
	// name, base chains before regular ones.
	Sets   []*Set
	Chains []*Chain
	// Timeouts are sorted by name.
	Timeouts []*Timeout
}

// Chain is a base chain if Hook is set, else a regular chain.
type Chain struct {
	Name    string
	Comment string
	Hook    *Hook
	Rules   []Rule
}

// Hook is where the kernel enters a base chain. The type is always filter and
// the policy always accept.
type Hook struct {
	Point    HookPoint
	Priority int32
}

// HookPoint is one of the inet family's hooks, with the kernel's number.
type HookPoint uint32

// The hooks that sgc uses.
const (
	Prerouting  HookPoint = 0
	Output      HookPoint = 3
	Postrouting HookPoint = 4
)

// Rule is a list of statements, tried from left to right. The comment is the
// policy address that the rule comes from.
type Rule struct {
	Statements []Statement
	Comment    string
	// From holds the policy addresses that the rule counts for, if it has a
	// counter. The kernel never sees them; comments are too short for many.
	From []string
}

// Set is a named set, or a verdict map if Map is set.
type Set struct {
	Name    string
	Comment string
	// Key holds the types of the key's fields; more than one is a
	// concatenation, in which each field fills whole units of four bytes.
	Key []Type
	Map bool
	// Interval sets hold ranges. Only a timed one has a key of several fields,
	// each of them a range then.
	Interval bool
	// Dynamic sets are filled by rules; they have no Elements here, a Timeout
	// and a Size.
	Dynamic bool
	Timeout time.Duration
	Size    uint32
	// Timed sets hold elements that each have a time to live of their own. A
	// commit puts them there, and time takes them away: they are no part of
	// the table, and Elements is empty.
	Timed bool
	// Elements are sorted by First and disjoint.
	Elements []Element
}

// Element is one element of a set: a single key, or in interval sets an
// inclusive range of keys. Keys are raw bytes as the kernel compares them.
type Element struct {
	First, Last string
	// Verdict is set in maps.
	Verdict *Verdict
}

// TimedElement is an element of a timed set.
type TimedElement struct {
	// First and Last are the key, equal in sets that are none of ranges. In
	// ranges of several fields, each field goes from its part of First to its
	// part of Last.
	First, Last string
	// Timeout is the time to live that the element was given, in milliseconds at
	// the finest, Expires what is left of it. An element that is added lives for
	// Expires, or for Timeout if Expires is 0.
	Timeout, Expires time.Duration
	// Comment has at most 128 bytes.
	Comment string
}

// VerdictKind is what happens to a packet.
type VerdictKind uint8

// The verdicts.
const (
	Accept VerdictKind = iota
	Drop
	Jump
	Goto
	Return
)

// Verdict ends a rule.
type Verdict struct {
	Kind VerdictKind
	// Chain is the target of Jump and Goto.
	Chain string
}
