package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/internal/lab"
)

// longestStall is how long a transfer may stand still while entries are made
// and rules come into force.
const longestStall = time.Second

// A session that is older than the first conntrack rule goes on without a
// pause, in both directions, if entries were made for the host's sockets before.
//
// A transfer may be unlucky, and lose what it sends again, too, when the machine
// stalls. What a missing or a wrong entry does, it does each time.
func TestSeededFlowsDoNotStall(t *testing.T) {
	s := newSeedingScene(t)
	for end := time.Now().Add(4 * patience); ; {
		s.flows(t)
		stalled := s.comesIntoForce(t)
		if len(stalled) == 0 || t.Failed() {
			return
		}
		if time.Now().After(end) {
			t.Fatal(strings.Join(stalled, "\n"))
		}
		t.Logf("once more, since this may be luck:\n%s", strings.Join(stalled, "\n"))
		s.forget(t)
	}
}

// comesIntoForce makes entries, and then the rules that refuse what has none. It
// returns what stood still meanwhile.
func (s *seedingScene) comesIntoForce(t *testing.T) (stalled []string) {
	t.Helper()
	all := len(s.streams) + len(s.controls)
	if got := seedSockets(t, s.host); got.Done != all || got.Exists+got.Full != 0 {
		t.Fatalf("%+v, want %d entries", got, all)
	}
	entries, err := s.witness.Entries()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range s.streams {
		want := lab.Tuple{Protocol: one.protocol, Source: one.host, Dest: one.peer}
		if one.opened == flow.Ingress {
			want.Source, want.Dest = want.Dest, want.Source
		}
		found := false
		for _, e := range entries {
			found = found || e.Original == want
		}
		if !found {
			t.Errorf("%s: no entry begins with %s", one.name, want)
		}
	}
	s.restart()
	refuseAllButEstablished(t, s.host)
	if got := seedSockets(t, s.host); got.Exists != all || got.Done != 0 {
		t.Errorf("the second time: %+v, want nothing new", got)
	}
	time.Sleep(longestStall / 2)
	for _, one := range s.streams {
		select {
		case <-one.begin:
		default:
			one.restart()
		}
	}
	s.beginIdle()
	time.Sleep(2 * longestStall)
	s.watch(t, 10) // also where the machine stalled all the time
	// Where only some segments are refused, a transfer crawls.
	if ours, theirs := brought(s.streams), brought(s.controls); ours < theirs/4 {
		stalled = append(stalled, fmt.Sprintf("a transfer brought %.1f MB, and one that nobody refuses %.1f MB", ours/1e6, theirs/1e6))
	}
	machine := s.machineStall()
	for _, one := range s.streams {
		if bytes, stall := one.measured(); bytes == 0 || stall > longestStall+2*machine {
			stalled = append(stalled, fmt.Sprintf("%s: %d bytes, and stood still for %s (what nobody refuses for %s)", one.name, bytes, stall, machine))
		}
	}
	return stalled
}

// forget takes the rules and all entries away, and waits until everything flows
// that has begun.
func (s *seedingScene) forget(t *testing.T) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(s.host.FD()))
	if err != nil {
		t.Fatal(err)
	}
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: strict})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	// The kernel goes on tracking for a moment.
	if !eventually(func() bool {
		s.flush(t)
		rest(impatience)
		entries, err := s.witness.Entries()
		if err != nil {
			t.Fatal(err)
		}
		return len(entries) == 0
	}) {
		t.Fatal("the kernel goes on tracking without rules")
	}
	s.restart()
	for _, one := range s.streams {
		if !eventually(func() bool { bytes, _ := one.measured(); return bytes > 0 }) {
			t.Fatalf("%s: stands still without rules, too", one.name)
		}
	}
}

// Without entries, the same sessions stand still, and it is the entries alone
// that they lack.
func TestUnseededFlowsStallUntilTheyAreSeeded(t *testing.T) {
	s := newSeedingScene(t)
	s.flows(t)
	lift := refuseAll(t, s.host)
	refuseAllButEstablished(t, s.host)
	lift()
	if !eventually(func() bool {
		was := s.received()
		s.watch(t, 5)
		return s.received() == was
	}) {
		t.Fatal("what was on its way goes on arriving")
	}
	s.beginIdle()
	s.restart()
	time.Sleep(longestStall)
	s.watch(t, 10)
	for _, one := range s.streams {
		if bytes, _ := one.measured(); bytes != 0 {
			t.Errorf("%s: %d bytes came through without an entry", one.name, bytes)
		}
	}
	seedSockets(t, s.host)
	for _, one := range s.streams {
		if !eventually(func() bool { bytes, _ := one.measured(); return bytes != 0 }) {
			t.Errorf("%s: stands still with an entry, too", one.name)
		}
	}
}

// A handshake that conntrack has seen the beginning of only in the sockets goes
// on, too: the peer of the first believes that it is connected as soon as the
// host's answer comes.
func TestSeededHandshakesGoOn(t *testing.T) {
	for _, tt := range []struct {
		name   string
		opened flow.Direction
		seed   bool
	}{
		{"opened by a peer", flow.Ingress, true}, {"opened by the host", flow.Egress, true},
		{"opened by a peer, without an entry", flow.Ingress, false}, {"opened by the host, without an entry", flow.Egress, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			from, to, client, server := s.client, s.host, officeOf[flow.IPv4], hostOf[flow.IPv4]
			answers, answered := "eth0", "wire"
			if tt.opened == flow.Egress {
				from, to, client, server = s.host, s.client, hostOf[flow.IPv4], worldOf[flow.IPv4]
				answers, answered = answered, answers
			}
			serve(t, to, server, 80)
			// The answers of the server get lost until the rules are in force.
			right, err := from.Hardware(answered)
			if err != nil {
				t.Fatal(err)
			}
			via := client
			if tt.opened == flow.Ingress {
				via = addr("192.0.2.20") // the host's router, the client itself
			}
			lead := func(hardware net.HardwareAddr) {
				if err := to.AddNeighbour(answers, via, hardware); err != nil {
					t.Fatal(err)
				}
			}
			lead(net.HardwareAddr{2, 0, 0, 0, 0, 0x99})
			type dialled struct {
				conn net.Conn
				err  error
			}
			result := make(chan dialled, 1)
			ctx, giveUp := context.WithTimeout(context.Background(), 3*patience)
			t.Cleanup(giveUp)
			go func() {
				c, err := from.DialTCP(ctx, netip.AddrPortFrom(client, 0), netip.AddrPortFrom(server, 80))
				result <- dialled{c, err}
			}()
			state := conntrack.SynReceived
			if tt.opened == flow.Egress {
				state = conntrack.SynSent
			}
			if !eventually(func() bool { return hasSocket(t, s.host, state) }) {
				t.Fatalf("no socket of the host is %s", state)
			}
			if tt.seed {
				if got := seedSockets(t, s.host); got.Done != 1 {
					t.Fatalf("%+v, want one entry", got)
				}
			}
			lift := refuseAll(t, s.host)
			refuseAllButEstablished(t, s.host)
			lift()
			lead(right)
			if !tt.seed {
				time.AfterFunc(3*longestStall, giveUp) // several retransmissions
			}
			got := <-result
			if got.err == nil {
				defer got.conn.Close()
			}
			if tt.seed != (got.err == nil) {
				t.Fatalf("connect: %v", got.err)
			}
			if tt.seed {
				session{got.conn, netip.AddrPort{}, netip.AddrPortFrom(server, 80)}.exchange(t)
			}
		})
	}
}

func hasSocket(t *testing.T, ns *lab.Namespace, state conntrack.SocketState) bool {
	t.Helper()
	table, err := conntrack.Open(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	found := false
	err = table.Sockets(context.Background(), func(s *conntrack.Socket) error {
		found = found || s.State == state
		return nil
	})
	if err := errors.Join(err, table.Close()); err != nil {
		t.Fatal(err)
	}
	return found
}

// strict is the table of refuseAllButEstablished.
const strict = "strict"

// refuseAllButEstablished lets TCP and UDP cross the host's eth0 only if they
// belong to an entry, or to a control.
func refuseAllButEstablished(t *testing.T, ns *lab.Namespace) {
	t.Helper()
	established := []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
	refuseAtEth0(t, ns, strict, -150, established)
}

// refuseAll lets no TCP and UDP but the controls cross the host's eth0 until it is lifted. The
// kernel begins to track connections when it reads the first rule that asks for
// their state, which is a little before that rule is in force: what passes
// meanwhile gets an entry.
func refuseAll(t *testing.T, ns *lab.Namespace) (lift func()) {
	t.Helper()
	c, table := refuseAtEth0(t, ns, "shut", -500)
	return func() {
		t.Helper()
		c.DelTable(table)
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

// refuseAtEth0 makes a table whose chains drop the TCP and UDP that crosses
// eth0, except what a rule of the given expressions accepts: on the way in at a
// priority, on the way out behind source NAT.
func refuseAtEth0(t *testing.T, ns *lab.Namespace, name string, in nftables.ChainPriority, accept ...[]expr.Any) (*nftables.Conn, *nftables.Table) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: name})
	for _, at := range []struct {
		name     string
		hook     *nftables.ChainHook
		priority nftables.ChainPriority
		key      expr.MetaKey
		// port is where headers have that of the host.
		port uint32
	}{
		{"in", nftables.ChainHookPrerouting, in, expr.MetaKeyIIFNAME, 2},
		{"out", nftables.ChainHookPostrouting, 150, expr.MetaKeyOIFNAME, 0},
	} {
		chain := c.AddChain(&nftables.Chain{Name: at.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: at.hook, Priority: &at.priority})
		rules := append(accept[:len(accept):len(accept)], []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: at.port, Len: 2},
			&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: binaryutil.BigEndian.PutUint16(firstControl)},
			&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: binaryutil.BigEndian.PutUint16(lastControl)},
			&expr.Verdict{Kind: expr.VerdictAccept},
		})
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			rules = append(rules, []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
				&expr.Verdict{Kind: expr.VerdictDrop},
			})
		}
		for _, r := range rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append([]expr.Any{
				&expr.Meta{Key: at.key, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("eth0\x00")},
			}, r...)})
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	return c, table
}

// seedSockets makes entries for all flows of a namespace's sockets.
func seedSockets(t *testing.T, ns *lab.Namespace) conntrack.Result {
	t.Helper()
	table, err := conntrack.Open(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	openers, err := table.Openers(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	r, err := table.Seed(context.Background(), func(s *conntrack.Socket) (flow.Direction, bool) { return openers.Opened(s), true })
	if err := errors.Join(err, table.Close()); err != nil {
		t.Fatal(err)
	}
	return r
}
