package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sgc/internal/flow"
	"sgc/internal/nflog"
)

var logBegin = time.Date(2026, 11, 22, 4, 18, 28, 123456789, time.UTC)

// loggedPackets are of every kind, a second apart.
func loggedPackets() []nflog.Packet {
	client, host := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("192.0.2.10")
	client6, host6 := netip.MustParseAddr("2001:db8:77::7"), netip.MustParseAddr("2001:db8:2::10")
	quoted := flow.Packet{Protocol: flow.UDP, Source: host, Dest: client, SourcePort: 5353, DestPort: 53}
	in := func(p flow.Packet) nflog.Packet {
		p.Interface, p.HopLimit = "eth0", 64
		return nflog.Packet{Packet: p, Block: "eth0", In: "eth0", By: nflog.ByGroups, Group: 5, Length: 60, Transport: true}
	}
	packets := []nflog.Packet{
		in(flow.Packet{Protocol: flow.TCP, Source: client, Dest: host, SourcePort: 51344, DestPort: 22, TCPFlags: flow.SYN}),
		in(flow.Packet{Protocol: flow.UDP, Source: client6, Dest: host6, SourcePort: 5353, DestPort: 53}),
		in(flow.Packet{Protocol: flow.ICMP, Source: client, Dest: host, ICMPType: 3, ICMPCode: 4, Quoted: &quoted}),
		in(flow.Packet{Protocol: 47, Source: client, Dest: host}),
		in(flow.Packet{Protocol: flow.UDP, Source: client, Dest: host}),
		in(flow.Packet{Protocol: flow.TCP, Source: client, Dest: host}),
		in(flow.Packet{Protocol: flow.TCP, Source: client6, Dest: host6, SourcePort: 40000, DestPort: 443, TCPFlags: 0xff}),
	}
	packets[3].Transport = false
	packets[4].Transport, packets[4].Fragment = false, true
	packets[5].Transport = false
	out := &packets[6]
	out.Interface, out.Block, out.Out, out.Direction, out.By = "wan0", "wan*", "wan0", flow.Egress, nflog.ByACL
	for i := range packets {
		packets[i].Time = logBegin.Add(time.Duration(i) * time.Second)
	}
	return packets
}

func showLog(t *testing.T, v logView, packets []nflog.Packet) string {
	t.Helper()
	var b bytes.Buffer
	for i := range packets {
		if err := v.packet(&b, &packets[i], 0); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestLogLines(t *testing.T) {
	t.Parallel()
	want := `2026-11-22T04:18:28Z eth0 ingress tcp 198.51.100.7:51344 → 192.0.2.10:22 refused by the groups (S)
2026-11-22T04:18:29Z eth0 ingress udp [2001:db8:77::7]:5353 → [2001:db8:2::10]:53 refused by the groups
2026-11-22T04:18:30Z eth0 ingress icmp 198.51.100.7          → 192.0.2.10          refused by the groups (type 3 code 4, of udp 192.0.2.10:5353 → 198.51.100.7:53)
2026-11-22T04:18:31Z eth0 ingress gre  198.51.100.7          → 192.0.2.10          refused by the groups
2026-11-22T04:18:32Z eth0 ingress udp  198.51.100.7          → 192.0.2.10          refused by the groups (fragment)
2026-11-22T04:18:33Z eth0 ingress tcp  198.51.100.7          → 192.0.2.10          refused by the groups
2026-11-22T04:18:34Z wan0 egress  tcp  [2001:db8:77::7]:40000 → [2001:db8:2::10]:443 refused by the ACL (SFRP.UEW)
`
	got := showLog(t, newLogLines([]string{"eth0", "wan*"}), loggedPackets())
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// An interface's name comes from the kernel, where any process with the right
// to may set it.
func TestLogLinesDoNotMoveTheCursor(t *testing.T) {
	t.Parallel()
	p := loggedPackets()[0]
	p.Interface = "a\x1b[2Jb"
	if got := showLog(t, newLogLines(nil), []nflog.Packet{p}); strings.Contains(got, "\x1b") {
		t.Errorf("%q", got)
	}
}

func TestLogObjects(t *testing.T) {
	t.Parallel()
	packets := loggedPackets()
	var b bytes.Buffer
	if err := (logObjects{}).packet(&b, &packets[0], 12); err != nil {
		t.Fatal(err)
	}
	want := `{"format_version":1,"time":"2026-11-22T04:18:28.123456Z","interface":"eth0","block":"interface.eth0",` +
		`"direction":"ingress","refused_by":"groups","protocol":"tcp","source":"198.51.100.7","source_port":51344,` +
		`"destination":"192.0.2.10","destination_port":22,"hop_limit":64,"tcp_flags":"S","length":60,"in":"eth0","group":5,"missed":12}` + "\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	lines := strings.Split(strings.TrimSuffix(showLog(t, logObjects{}, packets), "\n"), "\n")
	if len(lines) != len(packets) {
		t.Fatalf("%d lines for %d packets", len(lines), len(packets))
	}
	for i, line := range lines {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		p := &packets[i]
		_, hasPort := v["destination_port"]
		_, hasType := v["icmp_type"]
		if hasPort != (p.Transport && p.Protocol.HasPorts()) || hasType != (p.Protocol == flow.ICMP) {
			t.Errorf("ports and types that are not known are not told: %s", line)
		}
	}
	if !strings.Contains(lines[2], `"quoted":{"protocol":"udp","source":"192.0.2.10","source_port":5353,"destination":"198.51.100.7","destination_port":53}`) {
		t.Errorf("no quoted packet: %s", lines[2])
	}
}

func TestFlowLogSumsUpByFlow(t *testing.T) {
	t.Parallel()
	l := newFlowLog([]string{"eth0", "wan*"}, time.Minute, logBegin)
	packets := loggedPackets()
	again := packets[0]
	again.Time, again.Length = logBegin.Add(20*time.Second), 1400
	var b bytes.Buffer
	b.WriteString(showLog(t, l, append(packets, again)))
	l.tick(&b, logBegin.Add(59*time.Second), false)
	if b.Len() > 0 {
		t.Errorf("before its time:\n%s", b.String())
	}
	start := logBegin.Unix()
	at := func(seconds int64) int64 { return start + seconds }

	l.tick(&b, logBegin.Add(time.Minute), false)
	want := fmt.Sprintf(`2 - eth0 198.51.100.7 192.0.2.10 51344 22 6 2 1460 %d %d REJECT OK
2 - eth0 2001:db8:77::7 2001:db8:2::10 5353 53 17 1 60 %d %d REJECT OK
2 - eth0 198.51.100.7 192.0.2.10 0 0 1 1 60 %d %d REJECT OK
2 - eth0 198.51.100.7 192.0.2.10 0 0 47 1 60 %d %d REJECT OK
2 - eth0 198.51.100.7 192.0.2.10 0 0 17 1 60 %d %d REJECT OK
2 - eth0 198.51.100.7 192.0.2.10 0 0 6 1 60 %d %d REJECT OK
2 - wan0 2001:db8:77::7 2001:db8:2::10 40000 443 6 1 60 %d %d REJECT OK
`, at(0), at(20), at(1), at(1), at(2), at(2), at(3), at(3), at(4), at(4), at(5), at(5), at(6), at(6))
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("the first interval (-want +got):\n%s", d)
	}

	// A quiet interval; then one in which packets were lost and one was not;
	// then the rest.
	b.Reset()
	l.tick(&b, logBegin.Add(2*time.Minute), false)
	l.lost()
	late := packets[0]
	late.Time = logBegin.Add(150 * time.Second)
	b.WriteString(showLog(t, l, []nflog.Packet{late}))
	l.tick(&b, logBegin.Add(3*time.Minute), false)
	l.tick(&b, logBegin.Add(190*time.Second), true)
	want = fmt.Sprintf(`2 - eth0 - - - - - - - %d %d - NODATA
2 - wan* - - - - - - - %d %d - NODATA
2 - eth0 198.51.100.7 192.0.2.10 51344 22 6 1 60 %d %d REJECT OK
2 - eth0 - - - - - - - %d %d - SKIPDATA
2 - wan* - - - - - - - %d %d - SKIPDATA
2 - eth0 - - - - - - - %d %d - NODATA
2 - wan* - - - - - - - %d %d - NODATA
`, at(60), at(120), at(60), at(120), at(150), at(150), at(120), at(180), at(120), at(180), at(180), at(190), at(180), at(190))
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("later intervals (-want +got):\n%s", d)
	}
}

func TestFlowLogWithoutAPolicyLearnsItsInterfaces(t *testing.T) {
	t.Parallel()
	l := newFlowLog(nil, time.Minute, logBegin)
	var b bytes.Buffer
	l.tick(&b, l.due(), false)
	b.WriteString(showLog(t, l, loggedPackets()[6:]))
	l.tick(&b, l.due(), false)
	l.tick(&b, l.due(), false)
	var got []string
	for line := range strings.Lines(b.String()) {
		words := strings.Fields(line)
		got = append(got, words[2]+" "+words[13])
	}
	if d := cmp.Diff([]string{"- NODATA", "wan0 OK", "wan* NODATA"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// A flood from forged addresses takes bounded memory, and no packet of it is
// left out of the sums.
func TestFlowLogIsBounded(t *testing.T) {
	t.Parallel()
	const packets = flowLogMost + 1000
	l := newFlowLog([]string{"eth0"}, time.Minute, logBegin)
	var b bytes.Buffer
	p := loggedPackets()[0]
	for i := range packets {
		p.Source = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if err := l.packet(&b, &p, 0); err != nil {
			t.Fatal(err)
		}
		if len(l.flows) > flowLogMost {
			t.Fatalf("%d flows", len(l.flows))
		}
	}
	l.tick(&b, l.due(), false)
	if got := strings.Count(b.String(), " REJECT OK\n"); got != packets {
		t.Errorf("%d records for %d flows", got, packets)
	}
}

// A machine that stood still does not make up for it.
func TestFlowLogDoesNotCatchUp(t *testing.T) {
	t.Parallel()
	l := newFlowLog([]string{"eth0"}, time.Minute, logBegin)
	var b bytes.Buffer
	late := logBegin.Add(time.Hour)
	l.tick(&b, late, false)
	l.tick(&b, late.Add(time.Second), false)
	if want := fmt.Sprintf("2 - eth0 - - - - - - - %d %d - NODATA\n", logBegin.Unix(), late.Unix()); b.String() != want {
		t.Errorf("got:\n%swant:\n%s", b.String(), want)
	}
}

func TestInterruptEndsLogWell(t *testing.T) {
	t.Parallel()
	for _, format := range []string{formatText, formatFlowLog} {
		stage := newStage(t, true)
		cmd := stage.child("log", "--group", "5", "--format", format)
		progress, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(progress)
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), "Reading nflog group 5") {
			t.Errorf("%s: it begins with %q", format, lines.Text())
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			t.Errorf("%s: it says %q", format, lines.Text())
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); errors.As(err, &exit) {
			t.Errorf("%s: %v", format, exit)
		} else if err != nil {
			t.Fatal(err)
		}
		if format == formatText && out.Len() > 0 {
			t.Errorf("%s: it prints %q", format, out.String())
		}
	}
}

// failingWriter is a full disk.
type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestLogEndsWhenNobodyTakesItsOutput(t *testing.T) {
	t.Parallel()
	stage := newStage(t, true)
	var errout bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	code := Run(ctx, []string{"sgc", "log", "--group=5", "--format=flowlog", "--interval=1s", "--netns=" + stage.ns.Path()},
		Streams{In: strings.NewReader(""), Out: failingWriter{}, Err: &errout})
	if code != exitError || !strings.Contains(errout.String(), "no space left on device") {
		t.Errorf("exit %d: %s", code, errout.String())
	}
}
