package livetest

import (
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// leg is a flow as eth0's wire sees it.
type leg struct {
	protocol      flow.Protocol
	local, remote netip.AddrPort
}

// crossed is how many packets of a flow came past sgc's chains in each
// direction.
type crossed [2]uint64

// watch counts what comes past sgc's chains on its way in and out, by a table
// of its own that looks at headers alone.
type watch struct {
	ns   *lab.Namespace
	legs []leg

	conn   *nftables.Conn
	table  *nftables.Table
	chains [2]*nftables.Chain
}

func newWatch(t *testing.T, ns *lab.Namespace) *watch {
	t.Helper()
	w := &watch{ns: ns}
	w.start(t)
	return w
}

// start makes the table, also where somebody deleted it. The counts begin anew.
func (w *watch) start(t *testing.T) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(w.ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	w.conn, w.table = conn, conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "watch"})
	for d, at := range [2]struct {
		hook     *nftables.ChainHook
		priority nftables.ChainPriority
	}{{nftables.ChainHookPrerouting, -149}, {nftables.ChainHookPostrouting, 151}} {
		w.chains[d] = conn.AddChain(&nftables.Chain{
			Name: flow.Directions[d].String(), Table: w.table, Type: nftables.ChainTypeFilter,
			Hooknum: at.hook, Priority: nftables.ChainPriorityRef(at.priority),
		})
	}
	legs := w.legs
	w.legs = nil
	w.add(t, legs...)
}

// add begins to count flows that are not counted yet.
func (w *watch) add(t *testing.T, legs ...leg) {
	t.Helper()
	for _, l := range legs {
		w.legs = append(w.legs, l)
		for d, ends := range [2][2]netip.AddrPort{{l.remote, l.local}, {l.local, l.remote}} {
			w.conn.AddRule(&nftables.Rule{Table: w.table, Chain: w.chains[d], Exprs: match(l.protocol, ends[0], ends[1])})
		}
	}
	if err := w.conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

// match counts the packets from one end to the other.
func match(protocol flow.Protocol, source, dest netip.AddrPort) []expr.Any {
	family := flow.FamilyOf(source.Addr())
	offset := uint32(12)
	if family == flow.IPv6 {
		offset = 8
	}
	addresses := append(source.Addr().AsSlice(), dest.Addr().AsSlice()...)
	ports := []byte{byte(source.Port() >> 8), byte(source.Port()), byte(dest.Port() >> 8), byte(dest.Port())}
	half := uint32(len(addresses) / 2)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(nfFamily(family))}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(protocol)}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ports},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: half},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addresses[:half]},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset + half, Len: half},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addresses[half:]},
		&expr.Counter{},
	}
}

// counts returns what was counted until now.
func (w *watch) counts(t *testing.T) map[leg]crossed {
	t.Helper()
	out := map[leg]crossed{}
	for d, chain := range w.chains {
		rules, err := w.conn.GetRules(w.table, chain)
		if err != nil {
			t.Fatal(err)
		}
		if len(rules) != len(w.legs) {
			t.Fatalf("the watch has %d rules for %d flows", len(rules), len(w.legs))
		}
		for i, r := range rules {
			c := out[w.legs[i]]
			c[d] += r.Exprs[len(r.Exprs)-1].(*expr.Counter).Packets
			out[w.legs[i]] = c
		}
	}
	return out
}
