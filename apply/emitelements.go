package apply

import (
	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
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
	message *nlmsg.Message
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
func (w *elementWriter) room(n int) *nlmsg.Message {
	if w.list >= 0 && len(w.message.Buf)-w.list+n > maxElements {
		w.close()
	}
	if w.list < 0 {
		w.message = w.planner.begin(w.typ, w.flags, w.op)
		m := w.message
		m.CString(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
		m.CString(unix.NFTA_SET_ELEM_LIST_SET, w.op.name)
		w.list = m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	}
	return w.message
}

func (w *elementWriter) close() {
	if w.list < 0 {
		return
	}
	w.message.End(w.list)
	w.message.Finish()
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
	key := 3*nlmsg.AttributeSize + nlmsg.Align(s.KeySize())
	n := key
	if s.Interval {
		n += key + nlmsg.AttributeSize + 4
	}
	if s.Map {
		n += 4*nlmsg.AttributeSize + 4 + nlmsg.Align(len(v.chain)+1)
	}
	return n
}

// key appends one element of the kernel's.
func (w *elementWriter) key(m *nlmsg.Message, key string, v verdict, end bool) {
	element := m.Nest(unix.NFTA_LIST_ELEM)
	appendValue(m, unix.NFTA_SET_ELEM_KEY, key)
	if v.set {
		data := m.Nest(unix.NFTA_SET_ELEM_DATA)
		inner := m.Nest(unix.NFTA_DATA_VERDICT)
		m.Uint32(unix.NFTA_VERDICT_CODE, uint32(v.code))
		if v.chain != "" {
			m.CString(unix.NFTA_VERDICT_CHAIN, v.chain)
		}
		m.End(inner)
		m.End(data)
	}
	if end {
		m.Uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	m.End(element)
}

// elementKey returns the key of the element that begins at an attribute, for
// error messages; "" if there is none.
func elementKey(b []byte) string {
	element := nlmsg.Walk(b)
	if !element.Next() {
		return ""
	}
	a := nlmsg.Walk(element.Data)
	for a.Next() {
		if a.Type == unix.NFTA_SET_ELEM_KEY {
			k := nlmsg.Walk(a.Data)
			if k.Next() {
				return string(k.Data)
			}
		}
	}
	return ""
}
