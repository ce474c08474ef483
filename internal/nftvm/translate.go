package nftvm

import (
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

// translator makes instructions of the expressions of one rule.
type translator struct {
	*checker
	set   registers
	ended bool
}

// translate refuses what the machine does not know: a new kind of expression,
// or a new use of a known one.
func (t *translator) translate(e expr.Any) (instruction, error) {
	if t.ended {
		return nil, fmt.Errorf("it stands behind a verdict")
	}
	switch e := e.(type) {
	case *expr.Meta:
		return t.meta(e)
	case *expr.Payload:
		return t.payload(e)
	case *expr.Ct:
		return t.ct(e)
	case *expr.Fib:
		return t.fib(e)
	case *expr.Immediate:
		into, err := t.set.write(e.Register, len(e.Data))
		return loadData{e.Data, into}, err
	case *expr.Bitwise:
		return t.bitwise(e)
	case *expr.Cmp:
		return t.cmp(e)
	case *expr.Range:
		return t.compareRange(e)
	case *expr.Lookup:
		return t.lookup(e)
	case *expr.Dynset:
		return t.dynset(e)
	case *expr.Verdict:
		return t.end(e)
	case *expr.Notrack:
		return notrack{}, nil
	case *expr.Counter:
		return nothing{}, nil
	case *expr.Log:
		return log{string(e.Data)}, nil
	case *expr.Limit:
		return limit{e.Over}, nil
	case *expr.Objref:
		return t.objref(e)
	}
	return nil, fmt.Errorf("it is not known")
}

func (t *translator) meta(e *expr.Meta) (instruction, error) {
	if e.SourceRegister {
		return nil, fmt.Errorf("setting meta data is not known")
	}
	var length int
	switch e.Key {
	case expr.MetaKeyNFPROTO, expr.MetaKeyL4PROTO:
		length = 1
	case expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME:
		length = unix.IFNAMSIZ
	case expr.MetaKeyIIF:
		length = 4
	default:
		return nil, fmt.Errorf("key %d is not known", e.Key)
	}
	into, err := t.set.write(e.Register, length)
	return loadMeta{e.Key, into}, err
}

func (t *translator) payload(e *expr.Payload) (instruction, error) {
	if e.OperationType != expr.PayloadLoad {
		return nil, fmt.Errorf("writing to a packet is not known")
	}
	if e.Base != expr.PayloadBaseNetworkHeader && e.Base != expr.PayloadBaseTransportHeader {
		return nil, fmt.Errorf("base %d is not known", e.Base)
	}
	into, err := t.set.write(e.DestRegister, int(e.Len))
	return loadPayload{e.Base, int(e.Offset), into}, err
}

func (t *translator) ct(e *expr.Ct) (instruction, error) {
	if e.SourceRegister {
		return nil, fmt.Errorf("setting conntrack data is not known")
	}
	if e.Direction != 0 || e.OptDirection {
		return nil, fmt.Errorf("the answering direction is not known")
	}
	switch e.Key {
	case expr.CtKeySTATE:
		into, err := t.set.write(e.Register, 4)
		return loadState{into}, err
	case expr.CtKeyDIRECTION:
		into, err := t.set.write(e.Register, 1)
		return loadDirection{into}, err
	case expr.CtKeySRCIP:
		into, err := t.set.write(e.Register, 4)
		return loadOriginalSource{into}, err
	case expr.CtKeySRCIP6:
		into, err := t.set.write(e.Register, 16)
		return loadOriginalSource{into}, err
	default:
		return nil, fmt.Errorf("key %d is not known", e.Key)
	}
}

func (t *translator) fib(e *expr.Fib) (instruction, error) {
	if *e != (expr.Fib{Register: e.Register, FlagDADDR: true, ResultADDRTYPE: true}) {
		return nil, fmt.Errorf("only the type of the destination address is known")
	}
	into, err := t.set.write(e.Register, 4)
	return loadRouteType{into}, err
}

func (t *translator) bitwise(e *expr.Bitwise) (instruction, error) {
	if len(e.Mask) != int(e.Len) || len(e.Xor) != int(e.Len) {
		return nil, fmt.Errorf("mask and xor have %d and %d bytes, not %d", len(e.Mask), len(e.Xor), e.Len)
	}
	from, err := t.set.read(e.SourceRegister, int(e.Len))
	if err != nil {
		return nil, err
	}
	into, err := t.set.write(e.DestRegister, int(e.Len))
	return bitwise{from, into, e.Mask, e.Xor}, err
}

func (t *translator) cmp(e *expr.Cmp) (instruction, error) {
	ops := []expr.CmpOp{expr.CmpOpEq, expr.CmpOpNeq, expr.CmpOpLt, expr.CmpOpLte, expr.CmpOpGt, expr.CmpOpGte}
	if !slices.Contains(ops, e.Op) {
		return nil, fmt.Errorf("operator %d is not known", e.Op)
	}
	from, err := t.set.read(e.Register, len(e.Data))
	return compare{e.Op, from, e.Data}, err
}

func (t *translator) compareRange(e *expr.Range) (instruction, error) {
	if len(e.FromData) != len(e.ToData) {
		return nil, fmt.Errorf("its ends have %d and %d bytes", len(e.FromData), len(e.ToData))
	}
	if e.Op != expr.CmpOpEq && e.Op != expr.CmpOpNeq {
		return nil, fmt.Errorf("operator %d is not known", e.Op)
	}
	from, err := t.set.read(e.Register, len(e.FromData))
	return compareRange{from, e.FromData, e.ToData, e.Op == expr.CmpOpNeq}, err
}

func (t *translator) lookup(e *expr.Lookup) (instruction, error) {
	s := t.sets[e.SetName]
	if s == nil {
		return nil, fmt.Errorf("there is no set %q", e.SetName)
	}
	from, err := t.set.read(e.SourceRegister, s.keySize)
	if err != nil {
		return nil, err
	}
	if !e.IsDestRegSet {
		if s.isMap {
			return nil, fmt.Errorf("%s is a map: a look-up without a place for its verdict", s.name)
		}
		return lookup{from, s, e.Invert}, nil
	}
	switch {
	case !s.isMap:
		return nil, fmt.Errorf("set %s is no map", s.name)
	case e.DestRegister != unix.NFT_REG_VERDICT:
		return nil, fmt.Errorf("maps of data are not known")
	case e.Invert:
		return nil, fmt.Errorf("a map look-up cannot be inverted")
	}
	return verdictMap{from, s}, nil
}

func (t *translator) dynset(e *expr.Dynset) (instruction, error) {
	s := t.sets[e.SetName]
	switch {
	case s == nil:
		return nil, fmt.Errorf("there is no set %q", e.SetName)
	case !s.dynamic:
		return nil, fmt.Errorf("set %s is not dynamic", s.name)
	case e.Operation != unix.NFT_DYNSET_OP_UPDATE || e.SrcRegData != 0 || e.Invert || len(e.Exprs) > 0:
		return nil, fmt.Errorf("only updates of a key are known")
	}
	from, err := t.set.read(e.SrcRegKey, s.keySize)
	return update{from, s, e.Timeout}, err
}

// objref gives the packet an object of the table.
func (t *translator) objref(e *expr.Objref) (instruction, error) {
	o := t.timeouts[e.Name]
	switch {
	case e.Type != unix.NFT_OBJECT_CT_TIMEOUT:
		return nil, fmt.Errorf("objects of type %d are not known", e.Type)
	case o == nil:
		return nil, fmt.Errorf("there is no ct timeout %q", e.Name)
	}
	return setTimeout{o}, nil
}

func (t *translator) end(e *expr.Verdict) (instruction, error) {
	kinds := map[expr.VerdictKind]ruleset.VerdictKind{
		expr.VerdictAccept: ruleset.Accept, expr.VerdictDrop: ruleset.Drop, expr.VerdictReturn: ruleset.Return,
		expr.VerdictJump: ruleset.Jump, expr.VerdictGoto: ruleset.Goto,
	}
	kind, ok := kinds[e.Kind]
	if !ok {
		return nil, fmt.Errorf("verdict %d is not known", e.Kind)
	}
	v, err := t.verdict(kind, e.Chain)
	t.ended = true
	return end{v}, err
}
