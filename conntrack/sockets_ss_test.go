package conntrack

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// ssAgrees compares what is listed with what ss lists, at a time at which no socket
// changes.
func ssAgrees(t *testing.T, ns *lab.Namespace, table *Table) {
	t.Helper()
	labtest.Command(t, "ss")
	list := func() []string {
		var lines []string
		for _, s := range readSockets(t, table) {
			lines = append(lines, ssLine(s))
		}
		slices.Sort(lines)
		return lines
	}
	ours, theirs := list(), ssLines(t, ns)
	for !slices.Equal(list(), ours) {
		ours, theirs = list(), ssLines(t, ns)
	}
	slices.Sort(theirs)
	if !slices.Equal(ours, theirs) {
		t.Errorf("ours:\n%s\ntheirs:\n%s", strings.Join(ours, "\n"), strings.Join(theirs, "\n"))
	}
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
