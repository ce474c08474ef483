package apply

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
	"sgc/internal/ruleset"
)

// destroySetElement removes elements as NFT_MSG_DELSETELEM does, but takes those
// that are not there for removed.
//
// Source: Linux include/uapi/linux/netfilter/nf_tables.h, since 6.3.
const destroySetElement = 30

// Of a set's elements, what is written of them.
type timedPart uint8

const (
	keyOnly timedPart = iota
	whole
)

func (p *planner) removeTimed(c *timedChanges) {
	w := p.elementWriter(destroySetElement, 0, Remove, c.set)
	w.op.destroys, w.op.idle = true, true
	if c.catchAll {
		w.catchAll()
	}
	for i := range c.removed {
		w.timed(&c.removed[i], keyOnly)
	}
	w.close()
}

// addTimed puts in the elements that come ahead of the switch, or those that do
// not.
func (p *planner) addTimed(c *timedChanges, ahead bool) {
	// What is there already is no error, unless it is not known what is there.
	flags := unix.NLM_F_CREATE
	if c.blind {
		flags = create
	}
	w := p.elementWriter(unix.NFT_MSG_NEWSETELEM, flags, Add, c.set)
	w.op.idle = true
	for i := range c.added {
		e := &c.added[i]
		if e.ahead != ahead {
			continue
		}
		w.timed(&e.TimedElement, whole)
		if !e.there {
			operations := w.batch().operations
			operations[len(operations)-1].idle = false
		}
	}
	w.close()
}

// addTimedAhead puts ranges into timed sets before all is switched, and notes what
// is to be taken out again of sets that were there.
func (p *planner) addTimedAhead() {
	for _, s := range p.sets {
		if s.timed == nil || !slices.ContainsFunc(s.timed.added, func(e addedElement) bool { return e.ahead }) {
			continue
		}
		p.addTimed(s.timed, true)
		if s.have == nil || s.fresh {
			continue // the set itself is
		}
		back := &timedChanges{set: s.want}
		for _, e := range s.timed.added {
			if e.ahead {
				back.removed = append(back.removed, e.TimedElement)
			}
		}
		p.batch.ahead = append(p.batch.ahead, back)
	}
}

// touched is the name of a chain that comes and goes in one transaction. No
// policy has such a name.
const touched = "/generation"

// touchSize is the most that touch takes, in bytes.
const touchSize = 256

// touch makes a transaction that may change nothing one that certainly does.
// The kernel counts no generation for one that changes nothing: whoever counts on
// the next one would take somebody else's transaction for his own.
//
// Source: Linux net/netfilter/nf_tables_api.c, nf_tables_commit.
func (b *batch) touch() {
	for _, o := range []struct {
		typ, flags int
		action     Action
	}{{unix.NFT_MSG_NEWCHAIN, create, Add}, {unix.NFT_MSG_DELCHAIN, 0, Remove}} {
		m := b.begin(o.typ, o.flags, operation{action: o.action, kind: ChainKind, name: touched})
		m.CString(unix.NFTA_CHAIN_TABLE, tableName)
		m.CString(unix.NFTA_CHAIN_NAME, touched)
		m.Finish()
	}
}

// catchAll appends the element "*".
func (w *elementWriter) catchAll() {
	m := w.room(2*nlmsg.AttributeSize + 4)
	element := m.Nest(unix.NFTA_LIST_ELEM)
	m.Uint32(unix.NFTA_SET_ELEM_FLAGS, elementCatchAll)
	m.End(element)
}

// timed appends an element of a timed set.
func (w *elementWriter) timed(e *ruleset.TimedElement, part timedPart) {
	m := w.room(timedSize(w.op.set, e))
	element := m.Nest(unix.NFTA_LIST_ELEM)
	appendValue(m, unix.NFTA_SET_ELEM_KEY, e.First)
	if w.op.set.Interval {
		appendValue(m, elementKeyEnd, e.Last)
	}
	if part == whole {
		m.Uint64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(e.Timeout/time.Millisecond))
		if e.Expires != 0 {
			w.batch().expirations = append(w.batch().expirations, len(m.Buf)+nlmsg.AttributeSize)
			m.Uint64(unix.NFTA_SET_ELEM_EXPIRATION, uint64(e.Expires/time.Millisecond))
		}
		if e.Comment != "" {
			m.Bytes(unix.NFTA_SET_ELEM_USERDATA, ruleset.CommentData(e.Comment))
		}
	}
	m.End(element)
}

// appendValue appends an nft_data of raw bytes.
func appendValue(m *nlmsg.Message, typ uint16, s string) {
	nest := m.Nest(typ)
	m.RawString(unix.NFTA_DATA_VALUE, s)
	m.End(nest)
}

// timedSize is the most that a timed element takes, in bytes.
func timedSize(s *ruleset.Set, e *ruleset.TimedElement) int {
	key := 2*nlmsg.AttributeSize + nlmsg.Align(s.KeySize())
	n := nlmsg.AttributeSize + key + 2*(nlmsg.AttributeSize+8)
	if s.Interval {
		n += key
	}
	if e.Comment != "" {
		n += nlmsg.AttributeSize + nlmsg.Align(len(e.Comment)+3)
	}
	return n
}
