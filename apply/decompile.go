package apply

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// Text returns the rule in the words of nft, as far as sgc knows them: enough
// for a person to recognise a rule that somebody added by hand. What it does
// not know stands in brackets, by the name of the kernel's expression.
func (r Rule) Text() string {
	d := decompiler{values: map[uint32]operand{}}
	list := nlmsg.Walk(r.expressions)
	for list.Next() {
		name, data, err := splitExpression(list.Data)
		if err != nil {
			d.say("[malformed]")
			continue
		}
		d.expression(string(name), decodeAttributes(data))
	}
	if list.Err != nil {
		d.say("[malformed]")
	}
	if r.Comment != "" {
		d.say(fmt.Sprintf("comment %q", r.Comment))
	}
	return strings.Join(d.words, " ")
}

// operand is what a register holds.
type operand struct {
	// text is what was loaded, "ip saddr" or "0x1".
	text string
	kind fieldKind
	mask []byte
	// constant is what an immediate put there, in the form of whatever it is
	// used for.
	constant []byte
}

// as returns the operand as a value of a kind.
func (o operand) as(kind fieldKind) string {
	if o.constant != nil {
		return kind.text(o.constant)
	}
	return o.text
}

// decompiler translates one rule, expression by expression.
type decompiler struct {
	words []string
	// values holds what the registers hold, pending the order of the loads.
	values  map[uint32]operand
	pending []uint32
	// family and protocol are what the rule has asked for so far, "ip" and
	// "tcp"; dependencies is how many of the last words asked for these alone.
	family, protocol string
	dependencies     int
	// named says that the words so far tell the protocol by the name of a port
	// alone, "tcp dport": then all ports have to be named so.
	named bool
}

func (d *decompiler) say(words string) {
	d.words = append(d.words, words)
	d.dependencies = 0
}

// attributeMap holds the attributes of one expression by number.
type attributeMap map[uint16][]byte

func decodeAttributes(b []byte) attributeMap {
	m := attributeMap{}
	for a := nlmsg.Walk(b); a.Next(); {
		m[a.Type] = a.Data
	}
	return m
}

// u32 returns a number; 0 if it is not there.
func (m attributeMap) u32(typ uint16) uint32 {
	if b := m[typ]; len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (m attributeMap) str(typ uint16) string { return string(nlmsg.CutNUL(m[typ])) }

// data returns the raw bytes of a nested nft_data.
func (m attributeMap) data(typ uint16) []byte {
	for a := nlmsg.Walk(m[typ]); a.Next(); {
		if a.Type == unix.NFTA_DATA_VALUE {
			return a.Data
		}
	}
	return nil
}

// register returns a register's number in canonical form.
func (m attributeMap) register(typ uint16) uint32 {
	b := canonicalRegister(m[typ])
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func (d *decompiler) load(register uint32, o operand) {
	d.values[register] = o
	d.pending = append(d.pending, register)
}

// take returns what was loaded, side by side, and forgets it.
func (d *decompiler) take() string {
	texts := make([]string, len(d.pending))
	for i, r := range d.pending {
		texts[i] = d.values[r].text
	}
	d.pending = nil
	return strings.Join(texts, " . ")
}

func (d *decompiler) expression(name string, a attributeMap) {
	switch name {
	case "meta":
		d.meta(a)
	case "payload":
		d.payload(a)
	case "ct":
		d.conntrack(a)
	case "fib":
		d.load(a.register(unix.NFTA_FIB_DREG), operand{text: fibText(a), kind: fibKind(a)})
	case "exthdr", "rt", "socket", "numgen", "hash", "xfrm", "tunnel", "osf":
		d.load(a.register(1), operand{text: "[" + name + "]"})
	case "byteorder":
		// nft compares by size what it has put into network order.
		o := d.values[a.register(unix.NFTA_BYTEORDER_SREG)]
		if o.kind == nativeNumber {
			o.kind = bigNumber
		}
		d.values[a.register(unix.NFTA_BYTEORDER_DREG)] = o
	case "bitwise":
		r := a.register(unix.NFTA_BITWISE_DREG)
		o := d.values[a.register(unix.NFTA_BITWISE_SREG)]
		o.mask = a.data(unix.NFTA_BITWISE_MASK)
		d.values[r] = o
	case "cmp":
		d.compare(a)
	case "range":
		o := d.values[a.register(unix.NFTA_RANGE_SREG)]
		op := " "
		if a.u32(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ {
			op = " != "
		}
		d.say(o.text + op + o.kind.text(a.data(unix.NFTA_RANGE_FROM_DATA)) + "-" + o.kind.text(a.data(unix.NFTA_RANGE_TO_DATA)))
		d.pending = nil
	case "lookup":
		d.lookup(a)
	case "dynset":
		d.update(a)
	case "immediate":
		d.immediate(a)
	case "objref":
		d.object(a)
	case "log":
		d.say(logText(a))
	case "counter", "notrack", "reject", "queue", "synproxy", "tproxy", "last":
		d.say(name)
	case "masq":
		d.say("masquerade")
	case "limit":
		d.say(limitText(a))
	case "redir":
		d.say("redirect")
	case "nat":
		if a.u32(unix.NFTA_NAT_TYPE) == unix.NFT_NAT_SNAT {
			d.say("snat")
		} else {
			d.say("dnat")
		}
	case "flow_offload":
		d.say("flow add @" + a.str(1))
	case "match", "target":
		d.say(fmt.Sprintf("xt %s %q", name, a.str(unix.NFTA_MATCH_NAME)))
	default:
		d.say("[" + name + "]")
	}
}

// object says what refers to an object by name, or by a map.
func (d *decompiler) object(a attributeMap) {
	name, kind := a.str(unix.NFTA_OBJREF_IMM_NAME), a.u32(unix.NFTA_OBJREF_IMM_TYPE)
	switch set := a.str(unix.NFTA_OBJREF_SET_NAME); {
	case set != "":
		d.say("[object] " + d.take() + " map @" + set)
	case kind == timeoutType:
		d.say(fmt.Sprintf("ct timeout set %q", name))
	default:
		d.say(Other{Name: name, kind: kind}.String())
	}
}

func (d *decompiler) compare(a attributeMap) {
	o := d.values[a.register(unix.NFTA_CMP_SREG)]
	value := a.data(unix.NFTA_CMP_DATA)
	op := a.u32(unix.NFTA_CMP_OP)
	d.pending = nil
	switch {
	case o.mask != nil:
		d.say(maskedText(o, op, value))
		return
	case o.kind == portPair && op == unix.NFT_CMP_EQ && len(value) == 4:
		d.say(fmt.Sprintf("%s sport %s %s dport %s", o.text, bigNumber.text(value[:2]), o.text, bigNumber.text(value[2:])))
		return
	}
	text := o.kind.text(value)
	if first, ok := d.beginsRange(o.text); ok && op == unix.NFT_CMP_LTE {
		d.words = d.words[:len(d.words)-1]
		d.say(o.text + " " + first + "-" + text)
		return
	}
	if op != unix.NFT_CMP_EQ {
		d.say(o.text + " " + compareOps[op] + " " + text)
		return
	}
	// A match of the family or the protocol is often only what the next match
	// needs: the word for that says it too.
	dependencies := 0
	switch o.text {
	case "meta nfproto":
		d.family, dependencies = map[string]string{"ipv4": "ip", "ipv6": "ip6"}[text], d.dependencies+1
	case "meta l4proto":
		d.protocol, d.named, dependencies = text, false, d.dependencies+1
	}
	d.say(o.text + " " + text)
	d.dependencies = dependencies
}

// beginsRange returns the value from which on the last word lets a field be:
// the kernel has two comparisons where nft writes a range.
func (d *decompiler) beginsRange(field string) (first string, ok bool) {
	if len(d.words) == 0 {
		return "", false
	}
	return strings.CutPrefix(d.words[len(d.words)-1], field+" "+compareOps[unix.NFT_CMP_GTE]+" ")
}

var compareOps = map[uint32]string{
	unix.NFT_CMP_EQ: "==", unix.NFT_CMP_NEQ: "!=", unix.NFT_CMP_LT: "<",
	unix.NFT_CMP_LTE: "<=", unix.NFT_CMP_GT: ">", unix.NFT_CMP_GTE: ">=",
}

// maskedText is a comparison under a mask: a prefix, a state, or flags.
func maskedText(o operand, op uint32, value []byte) string {
	switch {
	case o.kind == ctState && op == unix.NFT_CMP_NEQ && isZero(value):
		return o.text + " " + stateText(o.mask)
	case o.kind == address && op == unix.NFT_CMP_EQ && len(value) == len(o.mask):
		if bits, ok := maskBits(o.mask); ok {
			return fmt.Sprintf("%s %s/%d", o.text, o.kind.text(value), bits)
		}
	case o.kind == tcpFlags:
		return fmt.Sprintf("%s & %s %s %s", o.text, o.kind.text(o.mask), compareOps[op], o.kind.text(value))
	}
	return fmt.Sprintf("%s & 0x%x %s 0x%x", o.text, o.mask, compareOps[op], value)
}

func (d *decompiler) lookup(a attributeMap) {
	set, fields := a.str(unix.NFTA_LOOKUP_SET), d.take()
	_, mapped := a[unix.NFTA_LOOKUP_DREG]
	switch {
	case mapped && a.register(unix.NFTA_LOOKUP_DREG) == unix.NFT_REG_VERDICT:
		d.say(fields + " vmap @" + set)
	case mapped:
		d.load(a.register(unix.NFTA_LOOKUP_DREG), operand{text: fields + " map @" + set})
	case a.u32(unix.NFTA_LOOKUP_FLAGS) != 0:
		d.say(fields + " != @" + set)
	default:
		d.say(fields + " @" + set)
	}
}

func (d *decompiler) update(a attributeMap) {
	verb := map[uint32]string{unix.NFT_DYNSET_OP_ADD: "add", unix.NFT_DYNSET_OP_UPDATE: "update", 2: "delete"}[a.u32(unix.NFTA_DYNSET_OP)]
	text := d.take()
	if b := a[unix.NFTA_DYNSET_TIMEOUT]; len(b) == 8 {
		if ms := binary.BigEndian.Uint64(b); ms != 0 {
			text += " timeout " + durationText(time.Duration(ms)*time.Millisecond)
		}
	}
	d.say(fmt.Sprintf("%s @%s { %s }", verb, a.str(unix.NFTA_DYNSET_SET_NAME), text))
}

func (d *decompiler) immediate(a attributeMap) {
	for x := nlmsg.Walk(a[unix.NFTA_IMMEDIATE_DATA]); x.Next(); {
		if x.Type == unix.NFTA_DATA_VERDICT {
			code, chain, err := decodeVerdict(x.Data)
			if err != nil {
				d.say("[malformed]")
				return
			}
			d.say(verdictText(code, chain))
			return
		}
		d.values[a.register(unix.NFTA_IMMEDIATE_DREG)] = operand{constant: x.Data}
	}
}

func verdictText(code int32, chain string) string {
	names := map[int32]string{
		0: "drop", 1: "accept", 2: "stolen", 3: "queue", 4: "repeat",
		unix.NFT_CONTINUE: "continue", unix.NFT_RETURN: "return", unix.NFT_JUMP: "jump", unix.NFT_GOTO: "goto",
	}
	name := names[code]
	if name == "" {
		name = fmt.Sprintf("verdict %d", code)
	}
	if chain != "" {
		name += " " + chain
	}
	return name
}
