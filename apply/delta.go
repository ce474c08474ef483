package apply

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"

	"sgc/internal/ruleset"
)

// Action is what a change does.
type Action uint8

// The actions. A moved rule is there before and after, at another place among
// the rules of its chain.
const (
	Add Action = iota
	Remove
	Update
	Move
)

func (a Action) String() string {
	switch a {
	case Add:
		return "add"
	case Remove:
		return "remove"
	case Update:
		return "change"
	case Move:
		return "move"
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// Kind is the kind of thing that a change is about.
type Kind uint8

// The kinds. ObjectKind stands for counters, quotas, flowtables and other
// objects, which sgc only ever removes.
const (
	TableKind Kind = iota
	ChainKind
	SetKind
	ElementKind
	RuleKind
	ObjectKind
)

func (k Kind) String() string {
	switch k {
	case TableKind:
		return "table"
	case ChainKind:
		return "chain"
	case SetKind:
		return "set"
	case ElementKind:
		return "element"
	case RuleKind:
		return "rule"
	case ObjectKind:
		return "object"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Change is one difference between the kernel's table and the wanted one.
type Change struct {
	Action Action
	Kind   Kind
	// Name is that of the table, chain, set or object, for a rule that of its
	// chain and for an element that of its set.
	Name string
	// Comment is the policy address that the thing carries as its comment.
	Comment string
	// Text is the thing as nft writes it: as it is to be or, if it is removed,
	// as it is. Rules made by others are translated as far as sgc knows their
	// words. Of chains and sets it is the declaration.
	Text string
	// Was is the text before an Update.
	Was string
}

// Delta is the difference between a snapshot and a wanted table, and the
// transaction that turns one into the other.
type Delta struct {
	generation uint32
	operations []operation
	// batch is the whole transaction; empty if there is nothing to do.
	batch   message
	changes []change
}

// change is a Change that is not put into words yet.
type change struct {
	Change
	text, was func() string
	// elements stands for the changed elements of a set.
	elements *elementChanges
}

// operation is one message of the transaction.
type operation struct {
	action Action
	kind   Kind
	name   string
	// number is that of a rule in its chain, from 1 on, after the transaction
	// if it is added and before if it is removed; 0 if it means nothing.
	number  int
	comment string
	// start is where the message begins in the batch.
	start int
	// set describes the keys of elements.
	set *ruleset.Set
}

func (o operation) String() string {
	text := fmt.Sprintf("%s %s %s", o.action, o.kind, o.name)
	if o.kind == ElementKind {
		text = fmt.Sprintf("%s elements of set %s", o.action, o.name)
	}
	if o.number != 0 {
		text += fmt.Sprintf(" #%d", o.number)
	}
	if o.comment != "" {
		text += fmt.Sprintf(" (%s)", o.comment)
	}
	return text
}

// Empty reports whether nothing differs; Commit then sends nothing.
func (d *Delta) Empty() bool { return len(d.operations) == 0 }

// Generation returns the generation that the delta starts from.
func (d *Delta) Generation() uint32 { return d.generation }

// Messages returns the number of netlink messages of the transaction, with
// those that begin and end it; 0 if it is empty.
func (d *Delta) Messages() int {
	if d.Empty() {
		return 0
	}
	return len(d.operations) + 2
}

// Bytes returns the size of the transaction; 0 if it is empty.
func (d *Delta) Bytes() int { return len(d.batch.buf) }

// Digest returns a name for what the transaction does to which objects. It
// does not depend on the generation: two deltas with equal digests do the same
// to the same table, however often other tables changed in between.
func (d *Delta) Digest() string {
	sum := sha256.Sum256(d.batch.buf[min(beginSize, len(d.batch.buf)):])
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Changes returns the differences: of the table, of objects and chains with
// their rules, of sets with their elements, each by name. A set that is new,
// or that goes, counts as one change with all its elements. What has to be
// made anew only because something that it refers to is, is no change.
func (d *Delta) Changes() iter.Seq[Change] {
	return func(yield func(Change) bool) {
		for _, c := range d.changes {
			if c.elements != nil {
				if !c.elements.each(yield) {
					return
				}
				continue
			}
			if c.text != nil {
				c.Text = c.text()
			}
			if c.was != nil {
				c.Was = c.was()
			}
			if !yield(c.Change) {
				return
			}
		}
	}
}
