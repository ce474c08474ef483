package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// observer is a table of the lab's own that reports, through nflog, how far
// each of the lab's packets came. It tells them by their traffic class, so that
// no other packet is reported or touched. For a class that is to leave no
// trace it drops the packets that passed, just after sgc's chains: the entry
// that conntrack would have made is then never confirmed, and nothing answers.
//
//	prerouting  -350  arrived   before anything of sgc
//	prerouting  -160  state     after conntrack, before sgc's groups
//	prerouting  -149  passed    after sgc, before destination NAT
//	postrouting  140  state     after source NAT, before sgc
//	postrouting  151  passed    after sgc
//	output      -450  quiet     drops what the host's own stack answers
type observer struct {
	conn  *nftables.Conn
	table *nftables.Table
}

// The classes, with the two low bits, which carry congestion marks, at zero.
const (
	// classProbe packets are dropped where they passed.
	classProbe = 0xa4
	// classOpener packets go on to where they are addressed.
	classOpener = 0xac
	// classEnd packets are reported and dropped before sgc sees them: they
	// tell that all packets before them have been judged.
	classEnd = 0xb4
)

// The prefixes of the reports; that of the state is followed by its name.
const (
	reportEnd     = "end"
	reportArrived = "arrived"
	reportPassed  = "passed"
	reportState   = "state "
)

// observerMark marks packets that the lab sends from the host's own stack.
const observerMark = 0x736763

const observerTable = "lab"

var ctStates = []struct {
	bit  uint32
	name string
}{
	{expr.CtStateBitNEW, "new"},
	{expr.CtStateBitUNTRACKED, "untracked"},
	{expr.CtStateBitESTABLISHED, "established"},
	{expr.CtStateBitRELATED, "related"},
	{expr.CtStateBitINVALID, "invalid"},
}

// openObserver adds the table to the namespace. Reports go to the nflog group.
// Packets that cross the passive interfaces are not judged there.
func (n *Namespace) openObserver(group uint16, passive []string) (*observer, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(n.fd))
	if err != nil {
		return nil, fmt.Errorf("open nf_tables in %s: %w", n.name, err)
	}
	o := &observer{conn: conn, table: &nftables.Table{Family: nftables.TableFamilyINet, Name: observerTable}}
	conn.AddTable(o.table)
	b := observerBuilder{observer: o, group: group, passive: passive}
	b.build()
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("add the observing table to %s: %w", n.name, err)
	}
	return o, nil
}

func (o *observer) close() error {
	o.conn.DelTable(o.table)
	if err := o.conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the observing table: %w", err)
	}
	return nil
}

type observerBuilder struct {
	*observer
	group   uint16
	passive []string
}

func (b *observerBuilder) build() {
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}

	arrived := b.chain("arrived", nftables.ChainHookPrerouting, -350)
	b.perClass(arrived, classEnd, b.log(reportEnd), drop)
	b.perClass(arrived, classProbe, b.log(reportArrived), accept)
	b.perClass(arrived, classOpener, b.log(reportArrived), accept)

	states := b.conn.AddChain(&nftables.Chain{Name: "states", Table: b.table})
	for _, s := range ctStates {
		b.rule(states, matchState(s.bit), b.log(reportState+s.name), accept)
	}
	for _, side := range []struct {
		name          string
		hook          *nftables.ChainHook
		before, after nftables.ChainPriority
		iface         expr.MetaKey
	}{
		{"in", nftables.ChainHookPrerouting, -160, -149, expr.MetaKeyIIFNAME},
		{"out", nftables.ChainHookPostrouting, 140, 151, expr.MetaKeyOIFNAME},
	} {
		state := b.chain("state."+side.name, side.hook, side.before)
		b.exceptPassive(state, side.iface)
		b.perClass(state, classProbe, []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: states.Name}})
		b.perClass(state, classOpener, []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: states.Name}})
		passed := b.chain("passed."+side.name, side.hook, side.after)
		b.exceptPassive(passed, side.iface)
		b.perClass(passed, classProbe, b.log(reportPassed), drop)
		b.perClass(passed, classOpener, b.log(reportPassed), accept)
	}

	quiet := b.chain("quiet", nftables.ChainHookOutput, -450)
	b.rule(quiet, matchMeta(expr.MetaKeyMARK, binaryutil.NativeEndian.PutUint32(observerMark)), accept)
	for kind := byte(133); kind <= 136; kind++ { // neighbour discovery
		b.rule(quiet, matchMeta(expr.MetaKeyL4PROTO, []byte{byte(flow.ICMPv6)}),
			matchPayload(expr.PayloadBaseTransportHeader, 0, nil, []byte{kind}), accept)
	}
	b.rule(quiet, drop)
}

func (b *observerBuilder) chain(name string, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
	return b.conn.AddChain(&nftables.Chain{
		Name: name, Table: b.table, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityRef(priority),
	})
}

func (b *observerBuilder) rule(chain *nftables.Chain, parts ...[]expr.Any) {
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: chain, Exprs: slices.Concat(parts...)})
}

// perClass adds a rule of each family for packets of a traffic class.
func (b *observerBuilder) perClass(chain *nftables.Chain, class byte, parts ...[]expr.Any) {
	then := slices.Concat(parts...)
	// The class of IPv6 lies across two bytes.
	class6 := binary.BigEndian.AppendUint16(nil, uint16(class)<<4)
	b.rule(chain, matchMeta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV4}),
		matchPayload(expr.PayloadBaseNetworkHeader, 1, []byte{0xfc}, []byte{class}), then)
	b.rule(chain, matchMeta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV6}),
		matchPayload(expr.PayloadBaseNetworkHeader, 0, []byte{0x0f, 0xc0}, class6), then)
}

// exceptPassive lets packets of interfaces that are not judged go on.
func (b *observerBuilder) exceptPassive(chain *nftables.Chain, key expr.MetaKey) {
	for _, name := range b.passive {
		padded := make([]byte, unix.IFNAMSIZ)
		copy(padded, name)
		b.rule(chain, matchMeta(key, padded), []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}})
	}
}

func (b *observerBuilder) log(prefix string) []expr.Any {
	return []expr.Any{&expr.Log{
		Key:   1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX,
		Group: b.group, Data: []byte(prefix),
	}}
}

func matchMeta(key expr.MetaKey, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value},
	}
}

// matchPayload compares the bytes at an offset, under the mask unless it is
// nil, with the value.
func matchPayload(base expr.PayloadBase, offset uint32, mask, value []byte) []expr.Any {
	n := uint32(len(value))
	match := []expr.Any{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: n}}
	if mask != nil {
		match = append(match, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: n, Mask: mask, Xor: make([]byte, n)})
	}
	return append(match, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value})
}

func matchState(bit uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bit), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}
