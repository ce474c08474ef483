package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

func TestTheEntryOfASocket(t *testing.T) {
	timeouts := &FlowTimeouts{tcp: map[TCPState]time.Duration{}, udpStream: 120 * time.Second}
	for state := range tcpTimeoutNames {
		timeouts.tcp[state] = time.Duration(state) * time.Second
	}
	const assured, half = SeenReply | Assured | Confirmed, SeenReply | Confirmed
	for _, tc := range []struct {
		state          SocketState
		unacknowledged uint32
		want           TCPState
		status         Status
	}{
		{SynSent, 1, TCPSynSent, Confirmed},
		{SynReceived, 0, TCPSynRecv, half},
		{Established, 0, TCPEstablished, assured},
		{Established, 5000, TCPEstablished, assured},
		{FinWait1, 1, TCPFinWait, assured},
		{FinWait1, 2, TCPEstablished, assured},
		{FinWait2, 0, TCPCloseWait, assured},
		{CloseWait, 0, TCPCloseWait, assured},
		{CloseWait, 5000, TCPCloseWait, assured},
		{Closing, 1, TCPLastAck, assured},
		{Closing, 5000, TCPCloseWait, assured},
		{LastAck, 1, TCPLastAck, assured},
		{LastAck, 5000, TCPCloseWait, assured},
	} {
		s := connectedSocket(flow.TCP, tc.state, "192.0.2.10:22", "198.51.100.7:50000")
		s.Unacknowledged = tc.unacknowledged
		e, ok := s.Entry(flow.Ingress, timeouts)
		if !ok || e.TCPState != tc.want || e.Status != tc.status || e.Remaining != timeouts.tcp[tc.want] || e.Remaining == 0 {
			t.Errorf("%s with %d unacknowledged: %s, %s, %s; want %s, %s", tc.state, tc.unacknowledged, e.TCPState, e.Status, e.Remaining, tc.want, tc.status)
		}
	}
	for _, state := range []SocketState{Listening, TimeWait, Unconnected} {
		s := connectedSocket(flow.TCP, state, "192.0.2.10:22", "198.51.100.7:50000")
		if e, ok := s.Entry(flow.Ingress, timeouts); ok {
			t.Errorf("a socket that is %s gets %s", state, &e)
		}
	}
	s := connectedSocket(flow.UDP, Connected, "[2001:db8::10]:5000", "[2001:db8::7]:53")
	out, _ := s.Entry(flow.Egress, timeouts)
	in, _ := s.Entry(flow.Ingress, timeouts)
	if out.Original.String() != "udp [2001:db8::10]:5000 → [2001:db8::7]:53" || out.Reply.String() != "udp [2001:db8::7]:53 → [2001:db8::10]:5000" {
		t.Errorf("opened by the host: %s", &out)
	}
	if in.Original != out.Reply || in.Reply != out.Original || in.Remaining != 120*time.Second || in.Status != assured || in.TCPState != TCPNone {
		t.Errorf("opened by the peer: %s, by the host %s", &in, &out)
	}
}

// With and without the kernel's interface for timeouts.
func TestTimeoutsOfSeededEntries(t *testing.T) {
	n := newNeighbours(t)
	table := openTable(t, n.host)
	for name, value := range map[string]string{"tcp_timeout_established": "1001", "tcp_timeout_last_ack": "33", "udp_timeout_stream": "77"} {
		if err := n.host.SetSysctl("net/netfilter/nf_conntrack_"+name, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, table.noTimeouts = range []bool{false, true} {
		f, err := table.FlowTimeouts()
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(f.tcp[TCPSynSent], f.tcp[TCPSynRecv], f.tcp[TCPEstablished], f.tcp[TCPFinWait], f.tcp[TCPCloseWait], f.tcp[TCPLastAck], f.udpStream)
		if want := "2m0s 1m0s 16m41s 2m0s 1m0s 33s 1m17s"; got != want {
			t.Errorf("without netlink %t: %s, want %s", table.noTimeouts, got, want)
		}
	}
}

// decideBy takes all sockets, in the direction that openers tell.
func decideBy(t testing.TB, table *Table) func(*Socket) (flow.Direction, bool) {
	t.Helper()
	openers, err := table.Openers(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return func(s *Socket) (flow.Direction, bool) { return openers.Opened(s), true }
}

// conntrackLines are the entries as conntrack shows them, without the time that
// is left.
func conntrackLines(t testing.TB, ns *lab.Namespace) []string {
	t.Helper()
	labtest.Command(t, "conntrack")
	var out []byte
	for _, family := range []string{"ipv4", "ipv6"} {
		if err := ns.Do(func() error {
			b, err := exec.Command("conntrack", "-L", "-f", family).Output()
			out = append(out, b...)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		f = slices.DeleteFunc(f, func(s string) bool { return s == "mark=0" || strings.HasPrefix(s, "use=") || s == "secctx=null" })
		lines = append(lines, f[0]+" "+strings.Join(f[3:], " "))
	}
	slices.Sort(lines)
	return lines
}

// conntrackLine is how conntrack shows an entry without NAT.
func conntrackLine(protocol, state, from string, fromPort int, to string, toPort int, flags string) string {
	if state != "" {
		state += " "
	}
	there := fmt.Sprintf("src=%s dst=%s sport=%d dport=%d", from, to, fromPort, toPort)
	back := fmt.Sprintf("src=%s dst=%s sport=%d dport=%d", to, from, toPort, fromPort)
	if flags == "[UNREPLIED]" {
		return fmt.Sprintf("%s %s%s %s %s", protocol, state, there, flags, back)
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s%s %s %s", protocol, state, there, back, flags))
}

func TestEverySocketWithAPeerGetsItsEntry(t *testing.T) {
	n := newNeighbours(t)
	table := openTable(t, n.host)
	every := socketTexts(everySocket(t, n))
	for end := time.Now().Add(socketWithin); !slices.Equal(socketTexts(readSockets(t, table)), every); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the sockets do not come to the states they are to be in")
		}
	}
	// None of the entries ends before conntrack has shown it twice.
	for _, name := range []string{
		"tcp_timeout_syn_sent", "tcp_timeout_syn_recv", "tcp_timeout_fin_wait", "tcp_timeout_close_wait", "tcp_timeout_last_ack", "udp_timeout_stream",
	} {
		if err := n.host.SetSysctl("net/netfilter/nf_conntrack_"+name, "3600"); err != nil {
			t.Fatal(err)
		}
	}
	const h4, h6, p4, p6, assured = "192.0.2.10", "2001:db8::10", "192.0.2.20", "2001:db8::20", "[ASSURED]"
	tcp := func(state, from string, fromPort int, to string, toPort int, flags string) string {
		return conntrackLine("tcp", state, from, fromPort, to, toPort, flags)
	}
	want := []string{
		tcp("ESTABLISHED", p4, 2001, h4, 1001, assured),
		tcp("ESTABLISHED", p4, 2002, h4, 1002, assured),
		tcp("ESTABLISHED", p6, 2003, h6, 1003, assured),
		tcp("ESTABLISHED", p4, 2008, h4, 1008, assured),
		tcp("ESTABLISHED", p4, 2009, h4, 1010, assured),
		tcp("ESTABLISHED", h4, 3001, p4, 4000, assured),
		tcp("ESTABLISHED", h6, 3002, p6, 4000, assured),
		tcp("ESTABLISHED", h4, 3003, p4, 4000, assured),
		tcp("SYN_SENT", h4, 3010, "192.0.2.99", 9, "[UNREPLIED]"),
		tcp("SYN_SENT", h6, 3011, "2001:db8::99", 9, "[UNREPLIED]"),
		tcp("SYN_RECV", "192.0.2.30", 2010, h4, 1001, ""),
		tcp("SYN_RECV", "192.0.2.30", 2011, h4, 1002, ""),
		tcp("SYN_RECV", "2001:db8::30", 2012, h6, 1003, ""),
		tcp("FIN_WAIT", "192.0.2.31", 2020, h4, 1001, assured),
		tcp("ESTABLISHED", "192.0.2.32", 2021, h4, 1002, assured),
		tcp("CLOSE_WAIT", p4, 2022, h4, 1001, assured),
		tcp("CLOSE_WAIT", p6, 2023, h6, 1003, assured),
		tcp("CLOSE_WAIT", p4, 2024, h4, 1002, assured),
		tcp("LAST_ACK", "192.0.2.33", 2025, h4, 1001, assured),
		tcp("LAST_ACK", "192.0.2.34", 2026, h4, 1001, assured),
		conntrackLine("udp", "", h4, 5010, p4, 53, assured),
		conntrackLine("udp", "", h6, 5011, p6, 53, assured),
		conntrackLine("udp", "", h4, 5012, p4, 53, assured),
	}
	slices.Sort(want)
	for _, r := range []Result{{Done: len(want)}, {Exists: len(want)}} {
		if got, err := table.Seed(context.Background(), decideBy(t, table)); err != nil || got != r {
			t.Errorf("%+v, %v; want %+v", got, err, r)
		}
		got := conntrackLines(t, n.host)
		if !slices.Equal(got, want) {
			t.Errorf("entries:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestWhoIsNotSeeded(t *testing.T) {
	n := newNeighbours(t)
	table := openTable(t, n.host)
	host, peer := newSocketMaker(t, n.host), newSocketMaker(t, n.peer)
	if err := n.host.AddRoute(lab.Route{Dest: netip.MustParsePrefix("198.18.0.0/15"), Local: true}); err != nil {
		t.Fatal(err)
	}
	host.listen(tcp4, "0.0.0.0:1001")
	host.listen(tcp6, "[::]:1002")
	for i, at := range []string{"127.0.0.1:1001", "192.0.2.10:1001", "198.18.7.7:1001"} {
		host.connect(tcp4, fmt.Sprintf("0.0.0.0:%d", 3000+i), at)
	}
	host.connect(tcp6, "[::]:3010", "[::1]:1002")
	host.connect(tcp6, "[::]:3011", "[2001:db8::10]:1002")
	host.connect(tcp6, "[::]:3012", "[::ffff:192.0.2.10]:1002")
	host.connect(udp4, "0.0.0.0:3020", "192.0.2.10:53")
	peer.connect(tcp4, "192.0.2.20:2001", "192.0.2.10:1001")
	peer.connect(tcp4, "192.0.2.20:2002", "192.0.2.10:1001")
	var asked []string
	got, err := table.Seed(context.Background(), func(s *Socket) (flow.Direction, bool) {
		asked = append(asked, s.Remote.String())
		return flow.Ingress, s.Remote.Port() == 2002
	})
	slices.Sort(asked)
	if err != nil || got != (Result{Done: 1}) {
		t.Errorf("%+v, %v", got, err)
	}
	if want := []string{"192.0.2.20:2001", "192.0.2.20:2002"}; !slices.Equal(asked, want) {
		t.Errorf("asked about %v, want %v", asked, want)
	}
	if left := read(t, table); len(left) != 1 || left[0].Original.SourcePort != 2002 {
		t.Errorf("%v", left)
	}
}

func TestSeedingEndsWithTheContext(t *testing.T) {
	n := newNeighbours(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := openTable(t, n.host).Seed(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
