package kerneltest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/policies"
)

// How long a test waits for what ought to come, and for what ought not to.
const (
	patience   = 30 * time.Second
	impatience = 300 * time.Millisecond
)

// load loads a policy from its text.
func load(t testing.TB, text string) *policies.Policy {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadPath(t, path)
}

func loadPath(t testing.TB, path string) *policies.Policy {
	t.Helper()
	l := policies.Load(path, policies.Inputs{})
	if l.Policy == nil {
		var b strings.Builder
		if err := policies.WriteDiagnostics(&b, l, 80, false); err != nil {
			t.Fatal(err)
		}
		t.Fatal(b.String())
	}
	return l.Policy
}

// The addresses of a scene. The office and the world are both addresses of the
// client.
var (
	hostOf   = map[flow.Family]netip.Addr{flow.IPv4: addr("192.0.2.10"), flow.IPv6: addr("2001:db8:2::10")}
	worldOf  = map[flow.Family]netip.Addr{flow.IPv4: addr("198.51.100.7"), flow.IPv6: addr("2001:db8:77::7")}
	officeOf = map[flow.Family]netip.Addr{flow.IPv4: addr("203.0.113.1"), flow.IPv6: addr("2001:db8:78::1")}
	insideOf = map[flow.Family]netip.Addr{flow.IPv4: addr("10.9.0.2"), flow.IPv6: addr("2001:db8:9::2")}
)

// scene is a client, a host that a policy governs at eth0, and a machine behind
// the host's eth1, for which it is the router.
//
//	client wire ── eth0 host eth1 ── wire inside
type scene struct {
	client, host, inside *lab.Namespace
	witness              *lab.Witness
}

func newScene(t testing.TB) *scene {
	t.Helper()
	s := &scene{client: eager(t, "client"), host: eager(t, "host"), inside: eager(t, "inside")}
	labtest.Connect(t,
		lab.End{Namespace: s.host, Interface: "eth0", Addresses: prefixes("192.0.2.10/24", "2001:db8:2::10/64")},
		lab.End{Namespace: s.client, Interface: "wire", Addresses: prefixes("192.0.2.20/24", "2001:db8:2::20/64",
			"198.51.100.7/32", "2001:db8:77::7/128", "203.0.113.1/32", "2001:db8:78::1/128")})
	labtest.Connect(t,
		lab.End{Namespace: s.host, Interface: "eth1", Addresses: prefixes("10.9.0.1/24", "2001:db8:9::1/64")},
		lab.End{Namespace: s.inside, Interface: "wire", Addresses: prefixes("10.9.0.2/24", "2001:db8:9::2/64")})
	if err := s.host.Forward(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		ns             *lab.Namespace
		to, via, iface string
	}{
		{s.client, "10.9.0.0/24", "192.0.2.10", "wire"}, {s.client, "2001:db8:9::/64", "2001:db8:2::10", "wire"},
		{s.inside, "0.0.0.0/0", "10.9.0.1", "wire"}, {s.inside, "::/0", "2001:db8:9::1", "wire"},
		{s.host, "0.0.0.0/0", "192.0.2.20", "eth0"}, {s.host, "::/0", "2001:db8:2::20", "eth0"},
	} {
		if err := r.ns.AddRoute(lab.Route{Dest: prefix(r.to), Via: addr(r.via), Interface: r.iface}); err != nil {
			t.Fatal(err)
		}
	}
	s.witness = labtest.Witness(t, s.host)
	return s
}

// eager makes a namespace whose TCP goes on soon after it was refused.
func eager(t testing.TB, name string) *lab.Namespace {
	t.Helper()
	ns := labtest.Namespace(t, name)
	labtest.Eager(t, ns)
	return ns
}

// serve echoes on a TCP port of a namespace until the test ends.
func serve(t testing.TB, ns *lab.Namespace, at netip.Addr, port uint16) {
	t.Helper()
	l, err := ns.ListenTCP(netip.AddrPortFrom(at, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go lab.Echo(l)
}

// session is a TCP connection over which data went both ways.
type session struct {
	conn          net.Conn
	local, remote netip.AddrPort
}

// connect opens a TCP session and sends a good deal of data over it and back.
func connect(t testing.TB, from *lab.Namespace, local netip.Addr, remote netip.AddrPort) session {
	t.Helper()
	s, err := tryConnect(t, from, local, remote, patience)
	if err != nil {
		t.Fatal(err)
	}
	s.exchange(t)
	return s
}

func (s session) exchange(t testing.TB) {
	t.Helper()
	data := make([]byte, 300_000)
	for i := range data {
		data[i] = byte(i * 7)
	}
	if err := lab.RoundTrip(s.conn, data, patience); err != nil {
		t.Errorf("session %s → %s: %v", s.local, s.remote, err)
	}
}

// packet is a packet of the session as the host's eth0 sees it come in.
func (s session) packet() *flow.Packet {
	return &flow.Packet{
		Protocol: flow.TCP, Source: s.local.Addr(), Dest: s.remote.Addr(),
		SourcePort: s.local.Port(), DestPort: s.remote.Port(),
	}
}

func tryConnect(t testing.TB, from *lab.Namespace, local netip.Addr, remote netip.AddrPort, wait time.Duration) (session, error) {
	t.Helper()
	return tryConnectFrom(t, from, netip.AddrPortFrom(local, 0), remote, wait)
}

func tryConnectFrom(t testing.TB, from *lab.Namespace, local, remote netip.AddrPort, wait time.Duration) (session, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	c, err := from.DialTCP(ctx, local, remote)
	if err != nil {
		return session{}, err
	}
	t.Cleanup(func() { c.Close() })
	return session{c, c.LocalAddr().(*net.TCPAddr).AddrPort(), remote}, nil
}

// refused expects that no TCP session comes about, and that nobody says so on
// the wire.
func refused(t testing.TB, from *lab.Namespace, local netip.Addr, remote netip.AddrPort) {
	t.Helper()
	_, err := tryConnect(t, from, local, remote, impatience)
	var timeout net.Error
	if err == nil {
		t.Errorf("a session from %s to %s came about", local, remote)
	} else if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a session from %s to %s: got %v, want silence", local, remote, err)
	}
}

func ping(t testing.TB, from *lab.Namespace, source, dest netip.Addr, id uint16, wait time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	return from.Ping(ctx, lab.Ping{Source: source, Dest: dest, ID: id, Seq: 1})
}

// tracked reports whether the host's conntrack has an entry for the packet.
func (s *scene) tracked(t testing.TB, p *flow.Packet) bool {
	t.Helper()
	entries, err := s.witness.Entries()
	if err != nil {
		t.Fatal(err)
	}
	return lab.Tracks(entries, p)
}

func (s *scene) flush(t testing.TB) {
	t.Helper()
	if err := s.witness.Flush(); err != nil {
		t.Fatal(err)
	}
}
