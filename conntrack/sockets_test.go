package conntrack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

func readSockets(t testing.TB, table *Table) []Socket {
	t.Helper()
	var all []Socket
	if err := table.Sockets(context.Background(), func(s *Socket) error {
		all = append(all, *s)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// socketTexts are sockets with all that is known of them but the inode's number.
func socketTexts(all []Socket) []string {
	var texts []string
	for _, s := range all {
		text := fmt.Sprintf("%s, remote %s", &s, s.Remote)
		if s.DualStack {
			text += " dual-stack"
		}
		if s.Interface != 0 {
			text += fmt.Sprintf(" at %d", s.Interface)
		}
		if s.Unacknowledged != 0 && s.State != Listening {
			text += fmt.Sprintf(" %d unacknowledged", s.Unacknowledged)
		}
		if s.Inode == 0 {
			text += " nobody's"
		}
		texts = append(texts, text)
	}
	slices.Sort(texts)
	return texts
}

// socketWithin bounds the wait for the states of sockets that peers change.
const socketWithin = 30 * time.Second

// everySocket opens a socket of every kind on the host, and returns what is to
// be listed.
func everySocket(t testing.TB, n neighbours) []Socket {
	t.Helper()
	for _, ns := range []*lab.Namespace{n.host, n.peer} {
		lingering(t, ns)
	}
	host, peer := newSocketMaker(t, n.host), newSocketMaker(t, n.peer)
	var want []Socket
	with := func(s Socket, more ...func(*Socket)) {
		s.Inode = 1
		for _, f := range more {
			f(&s)
		}
		want = append(want, s)
	}
	dual := func(s *Socket) { s.DualStack = true }
	orphan := func(s *Socket) { s.Inode = 0 }
	bound := func(s *Socket) { s.Interface = host.index("eth0") }
	pending := func(n uint32) func(*Socket) { return func(s *Socket) { s.Unacknowledged = n } }
	listening := func(fd int, local string, more ...func(*Socket)) int {
		with(waitingSocket(flow.TCP, Listening, local), more...)
		return fd
	}
	l4 := listening(host.listen(tcp4, "0.0.0.0:1001"), "0.0.0.0:1001")
	l46 := listening(host.listen(tcp6, "[::]:1002"), "[::]:1002", dual)
	l6 := listening(host.listen(tcp6.v6Only(), "[::]:1003"), "[::]:1003")
	listening(host.listen(tcp4, "192.0.2.10:1004"), "192.0.2.10:1004")
	listening(host.listen(tcp6, "[2001:db8::10]:1005"), "[2001:db8::10]:1005")
	listening(host.listen(tcp6, "[::ffff:192.0.2.10]:1006"), "192.0.2.10:1006")
	listening(host.listen(tcp6, "[::ffff:0.0.0.0]:1007"), "0.0.0.0:1007")
	lDev := listening(host.listen(tcp4.on("eth0"), "0.0.0.0:1008"), "0.0.0.0:1008", bound)
	listening(host.listen(tcp6.on("eth0"), "[::]:1009"), "[::]:1009", bound, dual)
	host.bind(tcp4, "0.0.0.0:1099") // closed, and not listed

	// accepted is a connection from a port of the peer to one of the host.
	accepted := func(listener int, k socketKind, from, to string) (here, there int) {
		there = peer.connect(k, from, to)
		return host.accept(listener), there
	}
	tcp := func(state SocketState, local, remote string, more ...func(*Socket)) {
		with(connectedSocket(flow.TCP, state, local, remote), more...)
	}
	accepted(l4, tcp4, "192.0.2.20:2001", "192.0.2.10:1001")
	tcp(Established, "192.0.2.10:1001", "192.0.2.20:2001")
	accepted(l46, tcp4, "192.0.2.20:2002", "192.0.2.10:1002")
	tcp(Established, "192.0.2.10:1002", "192.0.2.20:2002")
	accepted(l6, tcp6, "[2001:db8::20]:2003", "[2001:db8::10]:1003")
	tcp(Established, "[2001:db8::10]:1003", "[2001:db8::20]:2003")
	accepted(lDev, tcp4, "192.0.2.20:2008", "192.0.2.10:1008")
	tcp(Established, "192.0.2.10:1008", "192.0.2.20:2008", bound)
	listening(host.listen(tcp4, "0.0.0.0:1010"), "0.0.0.0:1010")
	peer.connect(tcp4, "192.0.2.20:2009", "192.0.2.10:1010") // waits to be accepted
	tcp(Established, "192.0.2.10:1010", "192.0.2.20:2009", orphan)

	server4, server6 := peer.listen(tcp4, "0.0.0.0:4000"), peer.listen(tcp6.v6Only(), "[::]:4000")
	host.connect(tcp4, "192.0.2.10:3001", "192.0.2.20:4000")
	peer.accept(server4)
	tcp(Established, "192.0.2.10:3001", "192.0.2.20:4000")
	host.connect(tcp6, "[2001:db8::10]:3002", "[2001:db8::20]:4000")
	peer.accept(server6)
	tcp(Established, "[2001:db8::10]:3002", "[2001:db8::20]:4000")
	host.connect(tcp6, "[::ffff:192.0.2.10]:3003", "[::ffff:192.0.2.20]:4000")
	peer.accept(server4)
	tcp(Established, "192.0.2.10:3003", "192.0.2.20:4000")

	n.lose(t, "192.0.2.99")
	host.begin(tcp4, "192.0.2.10:3010", "192.0.2.99:9")
	tcp(SynSent, "192.0.2.10:3010", "192.0.2.99:9", pending(1))
	n.lose(t, "2001:db8::99")
	host.begin(tcp6, "[2001:db8::10]:3011", "[2001:db8::99]:9")
	tcp(SynSent, "[2001:db8::10]:3011", "[2001:db8::99]:9", pending(1))
	n.lose(t, "192.0.2.30")
	peer.begin(tcp4, "192.0.2.30:2010", "192.0.2.10:1001")
	tcp(SynReceived, "192.0.2.10:1001", "192.0.2.30:2010", orphan)
	peer.begin(tcp4, "192.0.2.30:2011", "192.0.2.10:1002")
	tcp(SynReceived, "192.0.2.10:1002", "192.0.2.30:2011", orphan)
	n.lose(t, "2001:db8::30")
	peer.begin(tcp6, "[2001:db8::30]:2012", "[2001:db8::10]:1003")
	tcp(SynReceived, "[2001:db8::10]:1003", "[2001:db8::30]:2012", orphan)

	here, _ := accepted(l4, tcp4, "192.0.2.31:2020", "192.0.2.10:1001")
	n.lose(t, "192.0.2.31")
	host.shut(here)
	tcp(FinWait1, "192.0.2.10:1001", "192.0.2.31:2020", pending(1))
	here, _ = accepted(l46, tcp4, "192.0.2.32:2021", "192.0.2.10:1002")
	n.lose(t, "192.0.2.32")
	host.write(here, strings.Repeat("x", 1000))
	host.shut(here)
	tcp(FinWait1, "192.0.2.10:1002", "192.0.2.32:2021", pending(1001))
	here, _ = accepted(l4, tcp4, "192.0.2.20:2022", "192.0.2.10:1001")
	host.shut(here)
	tcp(FinWait2, "192.0.2.10:1001", "192.0.2.20:2022")
	here, _ = accepted(l6, tcp6, "[2001:db8::20]:2023", "[2001:db8::10]:1003")
	host.close(here)
	tcp(FinWait2, "[2001:db8::10]:1003", "[2001:db8::20]:2023", orphan)
	_, there := accepted(l46, tcp4, "192.0.2.20:2024", "192.0.2.10:1002")
	peer.shut(there)
	tcp(CloseWait, "192.0.2.10:1002", "192.0.2.20:2024")
	here, there = accepted(l4, tcp4, "192.0.2.33:2025", "192.0.2.10:1001")
	n.lose(t, "192.0.2.33")
	host.shut(here)
	peer.shut(there)
	tcp(Closing, "192.0.2.10:1001", "192.0.2.33:2025", pending(1))
	here, there = accepted(l4, tcp4, "192.0.2.34:2026", "192.0.2.10:1001")
	peer.shut(there)
	waitClosed(t, here)
	n.lose(t, "192.0.2.34")
	host.close(here)
	tcp(LastAck, "192.0.2.10:1001", "192.0.2.34:2026", orphan, pending(1))
	here, there = accepted(l46, tcp4, "192.0.2.20:2027", "192.0.2.10:1002")
	host.close(here)
	waitClosed(t, there)
	peer.close(there)
	tcp(TimeWait, "192.0.2.10:1002", "192.0.2.20:2027", orphan)

	udp := func(local string, more ...func(*Socket)) { with(waitingSocket(flow.UDP, Unconnected, local), more...) }
	host.bind(udp4, "0.0.0.0:5001")
	udp("0.0.0.0:5001")
	host.bind(udp6, "[::]:5002")
	udp("[::]:5002", dual)
	host.bind(udp6.v6Only(), "[::]:5003")
	udp("[::]:5003")
	host.bind(udp4, "192.0.2.10:5004")
	udp("192.0.2.10:5004")
	host.bind(udp6, "[::ffff:192.0.2.10]:5005")
	udp("192.0.2.10:5005")
	host.bind(udp4.on("eth0"), "0.0.0.0:5006")
	udp("0.0.0.0:5006", bound)
	host.connect(udp4, "192.0.2.10:5010", "192.0.2.20:53")
	with(connectedSocket(flow.UDP, Connected, "192.0.2.10:5010", "192.0.2.20:53"))
	host.connect(udp6, "[2001:db8::10]:5011", "[2001:db8::20]:53")
	with(connectedSocket(flow.UDP, Connected, "[2001:db8::10]:5011", "[2001:db8::20]:53"))
	host.connect(udp6, "[::]:5012", "[::ffff:192.0.2.20]:53")
	with(connectedSocket(flow.UDP, Connected, "192.0.2.10:5012", "192.0.2.20:53"))
	return want
}

// lingering makes TCP of the namespace keep for many minutes what it gives up after
// one or two: connections that nobody answers, or that no process has any more.
// TimeWait alone is not to be prolonged.
func lingering(t testing.TB, ns *lab.Namespace) {
	t.Helper()
	for name, value := range map[string]string{
		"tcp_syn_retries": "30", "tcp_synack_retries": "30", "tcp_orphan_retries": "30", "tcp_fin_timeout": "3600",
	} {
		if err := ns.SetSysctl("net/ipv4/"+name, value); err != nil {
			t.Fatal(err)
		}
	}
}

// waitClosed waits until the other side has ended its stream.
func waitClosed(t testing.TB, fd int) {
	t.Helper()
	if n, err := unix.Read(fd, make([]byte, 1)); n != 0 || err != nil {
		t.Fatalf("%d bytes, %v; want the end", n, err)
	}
}

func TestSocketsOfEveryKindAreListed(t *testing.T) {
	n := newNeighbours(t)
	table := openTable(t, n.host)
	want := socketTexts(everySocket(t, n))
	var got []string
	for end := time.Now().Add(socketWithin); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got = socketTexts(readSockets(t, table)); slices.Equal(got, want) {
			break
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("listed, and not opened: %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("opened, and not listed: %s", line)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d sockets, want %d", len(got), len(want))
	}
	t.Run("ss agrees", func(t *testing.T) { ssAgrees(t, n.host, table) })
}

func TestSocketsOfOneNamespaceAlone(t *testing.T) {
	n := newNeighbours(t)
	newSocketMaker(t, n.peer).listen(tcp4, "0.0.0.0:80")
	if all := readSockets(t, openTable(t, n.host)); len(all) != 0 {
		t.Errorf("%v", socketTexts(all))
	}
}

func TestReadingSocketsEndsEarly(t *testing.T) {
	n := newNeighbours(t)
	table := openTable(t, n.host)
	m := newSocketMaker(t, n.host)
	for port := range 600 {
		m.bind(udp4, fmt.Sprintf("0.0.0.0:%d", 1000+port))
	}
	stop := errors.New("stop")
	if err := table.Sockets(context.Background(), func(*Socket) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v, want the caller's error", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	seen := 0
	err := table.Sockets(ctx, func(*Socket) error { cancel(); seen++; return nil })
	if !errors.Is(err, context.Canceled) || seen >= 600 {
		t.Errorf("%v after %d sockets", err, seen)
	}
}
