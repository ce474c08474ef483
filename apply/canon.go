package apply

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
	"sgc/internal/ruleset"
)

// The canonical form of a rule makes equal what means the same: the wanted
// expressions as they are encoded, and the kernel's dump of them. It is made
// from the raw attributes, never from decoded expressions: a decoder drops
// what it does not know, and a tampered rule would look clean. An expression
// or an attribute without a line in schemas is compared byte by byte.

// form says how an attribute of an expression is brought into canonical form.
type form uint8

const (
	// opaque attributes are compared as they are. Those of 4 or 8 bytes that
	// are all zero are left out: the kernel dumps flags and operations that
	// have their default value, encoders leave them out.
	opaque form = iota
	// register numbers name 16-byte registers (1–4) where they can.
	register
	// value is a nested nft_data: raw bytes or a verdict.
	value
	// setName is the name of a set that the rule refers to.
	setName
	// textValue is a text up to its NUL.
	textValue
	// objectName is the name of an object that the rule refers to.
	objectName
	// expression is one nested expression, expressions a list of them.
	expression
	expressions
	// ignored attributes hold no meaning: ids of a transaction, padding, the
	// values of counters.
	ignored
)

// schemas holds the attributes of the kernel's expressions that are not
// opaque, and the defaults of those that are not zero by default.
//
// Source: Linux include/uapi/linux/netfilter/nf_tables.h.
var schemas = map[string]map[uint16]form{
	"meta":      {unix.NFTA_META_DREG: register, unix.NFTA_META_SREG: register},
	"payload":   {unix.NFTA_PAYLOAD_DREG: register, unix.NFTA_PAYLOAD_SREG: register},
	"exthdr":    {unix.NFTA_EXTHDR_DREG: register, unix.NFTA_EXTHDR_SREG: register},
	"ct":        {unix.NFTA_CT_DREG: register, unix.NFTA_CT_SREG: register},
	"rt":        {unix.NFTA_RT_DREG: register},
	"socket":    {socketDREG: register},
	"fib":       {unix.NFTA_FIB_DREG: register},
	"numgen":    {unix.NFTA_NG_DREG: register},
	"hash":      {unix.NFTA_HASH_DREG: register, unix.NFTA_HASH_SREG: register},
	"byteorder": {unix.NFTA_BYTEORDER_DREG: register, unix.NFTA_BYTEORDER_SREG: register},
	"cmp":       {unix.NFTA_CMP_SREG: register, unix.NFTA_CMP_DATA: value},
	"range":     {unix.NFTA_RANGE_SREG: register, unix.NFTA_RANGE_FROM_DATA: value, unix.NFTA_RANGE_TO_DATA: value},
	"immediate": {unix.NFTA_IMMEDIATE_DREG: register, unix.NFTA_IMMEDIATE_DATA: value},
	"bitwise": {
		unix.NFTA_BITWISE_DREG: register, unix.NFTA_BITWISE_SREG: register, bitwiseSREG2: register,
		unix.NFTA_BITWISE_MASK: value, unix.NFTA_BITWISE_XOR: value, bitwiseData: value,
	},
	"lookup": {
		unix.NFTA_LOOKUP_SET: setName, unix.NFTA_LOOKUP_SET_ID: ignored,
		unix.NFTA_LOOKUP_SREG: register, unix.NFTA_LOOKUP_DREG: register,
	},
	"dynset": {
		unix.NFTA_DYNSET_SET_NAME: setName, unix.NFTA_DYNSET_SET_ID: ignored, unix.NFTA_DYNSET_PAD: ignored,
		unix.NFTA_DYNSET_SREG_KEY: register, unix.NFTA_DYNSET_SREG_DATA: register,
		unix.NFTA_DYNSET_EXPR: expression, dynsetExpressions: expressions,
	},
	"objref": {
		unix.NFTA_OBJREF_IMM_NAME: objectName, unix.NFTA_OBJREF_SET_SREG: register,
		unix.NFTA_OBJREF_SET_NAME: setName, unix.NFTA_OBJREF_SET_ID: ignored,
	},
	"counter": {unix.NFTA_COUNTER_BYTES: ignored, unix.NFTA_COUNTER_PACKETS: ignored, unix.NFTA_COUNTER_PAD: ignored},
	"quota":   {unix.NFTA_QUOTA_CONSUMED: ignored, unix.NFTA_QUOTA_PAD: ignored},
	"limit":   {unix.NFTA_LIMIT_PAD: ignored},
	"log":     {unix.NFTA_LOG_PREFIX: textValue},
	"notrack": {},
}

// Attributes that golang.org/x/sys/unix does not name.
const (
	bitwiseData       = 7
	bitwiseSREG2      = 8
	dynsetExpressions = 10
	socketDREG        = 2
)

// defaults are values that the kernel fills in where an encoder left the
// attribute out.
var defaults = map[string]map[uint16]uint32{
	"log":   {unix.NFTA_LOG_LEVEL: 4},
	"limit": {unix.NFTA_LIMIT_BURST: 5},
}

// references are the names that a rule cannot live without.
type references struct {
	sets, chains, objects []string
}

// A canonicalizer appends canonical forms to out and collects references.
type canonicalizer struct {
	out  []byte
	refs references
	err  error
}

// canonical returns the canonical form of a rule's list of expressions, as it
// stands in NFTA_RULE_EXPRESSIONS. Forms are equal where the expressions mean
// the same.
func canonical(list []byte) (string, references, error) {
	var c canonicalizer
	c.list(list)
	return string(c.out), c.refs, c.err
}

func (c *canonicalizer) list(b []byte) {
	a := nlmsg.Walk(b)
	for a.Next() {
		c.expression(a.Data)
	}
	c.fail(a.Err)
}

func (c *canonicalizer) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// expression appends one expression: its name and its attributes by number.
func (c *canonicalizer) expression(b []byte) {
	name, data, err := splitExpression(b)
	c.fail(err)
	c.frame(func() {
		c.out = append(c.out, name...)
		c.out = append(c.out, 0)
		schema, known := schemas[string(name)]
		if !known {
			c.out = append(c.out, data...)
			return
		}
		c.attributes(string(name), schema, data)
	})
}

// frame puts the length of what f appends before it, so that no two different
// lists have the same form.
func (c *canonicalizer) frame(f func()) {
	at := len(c.out)
	c.out = append(c.out, 0, 0, 0, 0)
	f()
	binary.BigEndian.PutUint32(c.out[at:], uint32(len(c.out)-at-4))
}

// splitExpression returns the name of an expression and its attributes.
func splitExpression(b []byte) (name, data []byte, err error) {
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_EXPR_NAME:
			name = nlmsg.CutNUL(a.Data)
		case unix.NFTA_EXPR_DATA:
			data = a.Data
		}
	}
	return name, data, a.Err
}

type attribute struct {
	typ  uint16
	data []byte
}

func (c *canonicalizer) attributes(name string, schema map[uint16]form, b []byte) {
	var room [16]attribute
	list := room[:0]
	a := nlmsg.Walk(b)
	for a.Next() {
		list = append(list, attribute{a.Type, a.Data})
	}
	c.fail(a.Err)
	slices.SortStableFunc(list, func(x, y attribute) int { return cmp.Compare(x.typ, y.typ) })
	for _, x := range list {
		form := schema[x.typ]
		if form == ignored || form == opaque && isDefault(name, x) {
			continue
		}
		c.out = binary.BigEndian.AppendUint16(c.out, x.typ)
		c.frame(func() { c.attribute(form, x.data) })
	}
}

func (c *canonicalizer) attribute(form form, data []byte) {
	switch form {
	case register:
		c.out = append(c.out, canonicalRegister(data)...)
	case value:
		c.value(data)
	case setName:
		name := nlmsg.CutNUL(data)
		c.refs.sets = append(c.refs.sets, string(name))
		c.out = append(c.out, name...)
	case textValue:
		c.out = append(c.out, nlmsg.CutNUL(data)...)
	case objectName:
		name := nlmsg.CutNUL(data)
		c.refs.objects = append(c.refs.objects, string(name))
		c.out = append(c.out, name...)
	case expression:
		c.expression(data)
	case expressions:
		c.list(data)
	default:
		c.out = append(c.out, data...)
	}
}

// value appends a nested nft_data.
func (c *canonicalizer) value(b []byte) {
	a := nlmsg.Walk(b)
	for a.Next() {
		c.out = append(c.out, byte(a.Type))
		if a.Type != unix.NFTA_DATA_VERDICT {
			c.out = append(c.out, a.Data...)
			continue
		}
		code, chain, err := decodeVerdict(a.Data)
		c.fail(err)
		if chain != "" {
			c.refs.chains = append(c.refs.chains, chain)
		}
		c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
		c.out = append(c.out, chain...)
	}
	c.fail(a.Err)
}

// decodeVerdict reads the attributes inside NFTA_DATA_VERDICT.
func decodeVerdict(b []byte) (code int32, chain string, err error) {
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_VERDICT_CODE:
			code = int32(a.Uint32())
		case unix.NFTA_VERDICT_CHAIN:
			chain = a.CString()
		}
	}
	return code, chain, a.Err
}

// canonicalRegister writes a 4-byte register on a 16-byte border as the
// 16-byte register, as the kernel dumps it.
func canonicalRegister(data []byte) []byte {
	if len(data) != 4 {
		return data
	}
	n := binary.BigEndian.Uint32(data)
	if n >= unix.NFT_REG32_00 && n <= unix.NFT_REG32_15 && (n-unix.NFT_REG32_00)%4 == 0 {
		return binary.BigEndian.AppendUint32(nil, unix.NFT_REG_1+(n-unix.NFT_REG32_00)/4)
	}
	return data
}

func isDefault(name string, a attribute) bool {
	if len(a.data) != 4 && len(a.data) != 8 {
		return false
	}
	if want, ok := defaults[name][a.typ]; ok {
		return len(a.data) == 4 && binary.BigEndian.Uint32(a.data) == want
	}
	for _, b := range a.data {
		if b != 0 {
			return false
		}
	}
	return true
}

// encodeRule returns the list of expressions of a wanted rule, as it goes into
// NFTA_RULE_EXPRESSIONS.
func encodeRule(r ruleset.Rule) ([]byte, error) {
	exprs, err := r.Exprs()
	if err != nil {
		return nil, err
	}
	var m nlmsg.Message
	for _, e := range exprs {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			return nil, err
		}
		m.Bytes(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b)
	}
	return m.Buf, nil
}
