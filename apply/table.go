package apply

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// tableName is the only table that sgc owns, of the inet family.
const tableName = "sgc"

// Attributes and flags that golang.org/x/sys/unix does not name.
//
// Source: Linux include/uapi/linux/netfilter/nf_tables.h.
const (
	tableUserData = 6
	tableOwner    = 7

	chainFlags    = 10
	chainUserData = 12

	setHandle      = 16
	setExpr        = 17
	setExpressions = 18
	setCount       = 20

	setFlagConcat = 0x80

	elementObjref      = 9
	elementKeyEnd      = 10
	elementExpressions = 11
	elementCatchAll    = 2

	hookDev  = 3
	hookDevs = 4

	objectTable = 1
	otherName   = 2
	objectType  = 3

	flowtableTable = 1
	flowtableName  = 2
)

// Table is a table of the inet family as it stands in the kernel.
type Table struct {
	Name    string
	Comment string
	// Flags are the kernel's: 1 dormant, 2 owned by a process, 4 persistent.
	Flags uint32
	// Owner is the netlink port of the process that owns the table; 0 for none.
	Owner uint32
	// Chains and Sets are sorted by name. Anonymous sets belong to their rule
	// and are left out.
	Chains []*Chain
	Sets   []*Set
	// Others are objects that sgc never makes: counters, quotas, flowtables, …
	Others []Other
}

// Chain is a chain in the kernel.
type Chain struct {
	Name    string
	Comment string
	// Base is nil for a regular chain.
	Base  *Base
	Rules []Rule
	flags uint32
	// use counts the rules and the references to the chain.
	use uint32
}

// Base is what makes a chain a base chain.
type Base struct {
	Type     string
	Hook     uint32
	Priority int32
	// Policy is 1 for accept and 0 for drop.
	Policy uint32
	// Devices is the raw list of devices; empty in the inet family but for the
	// ingress hook.
	devices string
}

// Rule is a rule in the kernel.
type Rule struct {
	Handle  uint64
	Comment string
	// expressions is the value of NFTA_RULE_EXPRESSIONS.
	expressions []byte
}

// Other is an object or a flowtable.
type Other struct {
	Name string
	// kind is the object's type, or flowtable.
	kind uint32
}

// flowtable stands beside the kernel's types of objects, which are small.
const flowtable = 1 << 31

func (o Other) String() string {
	names := map[uint32]string{
		1: "counter", 2: "quota", 3: "ct helper", 4: "limit", 5: "conntrack limit", 6: "tunnel",
		7: "ct timeout", 8: "secmark", 9: "ct expectation", 10: "synproxy", flowtable: "flowtable",
	}
	if name := names[o.kind]; name != "" {
		return name + " " + o.Name
	}
	return fmt.Sprintf("object of type %d %s", o.kind, o.Name)
}

// Set is a named set or map in the kernel.
type Set struct {
	Name    string
	Comment string
	flags   uint32
	keyType uint32
	keyLen  uint32
	// dataType is verdictType for verdict maps, 0 for sets.
	dataType uint32
	policy   uint32
	size     uint32
	timeout  time.Duration
	gc       uint32
	// stateful sets give every element expressions, such as counters.
	stateful bool
	userData []byte
	// count is how many elements the kernel counts; interval ends too.
	count    uint32
	elements elements
}

// verdictType is NFT_DATA_VERDICT, the data type of a verdict map.
const verdictType = 0xffffff00

// Size returns the number of elements; intervals count once. Dynamic sets are
// not read: they have none here.
func (s *Set) Size() int { return s.elements.len() }

// Set returns the set with a name, or nil.
func (t *Table) Set(name string) *Set {
	for _, s := range t.Sets {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Chain returns the chain with a name, or nil.
func (t *Table) Chain(name string) *Chain {
	for _, c := range t.Chains {
		if c.Name == name {
			return c
		}
	}
	return nil
}

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
				if d.typ == unix.NFTA_SET_DESC_SIZE {
					s.size = d.u32()
				}
			}
			if d.err != nil {
				return s, d.err
			}
		}
	}
	return s, a.err
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
		}
	}
	return o, a.err
}
