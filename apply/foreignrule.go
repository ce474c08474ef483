package apply

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// foreignRuleReader reads the expressions of one rule in their order. What is
// compared with an interface is recognised where the comparison stands right
// behind the expression that loads the interface, as all tools write it.
type foreignRuleReader struct {
	rule foreignRule
	// loaded is what the expression before left in a register.
	loaded   loadedKey
	register uint32
	// invalid is set if the rule is about packets that conntrack calls
	// invalid. sgc refuses those itself, so that it does not matter who drops
	// them.
	invalid bool
}

func (r *foreignRuleReader) expression(name string, data []byte) error {
	before, register := r.loaded, r.register
	r.loaded, r.register = loadedOther, 0
	switch name {
	case "counter", "log", "last":
		// Nothing of these keeps a packet from the expressions behind.
	case "notrack":
		r.rule.effects = append(r.rule.effects, effect{kind: untracksPacket})
	case "nat", "masq", "redir":
		// They end the rule, and nothing is lost by taking it for a rule that
		// does not.
	case "meta", "ct":
		return r.load(name, data)
	case "bitwise":
		return r.mask(before, register, data)
	case "cmp":
		return r.compare(before, register, data)
	case "lookup":
		return r.lookup(before, register, data)
	case "immediate":
		return r.immediate(data)
	case "reject":
		r.rule.effects = append(r.rule.effects, effect{kind: drops})
	case "flow_offload":
		const flowTableName = 1
		a := nlmsg.Walk(data)
		for a.Next() {
			if a.Type == flowTableName {
				r.rule.effects = append(r.rule.effects, effect{kind: offloadsFlow, target: a.CString()})
			}
		}
		return a.Err
	case "match":
		return r.extensionMatch(data)
	case "target":
		return r.extensionTarget(data)
	default:
		r.rule.more = true
	}
	return nil
}

// load reads a meta or ct expression.
func (r *foreignRuleReader) load(name string, data []byte) error {
	// NFTA_META_DREG, NFTA_META_KEY and NFTA_META_SREG have the numbers 1 to
	// 3; those of ct are 1, 2 and 4.
	const dreg, key = 1, 2
	var loads bool
	var k uint32
	a := nlmsg.Walk(data)
	for a.Next() {
		switch a.Type {
		case dreg:
			loads, r.register = true, normalRegister(a.Uint32())
		case key:
			k = a.Uint32()
		}
	}
	switch {
	case name == "ct" && !loads && k == unix.NFT_CT_ZONE:
		r.rule.effects = append(r.rule.effects, effect{kind: setsZone})
	case a.Err != nil || !loads:
		// To set something matches every packet.
	case name == "ct" && k == unix.NFT_CT_STATE:
		r.loaded = loadedState
	case name == "ct":
		r.rule.more = true
	case k == unix.NFT_META_IIFNAME:
		r.loaded = loadedInName
	case k == unix.NFT_META_OIFNAME:
		r.loaded = loadedOutName
	case k == unix.NFT_META_IIF:
		r.loaded = loadedInIndex
	case k == unix.NFT_META_OIF:
		r.loaded = loadedOutIndex
	default:
		r.rule.more = true
	}
	return a.Err
}

// mask reads a bitwise expression: "ct state invalid" is a mask of one bit.
func (r *foreignRuleReader) mask(before loadedKey, register uint32, data []byte) error {
	var source, dest uint32
	var mask string
	var err error
	a := nlmsg.Walk(data)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_BITWISE_SREG:
			source = normalRegister(a.Uint32())
		case unix.NFTA_BITWISE_DREG:
			dest = normalRegister(a.Uint32())
		case unix.NFTA_BITWISE_MASK:
			if mask, err = dataValue(a.Data); err != nil {
				return err
			}
		}
	}
	if before == loadedState && source == register && mask == keyOfIndex(stateInvalid) {
		r.loaded, r.register = loadedInvalid, dest
	} else {
		r.rule.more = true
	}
	return a.Err
}

// stateInvalid is the bit of ct state for packets that belong to no flow and
// can open none.
const stateInvalid = 1

func (r *foreignRuleReader) compare(before loadedKey, register uint32, data []byte) error {
	var source, op uint32
	var value string
	var err error
	a := nlmsg.Walk(data)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_CMP_SREG:
			source = normalRegister(a.Uint32())
		case unix.NFTA_CMP_OP:
			op = a.Uint32()
		case unix.NFTA_CMP_DATA:
			if value, err = dataValue(a.Data); err != nil {
				return err
			}
		}
	}
	equality := source == register && (op == unix.NFT_CMP_EQ || op == unix.NFT_CMP_NEQ)
	switch {
	case equality && before.isInterface():
		r.rule.where = append(r.rule.where, interfaceMatch{
			key: before, negate: op == unix.NFT_CMP_NEQ, value: newInterfaceValue(before, []byte(value)),
		})
	case equality && before == loadedInvalid && op == unix.NFT_CMP_NEQ && value == keyOfIndex(0),
		equality && before == loadedState && op == unix.NFT_CMP_EQ && value == keyOfIndex(stateInvalid):
		r.invalid = true
	default:
		r.rule.more = true
	}
	return a.Err
}

func (r *foreignRuleReader) lookup(before loadedKey, register uint32, data []byte) error {
	var set string
	var source, dest, flags uint32
	isMap := false
	a := nlmsg.Walk(data)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_LOOKUP_SET:
			set = a.CString()
		case unix.NFTA_LOOKUP_SREG:
			source = normalRegister(a.Uint32())
		case unix.NFTA_LOOKUP_DREG:
			isMap, dest = true, a.Uint32()
		case unix.NFTA_LOOKUP_FLAGS:
			flags = a.Uint32()
		}
	}
	if source != register {
		before = loadedOther
	}
	switch {
	case isMap && dest == unix.NFT_REG_VERDICT:
		r.rule.effects = append(r.rule.effects, effect{kind: looksUp, target: set, by: before})
	case !isMap && before.isInterface():
		r.rule.where = append(r.rule.where, interfaceMatch{key: before, set: set, negate: flags&unix.NFT_LOOKUP_F_INV != 0})
	default:
		r.rule.more = true
	}
	return a.Err
}

func (r *foreignRuleReader) immediate(data []byte) error {
	isVerdict := false
	var e effect
	var ok bool
	var err error
	a := nlmsg.Walk(data)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_IMMEDIATE_DREG:
			isVerdict = a.Uint32() == unix.NFT_REG_VERDICT
		case unix.NFTA_IMMEDIATE_DATA:
			if e, ok, err = decodeForeignVerdict(a.Data); err != nil {
				return err
			}
		}
	}
	if isVerdict && ok {
		r.rule.effects = append(r.rule.effects, e)
	}
	return a.Err
}

// extensionMatch reads a match of iptables. All but the one for invalid
// packets are taken for something that may or may not hold.
//
// Source: Linux include/uapi/linux/netfilter/xt_conntrack.h, struct
// xt_conntrack_mtinfo3 (which revision 2 shares so far).
func (r *foreignRuleReader) extensionMatch(data []byte) error {
	const (
		minRevision              = 2
		matchFlags, invertFlags  = 146, 148
		stateMask                = 150
		size                     = 154
		matchesState, maskOfInva = 1, 1
	)
	var name string
	var revision uint32
	var info []byte
	a := nlmsg.Walk(data)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_MATCH_NAME:
			name = a.CString()
		case unix.NFTA_MATCH_REV:
			revision = a.Uint32()
		case unix.NFTA_MATCH_INFO:
			info = a.Data
		}
	}
	u16 := func(at int) uint16 { return binary.NativeEndian.Uint16(info[at:]) }
	if name == "conntrack" && revision >= minRevision && len(info) >= size &&
		u16(matchFlags)&matchesState != 0 && u16(invertFlags)&matchesState == 0 && u16(stateMask) == maskOfInva {
		r.invalid = true
	} else {
		r.rule.more = true
	}
	return a.Err
}

// extensionTarget reads a target of iptables. Verdicts are none; those that
// end a packet's way by letting it through are left out, as nat is.
func (r *foreignRuleReader) extensionTarget(data []byte) error {
	a := nlmsg.Walk(data)
	for a.Next() {
		if a.Type == unix.NFTA_TARGET_NAME && a.CString() == "REJECT" {
			r.rule.effects = append(r.rule.effects, effect{kind: drops})
		}
	}
	keepsOut, zones, err := targetCT(data)
	if keepsOut {
		r.rule.effects = append(r.rule.effects, effect{kind: untracksPacket})
	}
	if zones {
		r.rule.effects = append(r.rule.effects, effect{kind: setsZone})
	}
	return errors.Join(a.Err, err)
}

// normalRegister gives the registers of 16 bytes, 1 to 4, the numbers of the
// first of their four registers of 4 bytes.
//
// Source: Linux include/uapi/linux/netfilter/nf_tables.h, enum nft_registers.
func normalRegister(n uint32) uint32 {
	if n >= unix.NFT_REG_1 && n <= unix.NFT_REG_4 {
		return unix.NFT_REG32_00 + (n-unix.NFT_REG_1)*4
	}
	return n
}
