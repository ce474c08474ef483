package conntrack

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/lab/labtest"
	"sgc/policies"
)

// A connection that the host's own segment has begun an entry of, in the middle,
// is still the peer's.
func TestEntriesOfTheWrongDirection(t *testing.T) {
	s := newStand(t)
	k := kind{flow.TCP, flow.IPv4, flow.Ingress, "host"}
	for _, tc := range []struct {
		name     string
		entry    *Entry
		old, new func(rules) *policies.Policy
		openers  *Openers
		want     Fate
		opened   flow.Direction
	}{
		{"somebody waits on the port: it is cut", reversedEntry(k), open, gone, s.openers, Cut, flow.Ingress},
		{"and where it may stay, it stays", reversedEntry(k), open, narrowed, s.openers, BecomesTracked, flow.Ingress},
		{"nobody waits there: the host opened it", reversedEntry(k), open, gone, &Openers{}, BecomesTracked, flow.Egress},
		{"nobody knows", reversedEntry(k), open, gone, nil, BecomesTracked, flow.Egress},
		{"also where it was tracked: the entry may be older than the rules", reversedEntry(k), func(k rules) *policies.Policy {
			return only(k.peerAlone(), k.rule("out", flow.Egress, []flow.PortRange{{First: 1, Last: 65535}}, k.family.Any()))
		}, func(k rules) *policies.Policy {
			return only(k.rule("out", flow.Egress, []flow.PortRange{{First: 1, Last: 65535}}, k.family.Any()))
		}, s.openers, Lingers, flow.Ingress},
		{"a SYN has just begun it: the host opens it", openingEntry(k), open, gone, s.openers, BecomesTracked, flow.Egress},
		{"a SYN began it, from a port on which somebody waits: the host opened it", dialledEntry(k), open, gone, s.openers, BecomesTracked, flow.Egress},
		{"and its own rule may go, too", dialledEntry(k), tracked, nothing, s.openers, Lingers, flow.Egress},
		{"UDP says nothing of who began", reversedEntry(kind{flow.UDP, flow.IPv4, flow.Ingress, "host"}), open, gone, s.openers, BecomesTracked, flow.Egress},
	} {
		t.Run(tc.name, func(t *testing.T) {
			of := rules{k}
			of.protocol = tc.entry.Original.Protocol
			c := NewChange(ChangeOptions{Old: &Enforced{Policy: tc.old(of)}, New: &Enforced{Policy: tc.new(of)}, Routes: s.routes, Openers: tc.openers})
			var out Changed
			if err := c.Entry(tc.entry, &out); err != nil {
				t.Fatal(err)
			}
			if out.Fate != tc.want || out.Opened != tc.opened {
				t.Errorf("%s, opened %s; want %s, %s", out.Fate, out.Opened, tc.want, tc.opened)
			}
		})
	}
}

// reversedEntry is what a segment of the answering side begins in the middle of a
// connection: TestEntriesThatSegmentsBegin has the kernel make such.
func reversedEntry(k kind) *Entry {
	e := dialledEntry(k)
	e.PickedUp = k.protocol == flow.TCP
	return e
}

// dialledEntry is that of a flow the other way round, which the other side's first
// packet began.
func dialledEntry(k kind) *Entry {
	e := k.entry()
	e.Original, e.Reply = e.Reply, e.Original
	if k.protocol == flow.TCP {
		e.TCPState = TCPEstablished
	}
	return e
}

func openingEntry(k kind) *Entry {
	e := dialledEntry(k)
	e.TCPState = TCPSynSent
	return e
}

// The kernel tells an entry that a SYN began from one that a segment in the middle of
// a connection did, and from one that sgc makes.
func TestEntriesThatSegmentsBegin(t *testing.T) {
	labtest.Command(t, "nft")
	ns := labtest.Namespace(t, "host")
	witness, table := labtest.Witness(t, ns), openTable(t, ns)
	if err := ns.Do(func() error {
		out, err := exec.Command("nft", "add table inet t; add chain inet t c { type filter hook output priority 0; ct state new accept; }").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	l, err := ns.ListenTCP(netip.MustParseAddrPort("127.0.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := connect(t, ns, "127.0.0.1:80")
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	is := func(when string, from net.Addr, pickedUp bool) {
		t.Helper()
		list := read(t, table)
		if len(list) != 1 || list[0].TCPState != TCPEstablished ||
			netip.AddrPortFrom(list[0].Original.Source, list[0].Original.SourcePort).String() != from.String() || list[0].PickedUp != pickedUp {
			t.Errorf("%s: %+v, want one from %s, picked up %t", when, list, from, pickedUp)
		}
	}
	is("a SYN", client.LocalAddr(), false)
	if err := witness.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	// The client's acknowledgement would begin the next entry if it came after the
	// flush.
	waitAcknowledged(t, server)
	is("the server's segment", server.LocalAddr(), true)
	if err := witness.Flush(); err != nil {
		t.Fatal(err)
	}
	createSeeds(t, table, tcpSeed(client.LocalAddr().String(), "127.0.0.1:80"))
	is("the product", client.LocalAddr(), false)
}

// waitAcknowledged waits until the other end has acknowledged all that was sent.
func waitAcknowledged(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(socketWithin); ; time.Sleep(time.Millisecond) {
		var left int
		var failed error
		if err := raw.Control(func(fd uintptr) { left, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil || failed != nil {
			t.Fatal(errors.Join(err, failed))
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes are not acknowledged", left)
		}
	}
}

// The entry and the socket of a flow have one name.
func TestSocketKeys(t *testing.T) {
	s := newStand(t)
	c := NewChange(ChangeOptions{New: &Enforced{Policy: only()}, Routes: s.routes, Openers: s.openers})
	for _, k := range kindsOfFlows() {
		key, ok := c.SocketKey(k.entry())
		if want := k.place == "host"; ok != want {
			t.Errorf("%s: a socket may have it: %t", k, ok)
		} else if ok && key != k.socket().Key() {
			t.Errorf("%s: %v, want %v", k, key, k.socket().Key())
		}
	}
	for _, tc := range []struct {
		name  string
		entry *Entry
		want  string
	}{
		{"a port redirected on the host", entryOf(natted("198.51.100.7:1000", "192.0.2.10:443", "192.0.2.10:8443", "198.51.100.7:1000")), "192.0.2.10:8443 198.51.100.7:1000"},
		{"the host's own connection, redirected", entryOf(natted("192.0.2.10:2000", "203.0.113.9:80", "172.17.0.2:80", "172.17.0.1:2000")), "192.0.2.10:2000 203.0.113.9:80"},
		{"a ping", entryOf(pingSeed("198.51.100.7", "192.0.2.10", 1)), ""},
	} {
		key, ok := c.SocketKey(tc.entry)
		got := ""
		if ok {
			got = fmt.Sprint(key.Local, " ", key.Remote)
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestSocketsWithoutAFlow(t *testing.T) {
	s := newStand(t)
	k := kind{flow.TCP, flow.IPv4, flow.Ingress, "host"}
	c := NewChange(ChangeOptions{New: &Enforced{Policy: open(rules{k})}, Routes: s.routes, Openers: s.openers})
	over := k.socket()
	over.State = TimeWait
	self := k.socket()
	self.Remote = netip.MustParseAddrPort("172.17.0.1:1000")
	for name, socket := range map[string]*Socket{
		"one that is over": over, "the host with itself": self,
		"the loopback": {Protocol: flow.TCP, State: Established, Local: netip.MustParseAddrPort("127.0.0.1:1"), Remote: netip.MustParseAddrPort("127.0.0.1:2")},
		"a listener":   {Protocol: flow.TCP, State: Listening, Local: netip.MustParseAddrPort("0.0.0.0:22"), Remote: netip.MustParseAddrPort("0.0.0.0:0")},
	} {
		out := Changed{Seed: true}
		if err := c.Socket(socket, &out); err != nil || out.Fate != Elsewhere || out.Seed || len(out.Legs) != 0 {
			t.Errorf("%s: %s, an entry is made %t, %v", name, out.Fate, out.Seed, err)
		}
	}
}

// A socket that is bound to a link talks there, whatever the routes say.
func TestSocketsBoundToALink(t *testing.T) {
	s := newStand(t)
	k := kind{flow.TCP, flow.IPv4, flow.Egress, "host"}
	p := only(rules{k}.peerAlone())
	p.Interfaces[0].Name = "br0"
	c := NewChange(ChangeOptions{New: &Enforced{Policy: p}, Routes: s.routes, Openers: s.openers})
	socket := k.socket()
	var out Changed
	if err := c.Socket(socket, &out); err != nil || out.Fate != Elsewhere {
		t.Fatal(out.Fate, err)
	}
	socket.Interface = s.index(t, "br0")
	if err := c.Socket(socket, &out); err != nil || out.Fate != Stays || out.Legs[0].Packet.Interface != "br0" {
		t.Error(out.Fate, err)
	}
}

func (s stand) index(t *testing.T, name string) uint32 {
	t.Helper()
	for index, n := range s.routes.names {
		if n == name {
			return uint32(index)
		}
	}
	t.Fatalf("no link %s", name)
	return 0
}

// What is held of bound ports is held where they can be reached, and where no
// entries tell more.
func TestHoldsOfSockets(t *testing.T) {
	s := newStand(t)
	bound := func(local string, edit ...func(*Socket)) *Socket {
		socket := &Socket{Protocol: flow.UDP, State: Unconnected, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort("0.0.0.0:0")}
		for _, e := range edit {
			e(socket)
		}
		return socket
	}
	everywhere := func(rules ...*policies.Rule) *Enforced {
		p := only(rules...)
		p.Interfaces = append(p.Interfaces, &policies.Interface{Name: "br*", Groups: []string{"a"}})
		return &Enforced{Policy: p}
	}
	all := []netip.Prefix{flow.IPv4.Any(), flow.IPv6.Any()}
	in := func() *policies.Rule {
		return &policies.Rule{ID: "in", Direction: flow.Ingress, AllProtocols: true, Prefixes: all}
	}
	out := func() *policies.Rule {
		return &policies.Rule{ID: "out", Direction: flow.Egress, AllProtocols: true, Prefixes: all}
	}
	old, new := everywhere(in(), out()), everywhere(out())
	off := everywhere(in(), out())
	off.Policy.Interfaces[0].NotrackOff = true
	for _, tc := range []struct {
		name     string
		old, new *Enforced
		flush    FlushMode
		lost     bool
		socket   *Socket
		want     []string
	}{
		{"on both interfaces", old, new, FlushCloud, false, bound("0.0.0.0:53"), []string{"br0 IPv4 53", "eth0 IPv4 53"}},
		{"of both families", old, new, FlushCloud, false, bound("[::]:53", func(s *Socket) { s.DualStack = true }), []string{"br0 IPv4 53", "br0 IPv6 53", "eth0 IPv4 53", "eth0 IPv6 53"}},
		{"of IPv6 alone", old, new, FlushCloud, false, bound("[::]:53"), []string{"br0 IPv6 53", "eth0 IPv6 53"}},
		{"on the link that it is bound to", old, new, FlushCloud, false, bound("0.0.0.0:53", func(x *Socket) { x.Interface = s.index(t, "br0") }), []string{"br0 IPv4 53"}},
		{"on a link that no policy governs", old, new, FlushCloud, false, bound("0.0.0.0:53", func(x *Socket) { x.Interface = s.index(t, "lo") }), nil},
		{"an address on one of them may be reached by the other", old, new, FlushCloud, false, bound("172.17.0.1:53"), []string{"br0 IPv4 53", "eth0 IPv4 53"}},
		{"the loopback", old, new, FlushCloud, false, bound("127.0.0.53:53"), nil},
		{"no port", old, new, FlushCloud, false, bound("0.0.0.0:0"), nil},
		{"TCP", old, new, FlushCloud, false, bound("0.0.0.0:53", func(s *Socket) { s.Protocol, s.State = flow.TCP, Listening }), nil},
		{"a connected one has a flow of its own", old, new, FlushCloud, false, bound("192.0.2.10:53", func(s *Socket) { s.State = Connected }), nil},
		{"nothing is to be cut", old, new, FlushNone, false, bound("0.0.0.0:53"), nil},
		{"the first apply", nil, new, FlushCloud, false, bound("0.0.0.0:53"), nil},
		{"nothing changes", old, old, FlushCloud, false, bound("0.0.0.0:53"), nil},
		{"entries tell of the flows of one interface", off, new, FlushCloud, false, bound("0.0.0.0:53"), []string{"br0 IPv4 53"}},
		{"and nobody knows of any, since the rules were lost", off, new, FlushCloud, true, bound("0.0.0.0:53"), []string{"br0 IPv4 53", "eth0 IPv4 53"}},
		{"entries tell of the flows of one family", &Enforced{Policy: old.Policy, Conntrack: map[flow.Family]string{flow.IPv6: "NAT"}}, new, FlushCloud, false,
			bound("[::]:53", func(s *Socket) { s.DualStack = true }), []string{"br0 IPv4 53", "eth0 IPv4 53"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := NewChange(ChangeOptions{Old: tc.old, New: tc.new, Flush: tc.flush, Lost: tc.lost, Routes: s.routes, Openers: s.openers})
			var got []string
			for _, h := range c.Holds(c.Bound(tc.socket, nil)) {
				if h.Opened != flow.Ingress || h.Peers != flow.RangeOf(h.Family().Any()) || h.PeerPorts != flow.AllPorts {
					t.Errorf("%+v", h)
				}
				got = append(got, fmt.Sprintf("%s %s %d", h.Interface, h.Family(), h.LocalPort))
			}
			slices.Sort(got)
			if !slices.Equal(got, tc.want) {
				t.Errorf("held are %q, want %q", got, tc.want)
			}
		})
	}
}

func TestEphemeralPortsAreClients(t *testing.T) {
	s := newStand(t)
	k := kind{flow.UDP, flow.IPv4, flow.Egress, "host"}
	c := NewChange(ChangeOptions{Old: &Enforced{Policy: open(rules{k})}, New: &Enforced{Policy: gone(rules{k})}, Routes: s.routes, Openers: s.openers})
	for port, want := range map[uint16]bool{32767: false, 32768: true, 60999: true, 61000: false} {
		socket := &Socket{Protocol: flow.UDP, State: Unconnected, Local: netip.AddrPortFrom(netip.IPv4Unspecified(), port)}
		for _, b := range c.Bound(socket, nil) {
			if b.Ephemeral != want {
				t.Errorf("%d: %t", port, b.Ephemeral)
			}
		}
		// Everything may come in, and the ports that the host asked are closed.
		if got := len(c.Holds(c.Bound(socket, nil))) > 0; got != want {
			t.Errorf("%d is held: %t", port, got)
		}
	}
}

func TestWordsOfChanges(t *testing.T) {
	for _, mode := range []FlushMode{FlushCloud, FlushRevoked, FlushNone} {
		text, err := json.Marshal(mode)
		if err != nil {
			t.Fatal(err)
		}
		again := FlushMode(99)
		if err := json.Unmarshal(text, &again); err != nil || again != mode {
			t.Errorf("%s became %s: %v", text, again, err)
		}
	}
	var m FlushMode
	if err := m.UnmarshalText([]byte("all")); err == nil {
		t.Error(`"all" is no mode`)
	}
	seen := map[string]bool{}
	for f := Elsewhere; f <= Cut; f++ {
		seen[f.String()] = true
	}
	for r := WasTracked; r <= GroupDeleted; r++ {
		seen[r.String()] = true
	}
	if len(seen) != 12 || seen[""] {
		t.Errorf("%d words: %v", len(seen), seen)
	}
}
