package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// stream is a flow over the host's eth0 on which one end sends, and what
// arrives at the other.
type stream struct {
	name   string
	opened flow.Direction
	// bulk says that it is a transfer that fills scaled windows.
	bulk bool
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
			// A refused datagram is an error to its sender, who goes on.
			if _, err := sender.Write(data); err != nil && (s.protocol == flow.TCP || errors.Is(err, net.ErrClosed)) {
				return
			}
		}
	})
	all.Go(func() {
		for buf := make([]byte, 256<<10); ; {
			n, err := receiver.Read(buf)
			if err != nil {
				return // closed, or the other side has
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
	// controls go the same way and are never refused: they stand still only if the
	// machine does, or the path loses something.
	controls []*stream
	// bulk are the senders of the transfers; distant says that they fill their
	// windows.
	bulk    []*net.TCPConn
	distant bool
}

func newSeedingScene(t *testing.T) *seedingScene {
	s := &seedingScene{}
	s.scene, s.distant = distantScene(t)
	// Windows are larger than 64 KiB from the start, and the largest so large
	// that their scale is 12: without it, they are smaller than a packet.
	for _, ns := range []*lab.Namespace{s.host, s.client} {
		if err := ns.SetSysctl("net/ipv4/tcp_rmem", "4096 4194304 134217728"); err != nil {
			t.Fatal(err)
		}
	}
	port := uint16(1000)
	for _, f := range flow.Families {
		for _, opened := range flow.Directions {
			for _, hostSends := range []bool{true, false} {
				for _, kind := range []string{"bulk", "half-closed", "idle", "UDP"} {
					port++
					one, sender := s.open(t, f, opened, hostSends, kind, port)
					s.streams = append(s.streams, one)
					if one.bulk {
						s.bulk = append(s.bulk, sender.(*net.TCPConn))
					}
				}
			}
		}
	}
	port = firstControl
	for _, hostSends := range []bool{true, false} {
		for _, kind := range []string{"bulk", "UDP"} {
			one, _ := s.open(t, flow.IPv4, flow.Ingress, hostSends, kind, port)
			s.controls = append(s.controls, one)
			port++
		}
	}
	return s
}

// The ports of the host at which the controls end.
const firstControl, lastControl = 901, 904

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// open opens a flow. The host is the server of one that was opened inwards.
func (s *seedingScene) open(t *testing.T, f flow.Family, opened flow.Direction, hostSends bool, kind string, port uint16) (one *stream, sender net.Conn) {
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
	var receiver net.Conn
	sender, receiver = there, here
	if hostSends {
		sends = "the host sends"
		sender, receiver = here, there
	}
	one = &stream{
		name: fmt.Sprintf("%s, %s, opened by %s, %s", f, kind, opened, sends), opened: opened,
		host: endOf(here.LocalAddr()), peer: endOf(here.RemoteAddr()), protocol: flow.TCP, begin: closedChannel(),
	}
	// More in a round trip of the path than a window without a scale holds.
	chunk, every := 128<<10, 2*pathDelay
	switch kind {
	case "half-closed":
		chunk = 1000
		if err := receiver.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	case "idle":
		one.begin = make(chan struct{})
		chunk = smallChunk
	case "UDP":
		one.protocol, chunk = flow.UDP, smallChunk
	}
	one.bulk = kind == "bulk"
	one.run(t, sender, receiver, chunk, every)
	return one, sender
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

// flows waits until every transfer has more under way than a window without a
// scale holds, if the path is long enough for it.
func (s *seedingScene) flows(t *testing.T) {
	t.Helper()
	const unscaled = 1 << 16
	fills := s.bulk
	if !s.distant {
		fills = nil
	}
	for _, c := range fills {
		if !eventually(func() bool {
			window, underWay := underWay(t, c)
			return window > unscaled && underWay > unscaled
		}) {
			window, underWay := underWay(t, c)
			t.Fatalf("%s → %s: %d bytes are under way, in a window of %d: nothing needs a scale", c.LocalAddr(), c.RemoteAddr(), underWay, window)
		}
	}
}

// brought returns how many bytes a transfer brought since restart, on average.
func brought(streams []*stream) float64 {
	var total, n uint64
	for _, one := range streams {
		if one.bulk {
			bytes, _ := one.measured()
			total, n = total+bytes, n+1
		}
	}
	return float64(total) / float64(n)
}

// machineStall returns the longest time in which a control stood still since
// restart.
func (s *seedingScene) machineStall() time.Duration {
	var longest time.Duration
	for _, one := range s.controls {
		_, stall := one.measured()
		longest = max(longest, stall)
	}
	return longest
}

// watch waits until so many datagrams have come over the path in each direction,
// and behind them what was sent before. On a machine that stalls that takes its
// time.
func (s *seedingScene) watch(t *testing.T, datagrams uint64) {
	t.Helper()
	for _, one := range s.controls {
		if one.bulk {
			continue
		}
		bytes, _ := one.measured()
		if wanted := bytes + datagrams*smallChunk; !eventually(func() bool { bytes, _ = one.measured(); return bytes >= wanted }) {
			t.Fatalf("the control, which nobody refuses, stands still: %s", one.name)
		}
	}
}

// smallChunk is the size of what flows send that are no transfers.
const smallChunk = 100

// underWay returns the window that the peer grants a sender, and how much of it
// the peer has yet to acknowledge, in bytes.
func underWay(t *testing.T, c *net.TCPConn) (window, unacknowledged uint32) {
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
	return info.Snd_wnd, info.Unacked * info.Snd_mss
}

// restart begins to measure all streams.
func (s *seedingScene) restart() {
	for _, one := range slices.Concat(s.controls, s.streams) {
		one.restart()
	}
}

// received returns how many bytes have arrived since restart.
func (s *seedingScene) received() (total uint64) {
	for _, one := range s.streams {
		bytes, _ := one.measured()
		total += bytes
	}
	return total
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
