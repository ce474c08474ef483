package apply

import (
	"fmt"
	"time"

	"sgc/internal/ruleset"
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
	setDescConcat = 2
	setFieldLen   = 1

	elementObjref      = 9
	elementKeyEnd      = 10
	elementExpressions = 11
	elementCatchAll    = 2

	hookDev  = 3
	hookDevs = 4

	objectTable = 1
	otherName   = 2
	objectType  = 3
	objectData  = 4

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
	// Others are ct timeouts, and objects that sgc never makes: counters, quotas,
	// flowtables, …
	Others []Other
	// use is how many chains, sets, objects and flowtables the kernel counts,
	// anonymous how many of them are sets without a name.
	use, anonymous uint32
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
	// data is the value of NFTA_OBJ_DATA, of timeouts alone.
	data string
}

// flowtable stands beside the kernel's types of objects, which are small.
const flowtable = 1 << 31

func (o Other) String() string {
	names := map[uint32]string{
		1: "counter", 2: "quota", 3: "ct helper", 4: "limit", 5: "conntrack limit", 6: "tunnel",
		timeoutType: "ct timeout", 8: "secmark", 9: "ct expectation", 10: "synproxy", flowtable: "flowtable",
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
	// count is how many elements the kernel counts: of the starts and ends of ranges
	// half, and those of transactions that are under way.
	count uint32
	// lengths holds the lengths of the fields of a key, if the kernel keeps them.
	lengths  []uint32
	elements elements
	// Timed holds the elements of a set that are there for a time, with what is
	// left of it, sorted by First. Those without a Timeout stay for ever: sgc
	// makes none.
	Timed []ruleset.TimedElement
	// timedCatchAll says that a timed set holds the element "*".
	timedCatchAll bool
}

// verdictType is NFT_DATA_VERDICT, the data type of a verdict map.
const verdictType = 0xffffff00

// Size returns the number of elements; intervals count once. Dynamic sets are
// not read: they have none here.
func (s *Set) Size() int { return s.elements.len() + len(s.Timed) }

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
