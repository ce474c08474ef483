package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
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

// stream is a flow over the host's eth0 on which one end sends, and what
// arrives at the other.
type stream struct {
	name   string
	opened flow.Direction
	// host is the host's end of it.
	host, peer netip.AddrPort
	protocol   flow.Protocol
	// begin is closed when the sender is to begin; it is closed from the start
	// for all but idle flows.
	begin chan struct{}

	mu    sync.Mutex
	bytes uint64
	last  time.Time
	worst time.Duration
}

// restart begins to measure.
func (s *stream) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes, s.last, s.worst = 0, time.Now(), 0
}

// measured returns what has arrived since restart, and the longest time in which
// nothing did.
func (s *stream) measured() (bytes uint64, stall time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, max(s.worst, time.Since(s.last))
}

// run sends chunks of so many bytes every few milliseconds, until the test
// closes the connections.
func (s *stream) run(t *testing.T, sender, receiver net.Conn, chunk int, every time.Duration) {
	ended := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		select {
		case <-s.begin:
		case <-ended:
			return
		}
		for data := make([]byte, chunk); ; time.Sleep(every) {
			// A refused datagram is EPERM to its sender.
			if _, err := sender.Write(data); err != nil && !errors.Is(err, unix.EPERM) {
				return
			}
		}
	})
	all.Go(func() {
		for buf := make([]byte, 256<<10); ; {
			n, err := receiver.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			now := time.Now()
			s.bytes, s.last, s.worst = s.bytes+uint64(n), now, max(s.worst, now.Sub(s.last))
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		close(ended)
		sender.Close()
		receiver.Close()
		all.Wait()
	})
}

// seedingScene is a host on which conntrack does nothing yet, with flows of all
// kinds.
type seedingScene struct {
	*scene
	streams []*stream
	// control crosses eth1, where nothing is ever refused: it stands still only
	// if the machine does.
	control *stream
	// bulk are the senders of the transfers.
	bulk []*net.TCPConn
}

func newSeedingScene(t *testing.T) *seedingScene {
	s := &seedingScene{scene: newScene(t)}
	// Windows are larger than 64 KiB from the start, and so are scaled.
	for _, ns := range []*lab.Namespace{s.host, s.client} {
		if err := ns.SetSysctl("net/ipv4/tcp_rmem", "4096 4194304 6291456"); err != nil {
			t.Fatal(err)
		}
	}
	port := uint16(1000)
	for _, f := range flow.Families {
		for _, opened := range flow.Directions {
			for _, hostSends := range []bool{true, false} {
				for _, kind := range []string{"bulk", "half-closed", "idle", "UDP"} {
					port++
					s.add(t, f, opened, hostSends, kind, port)
				}
			}
		}
	}
	here, there := tcpPair(t, s.host, addr("10.9.0.1"), s.inside, netip.AddrPortFrom(insideOf[flow.IPv4], 99))
	s.control = &stream{name: "control", begin: closedChannel()}
	s.control.run(t, here, there, 100, 5*time.Millisecond)
	return s
}

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// add opens a flow. The host is the server of one that was opened inwards.
func (s *seedingScene) add(t *testing.T, f flow.Family, opened flow.Direction, hostSends bool, kind string, port uint16) {
	t.Helper()
	var here, there net.Conn
	switch {
	case kind == "UDP":
		here, there = udpPair(t, s.host, s.client, f, opened, port)
	case opened == flow.Ingress:
		there, here = tcpPair(t, s.client, worldOf[f], s.host, netip.AddrPortFrom(hostOf[f], port))
	default:
		here, there = tcpPair(t, s.host, hostOf[f], s.client, netip.AddrPortFrom(worldOf[f], port))
	}
	sends := "the peer sends"
	sender, receiver := there, here
	if hostSends {
		sends = "the host sends"
		sender, receiver = here, there
	}
	one := &stream{
		name: fmt.Sprintf("%s, %s, opened by %s, %s", f, kind, opened, sends), opened: opened,
		host: endOf(here.LocalAddr()), peer: endOf(here.RemoteAddr()), protocol: flow.TCP, begin: closedChannel(),
	}
	chunk, every := 128<<10, 10*time.Millisecond
	switch kind {
	case "half-closed":
		if err := receiver.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	case "idle":
		one.begin = make(chan struct{})
		chunk = 100
	case "UDP":
		one.protocol, chunk = flow.UDP, 100
	}
	if chunk > 100 {
		s.bulk = append(s.bulk, sender.(*net.TCPConn))
	}
	s.streams = append(s.streams, one)
	one.run(t, sender, receiver, chunk, every)
}

func endOf(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	case *net.UDPAddr:
		return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	panic("an address of another kind")
}

// tcpPair opens a connection; the listener stays until the test ends.
func tcpPair(t *testing.T, from *lab.Namespace, local netip.Addr, to *lab.Namespace, remote netip.AddrPort) (client, server net.Conn) {
	t.Helper()
	l, err := to.ListenTCP(remote)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, err = from.DialTCP(ctx, netip.AddrPortFrom(local, 0), remote)
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// udpPair connects two UDP sockets: the one that opened the flow has an
// ephemeral port.
func udpPair(t *testing.T, host, client *lab.Namespace, f flow.Family, opened flow.Direction, port uint16) (here, there net.Conn) {
	t.Helper()
	at, from := netip.AddrPortFrom(hostOf[f], port), netip.AddrPortFrom(worldOf[f], 40000+port)
	if opened == flow.Egress {
		at, from = netip.AddrPortFrom(hostOf[f], 40000+port), netip.AddrPortFrom(worldOf[f], port)
	}
	here, err := host.DialUDP(at, from)
	if err != nil {
		t.Fatal(err)
	}
	there, err = client.DialUDP(from, at)
	if err != nil {
		t.Fatal(err)
	}
	return here, there
}

// refuseAllButEstablished lets TCP and UDP cross the host's eth0 only if they
// belong to an entry.
func refuseAllButEstablished(t *testing.T, ns *lab.Namespace) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "strict"})
	for _, at := range []struct {
		name     string
		hook     *nftables.ChainHook
		priority nftables.ChainPriority
		key      expr.MetaKey
	}{
		{"in", nftables.ChainHookPrerouting, -150, expr.MetaKeyIIFNAME},
		{"out", nftables.ChainHookPostrouting, 150, expr.MetaKeyOIFNAME},
	} {
		chain := c.AddChain(&nftables.Chain{Name: at.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: at.hook, Priority: &at.priority})
		on := []expr.Any{
			&expr.Meta{Key: at.key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("eth0\x00")},
		}
		add := func(verdict expr.VerdictKind, match ...expr.Any) {
			exprs := append(append([]expr.Any{}, on...), match...)
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(exprs, &expr.Verdict{Kind: verdict})})
		}
		add(expr.VerdictAccept,
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)})
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			add(expr.VerdictDrop,
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}})
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
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

// scaled checks that the transfers use windows that only a scale can tell.
func (s *seedingScene) scaled(t *testing.T) {
	t.Helper()
	for _, c := range s.bulk {
		if !eventually(func() bool { return peersWindow(t, c) > 1<<16 }) {
			t.Fatalf("%s → %s: a window of %d bytes, which needs no scale", c.LocalAddr(), c.RemoteAddr(), peersWindow(t, c))
		}
	}
}

func peersWindow(t *testing.T, c *net.TCPConn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	var failed error
	if err := raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return info.Snd_wnd
}

// restart begins to measure all streams.
func (s *seedingScene) restart() {
	s.control.restart()
	for _, one := range s.streams {
		one.restart()
	}
}

func (s *seedingScene) beginIdle() {
	for _, one := range s.streams {
		select {
		case <-one.begin:
		default:
			close(one.begin)
		}
	}
}

// A session that is older than the first conntrack rule goes on without a
// pause, in both directions, if entries were made for the host's sockets before.
func TestSeededFlowsDoNotStall(t *testing.T) {
	s := newSeedingScene(t)
	s.scaled(t)
	if got := seedSockets(t, s.host); got.Done != len(s.streams)+1 || got.Exists+got.Full != 0 {
		t.Fatalf("%+v, want %d entries", got, len(s.streams)+1)
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
	if got := seedSockets(t, s.host); got.Exists != len(s.streams)+1 || got.Done != 0 {
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
	_, machine := s.control.measured()
	for _, one := range s.streams {
		if bytes, stall := one.measured(); bytes == 0 || stall > longestStall+machine {
			t.Errorf("%s: %d bytes, and stood still for %s (the machine for %s)", one.name, bytes, stall, machine)
		}
	}
}

// Without entries, the same sessions stand still, and it is the entries alone
// that they lack.
func TestUnseededFlowsStallUntilTheyAreSeeded(t *testing.T) {
	s := newSeedingScene(t)
	s.scaled(t)
	refuseAllButEstablished(t, s.host)
	time.Sleep(impatience) // what is on its way arrives
	s.beginIdle()
	s.restart()
	time.Sleep(2 * longestStall)
	for _, one := range s.streams {
		if bytes, _ := one.measured(); bytes != 0 {
			t.Errorf("%s: %d bytes came through without an entry", one.name, bytes)
		}
	}
	if bytes, stall := s.control.measured(); bytes == 0 || stall > longestStall {
		t.Errorf("the control, which nobody refuses: %d bytes, and stood still for %s", bytes, stall)
	}
	seedSockets(t, s.host)
	for _, one := range s.streams {
		if !eventually(func() bool { bytes, _ := one.measured(); return bytes != 0 }) {
			t.Errorf("%s: stands still with an entry, too", one.name)
		}
	}
}
