package ruleset

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// Exprs returns the kernel expressions of the rule, the same ones and in the
// same order that the nft tool makes of the rule's text. It fails for a rule
// that cannot be, such as a value of the wrong length.
func (r Rule) Exprs() ([]expr.Any, error) {
	var e encoder
	for i, s := range r.Statements {
		if err := e.statement(s); err != nil {
			return nil, fmt.Errorf("statement %d, %T: %w", i+1, s, err)
		}
	}
	return e.out, nil
}

// encoder collects the expressions of one rule, and remembers what the rule
// has already asked of the packet's headers: nft states a dependency once.
type encoder struct {
	out    []expr.Any
	family flow.Family
	proto  flow.Protocol
}

func (e *encoder) add(exprs ...expr.Any) { e.out = append(e.out, exprs...) }

// register returns the number of the 4-byte slot n of the register file. The
// kernel names a slot on a 16-byte border by the 16-byte register.
func register(slot int) uint32 {
	if slot%4 == 0 {
		return uint32(unix.NFT_REG_1 + slot/4)
	}
	return uint32(unix.NFT_REG32_00 + slot)
}

func (e *encoder) depend(info fieldInfo) {
	if info.family != 0 && e.family != info.family {
		e.add(NFProtocol.info().load(1), cmp(NFProtoKey(info.family)))
		e.family = info.family
	}
	if info.proto != 0 && e.proto != info.proto {
		e.add(L4Protocol.info().load(1), cmp(ProtoKey(info.proto)))
		e.proto = info.proto
	}
}

// load puts fields side by side into the registers from the first one on.
func (e *encoder) load(fields []Field) {
	for _, f := range fields {
		e.depend(f.info())
	}
	slot := 0
	for _, f := range fields {
		info := f.info()
		e.add(info.load(register(slot)))
		slot += padded(info.size) / 4
	}
}

func cmp(value string) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(value)}
}

func compare(op expr.CmpOp, value string) expr.Any {
	return &expr.Cmp{Op: op, Register: 1, Data: []byte(value)}
}

func (e *encoder) statement(s Statement) error {
	switch s := s.(type) {
	case Match:
		return e.match(s)
	case MatchPrefix:
		return e.matchPrefix(s)
	case MatchRange:
		info := s.Field.info()
		if len(s.First) != info.size || len(s.Last) != info.size {
			return fmt.Errorf("%s has %d bytes", info.text, info.size)
		}
		e.load([]Field{s.Field})
		e.add(compare(expr.CmpOpGte, s.First), compare(expr.CmpOpLte, s.Last))
	case MatchState:
		e.add(&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			bitwise(native32(uint32(s.State))),
			compare(expr.CmpOpNeq, native32(0)))
	case MatchFlags:
		e.depend(fieldInfo{proto: flow.TCP})
		op := expr.CmpOpEq
		if s.Negate {
			op = expr.CmpOpNeq
		}
		e.add(loadTransport(13, 1)(1), bitwise(string([]byte{s.Mask})), compare(op, string([]byte{s.Value})))
	case MatchUDPPorts:
		e.depend(fieldInfo{proto: flow.UDP})
		e.add(loadTransport(0, 4)(1), cmp(PortKey(s.Source)+PortKey(s.Dest)))
	case MatchEndsHere:
		op := expr.CmpOpNeq
		if s.Negate {
			op = expr.CmpOpEq
		}
		e.add(&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
			compare(op, native32(unix.RTN_UNICAST)))
	case MatchForwarded:
		// A packet that begins on the host has no input interface.
		op := expr.CmpOpNeq
		if s.Negate {
			op = expr.CmpOpEq
		}
		e.add(&expr.Meta{Key: expr.MetaKeyIIF, Register: 1}, compare(op, native32(0)))
	case MatchDirection:
		direction := "\x00"
		if s.Reply {
			direction = "\x01"
		}
		e.add(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, cmp(direction))
	case SetTimeout:
		e.add(&expr.Objref{Type: objectTimeout, Name: s.Object})
	case Lookup:
		e.load(s.Fields)
		e.add(&expr.Lookup{SourceRegister: 1, SetName: s.Set, Invert: s.Negate})
	case VerdictMap:
		e.load(s.Fields)
		e.add(&expr.Lookup{SourceRegister: 1, SetName: s.Map, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true})
	case Update:
		e.load(s.Fields)
		e.add(&expr.Dynset{SrcRegKey: 1, SetName: s.Set, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: s.Timeout})
	case Counter:
		e.add(&expr.Counter{})
	case Limit:
		unit, ok := limitUnits[s.Unit]
		if !ok {
			return fmt.Errorf("no limit counts by %s", s.Unit)
		}
		e.add(&expr.Limit{Type: expr.LimitTypePkts, Rate: s.Rate, Unit: unit.kernel, Burst: s.Burst})
	case Log:
		log := &expr.Log{Key: 1 << unix.NFTA_LOG_PREFIX, Data: []byte(s.Prefix)}
		if s.Group != nil {
			log.Key |= 1 << unix.NFTA_LOG_GROUP
			log.Group = *s.Group
		}
		e.add(log)
	case Notrack:
		e.add(&expr.Notrack{})
	case Verdict:
		v, err := s.expr()
		if err != nil {
			return err
		}
		e.add(v)
	default:
		return fmt.Errorf("unknown statement %T", s)
	}
	return nil
}

func (e *encoder) match(m Match) error {
	info := m.Field.info()
	prefix := info.typ == IfName && len(m.Value) > 0 && len(m.Value) < info.size
	if len(m.Value) != info.size && !prefix {
		return fmt.Errorf("%s has %d bytes, not %d", info.text, info.size, len(m.Value))
	}
	op := expr.CmpOpEq
	if m.Negate {
		op = expr.CmpOpNeq
	}
	e.load([]Field{m.Field})
	e.add(compare(op, m.Value))
	if !m.Negate {
		switch m.Field {
		case NFProtocol:
			e.family = flow.IPv4
			if m.Value == NFProtoKey(flow.IPv6) {
				e.family = flow.IPv6
			}
		case L4Protocol:
			e.proto = flow.Protocol(m.Value[0])
		}
	}
	return nil
}

// matchPrefix compares whole bytes where the prefix ends on one, else masks
// the address, as nft does.
func (e *encoder) matchPrefix(m MatchPrefix) error {
	info := m.Field.info()
	addr, bits := AddrKey(m.Prefix.Masked().Addr()), m.Prefix.Bits()
	if len(addr) != info.size {
		return fmt.Errorf("%s does not hold %s", info.text, m.Prefix)
	}
	if bits == 0 {
		return fmt.Errorf("%s matches everything", m.Prefix)
	}
	e.depend(info)
	if bits%8 == 0 {
		load := info.load(1).(*expr.Payload)
		load.Len = uint32(bits / 8)
		e.add(load, cmp(addr[:bits/8]))
		return nil
	}
	mask := make([]byte, info.size)
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	e.add(info.load(1), bitwise(string(mask)), cmp(addr))
	return nil
}

// bitwise masks the first register.
func bitwise(mask string) expr.Any {
	return &expr.Bitwise{
		SourceRegister: 1, DestRegister: 1,
		Len: uint32(len(mask)), Mask: []byte(mask), Xor: make([]byte, len(mask)),
	}
}

// limitUnits are the units of a limit, for the kernel and for nft.
var limitUnits = map[time.Duration]struct {
	kernel expr.LimitTime
	text   string
}{
	time.Second:    {expr.LimitTimeSecond, "second"},
	time.Minute:    {expr.LimitTimeMinute, "minute"},
	time.Hour:      {expr.LimitTimeHour, "hour"},
	24 * time.Hour: {expr.LimitTimeDay, "day"},
}

// native32 returns n in the byte order of the host.
func native32(n uint32) string { return string(binary.NativeEndian.AppendUint32(nil, n)) }

func (v Verdict) expr() (*expr.Verdict, error) {
	switch v.Kind {
	case Accept:
		return &expr.Verdict{Kind: expr.VerdictAccept}, nil
	case Drop:
		return &expr.Verdict{Kind: expr.VerdictDrop}, nil
	case Return:
		return &expr.Verdict{Kind: expr.VerdictReturn}, nil
	case Jump:
		return &expr.Verdict{Kind: expr.VerdictJump, Chain: v.Chain}, nil
	case Goto:
		return &expr.Verdict{Kind: expr.VerdictGoto, Chain: v.Chain}, nil
	}
	return nil, fmt.Errorf("unknown verdict %d", v.Kind)
}
