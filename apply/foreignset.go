package apply

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// foreignSet is a set of interfaces or a map of verdicts.
type foreignSet struct {
	// plain sets hold nothing but single keys, all of which are known.
	plain bool
	// elements are those of a plain set, and the distinct verdicts of others.
	elements []foreignElement
	seen     map[foreignElement]bool
}

type foreignElement struct {
	// key is empty where the set is not plain, or for "*".
	key      string
	catchAll bool
	verdict  effect
}

func (t *foreignTable) wantSet(name string) {
	if name != "" && t.sets[name] == nil {
		t.sets[name] = &foreignSet{}
	}
}

// defineSet says what a set that the rules ask for is like; it reports whether
// its elements are of any use.
func (t *foreignTable) defineSet(s *Set) bool {
	f := t.sets[s.Name]
	if f == nil {
		return false
	}
	const others = unix.NFT_SET_INTERVAL | unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT | setFlagConcat
	f.plain = s.flags&others == 0
	f.seen = map[foreignElement]bool{}
	return f.plain || s.dataType == verdictType
}

// addElements reads one message of a set's elements.
func (s *foreignSet) addElements(b []byte) error {
	a := nlmsg.Walk(b)
	for a.Next() {
		if a.Type != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		list := nlmsg.Walk(a.Data)
		for list.Next() {
			e, isEnd, err := decodeForeignElement(list.Data)
			if err != nil {
				return err
			}
			if isEnd {
				continue
			}
			if !s.plain {
				e.key, e.catchAll = "", true
			}
			if !s.seen[e] {
				s.seen[e] = true
				s.elements = append(s.elements, e)
			}
		}
		if list.Err != nil {
			return list.Err
		}
	}
	return a.Err
}

func decodeForeignElement(b []byte) (e foreignElement, isEnd bool, err error) {
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_SET_ELEM_KEY:
			e.key, err = dataValue(a.Data)
		case unix.NFTA_SET_ELEM_DATA:
			e.verdict, _, err = decodeForeignVerdict(a.Data)
		case unix.NFTA_SET_ELEM_FLAGS:
			flags := a.Uint32()
			isEnd = flags&unix.NFT_SET_ELEM_INTERVAL_END != 0
			e.catchAll = flags&elementCatchAll != 0
		}
		if err != nil {
			return e, isEnd, err
		}
	}
	return e, isEnd, a.Err
}

// dataValue returns the bytes of a data attribute that is no verdict.
func dataValue(b []byte) (string, error) {
	a := nlmsg.Walk(b)
	for a.Next() {
		if a.Type == unix.NFTA_DATA_VALUE {
			return string(a.Data), nil
		}
	}
	return "", a.Err
}

// decodeForeignVerdict reads a data attribute. It is not ok for what neither
// ends nor leads on: a value, continue, or a queue to a program, of which
// nobody here knows what it does.
func decodeForeignVerdict(b []byte) (e effect, ok bool, err error) {
	const queue = 3
	a := nlmsg.Walk(b)
	for a.Next() {
		if a.Type != unix.NFTA_DATA_VERDICT {
			continue
		}
		v := nlmsg.Walk(a.Data)
		for v.Next() {
			switch v.Type {
			case unix.NFTA_VERDICT_CODE:
				switch code := int32(v.Uint32()); {
				case code == unix.NFT_JUMP:
					e.kind, ok = jumps, true
				case code == unix.NFT_GOTO:
					e.kind, ok = goes, true
				case code == unix.NFT_RETURN:
					e.kind, ok = returns, true
				case code < 0:
				case code&0xff == 0:
					e.kind, ok = drops, true
				case code&0xff != queue:
					e.kind, ok = accepts, true
				}
			case unix.NFTA_VERDICT_CHAIN:
				e.target = v.CString()
			}
		}
		if v.Err != nil {
			return e, false, v.Err
		}
	}
	return e, ok, a.Err
}

// keyOfIndex is how an element of a set of interfaces by number is written.
func keyOfIndex(index uint32) string {
	return string(binary.NativeEndian.AppendUint32(nil, index))
}
