package apply

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// decodeTable reads the attributes of a table.
func decodeTable(b []byte) (*Table, error) {
	t := &Table{}
	a := walk(b)
	for a.next() {
		switch a.typ {
		case unix.NFTA_TABLE_NAME:
			t.Name = a.str()
		case unix.NFTA_TABLE_FLAGS:
			t.Flags = a.u32()
		case tableUserData:
			t.Comment = decodeUserData(a.data)[0]
		case tableOwner:
			t.Owner = a.u32()
		}
	}
	return t, a.err
}

// decodeChain reads the attributes of a chain and the name of its table.
func decodeChain(b []byte) (table string, c *Chain, err error) {
	c = &Chain{}
	base := Base{}
	a := walk(b)
	for a.next() {
		switch a.typ {
		case unix.NFTA_CHAIN_TABLE:
			table = a.str()
		case unix.NFTA_CHAIN_NAME:
			c.Name = a.str()
		case unix.NFTA_CHAIN_TYPE:
			base.Type = a.str()
		case unix.NFTA_CHAIN_POLICY:
			base.Policy = a.u32()
		case unix.NFTA_CHAIN_USE:
			c.use = a.u32()
		case chainFlags:
			c.flags = a.u32()
		case chainUserData:
			c.Comment = decodeUserData(a.data)[0]
		case unix.NFTA_CHAIN_HOOK:
			c.Base = &base
			h := walk(a.data)
			for h.next() {
				switch h.typ {
				case unix.NFTA_HOOK_HOOKNUM:
					base.Hook = h.u32()
				case unix.NFTA_HOOK_PRIORITY:
					base.Priority = int32(h.u32())
				case hookDev, hookDevs:
					base.devices += string(h.data)
				}
			}
			if h.err != nil {
				return table, c, h.err
			}
		}
	}
	return table, c, a.err
}

// decodeRule reads the attributes of a rule and the name of its chain. It
// copies the expressions.
func decodeRule(b []byte) (chain string, r Rule, err error) {
	a := walk(b)
	for a.next() {
		switch a.typ {
		case unix.NFTA_RULE_CHAIN:
			chain = a.str()
		case unix.NFTA_RULE_HANDLE:
			r.Handle = a.u64()
		case unix.NFTA_RULE_EXPRESSIONS:
			r.expressions = append([]byte(nil), a.data...)
		case unix.NFTA_RULE_USERDATA:
			r.Comment = decodeUserData(a.data)[0]
		}
	}
	return chain, r, a.err
}

// decodeSet reads the attributes of a set.
func decodeSet(b []byte) (*Set, error) {
	s := &Set{}
	a := walk(b)
	for a.next() {
		switch a.typ {
		case unix.NFTA_SET_NAME:
			s.Name = a.str()
		case unix.NFTA_SET_FLAGS:
			s.flags = a.u32()
		case unix.NFTA_SET_KEY_TYPE:
			s.keyType = a.u32()
		case unix.NFTA_SET_KEY_LEN:
			s.keyLen = a.u32()
		case unix.NFTA_SET_DATA_TYPE:
			s.dataType = a.u32()
		case unix.NFTA_SET_POLICY:
			s.policy = a.u32()
		case unix.NFTA_SET_TIMEOUT:
			s.timeout = time.Duration(a.u64()) * time.Millisecond
		case unix.NFTA_SET_GC_INTERVAL:
			s.gc = a.u32()
		case setExpr, setExpressions:
			s.stateful = true
		case unix.NFTA_SET_USERDATA:
			s.userData = append([]byte(nil), a.data...)
			s.Comment = decodeUserData(a.data)[udataSetComment]
		case setCount:
			s.count = a.u32()
		case unix.NFTA_SET_DESC:
			d := walk(a.data)
			for d.next() {
				switch d.typ {
				case unix.NFTA_SET_DESC_SIZE:
					s.size = d.u32()
				case setDescConcat:
					if s.lengths, d.err = decodeLengths(d.data); d.err != nil {
						return s, d.err
					}
				}
			}
			if d.err != nil {
				return s, d.err
			}
		}
	}
	return s, a.err
}

// decodeLengths reads the lengths of the fields of a key.
func decodeLengths(b []byte) (lengths []uint32, err error) {
	list := walk(b)
	for list.next() {
		f := walk(list.data)
		for f.next() {
			if f.typ == setFieldLen {
				lengths = append(lengths, f.u32())
			}
		}
		if f.err != nil {
			return nil, f.err
		}
	}
	return lengths, list.err
}

// udataSetComment is NFTNL_UDATA_SET_COMMENT; the comments of tables, chains
// and rules are 0.
const udataSetComment = 7

// decodeUserData reads what nft stores with an object, a list of type, length
// and value, and cuts values at their NUL. A malformed rest is left out: the
// kernel gives user data no meaning.
func decodeUserData(b []byte) map[byte]string {
	values := map[byte]string{}
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		values[b[0]] = string(cutNUL(b[2 : 2+int(b[1])]))
		b = b[2+int(b[1]):]
	}
	return values
}

// userDataFields is decodeUserData without cutting: binary values stay whole.
func userDataFields(b []byte) map[byte]string {
	values := map[byte]string{}
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		values[b[0]] = string(b[2 : 2+int(b[1])])
		b = b[2+int(b[1]):]
	}
	return values
}

// decodeOther reads the name and the type of an object or a flowtable.
func decodeOther(b []byte, isFlowtable bool) (Other, error) {
	o := Other{}
	if isFlowtable {
		o.kind = flowtable
	}
	a := walk(b)
	for a.next() {
		switch a.typ {
		case otherName:
			o.Name = a.str()
		case objectType:
			if !isFlowtable && len(a.data) == 4 {
				o.kind = binary.BigEndian.Uint32(a.data)
			}
		case objectData:
			if !isFlowtable {
				o.data = string(a.data)
			}
		}
	}
	if o.kind != timeoutType {
		o.data = ""
	}
	return o, a.err
}
