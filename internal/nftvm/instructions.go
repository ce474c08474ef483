package nftvm

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// instruction is one expression of a rule, checked. run reports whether the
// rule goes on; it sets the machine's verdict if it has one.
type instruction interface{ run(m *machine) bool }

// registerBytes is the size of the register file without the verdict: four
// registers of 16 bytes, that are also sixteen of 4 bytes.
const registerBytes = 64

// span is a place in the register file: checked to lie inside.
type span struct{ offset, length int }

func (s span) of(m *machine) []byte { return m.registers[s.offset : s.offset+s.length] }

// store fills the span's whole 4-byte units, as the kernel does: what a value
// leaves of its last unit is zero.
func (s span) store(m *machine, value []byte) {
	units := m.registers[s.offset : s.offset+padded(s.length)]
	clear(units)
	copy(units, value)
}

// padded rounds up to whole units of four bytes.
func padded(n int) int { return (n + 3) &^ 3 }

// loadMeta loads something that the kernel knows of the packet.
type loadMeta struct {
	key  expr.MetaKey
	into span
}

func (i loadMeta) run(m *machine) bool {
	p := m.packet
	switch i.key {
	case expr.MetaKeyNFPROTO:
		value := byte(unix.NFPROTO_IPV4)
		if p.Family() == flow.IPv6 {
			value = unix.NFPROTO_IPV6
		}
		i.into.store(m, []byte{value})
	case expr.MetaKeyL4PROTO:
		i.into.store(m, []byte{byte(p.Protocol)})
	case expr.MetaKeyIIFNAME:
		i.into.store(m, interfaceName(p, flow.Ingress))
	case expr.MetaKeyOIFNAME:
		i.into.store(m, interfaceName(p, flow.Egress))
	case expr.MetaKeyIIF:
		i.into.store(m, binary.NativeEndian.AppendUint32(nil, inputInterface(p)))
	}
	return true
}

// interfaceName returns the packet's interface if it crosses it in that
// direction. The name of no interface is empty.
func interfaceName(p *flow.Packet, d flow.Direction) []byte {
	if p.Direction != d {
		return nil
	}
	return []byte(p.Interface)
}

// inputInterface returns the number of the interface that the packet came in
// by: some number, or none if it begins on the host.
func inputInterface(p *flow.Packet) uint32 {
	if p.Direction == flow.Ingress || p.Forwarded {
		return 2
	}
	return 0
}

// loadPayload loads bytes of a header. The rule ends where the packet does.
type loadPayload struct {
	base   expr.PayloadBase
	offset int
	into   span
}

func (i loadPayload) run(m *machine) bool {
	header := m.headers.network
	if i.base == expr.PayloadBaseTransportHeader {
		header = m.headers.transport
	}
	if i.offset+i.into.length > len(header) {
		return false
	}
	i.into.store(m, header[i.offset:i.offset+i.into.length])
	return true
}

// loadRouteType loads the type of the destination's address.
type loadRouteType struct{ into span }

func (i loadRouteType) run(m *machine) bool {
	i.into.store(m, binary.NativeEndian.AppendUint32(nil, routeType(m.packet)))
	return true
}

// loadData loads constant bytes.
type loadData struct {
	value []byte
	into  span
}

func (i loadData) run(m *machine) bool {
	i.into.store(m, i.value)
	return true
}

// bitwise masks and flips bits.
type bitwise struct {
	from, into span
	mask, xor  []byte
}

func (i bitwise) run(m *machine) bool {
	value := make([]byte, i.from.length)
	for n, b := range i.from.of(m) {
		value[n] = b&i.mask[n] ^ i.xor[n]
	}
	i.into.store(m, value)
	return true
}

// compare compares as memcmp does.
type compare struct {
	op    expr.CmpOp
	from  span
	value []byte
}

func (i compare) run(m *machine) bool {
	c := bytes.Compare(i.from.of(m), i.value)
	switch i.op {
	case expr.CmpOpEq:
		return c == 0
	case expr.CmpOpNeq:
		return c != 0
	case expr.CmpOpLt:
		return c < 0
	case expr.CmpOpLte:
		return c <= 0
	case expr.CmpOpGt:
		return c > 0
	case expr.CmpOpGte:
		return c >= 0
	}
	panic("nftvm: New let an operator pass")
}

// compareRange asks for a value inside, or outside, of a range.
type compareRange struct {
	from        span
	first, last []byte
	outside     bool
}

func (i compareRange) run(m *machine) bool {
	value := i.from.of(m)
	inside := bytes.Compare(i.first, value) <= 0 && bytes.Compare(value, i.last) <= 0
	return inside != i.outside
}

// lookup asks whether a set holds a key.
type lookup struct {
	from   span
	set    *set
	invert bool
}

func (i lookup) run(m *machine) bool {
	return (i.set.find(m, i.from.of(m)) != nil) != i.invert
}

// verdictMap takes the verdict of the element that holds a key.
type verdictMap struct {
	from span
	set  *set
}

func (i verdictMap) run(m *machine) bool {
	e := i.set.find(m, i.from.of(m))
	if e == nil {
		return false
	}
	m.verdict = e.verdict
	return true
}

// update adds a key to a dynamic set, or refreshes it. The machine does not
// model a full set, where the kernel ends the rule.
type update struct {
	from    span
	set     *set
	timeout time.Duration
}

func (i update) run(m *machine) bool {
	m.result.Updated = append(m.result.Updated, Updated{i.set.name, string(i.from.of(m)), i.timeout})
	return true
}

// end is a verdict.
type end struct{ verdict *verdict }

func (i end) run(m *machine) bool {
	m.verdict = i.verdict
	return true
}

// log reports the packet.
type log struct{ prefix string }

func (i log) run(m *machine) bool {
	m.result.Logged = append(m.result.Logged, i.prefix)
	return true
}

// nothing is an expression that no verdict depends on: a counter.
type nothing struct{}

func (nothing) run(*machine) bool { return true }

// limit models a packet that is alone on the wire, within every limit.
type limit struct{ over bool }

func (i limit) run(*machine) bool { return !i.over }

// routeType returns the kernel's type of the packet's destination.
//
// Source: Linux net/ipv4/netfilter/nft_fib_ipv4.c, nft_fib4_eval_type; IPv6
// has no broadcast.
func routeType(p *flow.Packet) uint32 {
	switch d := p.Dest; {
	case d.IsMulticast():
		return unix.RTN_MULTICAST
	case d.Is4() && (d.As4()[0] == 0 || d.As4() == [4]byte{255, 255, 255, 255}):
		return unix.RTN_BROADCAST
	case p.Direction == flow.Ingress && !p.Forwarded:
		return unix.RTN_LOCAL
	}
	return unix.RTN_UNICAST
}
