package apply

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

// An elementWriter packs elements into as many messages as they need. A range
// is two elements for the kernel, its start and the key behind its end, which
// stay together in a message.
type elementWriter struct {
	planner *planner
	typ     int
	flags   int
	op      operation
	// message is that of the transaction at hand, and list where the open
	// message's list of elements begins in it, -1 if none is open.
	message *message
	list    int
	end     []byte
}

func (p *planner) elementWriter(typ, flags int, action Action, set *ruleset.Set) *elementWriter {
	return &elementWriter{planner: p, typ: typ, flags: flags, list: -1, op: operation{
		action: action, kind: ElementKind, name: set.Name, comment: set.Comment, set: set,
	}}
}

// deleteElements deletes what goes, and what comes back in another form.
func (p *planner) deleteElements(c *elementChanges) {
	w := p.elementWriter(unix.NFT_MSG_DELSETELEM, 0, Remove, c.want)
	if c.catchAll {
		w.catchAll()
	}
	have := &c.have.elements
	drop := func(i int32) {
		w.element(string(have.first(int(i))), string(have.last(int(i))), verdict{})
	}
	for _, i := range c.removed {
		drop(i)
	}
	for _, pair := range c.updated {
		drop(pair[0])
	}
	for _, pair := range c.renewed {
		drop(pair[0])
	}
	w.close()
}

func (p *planner) addElements(c *elementChanges) {
	w := p.elementWriter(unix.NFT_MSG_NEWSETELEM, create, Add, c.want)
	add := func(j int32) {
		e := &c.want.Elements[j]
		w.element(e.First, e.Last, c.verdict(int(j)))
	}
	for _, j := range c.added {
		add(j)
	}
	for _, pair := range c.updated {
		add(pair[1])
	}
	for _, pair := range c.renewed {
		add(pair[1])
	}
	w.close()
}

// batch is the transaction that the open message belongs to.
func (w *elementWriter) batch() *batch { return w.planner.batch }

// room returns the message to append n bytes of elements to.
func (w *elementWriter) room(n int) *message {
	if w.list >= 0 && len(w.message.buf)-w.list+n > maxElements {
		w.close()
	}
	if w.list < 0 {
		w.message = w.planner.begin(w.typ, w.flags, w.op)
		m := w.message
		m.str(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
		m.str(unix.NFTA_SET_ELEM_LIST_SET, w.op.name)
		w.list = m.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	}
	return w.message
}

func (w *elementWriter) close() {
	if w.list < 0 {
		return
	}
	w.message.end(w.list)
	w.message.finish()
	w.list = -1
}

// element appends a key or a range. Deletions need no verdict.
func (w *elementWriter) element(first, last string, v verdict) {
	m := w.room(elementSize(w.op.set, v))
	w.key(m, first, v, false)
	if !w.op.set.Interval {
		return
	}
	w.end = append(w.end[:0], last...)
	if increment(w.end) {
		w.key(m, string(w.end), verdict{}, true)
	}
}

// elementSize is the most that an element of a set takes, in bytes.
func elementSize(s *ruleset.Set, v verdict) int {
	key := 3*attributeSize + align4(s.KeySize())
	n := key
	if s.Interval {
		n += key + attributeSize + 4
	}
	if s.Map {
		n += 4*attributeSize + 4 + align4(len(v.chain)+1)
	}
	return n
}

// key appends one element of the kernel's.
func (w *elementWriter) key(m *message, key string, v verdict, end bool) {
	element := m.nest(unix.NFTA_LIST_ELEM)
	nest := m.nest(unix.NFTA_SET_ELEM_KEY)
	m.raw(unix.NFTA_DATA_VALUE, key)
	m.end(nest)
	if v.set {
		data := m.nest(unix.NFTA_SET_ELEM_DATA)
		inner := m.nest(unix.NFTA_DATA_VERDICT)
		m.u32(unix.NFTA_VERDICT_CODE, uint32(v.code))
		if v.chain != "" {
			m.str(unix.NFTA_VERDICT_CHAIN, v.chain)
		}
		m.end(inner)
		m.end(data)
	}
	if end {
		m.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	m.end(element)
}

// elementKey returns the key of the element that begins at an attribute, for
// error messages; "" if there is none.
func elementKey(b []byte) string {
	if len(b) < attributeSize {
		return ""
	}
	length := int(binary.NativeEndian.Uint16(b))
	if length < attributeSize || length > len(b) {
		return ""
	}
	a := walk(b[attributeSize:length])
	for a.next() {
		if a.typ == unix.NFTA_SET_ELEM_KEY {
			k := walk(a.data)
			if k.next() {
				return string(k.data)
			}
		}
	}
	return ""
}
