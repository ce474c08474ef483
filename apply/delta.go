package apply

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"

	"sgc/internal/nlmsg"
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

// The kinds. ObjectKind stands for ct timeouts, and for counters, quotas,
// flowtables and other objects, which sgc only ever removes.
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
	// Unused is set where a chain, a set or a ct timeout goes, and the rules of a
	// chain with it, that no packet can come to. An interrupted apply leaves such.
	Unused bool
}

// Delta is the difference between a snapshot and a wanted table, and the
// transactions that turn one into the other: most often one, see the package's
// documentation for when there are more.
type Delta struct {
	generation uint32
	// committed is the generation that Commit left, 0 unless it did all.
	committed uint32
	// needs are what the snapshot found of the tables of others, free is set if
	// they do not matter.
	needs needs
	free  bool
	// batches are the transactions in their order; none if there is nothing to
	// do.
	batches []*batch
	changes []change
	// leftovers is set if all that differs is what nothing uses.
	leftovers bool
}

// batch is one transaction.
type batch struct {
	// part is the last part of the delta that the transaction holds; one that
	// stands alone holds them all.
	part       part
	operations []operation
	message    nlmsg.Message
	// expirations are where in the message the remaining times of elements
	// stand, 8 bytes each.
	expirations []int
	// ahead are the elements that were put into sets that were there, as what is
	// to be removed if nothing comes of the delta.
	ahead []*timedChanges
}

// change is a Change that is not put into words yet.
type change struct {
	Change
	text, was func() string
	// elements stands for the changed elements of a set.
	elements *elementChanges
	// timed stands for the changed elements of a timed set.
	timed *timedChanges
}

// operation is one message of a transaction.
type operation struct {
	action Action
	kind   Kind
	name   string
	// number is that of a rule in its chain, from 1 on, after the transaction
	// if it is added and before if it is removed; 0 if it means nothing.
	number  int
	comment string
	// start is where the message begins in the transaction.
	start int
	// set describes the keys of elements.
	set *ruleset.Set
	// destroys is set where elements are removed whether they are there or not.
	destroys bool
	// idle is set where the kernel may find nothing to do.
	idle bool
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
func (d *Delta) Empty() bool { return len(d.batches) == 0 }

// Leftovers reports whether something differs, but nothing that a packet could
// notice: the kernel holds all that is wanted, and beside it objects that
// nothing uses, such as an interrupted apply leaves.
func (d *Delta) Leftovers() bool { return d.leftovers }

// Generation returns the generation that the delta starts from.
func (d *Delta) Generation() uint32 { return d.generation }

// Transactions returns the number of transactions that Commit sends: 0 to 3.
func (d *Delta) Transactions() int { return len(d.batches) }

// Prepares reports whether the first of several transactions only adds what
// nothing uses yet.
func (d *Delta) Prepares() bool { return len(d.batches) > 1 && d.batches[0].part == preparing }

// CleansUp reports whether the last of several transactions only removes what
// nothing uses any more.
func (d *Delta) CleansUp() bool {
	return len(d.batches) > 1 && d.batches[len(d.batches)-1].part == cleaning
}

// Steps returns the transactions one by one, each as a delta without changes
// that starts from the generation that the one before it leaves.
func (d *Delta) Steps() []*Delta {
	steps := make([]*Delta, len(d.batches))
	for i, b := range d.batches {
		steps[i] = &Delta{generation: d.generationAfter(i), batches: []*batch{b}}
	}
	return steps
}

// Messages returns the number of netlink messages of the transactions, with
// those that begin and end them; 0 if there is none.
func (d *Delta) Messages() int {
	n := 0
	for _, b := range d.batches {
		n += len(b.operations) + 2
	}
	return n
}

// Bytes returns the size of the transactions; 0 if there is none.
func (d *Delta) Bytes() int {
	n := 0
	for _, b := range d.batches {
		n += len(b.message.Buf)
	}
	return n
}

// Digest returns a name for what the transactions do to which objects. It
// does not depend on the generation: two deltas with equal digests do the same
// to the same table, however often other tables changed in between. What is
// left of the time of elements does not count.
func (d *Delta) Digest() string {
	sum := sha256.New()
	for _, b := range d.batches {
		at := beginSize
		for _, expiration := range b.expirations {
			sum.Write(b.message.Buf[at:expiration])
			at = expiration + 8
		}
		sum.Write(b.message.Buf[at:])
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

// Changes returns the differences: of the table, of objects and chains with
// their rules, of sets with their elements, each by name. A set that is new,
// or that goes, counts as one change with all its elements, but for timed ones
// that are put in. What has to be made anew only because something that it refers
// to is, is no change.
func (d *Delta) Changes() iter.Seq[Change] {
	return func(yield func(Change) bool) {
		for _, c := range d.changes {
			if c.elements != nil {
				if !c.elements.each(yield) {
					return
				}
				continue
			}
			if c.timed != nil {
				if !c.timed.each(yield) {
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
