package kerneltest

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// chat is a TCP session on which both ends keep sending, a little every few
// milliseconds, until the test ends.
type chat struct {
	name   string
	client netip.AddrPort
	// toServer and toClient are the bytes received at either end.
	toServer, toClient atomic.Uint64
}

// newChat connects from one namespace to a listener in the other.
func newChat(t *testing.T, name string, from, to *lab.Namespace, client, server netip.AddrPort) *chat {
	t.Helper()
	return newChatVia(t, name, from, to, client, server, server)
}

// newChatVia is newChat where the server listens at another address than the
// one that the client dials.
func newChatVia(t *testing.T, name string, from, to *lab.Namespace, client, dial, server netip.AddrPort) *chat {
	t.Helper()
	l, err := to.ListenTCP(server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := tryConnectFrom(t, from, client, dial, patience)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	c := &chat{name: name, client: near.local}
	go talk(near.conn)
	go talk(far)
	go hear(near.conn, &c.toClient)
	go hear(far, &c.toServer)
	return c
}

// talk and hear end when the connection is closed.
func talk(c net.Conn) {
	for line := make([]byte, 400); ; time.Sleep(3 * time.Millisecond) {
		if _, err := c.Write(line); err != nil {
			return
		}
	}
}

func hear(c net.Conn, n *atomic.Uint64) {
	for b := make([]byte, 1<<16); ; {
		size, err := c.Read(b)
		if err != nil {
			return
		}
		n.Add(uint64(size))
	}
}

// goesOn expects that both ends hear more from each other.
func (c *chat) goesOn(t *testing.T, when string) {
	t.Helper()
	toServer, toClient := c.toServer.Load(), c.toClient.Load()
	if !eventually(func() bool { return c.toServer.Load() > toServer+4000 && c.toClient.Load() > toClient+4000 }) {
		t.Errorf("%s: %s: to the server %d bytes, to the client %d, want more of both",
			when, c.name, c.toServer.Load()-toServer, c.toClient.Load()-toClient)
	}
}

// isCut expects that, but for what was on its way, neither end hears more.
func (c *chat) isCut(t *testing.T, when string) {
	t.Helper()
	if more := fallsSilent(c.heard); more > 0 {
		t.Errorf("%s: %s: %d bytes more, want none", when, c.name, more)
	}
}

// heard returns how much has come to either end.
func (c *chat) heard() uint64 { return c.toServer.Load() + c.toClient.Load() }

// fallsSilent waits until what is heard stays the same for a while, since what was
// on its way may come late, and returns how much came in the last while: 0 if it
// stayed the same.
func fallsSilent(heard func() uint64) (more uint64) {
	for end := time.Now().Add(patience); ; {
		was := heard()
		rest(impatience)
		if more = heard() - was; more == 0 || time.Now().After(end) {
			return more
		}
	}
}

// rest sleeps in short naps: on a machine that stalls, one long sleep may be over
// before anybody else has had a turn.
func rest(d time.Duration) {
	const nap = 10 * time.Millisecond
	for range d / nap {
		time.Sleep(nap)
	}
}

// crossings counts the TCP packets of a flow that come past sgc's chains on a
// host's interface, by the client's address and port.
type crossings struct {
	conn  *nftables.Conn
	table *nftables.Table
	// chains are those of each direction, with a rule for every flow.
	chains [2]*nftables.Chain
}

func newCrossings(t *testing.T, ns *lab.Namespace, iface string, chats []*chat) *crossings {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	c := &crossings{conn: conn, table: conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "crossings"})}
	for d, at := range [2]struct {
		hook        *nftables.ChainHook
		priority    nftables.ChainPriority
		iface       expr.MetaKey
		addr4, port uint32
		addr6       uint32
	}{
		{nftables.ChainHookPrerouting, -149, expr.MetaKeyIIFNAME, 12, 0, 8},
		{nftables.ChainHookPostrouting, 151, expr.MetaKeyOIFNAME, 16, 2, 24},
	} {
		chain := conn.AddChain(&nftables.Chain{
			Name: flow.Directions[d].String(), Table: c.table, Type: nftables.ChainTypeFilter,
			Hooknum: at.hook, Priority: nftables.ChainPriorityRef(at.priority),
		})
		for _, chat := range chats {
			address, proto := at.addr4, byte(unix.NFPROTO_IPV4)
			if chat.client.Addr().Is6() {
				address, proto = at.addr6, unix.NFPROTO_IPV6
			}
			bytes := chat.client.Addr().AsSlice()
			conn.AddRule(&nftables.Rule{Table: c.table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: at.iface, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(iface + "\x00")},
				&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: address, Len: uint32(len(bytes))},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: bytes},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: at.port, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(chat.client.Port())},
				&expr.Counter{},
			}})
		}
		c.chains[d] = chain
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return c
}

// count returns how many packets of each flow there were in a direction.
func (c *crossings) count(t *testing.T, d flow.Direction) []uint64 {
	t.Helper()
	rules, err := c.conn.GetRules(c.table, c.chains[d])
	if err != nil {
		t.Fatal(err)
	}
	var packets []uint64
	for _, r := range rules {
		packets = append(packets, r.Exprs[len(r.Exprs)-1].(*expr.Counter).Packets)
	}
	return packets
}

// eventually waits until f is true, and reports whether it ever was.
func eventually(f func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if f() {
			return true
		}
	}
	return f()
}
