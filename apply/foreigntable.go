package apply

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// foreignTable is a table of somebody else: what decides whether a packet that
// sgc accepts dies in it, and whether its flows are taken past sgc.
type foreignTable struct {
	family uint8
	name   string
	// dormant tables are in no packet's way.
	dormant bool
	chains  map[string]*foreignChain
	// sets are those that the rules here ask for interfaces or verdicts, by
	// name.
	sets       map[string]*foreignSet
	flowtables []foreignFlowtable
}

// foreignChain is a chain, of whose rules only those are kept that end a
// packet's way, lead it on, offload its flow, or tell conntrack of it.
type foreignChain struct {
	name string
	// base is nil for a regular chain.
	base *Base
	// devices are those that a base chain of the ingress and egress hooks is
	// bound to, the kernel's wildcards with a "*" at the end.
	devices []string
	rules   []foreignRule
}

// foreignFlowtable is a flowtable and the devices on which it takes packets.
type foreignFlowtable struct {
	name    string
	devices []string
}

// foreignRule is what a rule does to packets, and to which as far as
// interfaces go.
type foreignRule struct {
	// where are the interfaces that the rule asks for; all of them must fit.
	where []interfaceMatch
	// more is set if the rule asks for something else, too.
	more    bool
	effects []effect
}

// effectKind is what a rule does to a packet that it matches.
type effectKind uint8

const (
	accepts effectKind = iota
	drops
	jumps
	goes
	returns
	// looksUp does what a verdict map says.
	looksUp
	// offloadsFlow puts the packet's flow into a flowtable, and the packet
	// goes on.
	offloadsFlow
	// untracksPacket keeps the packet out of conntrack, and setsZone says where conntrack
	// looks for its flow; the packet goes on.
	untracksPacket
	setsZone
)

type effect struct {
	kind effectKind
	// target is the chain, map or flowtable.
	target string
	// by is what a map is asked with.
	by loadedKey
}

// loadedKey is what of a packet stands in a register.
type loadedKey uint8

const (
	loadedOther loadedKey = iota
	loadedInName
	loadedOutName
	loadedInIndex
	loadedOutIndex
	loadedState
	// loadedInvalid is whether conntrack calls the packet invalid.
	loadedInvalid
)

func (k loadedKey) isInterface() bool { return k >= loadedInName && k <= loadedOutIndex }
func (k loadedKey) isIndex() bool     { return k == loadedInIndex || k == loadedOutIndex }
func (k loadedKey) isOut() bool       { return k == loadedOutName || k == loadedOutIndex }

// interfaceMatch is a comparison of one of a packet's interfaces.
type interfaceMatch struct {
	key    loadedKey
	negate bool
	// set is the name of a set, or value what is compared with.
	set   string
	value interfaceValue
}

// interfaceValue stands for one interface, or for all whose names begin with
// name if prefix is set.
type interfaceValue struct {
	name    string
	prefix  bool
	index   uint32
	isIndex bool
}

// newInterfaceValue reads the bytes that a packet's interface is compared
// with. Fewer bytes than a name has, without a NUL, mean a prefix.
func newInterfaceValue(key loadedKey, b []byte) interfaceValue {
	if key.isIndex() {
		if len(b) != 4 {
			return interfaceValue{isIndex: true}
		}
		return interfaceValue{index: binary.NativeEndian.Uint32(b), isIndex: true}
	}
	name := nlmsg.CutNUL(b)
	return interfaceValue{name: string(name), prefix: len(name) == len(b)}
}

var foreignFamilies = map[uint8]string{
	unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet",
	unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_BRIDGE: "bridge",
}

func newForeignTable(family uint8, t *Table) *foreignTable {
	return &foreignTable{
		family: family, name: t.Name, dormant: t.Flags&unix.NFT_TABLE_F_DORMANT != 0,
		chains: map[string]*foreignChain{}, sets: map[string]*foreignSet{},
	}
}

func (t *foreignTable) String() string {
	return fmt.Sprintf("table %s %s", foreignFamilies[t.family], t.name)
}

// isIP reports whether the table sees the packets that sgc sees, in hooks that
// conntrack has also seen them in.
func (t *foreignTable) isIP() bool {
	return t.family == unix.NFPROTO_IPV4 || t.family == unix.NFPROTO_IPV6 || t.family == unix.NFPROTO_INET
}

// doesNAT reports whether a chain is a base chain of type nat.
func (t *foreignTable) doesNAT(chain string) bool {
	c := t.chains[chain]
	return c != nil && c.base != nil && c.base.Type == "nat"
}

// addChain adds a chain of the table, b are its attributes.
func (t *foreignTable) addChain(c *Chain, b []byte) error {
	f := &foreignChain{name: c.Name, base: c.Base}
	t.chains[c.Name] = f
	a := nlmsg.Walk(b)
	for a.Next() {
		if a.Type == unix.NFTA_CHAIN_HOOK {
			var err error
			if f.devices, err = hookDevices(a.Data, hookDevs, hookDev); err != nil {
				return err
			}
		}
	}
	return a.Err
}

// hookDevices reads the devices of a hook. Its list of devices has the number
// list; one is the number that a chain's only device has besides, or 0.
func hookDevices(hook []byte, list, one uint16) ([]string, error) {
	const devicePrefix = 2 // NFTA_DEVICE_PREFIX; NFTA_DEVICE_NAME is 1
	var devices []string
	add := func(name string) {
		if !slices.Contains(devices, name) {
			devices = append(devices, name)
		}
	}
	a := nlmsg.Walk(hook)
	for a.Next() {
		switch a.Type {
		case one:
			add(a.CString())
		case list:
			d := nlmsg.Walk(a.Data)
			for d.Next() {
				name := d.CString()
				if d.Type == devicePrefix {
					name += "*"
				}
				add(name)
			}
			if d.Err != nil {
				return nil, d.Err
			}
		}
	}
	slices.Sort(devices)
	return devices, a.Err
}

// addRule reads one dumped rule and keeps what matters of it.
func (t *foreignTable) addRule(b []byte) error {
	chain, expressions := "", []byte(nil)
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_RULE_CHAIN:
			chain = a.CString()
		case unix.NFTA_RULE_EXPRESSIONS:
			expressions = a.Data
		}
	}
	if a.Err != nil {
		return a.Err
	}
	c := t.chains[chain]
	if c == nil {
		// The chain came after the chains were listed: the table is told of as
		// changed.
		return nil
	}
	var reader foreignRuleReader
	list := nlmsg.Walk(expressions)
	for list.Next() {
		name, data, err := splitExpression(list.Data)
		if err != nil {
			return err
		}
		if err := reader.expression(string(name), data); err != nil {
			return fmt.Errorf("expression %s: %w", name, err)
		}
	}
	if list.Err != nil || len(reader.rule.effects) == 0 || reader.invalid {
		return list.Err
	}
	c.rules = append(c.rules, reader.rule)
	for _, m := range reader.rule.where {
		t.wantSet(m.set)
	}
	for _, e := range reader.rule.effects {
		if e.kind == looksUp {
			t.wantSet(e.target)
		}
	}
	return nil
}

// addFlowtable reads one dumped flowtable.
func (t *foreignTable) addFlowtable(b []byte) error {
	const flowtableHook, flowtableHookDevs = 3, 3
	var f foreignFlowtable
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case flowtableName:
			f.name = a.CString()
		case flowtableHook:
			var err error
			if f.devices, err = hookDevices(a.Data, flowtableHookDevs, 0); err != nil {
				return err
			}
		}
	}
	t.flowtables = append(t.flowtables, f)
	return a.Err
}
