package apply

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// elementReader collects the elements of one set from dump messages.
type elementReader struct {
	keyLen   int
	interval bool
	// keys, marks and verdicts describe the kernel's elements in the order of
	// the dump: in interval sets the starts and the ends of ranges.
	keys     []byte
	ends     []bool
	verdicts []uint32
	table    []verdict
	index    map[verdict]uint32
	catchAll int
	// found is how many elements there were, each counted once.
	found int
	// chain is the last name of a chain that was decoded, and last the index
	// of the last verdict that was looked up: neighbours often have the same.
	chain string
	last  uint32
}

func newElementReader(s *Set) *elementReader {
	n := int(s.count)
	return &elementReader{
		keyLen:   int(s.keyLen),
		interval: s.flags&unix.NFT_SET_INTERVAL != 0,
		keys:     make([]byte, 0, n*int(s.keyLen)),
		ends:     make([]bool, 0, n),
		index:    map[verdict]uint32{},
		catchAll: -1,
	}
}

// eachElement calls f for every element in a message of a dump, and returns
// their number.
func eachElement(b []byte, f func(element []byte) error) (int, error) {
	n := 0
	for a := nlmsg.Walk(b); ; {
		if !a.Next() {
			return n, a.Err
		}
		if a.Type != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		list := nlmsg.Walk(a.Data)
		for list.Next() {
			if err := f(list.Data); err != nil {
				return n, err
			}
			n++
		}
		if list.Err != nil {
			return n, list.Err
		}
	}
}

func (r *elementReader) element(b []byte) error {
	var key []byte
	var flags uint32
	v := verdict{}
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_SET_ELEM_KEY:
			k := nlmsg.Walk(a.Data)
			if k.Next() && k.Type == unix.NFTA_DATA_VALUE {
				key = k.Data
			}
		case unix.NFTA_SET_ELEM_FLAGS:
			flags = a.Uint32()
		case unix.NFTA_SET_ELEM_DATA:
			if err := r.data(&v, a.Data); err != nil {
				return err
			}
		case unix.NFTA_SET_ELEM_USERDATA:
			// nft marks half-open ranges here, and keeps comments.
			if _, comment := userDataFields(a.Data)[0]; comment {
				v.foreign = true
			}
		case unix.NFTA_SET_ELEM_TIMEOUT, unix.NFTA_SET_ELEM_EXPIRATION, unix.NFTA_SET_ELEM_EXPR,
			elementObjref, elementKeyEnd, elementExpressions:
			v.foreign = true
		}
	}
	if a.Err != nil {
		return a.Err
	}
	if flags&elementCatchAll != 0 {
		r.catchAll = int(r.intern(v))
		return nil
	}
	if len(key) != r.keyLen {
		return errors.New("an element's key has the wrong length")
	}
	end := flags&unix.NFT_SET_ELEM_INTERVAL_END != 0
	r.keys = append(r.keys, key...)
	r.ends = append(r.ends, end)
	i := r.intern(v)
	if i != 0 && r.verdicts == nil {
		r.verdicts = make([]uint32, len(r.ends)-1, max(len(r.ends), cap(r.ends)))
	}
	if r.verdicts != nil {
		r.verdicts = append(r.verdicts, i)
	}
	return nil
}

// data reads the value of a map's element.
func (r *elementReader) data(v *verdict, b []byte) error {
	a := nlmsg.Walk(b)
	for a.Next() {
		if a.Type != unix.NFTA_DATA_VERDICT {
			v.foreign = true
			continue
		}
		v.set = true
		d := nlmsg.Walk(a.Data)
		for d.Next() {
			switch d.Type {
			case unix.NFTA_VERDICT_CODE:
				v.code = int32(d.Uint32())
			case unix.NFTA_VERDICT_CHAIN:
				if name := nlmsg.CutNUL(d.Data); string(name) != r.chain {
					r.chain = string(name)
				}
				v.chain = r.chain
			}
		}
		if d.Err != nil {
			return d.Err
		}
	}
	return a.Err
}

func (r *elementReader) intern(v verdict) uint32 {
	if int(r.last) < len(r.table) && r.table[r.last] == v {
		return r.last
	}
	i, ok := r.index[v]
	if !ok {
		i = uint32(len(r.table))
		r.table = append(r.table, v)
		r.index[v] = i
	}
	r.last = i
	return i
}

// elements sorts what was read and turns starts and ends into ranges.
func (r *elementReader) elements() elements {
	e := elements{keyLen: r.keyLen, interval: r.interval, table: r.table, catchAll: r.catchAll}
	order := r.order()
	r.found = len(order)
	if !r.interval {
		e.keys = make([]byte, 0, len(r.keys))
		for _, i := range order {
			e.keys = append(e.keys, r.key(i)...)
		}
		if r.verdicts != nil {
			e.verdicts = make([]uint32, len(order))
			for n, i := range order {
				e.verdicts[n] = r.verdicts[i]
			}
		}
		return e
	}
	e.keys = make([]byte, 0, len(r.keys))
	if r.verdicts != nil {
		e.verdicts = make([]uint32, 0, len(order)/2+1)
	}
	open := int32(-1)
	for _, i := range order {
		key := r.key(i)
		switch {
		case r.ends[i] && open >= 0:
			e.appendRange(r, open, key)
			open = -1
		case r.ends[i]:
			// nft starts every set that does not begin at 0 with an end there.
			e.torn = e.torn || !isZero(key)
		case open >= 0:
			// A range that the next one cuts off.
			e.appendRange(r, open, key)
			e.torn = true
			open = i
		default:
			open = i
		}
	}
	if open >= 0 {
		// A range up to the last key has no end.
		e.appendRange(r, open, make([]byte, r.keyLen))
	}
	return e
}

// appendRange appends the range that element start opens and that ends before
// the key end.
func (e *elements) appendRange(r *elementReader, start int32, end []byte) {
	e.keys = append(e.keys, r.key(start)...)
	e.keys = append(e.keys, end...)
	decrement(e.keys[len(e.keys)-e.keyLen:])
	if e.verdicts != nil {
		e.verdicts = append(e.verdicts, r.verdicts[start])
	}
}

func (r *elementReader) key(i int32) []byte {
	at := int(i) * r.keyLen
	return r.keys[at : at+r.keyLen]
}

// complete reports whether elements found each element once, and as many as the set
// counts. Of the starts and ends of ranges it counts half.
func (r *elementReader) complete(count uint32) bool {
	n := r.found
	if r.interval {
		n /= 2
	}
	return r.found == len(r.ends) && n >= int(count)
}

// order returns the kernel's elements by key, each once, ends before starts. The
// kernel dumps trees in order, upwards or downwards, and hash tables in none.
func (r *elementReader) order() []int32 {
	order := make([]int32, len(r.ends))
	for i := range order {
		order[i] = int32(i)
	}
	compare := func(a, b int32) int {
		if c := bytes.Compare(r.key(a), r.key(b)); c != 0 {
			return c
		}
		return -cmp.Compare(boolInt(r.ends[a]), boolInt(r.ends[b]))
	}
	if len(order) > 1 && compare(order[0], order[1]) > 0 {
		slices.Reverse(order)
	}
	if !slices.IsSortedFunc(order, compare) {
		slices.SortFunc(order, compare)
	}
	return slices.CompactFunc(order, func(a, b int32) bool { return compare(a, b) == 0 })
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// decrement subtracts one from a big-endian number; zero becomes all-ones.
func decrement(b []byte) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			return
		}
	}
}

// increment adds one to a big-endian number and reports whether it fits.
func increment(b []byte) bool {
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return true
		}
	}
	return false
}
