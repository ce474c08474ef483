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

// crossed is how many packets of a flow came to a place in each direction.
type crossed [2]uint64

// watch counts what comes to sgc's chains and past them on its way in and out, by
// a table of its own that looks at headers alone.
type watch struct {
	ns   *lab.Namespace
	legs []leg
	// near is where the near socket of each leg is bound.
	near []netip.AddrPort

	conn   *nftables.Conn
	table  *nftables.Table
	chains []*nftables.Chain
}

// post is a chain of the watch.
type post struct {
	name      string
	hook      *nftables.ChainHook
	priority  nftables.ChainPriority
	direction flow.Direction
	// before says that it counts what comes to sgc's chains, and else what comes
	// past them.
	before bool
}

// The way out begins at one of two places: where the host sends, or where it is
// sent what it is to forward.
var posts = []post{
	{"ingress", nftables.ChainHookPrerouting, -149, flow.Ingress, false},
	{"egress", nftables.ChainHookPostrouting, 151, flow.Egress, false},
	{"before.ingress", nftables.ChainHookPrerouting, -301, flow.Ingress, true},
	{"before.egress", nftables.ChainHookOutput, -301, flow.Egress, true},
	{"before.egress.forwarded", nftables.ChainHookPrerouting, -301, flow.Egress, true},
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
	w.chains = nil
	for _, p := range posts {
		w.chains = append(w.chains, conn.AddChain(&nftables.Chain{
			Name: p.name, Table: w.table, Type: nftables.ChainTypeFilter,
			Hooknum: p.hook, Priority: nftables.ChainPriorityRef(p.priority),
		}))
	}
	legs, near := w.legs, w.near
	w.legs, w.near = nil, nil
	for i, l := range legs {
		w.prepare(l, near[i])
	}
	w.flush(t)
}

// add begins to count a flow that is not counted yet, whose near socket is bound
// at near.
func (w *watch) add(t *testing.T, l leg, near netip.AddrPort) {
	t.Helper()
	w.prepare(l, near)
	w.flush(t)
}

func (w *watch) prepare(l leg, near netip.AddrPort) {
	w.legs, w.near = append(w.legs, l), append(w.near, near)
	for i, p := range posts {
		source, dest := l.remote, l.local
		if p.direction == flow.Egress {
			if source, dest = l.local, l.remote; p.before {
				source = near
			}
		}
		w.conn.AddRule(&nftables.Rule{Table: w.table, Chain: w.chains[i], Exprs: match(l.protocol, source, dest)})
	}
}

func (w *watch) flush(t *testing.T) {
	t.Helper()
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

// counts returns what came past sgc's chains until now.
func (w *watch) counts(t *testing.T) map[leg]crossed {
	t.Helper()
	return w.read(t, false)
}

// arrivals returns what came to sgc's chains until now.
func (w *watch) arrivals(t *testing.T) map[leg]crossed {
	t.Helper()
	return w.read(t, true)
}

func (w *watch) read(t *testing.T, before bool) map[leg]crossed {
	t.Helper()
	out := map[leg]crossed{}
	for at, p := range posts {
		if p.before != before {
			continue
		}
		rules, err := w.conn.GetRules(w.table, w.chains[at])
		if err != nil {
			t.Fatal(err)
		}
		if len(rules) != len(w.legs) {
			t.Fatalf("the watch has %d rules for %d flows", len(rules), len(w.legs))
		}
		for i, r := range rules {
			c := out[w.legs[i]]
			c[p.direction] += r.Exprs[len(r.Exprs)-1].(*expr.Counter).Packets
			out[w.legs[i]] = c
		}
	}
	return out
}

// refused is how many packets of a flow came to sgc's chains and not past them,
// in both directions.
func refused(came, passed crossed) uint64 {
	n := uint64(0)
	for d := range came {
		n += came[d] - min(came[d], passed[d])
	}
	return n
}
