package conntrack

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
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
const socketWithin = 10 * time.Second

// everySocket opens a socket of every kind on the host, and returns what is to
// be listed.
func everySocket(t testing.TB, n neighbours) []Socket {
	t.Helper()
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
	t.Run("ss agrees", func(t *testing.T) {
		if _, err := exec.LookPath("ss"); err != nil {
			t.Skipf("SKIP: %v", err)
		}
		var ours []string
		for _, s := range readSockets(t, table) {
			ours = append(ours, ssLine(s))
		}
		theirs := ssLines(t, n.host)
		slices.Sort(ours)
		slices.Sort(theirs)
		if !slices.Equal(ours, theirs) {
			t.Errorf("ours:\n%s\ntheirs:\n%s", strings.Join(ours, "\n"), strings.Join(theirs, "\n"))
		}
	})
}

// ssLines are the sockets that ss lists.
func ssLines(t *testing.T, ns *lab.Namespace) []string {
	var out []byte
	if err := ns.Do(func() (err error) {
		out, err = exec.Command("ss", "-Hntua").Output()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	states := map[string]SocketState{
		"LISTEN": Listening, "SYN-SENT": SynSent, "SYN-RECV": SynReceived, "FIN-WAIT-1": FinWait1, "FIN-WAIT-2": FinWait2,
		"TIME-WAIT": TimeWait, "CLOSE-WAIT": CloseWait, "LAST-ACK": LastAck, "CLOSING": Closing, "UNCONN": Unconnected,
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		protocol, state := flow.TCP, states[f[1]]
		if f[0] == "udp" {
			protocol = flow.UDP
		}
		if f[1] == "ESTAB" {
			state = Established
			if protocol == flow.UDP {
				state = Connected
			}
		}
		dual := strings.HasPrefix(f[4], "*")
		lines = append(lines, ssLine(Socket{Protocol: protocol, State: state, Local: ssAddress(t, f[4]), Remote: ssAddress(t, f[5]), DualStack: dual}))
	}
	return lines
}

// ssLine is what ss tells of a socket, too.
func ssLine(s Socket) string {
	return fmt.Sprintf("%s dual-stack %t", &s, s.DualStack)
}

func ssAddress(t *testing.T, text string) netip.AddrPort {
	address, port, _ := strings.Cut(strings.Replace(text, "]:", "] ", 1), " ")
	if port == "" {
		i := strings.LastIndex(text, ":")
		address, port = text[:i], text[i+1:]
	}
	address, _, _ = strings.Cut(address, "%")
	if address == "*" {
		address = "[::]"
	}
	if port == "*" {
		port = "0"
	}
	a, err := netip.ParseAddrPort(address + ":" + port)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
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

func mustHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatAKernelSaidOfSockets(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("SKIP: these were captured on a little-endian machine")
	}
	for _, tc := range capturedSockets {
		var got Socket
		if err := got.parse(tc.protocol, mustHex(t, tc.hex)); err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v; want %+v", tc.name, got, err, tc.want)
		}
	}
}

// socketAnswer is a message about a socket of IPv4.
func socketAnswer(state uint8, local, remote string) []byte {
	return answer(messageSockets, unix.NLM_F_MULTI, 1, func(m *message) {
		b := make([]byte, socketMessageSize)
		b[0], b[1] = unix.AF_INET, state
		for i, text := range []string{local, remote} {
			a := netip.MustParseAddrPort(text)
			binary.BigEndian.PutUint16(b[4+2*i:], a.Port())
			copy(b[8+16*i:], a.Addr().AsSlice())
		}
		m.buf = append(m.buf, b...)
	})
}

// numbered gives the answers to a question its number.
func numbered(sequence uint32, messages ...[]byte) []byte {
	all := datagram(messages...)
	for at := 0; at < len(all); at += align4(int(binary.NativeEndian.Uint32(all[at:]))) {
		binary.NativeEndian.PutUint32(all[at+8:], sequence)
	}
	return all
}

func TestReadingWhatTheKernelMaySayOfSockets(t *testing.T) {
	one := socketAnswer(kernelEstablished, "192.0.2.10:1", "192.0.2.20:2")
	family := socketAnswer(kernelEstablished, "192.0.2.10:1", "192.0.2.20:2")
	family[headerSize] = unix.AF_UNIX
	cut := answer(messageSockets, 0, 1, func(m *message) { m.buf = append(m.buf, one[headerSize:len(one)-4]...) })
	end := func(sequence uint32) []byte { return numbered(sequence, done(0)) }
	rest := []any{end(2), end(3), end(4)}
	for _, tc := range []struct {
		name    string
		answers []any
		sockets int
		err     error
		text    string
	}{
		{"nothing", append([]any{end(1)}, rest...), 0, nil, ""},
		{"one in each list", []any{numbered(1, one, done(0)), numbered(2, one, done(0)), numbered(3, one, done(0)), numbered(4, one, done(0))}, 4, nil, ""},
		{"lost answers", append([]any{one, unix.ENOBUFS, one, end(1)}, rest...), 2, ErrTorn, "may be missing"},
		{"no list of TCP", []any{refused(unix.ENOENT, 1), numbered(2, done(-int32(unix.ENOENT))), numbered(3, one, done(0)), end(4)}, 1, ErrNoSockets, "CONFIG_INET_TCP_DIAG"},
		{"no list of UDP", []any{numbered(1, one, done(0)), end(2), refused(unix.ENOENT, 3), refused(unix.ENOENT, 4)}, 1, ErrNoSockets, "CONFIG_INET_UDP_DIAG"},
		{"no list at all", []any{refused(unix.ENOENT, 1), refused(unix.ENOENT, 2), refused(unix.ENOENT, 3), refused(unix.ENOENT, 4)}, 0, ErrNoSockets, "CONFIG_INET_DIAG"},
		{"another error", []any{one, refused(unix.ENOMEM, 1)}, 1, unix.ENOMEM, "read the host's sockets"},
		{"silence", []any{one}, 1, errNoAnswer, ""},
		{"a socket of another family", []any{family}, 0, errMalformed, ""},
		{"a socket in a state that was not asked for", []any{socketAnswer(kernelClose, "192.0.2.10:1", "0.0.0.0:0")}, 0, errMalformed, "state 7"},
		{"a socket in a state that nobody knows", []any{socketAnswer(99, "192.0.2.10:1", "0.0.0.0:0")}, 0, errMalformed, "state 99"},
		{"a message that ends early", []any{cut}, 0, errMalformed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := 0
			err := sockets(context.Background(), newConn(&script{answers: tc.answers}), allSockets, func(*Socket) error { n++; return nil })
			if n != tc.sockets {
				t.Errorf("%d sockets, want %d", n, tc.sockets)
			}
			if !errors.Is(err, tc.err) || err != nil && !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%v, want %v with %q", err, tc.err, tc.text)
			}
		})
	}
}

func TestAKernelWithoutSocketDiagnosis(t *testing.T) {
	dial := fmt.Errorf("open a netlink socket: %w", explain(unix.EPROTONOSUPPORT))
	err := socketsError(unix.IPPROTO_TCP, dial)
	if !errors.Is(err, ErrNoSockets) || errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "CONFIG_INET_DIAG") {
		t.Error(err)
	}
	both := sockets(context.Background(), newConn(&script{answers: []any{refused(unix.ENOENT, 1), refused(unix.ENOENT, 2), refused(unix.ENOENT, 3), refused(unix.ENOENT, 4)}}), allSockets, nil)
	for _, option := range []string{"CONFIG_INET_TCP_DIAG", "CONFIG_INET_UDP_DIAG"} {
		if both == nil || strings.Count(both.Error(), option) != 1 {
			t.Errorf("%v, want %s once", both, option)
		}
	}
}

// Nothing is kept of what was handed over.
func TestReadingManySocketsTakesNoMemory(t *testing.T) {
	var messages [][]byte
	for port := range 300 {
		messages = append(messages, socketAnswer(kernelEstablished, fmt.Sprintf("192.0.2.10:%d", port+1), "192.0.2.20:2"))
	}
	full := datagram(messages...)
	n := 0
	allocated := testing.AllocsPerRun(3, func() {
		var answers []any
		for range 333 {
			answers = append(answers, full)
		}
		answers = append(answers, numbered(1, done(0)), numbered(2, done(0)), numbered(3, done(0)), numbered(4, done(0)))
		n = 0
		if err := sockets(context.Background(), newConn(&script{answers: answers}), allSockets, func(*Socket) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
	})
	if n != 99_900 || allocated > 1000 {
		t.Errorf("%.0f allocations for %d sockets", allocated, n)
	}
}

func FuzzParseSocket(f *testing.F) {
	for _, s := range capturedSockets {
		f.Add(s.protocol, mustHex(f, s.hex))
	}
	f.Fuzz(func(t *testing.T, protocol uint8, b []byte) {
		var s Socket
		if err := s.parse(protocol, b); err != nil {
			return
		}
		_ = s.String()
		if s.Local.Addr().Is4In6() || s.Remote.Addr().Is4In6() || s.State == 0 {
			t.Fatalf("%+v", s)
		}
	})
}
