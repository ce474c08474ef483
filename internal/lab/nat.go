package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// NAT is the address translation of a router.
type NAT struct {
	// Masquerade are the interfaces by which forwarded packets leave with the
	// router's own address.
	Masquerade []string
	Publish    []Published
}

// Published sends packets to a port of the router on to somebody else.
type Published struct {
	Interface string
	Protocol  flow.Protocol
	Port      uint16
	To        netip.AddrPort
}

// natTable is the table that holds the translation, in each family: what another
// tool on a host would make.
const natTable = "lab-nat"

// AddNAT makes the translation in the namespace's nf_tables.
func (n *Namespace) AddNAT(nat NAT) (err error) {
	conn, err := nftables.New(nftables.WithNetNSFd(n.fd), nftables.AsLasting())
	if err != nil {
		return fmt.Errorf("open nf_tables in %s: %w", n.name, err)
	}
	defer func() { err = errors.Join(err, conn.CloseLasting()) }()
	for _, f := range flow.Families {
		family := nftables.TableFamilyIPv4
		if f == flow.IPv6 {
			family = nftables.TableFamilyIPv6
		}
		table := conn.AddTable(&nftables.Table{Name: natTable, Family: family})
		out := conn.AddChain(&nftables.Chain{
			Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		for _, name := range nat.Masquerade {
			// A packet that the router itself sends has its address anyway.
			exprs := append(isInterface(expr.MetaKeyOIFNAME, name), &expr.Masq{})
			conn.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: exprs})
		}
		in := conn.AddChain(&nftables.Chain{
			Name: "prerouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
		})
		for _, p := range nat.Publish {
			if flow.FamilyOf(p.To.Addr()) == f {
				conn.AddRule(&nftables.Rule{Table: table, Chain: in, Exprs: p.exprs(f)})
			}
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("add address translation to %s: %w", n.name, err)
	}
	return nil
}

func isInterface(key expr.MetaKey, name string) []expr.Any {
	data := make([]byte, 16)
	copy(data, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

// exprs are "iifname … meta l4proto … th dport … fib daddr type local dnat to …".
func (p Published) exprs(f flow.Family) []expr.Any {
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(family(f)), RegAddrMin: 1, RegProtoMin: 2, Specified: true}
	return append(isInterface(expr.MetaKeyIIFNAME, p.Interface),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(p.Protocol)}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(p.Port)},
		&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Immediate{Register: 1, Data: p.To.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(p.To.Port())},
		nat)
}
