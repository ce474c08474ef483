package livetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// pace is the pause between two messages of one end.
const pace = 5 * time.Millisecond

// call says which flow to open.
type call struct {
	protocol flow.Protocol
	family   flow.Family
	// direction is the one in which it is opened, at eth0.
	direction flow.Direction
	// peer is the address on the far side; the zero value is the friend's.
	peer netip.Addr
	// port is that of the server on eth0's wire; 0 is service.
	port uint16
	// connected says that the host's UDP socket is connected to its peer. A
	// server has a port of its own then.
	connected bool
}

func (c call) String() string {
	s := fmt.Sprintf("%s %s %s to port %d", c.family, c.protocol, map[flow.Direction]string{flow.Ingress: "in", flow.Egress: "out"}[c.direction], c.port)
	if c.protocol == flow.UDP && c.connected {
		s += ", connected"
	}
	if c.peer == strangerOf[c.family] {
		s += ", stranger"
	}
	return s
}

// talk is a flow on which both ends keep sending, a little every few
// milliseconds, until the test ends.
type talk struct {
	call
	leg
	// near and far are the ends on this side of eth0 and on that one.
	near, far end
	// nearAt is where the near socket is bound, which NAT may hide.
	nearAt netip.AddrPort
	// took is how long a TCP connection took to come about, but for what the
	// machine is to blame for.
	took time.Duration
	// refused is how many packets had been refused at the mark.
	refused uint64
	// done is closed when the talk ends.
	done chan struct{}
	over sync.Once
}

// hangUp ends talks. Shared sockets and connections stay until the test ends.
func (s *stand) hangUp(talks ...*talk) {
	for _, k := range talks {
		k.over.Do(func() { close(k.done) })
	}
}

// end is one end of a talk.
type end struct {
	write func([]byte) error
	got   atomic.Uint64
	// spoken is how many messages were sent, or refused to be; busy says that one
	// is being sent.
	spoken       atomic.Uint64
	paused, busy atomic.Bool
	machine      *machine

	mu sync.Mutex
	// last is when something was received, and gap the longest silence that the
	// machine is not to blame for, both since the mark.
	last int64
	gap  time.Duration
}

var start = time.Now()

func now() int64 { return int64(time.Since(start)) }

func (e *end) hear() {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := now()
	e.silentUntil(t)
	e.last = t
	e.got.Add(1)
}

func (e *end) silentUntil(t int64) {
	d := time.Duration(t - e.last)
	if d > stall {
		d = e.machine.net(e.last, t)
	}
	e.gap = max(e.gap, d)
}

func (e *end) mark() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last, e.gap = now(), 0
}

// longestGap returns the longest silence since the mark, the present one included.
func (e *end) longestGap() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.silentUntil(now())
	return e.gap
}

// speak sends until the socket is closed. What the host's own rules refuse, or
// the peer's stack has no socket for, is an error of the moment.
func (e *end) speak(done <-chan struct{}) {
	message := make([]byte, 100)
	for n := uint64(0); ; n++ {
		select {
		case <-done:
			return
		case <-time.After(pace):
		}
		for i := range 8 {
			message[i] = byte(n >> (8 * i))
		}
		if err := e.say(message); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// say sends a message, unless the end is paused.
func (e *end) say(message []byte) error {
	e.busy.Store(true)
	defer e.busy.Store(false)
	if e.paused.Load() {
		return nil
	}
	defer e.spoken.Add(1)
	return e.write(message)
}

// answer begins to speak once it was spoken to.
func (e *end) answer(done <-chan struct{}) {
	for e.got.Load() == 0 {
		select {
		case <-done:
			return
		case <-time.After(time.Millisecond):
		}
	}
	e.speak(done)
}

// open opens flows, and waits until both ends of all heard from each other.
func (s *stand) open(calls ...call) []*talk {
	s.t.Helper()
	var talks []*talk
	for _, c := range calls {
		k, err := s.dial(c, patience)
		if err != nil {
			s.t.Fatalf("%s: %v", c, err)
		}
		talks = append(talks, k)
	}
	s.goOn("at the beginning", talks...)
	return talks
}

func (c call) filled() call {
	if !c.peer.IsValid() {
		c.peer = friendOf[c.family]
	}
	if c.port == 0 {
		c.port = service
		if c.connected && c.direction == flow.Ingress && c.protocol == flow.UDP {
			c.port = connectedService
		}
	}
	return c
}

// dial opens a flow from a port that nobody used before.
func (s *stand) dial(c call, wait time.Duration) (*talk, error) {
	s.t.Helper()
	c = c.filled()
	return s.dialFrom(c, s.nextPort(), wait)
}

// attend begins to measure a talk.
func (s *stand) attend(k *talk) {
	for _, e := range []*end{&k.near, &k.far} {
		e.machine = s.machine
		e.mark()
	}
}

// dialFrom opens a flow from a port of the client.
func (s *stand) dialFrom(c call, port uint16, wait time.Duration) (*talk, error) {
	s.t.Helper()
	k := &talk{call: c, done: make(chan struct{})}
	local, remote := port, c.port
	nearPort := port
	if c.direction == flow.Ingress {
		local, remote, nearPort = c.port, port, s.nearPort(c.port)
	}
	k.local = netip.AddrPortFrom(s.wireAddress(c.family), local)
	k.remote = netip.AddrPortFrom(c.peer, remote)
	k.nearAt = netip.AddrPortFrom(s.nearAddress(c.family), nearPort)
	k.leg.protocol = c.protocol
	s.watch.add(s.t, k.leg, k.nearAt)
	s.attend(k)
	var err error
	if c.protocol == flow.TCP {
		err = s.dialTCP(k, wait)
	} else {
		err = s.dialUDP(k)
	}
	if err != nil {
		return k, err
	}
	caller, callee := k.ends()
	s.t.Cleanup(func() { s.hangUp(k) })
	go caller.speak(k.done)
	go callee.answer(k.done)
	return k, nil
}

func (s *stand) dialTCP(k *talk, wait time.Duration) error {
	from, to := s.near(), s.peer
	client, server, dial := k.nearAt, k.remote, k.remote
	caller, callee := k.ends()
	if k.direction == flow.Ingress {
		from, to = to, from
		client, server, dial = k.remote, k.nearAt, k.local
	}
	accepted := s.listen(to, server).expect(seenBy(s, k))
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	begin := now()
	c, err := from.DialTCP(ctx, client, dial)
	if err != nil {
		return err
	}
	k.took = s.machine.net(begin, now())
	s.carry(caller, c)
	select {
	case a := <-accepted:
		s.carry(callee, a)
		return nil
	case <-time.After(patience):
		return errors.New("the server never accepted it")
	}
}

// seenBy returns the client as the server sees it.
func seenBy(s *stand, k *talk) netip.AddrPort {
	if k.direction == flow.Ingress {
		return k.remote
	}
	return k.local
}

// carry makes a TCP connection an end of a talk.
func (s *stand) carry(e *end, c net.Conn) {
	s.t.Cleanup(func() { c.Close() })
	e.write = func(b []byte) error {
		_, err := c.Write(b)
		return err
	}
	go func() {
		for b := make([]byte, 1<<16); ; {
			if _, err := c.Read(b); err != nil {
				return
			}
			e.hear()
		}
	}()
}

// listener hands accepted connections to whoever expects their client. It
// listens until the test ends: listening ports tell who opened a flow.
type listener struct {
	socket   net.Listener
	mu       sync.Mutex
	expected map[netip.AddrPort]chan net.Conn
}

func (s *stand) listen(ns *lab.Namespace, at netip.AddrPort) *listener {
	s.t.Helper()
	at = s.serverAt(ns, at)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.listeners[ending{ns, at}]
	if l != nil {
		return l
	}
	socket, err := ns.ListenTCP(at)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { socket.Close() })
	l = &listener{socket: socket, expected: map[netip.AddrPort]chan net.Conn{}}
	s.listeners[ending{ns, at}] = l
	go func() {
		for {
			c, err := socket.Accept()
			if err != nil {
				return // the listener was closed
			}
			from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
			l.expect(netip.AddrPortFrom(from.Addr().Unmap(), from.Port())) <- c
		}
	}()
	return l
}

// serverAt is where a server binds that is reached at an address.
func (s *stand) serverAt(ns *lab.Namespace, at netip.AddrPort) netip.AddrPort {
	const firstClient = 40000
	if s.wildcard && ns == s.host && at.Port() < firstClient {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port())
	}
	return at
}

func (l *listener) expect(client netip.AddrPort) chan net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.expected[client] == nil {
		l.expected[client] = make(chan net.Conn, 1)
	}
	return l.expected[client]
}

func (s *stand) dialUDP(k *talk) error {
	s.t.Helper()
	from, to := s.near(), s.peer
	client, server, dial := k.nearAt, k.remote, k.remote
	caller, callee := k.ends()
	connectedClient, connectedServer := k.connected, false
	if k.direction == flow.Ingress {
		from, to = to, from
		client, server, dial = k.remote, k.nearAt, k.local
		connectedClient, connectedServer = false, k.connected
	}
	if connectedServer {
		c, err := to.DialUDP(server, k.remote)
		if err != nil {
			return err
		}
		s.t.Cleanup(func() { c.Close() })
		callee.write = func(b []byte) error {
			_, err := c.Write(b)
			return err
		}
		go listenTo(c, func(netip.AddrPort) *end { return callee })
	} else {
		s.serve(to, server).answer(seenBy(s, k), callee)
	}
	if connectedClient {
		c, err := from.DialUDP(client, dial)
		if err != nil {
			return err
		}
		s.t.Cleanup(func() { c.Close() })
		caller.write = func(b []byte) error {
			_, err := c.Write(b)
			return err
		}
		go listenTo(c, func(netip.AddrPort) *end { return caller })
		return nil
	}
	s.serve(from, client).answer(dial, caller)
	return nil
}

// datagrams is an unconnected UDP socket that several talks may share.
type datagrams struct {
	conn *net.UDPConn
	mu   sync.Mutex
	ends map[netip.AddrPort]*end
}

func (s *stand) serve(ns *lab.Namespace, at netip.AddrPort) *datagrams {
	s.t.Helper()
	at = s.serverAt(ns, at)
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.servers[ending{ns, at}]
	if d != nil {
		return d
	}
	c, err := ns.ListenUDP(at)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	d = &datagrams{conn: c, ends: map[netip.AddrPort]*end{}}
	s.servers[ending{ns, at}] = d
	go listenTo(c, func(from netip.AddrPort) *end {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.ends[from]
	})
	return d
}

// answer makes the socket the end of a talk with somebody.
func (d *datagrams) answer(to netip.AddrPort, e *end) {
	d.mu.Lock()
	d.ends[to] = e
	d.mu.Unlock()
	e.write = func(b []byte) error {
		_, err := d.conn.WriteToUDPAddrPort(b, to)
		return err
	}
}

// listenTo tells the ends what a socket receives. An ICMP error of a connected
// one is nothing that ends it.
func listenTo(c *net.UDPConn, whose func(netip.AddrPort) *end) {
	for b := make([]byte, 1<<16); ; {
		_, from, err := c.ReadFromUDPAddrPort(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if e := whose(from); e != nil {
			e.hear()
		}
	}
}
