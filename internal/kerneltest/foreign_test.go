package kerneltest

import (
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

const openPorts = `
security_group "web" {
  ingress "http" {
    protocol         = "tcp"
    ports            = [80, 8080]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
interface "eth0" { security_groups = ["web"] }
`

// publish adds a table of another tool that sends what comes to a port of the
// host on to a port of the machine inside.
func publish(t *testing.T, ns *lab.Namespace, f flow.Family, protocol flow.Protocol, port, inside uint16) {
	t.Helper()
	nat(t, ns, f, "prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("eth0\x00")},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(protocol)}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Immediate{Register: 1, Data: insideOf[f].AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(inside)},
		&expr.NAT{
			Type: expr.NATTypeDestNAT, Family: nfFamily(f), RegAddrMin: 1, RegAddrMax: 1, RegProtoMin: 2, RegProtoMax: 2,
			Specified: true,
		},
	})
}

// masquerade adds a table of another tool that hides what leaves by eth0.
func masquerade(t *testing.T, ns *lab.Namespace, f flow.Family) {
	t.Helper()
	nat(t, ns, f, "postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("eth0\x00")},
		&expr.Masq{},
	})
}

func nat(t *testing.T, ns *lab.Namespace, f flow.Family, name string, hook *nftables.ChainHook, priority *nftables.ChainPriority, rule []expr.Any) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamily(nfFamily(f)), Name: "other-tool-" + name})
	chain := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

func nfFamily(f flow.Family) uint32 {
	if f == flow.IPv4 {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

func TestPublishedPortIsJudgedByItsNumberOnTheWire(t *testing.T) {
	t.Parallel()
	for _, f := range flow.Families {
		other := flow.IPv4 + flow.IPv6 - f
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			publish(t, s.host, f, flow.TCP, 8080, 80)
			publish(t, s.host, f, flow.TCP, 9090, 80)
			env := enforce(t, s.host, load(t, openPorts))
			if env.Conntrack[f] == "" || env.Conntrack[other] != "" {
				t.Fatalf("conntrack is needed in %v, want in %s alone", env.Conntrack, f)
			}
			serve(t, s.inside, insideOf[f], 80)
			serve(t, s.host, hostOf[f], 80)
			serve(t, s.host, hostOf[other], 80)

			// 8080 is open on the wire. The number behind it counts for nothing.
			published := connect(t, s.client, worldOf[f], netip.AddrPortFrom(hostOf[f], 8080))
			if !s.tracked(t, published.packet()) {
				t.Error("the published port has no entry, and cannot work")
			}
			// 9090 is not open, though it leads to an open number.
			refused(t, s.client, worldOf[f], netip.AddrPortFrom(hostOf[f], 9090))

			// An open flow of the host itself stays in conntrack, too, and works;
			// the other family does not have to.
			own := connect(t, s.client, worldOf[f], netip.AddrPortFrom(hostOf[f], 80))
			if !s.tracked(t, own.packet()) {
				t.Errorf("%s: an open flow has no entry beside a table that does NAT", f)
			}
			free := connect(t, s.client, worldOf[other], netip.AddrPortFrom(hostOf[other], 80))
			if s.tracked(t, free.packet()) {
				t.Errorf("%s: an open flow has an entry", other)
			}
		})
	}
}

func TestMasqueradeIsJudgedByTheAddressOnTheWire(t *testing.T) {
	t.Parallel()
	for _, f := range flow.Families {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			masquerade(t, s.host, f)
			serve(t, s.client, worldOf[f], 80)
			serve(t, s.client, officeOf[f], 80)
			for _, text := range []string{openPorts, onlyOut} {
				enforce(t, s.host, load(t, text))
				out := connect(t, s.inside, netip.Addr{}, netip.AddrPortFrom(worldOf[f], 80))
				if !s.tracked(t, out.packet()) {
					t.Error("a masqueraded flow has no entry")
				}
				if err := ping(t, s.inside, insideOf[f], worldOf[f], 77, patience); err != nil {
					t.Error(err)
				}
			}
			enforce(t, s.host, load(t, onlyIn))
			s.flush(t)
			refused(t, s.inside, insideOf[f], netip.AddrPortFrom(officeOf[f], 80))
		})
	}
}

func TestForwardedOpenFlowsStayInConntrack(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	enforce(t, s.host, load(t, openPorts))
	for _, f := range flow.Families {
		serve(t, s.inside, insideOf[f], 80)
		serve(t, s.inside, insideOf[f], 81)
		serve(t, s.host, hostOf[f], 80)
		serve(t, s.client, worldOf[f], 443)

		in := connect(t, s.client, worldOf[f], netip.AddrPortFrom(insideOf[f], 80))
		if !s.tracked(t, in.packet()) {
			t.Errorf("%s: a forwarded open flow has no entry", f)
		}
		refused(t, s.client, worldOf[f], netip.AddrPortFrom(insideOf[f], 81))
		out := connect(t, s.inside, netip.Addr{}, netip.AddrPortFrom(worldOf[f], 443))
		if !s.tracked(t, out.packet()) {
			t.Errorf("%s: a flow through the router has no entry", f)
		}
		// The same port of the host itself is left alone.
		own := connect(t, s.client, worldOf[f], netip.AddrPortFrom(hostOf[f], 80))
		if s.tracked(t, own.packet()) {
			t.Errorf("%s: an open flow of the host has an entry", f)
		}
	}
}
