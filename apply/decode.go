package apply

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// decodeTable reads the attributes of a table.
func decodeTable(b []byte) (*Table, error) {
	t := &Table{}
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_TABLE_NAME:
			t.Name = a.CString()
		case unix.NFTA_TABLE_FLAGS:
			t.Flags = a.Uint32()
		case unix.NFTA_TABLE_USE:
			t.use = a.Uint32()
		case tableUserData:
			t.Comment = decodeUserData(a.Data)[0]
		case tableOwner:
			t.Owner = a.Uint32()
		}
	}
	return t, a.Err
}

// decodeChain reads the attributes of a chain and the name of its table.
func decodeChain(b []byte) (table string, c *Chain, err error) {
	c = &Chain{}
	base := Base{}
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_CHAIN_TABLE:
			table = a.CString()
		case unix.NFTA_CHAIN_NAME:
			c.Name = a.CString()
		case unix.NFTA_CHAIN_TYPE:
			base.Type = a.CString()
		case unix.NFTA_CHAIN_POLICY:
			base.Policy = a.Uint32()
		case unix.NFTA_CHAIN_USE:
			c.use = a.Uint32()
		case chainFlags:
			c.flags = a.Uint32()
		case chainUserData:
			c.Comment = decodeUserData(a.Data)[0]
		case unix.NFTA_CHAIN_HOOK:
			c.Base = &base
			h := nlmsg.Walk(a.Data)
			for h.Next() {
				switch h.Type {
				case unix.NFTA_HOOK_HOOKNUM:
					base.Hook = h.Uint32()
				case unix.NFTA_HOOK_PRIORITY:
					base.Priority = int32(h.Uint32())
				case hookDev, hookDevs:
					base.devices += string(h.Data)
				}
			}
			if h.Err != nil {
				return table, c, h.Err
			}
		}
	}
	return table, c, a.Err
}

// decodeRule reads the attributes of a rule and the name of its chain. It
// copies the expressions.
func decodeRule(b []byte) (chain string, r Rule, err error) {
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_RULE_CHAIN:
			chain = a.CString()
		case unix.NFTA_RULE_HANDLE:
			r.Handle = a.Uint64()
		case unix.NFTA_RULE_EXPRESSIONS:
			r.expressions = append([]byte(nil), a.Data...)
		case unix.NFTA_RULE_USERDATA:
			r.Comment = decodeUserData(a.Data)[0]
		}
	}
	return chain, r, a.Err
}

// decodeSet reads the attributes of a set.
func decodeSet(b []byte) (*Set, error) {
	s := &Set{}
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_SET_NAME:
			s.Name = a.CString()
		case unix.NFTA_SET_FLAGS:
			s.flags = a.Uint32()
		case unix.NFTA_SET_KEY_TYPE:
			s.keyType = a.Uint32()
		case unix.NFTA_SET_KEY_LEN:
			s.keyLen = a.Uint32()
		case unix.NFTA_SET_DATA_TYPE:
			s.dataType = a.Uint32()
		case unix.NFTA_SET_POLICY:
			s.policy = a.Uint32()
		case unix.NFTA_SET_TIMEOUT:
			s.timeout = time.Duration(a.Uint64()) * time.Millisecond
		case unix.NFTA_SET_GC_INTERVAL:
			s.gc = a.Uint32()
		case setExpr, setExpressions:
			s.stateful = true
		case unix.NFTA_SET_USERDATA:
			s.userData = append([]byte(nil), a.Data...)
			s.Comment = decodeUserData(a.Data)[udataSetComment]
		case setCount:
			s.count = a.Uint32()
		case unix.NFTA_SET_DESC:
			d := nlmsg.Walk(a.Data)
			for d.Next() {
				switch d.Type {
				case unix.NFTA_SET_DESC_SIZE:
					s.size = d.Uint32()
				case setDescConcat:
					if s.lengths, d.Err = decodeLengths(d.Data); d.Err != nil {
						return s, d.Err
					}
				}
			}
			if d.Err != nil {
				return s, d.Err
			}
		}
	}
	return s, a.Err
}

// decodeLengths reads the lengths of the fields of a key.
func decodeLengths(b []byte) (lengths []uint32, err error) {
	list := nlmsg.Walk(b)
	for list.Next() {
		f := nlmsg.Walk(list.Data)
		for f.Next() {
			if f.Type == setFieldLen {
				lengths = append(lengths, f.Uint32())
			}
		}
		if f.Err != nil {
			return nil, f.Err
		}
	}
	return lengths, list.Err
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
		values[b[0]] = string(nlmsg.CutNUL(b[2 : 2+int(b[1])]))
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
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case otherName:
			o.Name = a.CString()
		case objectType:
			if !isFlowtable && len(a.Data) == 4 {
				o.kind = binary.BigEndian.Uint32(a.Data)
			}
		case objectData:
			if !isFlowtable {
				o.data = string(a.Data)
			}
		}
	}
	if o.kind != timeoutType {
		o.data = ""
	}
	return o, a.Err
}
