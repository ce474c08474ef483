package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/internal/nflog"
)

// logging has a group and an ACL on eth0, a wildcard that logs elsewhere, and
// an interface that does not log.
const logging = `
security_group "web" {
  ingress {
    protocol         = "tcp"
    ports            = [22]
    cidr_blocks      = ["203.0.113.0/24"]
    ipv6_cidr_blocks = ["2001:db8:78::/48"]
  }
  ingress {
    protocol         = "tcp"
    ports            = [80]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress {
    protocol         = "udp"
    ports            = [53]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
network_acl "edge" {
  ingress {
    rule_no    = 10
    action     = "deny"
    protocol   = "-1"
    cidr_block = "198.51.100.66/32"
  }
  ingress {
    rule_no         = 20
    action          = "deny"
    protocol        = "-1"
    ipv6_cidr_block = "2001:db8:66::/48"
  }
  ingress {
    rule_no    = 100
    action     = "allow"
    protocol   = "-1"
    cidr_block = "0.0.0.0/0"
  }
  ingress {
    rule_no         = 110
    action          = "allow"
    protocol        = "-1"
    ipv6_cidr_block = "::/0"
  }
  egress {
    rule_no    = 10
    action     = "deny"
    protocol   = "udp"
    from_port  = 53
    to_port    = 53
    cidr_block = "198.51.100.66/32"
  }
  egress {
    rule_no    = 100
    action     = "allow"
    protocol   = "-1"
    cidr_block = "0.0.0.0/0"
  }
  egress {
    rule_no         = 110
    action          = "allow"
    protocol        = "-1"
    ipv6_cidr_block = "2001:db8:77::/48"
  }
}
interface "eth0" {
  security_groups = ["web"]
  network_acl     = "edge"
  log_denied {
    rate  = "10000/second"
    burst = 10000
    group = 5
  }
}
interface "wan*" {
  security_groups = ["web"]
  log_denied {
    rate  = "10000/second"
    burst = 10000
    group = 6
  }
}
interface "eth1" { security_groups = ["web"] }
`

// listen reads nflog groups of the namespace until the test ends.
func listen(t testing.TB, ns *lab.Namespace, set ...func(*nflog.Config)) *nflog.Conn {
	t.Helper()
	c := nflog.Config{NetNS: ns.FD(), Groups: []uint16{5, 6}}
	for _, s := range set {
		s(&c)
	}
	conn, err := nflog.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// finish returns what was logged and not received yet.
func finish(t testing.TB, conn *nflog.Conn) []nflog.Packet {
	t.Helper()
	copies, err := conn.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return meaning(t, conn, copies)
}

func meaning(t testing.TB, conn *nflog.Conn, copies []nflog.Copy) []nflog.Packet {
	t.Helper()
	var packets []nflog.Packet
	for _, c := range copies {
		p, err := conn.Packet(c)
		if err != nil {
			t.Fatalf("%q: %v", c.Prefix, err)
		}
		packets = append(packets, p)
	}
	return packets
}

// loggedOf returns what was logged of a packet: all that comes before a last
// one that is logged always, and after that until the packet itself came, if
// it is to come. What the host answers is left out.
func loggedOf(t testing.TB, s *lab.Stand, conn *nflog.Conn, sent flow.Packet, comes bool) []nflog.Packet {
	t.Helper()
	end := packet("eth0", flow.Ingress, flow.UDP, "198.51.100.250", ports(65535, 65535))
	cross(t, s, end, lab.Envelope{})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var got []nflog.Packet
	for ended := false; !ended || comes && len(got) == 0; {
		copies, err := conn.Receive(ctx)
		if err != nil && !ended {
			t.Fatalf("%v: the packet after it was not logged: %v", &sent, err)
		} else if err != nil {
			break
		}
		for _, p := range meaning(t, conn, copies) {
			if p.Packet == end {
				ended = true
			} else {
				got = append(got, p)
			}
		}
	}
	got = append(got, finish(t, conn)...)
	return slices.DeleteFunc(got, func(p nflog.Packet) bool {
		return p.Direction != sent.Direction && p.Source == sent.Dest
	})
}

// cross sends a packet across an interface of the stand, in its direction.
func cross(t testing.TB, s *lab.Stand, p flow.Packet, e lab.Envelope) []byte {
	t.Helper()
	if err := s.Possible(&p); err != nil {
		t.Fatal(err)
	}
	b, err := lab.Marshal(&p, e)
	if err != nil {
		t.Fatal(err)
	}
	if p.Direction == flow.Ingress {
		if err := s.Wire(p.Interface).Send(b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	sender, err := s.Host.OpenSender(p.Interface, 0)
	if err != nil {
		t.Fatal(err)
	}
	// A packet of the host that its own rules drop is EPERM.
	if err := errors.Join(sender.Send(b), sender.Close()); err != nil && !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	return b
}

func icmpCode(icmpType, code uint8) func(*flow.Packet) {
	return func(p *flow.Packet) { p.ICMPType, p.ICMPCode = icmpType, code }
}

func TestRefusedPacketsAreLoggedOnce(t *testing.T) {
	t.Parallel()
	s := labtest.Stand(t, standLocal, "eth0", "wan3", "eth1")
	enforce(t, s.Host, load(t, logging))
	const in, out = flow.Ingress, flow.Egress
	for _, tt := range []struct {
		about  string
		packet flow.Packet
		// by is who refuses it; "" is a packet that is not logged.
		by    nflog.Refuser
		group uint16
	}{
		{"closed port", packet("eth0", in, flow.TCP, "198.51.100.7", ports(51344, 22)), nflog.ByGroups, 5},
		{"closed port", packet("eth0", in, flow.TCP, "2001:db8:77::7", ports(51344, 22)), nflog.ByGroups, 5},
		{"closed protocol", packet("eth0", in, flow.UDP, "198.51.100.7", ports(5353, 9999)), nflog.ByGroups, 5},
		{"closed protocol", packet("eth0", in, flow.UDP, "2001:db8:77::7", ports(5353, 9999)), nflog.ByGroups, 5},
		{"ping", packet("eth0", in, flow.ICMP, "198.51.100.7", icmpCode(8, 0)), nflog.ByGroups, 5},
		{"ping", packet("eth0", in, flow.ICMPv6, "2001:db8:77::7", icmpCode(128, 0)), nflog.ByGroups, 5},
		{"a type that conntrack does not know", packet("eth0", in, flow.ICMP, "198.51.100.7", icmpCode(42, 3)), nflog.ByGroups, 5},
		{"another protocol", packet("eth0", in, 47, "198.51.100.7"), nflog.ByGroups, 5},
		{"another protocol", packet("eth0", in, 253, "2001:db8:77::7"), nflog.ByGroups, 5},
		{"a reset of nothing", packet("eth0", in, flow.TCP, "203.0.113.9", ports(51344, 2222), func(p *flow.Packet) { p.TCPFlags = flow.RST | flow.ACK }), nflog.ByGroups, 5},
		{"out to a closed port", packet("eth0", out, flow.TCP, "198.51.100.7", ports(40000, 443)), nflog.ByGroups, 5},
		{"out to a closed port", packet("eth0", out, flow.TCP, "2001:db8:77::7", ports(40000, 443)), nflog.ByGroups, 5},
		{"out by another protocol", packet("eth0", out, 47, "198.51.100.7"), nflog.ByGroups, 5},
		{"ping out", packet("eth0", out, flow.ICMP, "198.51.100.7", icmpCode(8, 0)), nflog.ByGroups, 5},
		{"ping out", packet("eth0", out, flow.ICMPv6, "2001:db8:77::7", icmpCode(128, 0)), nflog.ByGroups, 5},

		{"denied by the ACL", packet("eth0", in, flow.TCP, "198.51.100.66", ports(51344, 80)), nflog.ByACL, 5},
		{"denied by the ACL", packet("eth0", in, flow.TCP, "2001:db8:66::6", ports(51344, 80)), nflog.ByACL, 5},
		{"denied by both", packet("eth0", in, flow.UDP, "198.51.100.66", ports(5353, 9999)), nflog.ByACL, 5},
		{"out, denied by the ACL", packet("eth0", out, flow.UDP, "198.51.100.66", ports(40000, 53)), nflog.ByACL, 5},
		{"out, denied by the ACL's end", packet("eth0", out, flow.UDP, "2001:db8:99::9", ports(40000, 53)), nflog.ByACL, 5},

		{"a wildcard's interface", packet("wan3", in, flow.TCP, "198.51.100.7", ports(51344, 22)), nflog.ByGroups, 6},
		{"a wildcard's interface", packet("wan3", out, flow.TCP, "2001:db8:77::7", ports(40000, 443)), nflog.ByGroups, 6},

		{"an interface without a log", packet("eth1", in, flow.TCP, "198.51.100.7", ports(51344, 22)), "", 0},
		{"an interface without a log", packet("eth1", out, flow.TCP, "2001:db8:77::7", ports(40000, 443)), "", 0},
		{"let in", packet("eth0", in, flow.TCP, "203.0.113.9", ports(51344, 22)), "", 0},
		{"let in", packet("eth0", in, flow.TCP, "2001:db8:77::7", ports(51344, 80)), "", 0},
		{"let out", packet("eth0", out, flow.UDP, "198.51.100.7", ports(40001, 53)), "", 0},
		{"let out", packet("wan3", out, flow.UDP, "2001:db8:77::7", ports(40001, 53)), "", 0},
		{"exempt", packet("eth0", in, flow.UDP, "169.254.169.253", ports(53, 40000)), "", 0},
		{"exempt from the ACL's end", packet("eth0", out, flow.TCP, "fd00:ec2::254", ports(40000, 80)), "", 0},
		{"neighbour discovery", packet("eth0", in, flow.ICMPv6, "fe80::5", icmp(135, 255)), "", 0},
	} {
		conn := listen(t, s.Host, func(c *nflog.Config) { c.AtOnce = true })
		before := time.Now()
		sent := cross(t, s, tt.packet, lab.Envelope{Payload: []byte("secret")})
		got := loggedOf(t, s, conn, tt.packet, tt.by != "")
		about := fmt.Sprintf("%s: %v", tt.about, &tt.packet)
		if tt.by == "" {
			for _, p := range got {
				t.Errorf("%s: logged as %v, refused by the %s", about, &p.Packet, p.By)
			}
			continue
		}
		if len(got) != 1 {
			t.Errorf("%s: logged %d times", about, len(got))
			continue
		}
		p := got[0]
		if p.By != tt.by || p.Group != tt.group {
			t.Errorf("%s: refused by the %s in group %d, want %s in %d", about, p.By, p.Group, tt.by, tt.group)
		}
		if want := tt.packet; p.Packet != want {
			t.Errorf("%s: logged as %v", about, &p.Packet)
		}
		if p.Length != len(sent) {
			t.Errorf("%s: length %d, want %d", about, p.Length, len(sent))
		}
		wantBlock, in, out := "eth0", "", ""
		if tt.group == 6 {
			wantBlock = "wan*"
		}
		if tt.packet.Direction == flow.Ingress {
			in = tt.packet.Interface
		} else {
			out = tt.packet.Interface
		}
		if p.Block != wantBlock || p.In != in || p.Out != out {
			t.Errorf("%s: block %q, in by %q, out by %q", about, p.Block, p.In, p.Out)
		}
		if p.Time.Before(before.Add(-time.Second)) || p.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("%s: logged at %s", about, p.Time)
		}
	}
}

// A forwarded packet that one interface lets in is refused by the other.
func TestRefusedForwardedPacketTellsBothInterfaces(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	enforce(t, s.host, load(t, `
security_group "in" {
  ingress {
    protocol         = "-1"
    cidr_blocks      = ["198.51.100.0/24"]
    ipv6_cidr_blocks = ["2001:db8:77::/48"]
  }
}
interface "eth0" {
  security_groups = ["in"]
  log_denied { group = 5 }
}
interface "eth1" {
  security_groups = ["in"]
  log_denied { group = 6 }
}
`))
	for _, f := range flow.Families {
		conn := listen(t, s.host)
		client, err := s.client.DialUDP(netip.AddrPortFrom(worldOf[f], 0), netip.AddrPortFrom(insideOf[f], 9))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		copies, err := conn.Receive(ctx)
		if err != nil || len(copies) != 1 {
			t.Fatalf("%s: %d packets, %v", f, len(copies), err)
		}
		got, err := conn.Packet(copies[0])
		if err != nil {
			t.Fatal(err)
		}
		want := flow.Packet{
			Interface: "eth1", Direction: flow.Egress, Protocol: flow.UDP, HopLimit: 63,
			Source: worldOf[f], Dest: insideOf[f], SourcePort: client.LocalAddr().(*net.UDPAddr).AddrPort().Port(), DestPort: 9,
		}
		if got.Packet != want || got.In != "eth0" || got.Out != "eth1" || got.By != nflog.ByGroups {
			t.Errorf("%s: got %v in by %q, out by %q; want %v", f, &got.Packet, got.In, got.Out, &want)
		}
		if rest := finish(t, conn); len(rest) > 0 {
			t.Errorf("%s: logged again: %v", f, &rest[0].Packet)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// closedPort is where a flood goes.
const closedPort = 9999

// flood sends packets to a closed port of the host.
func flood(t testing.TB, s *lab.Stand, packets int) {
	t.Helper()
	for i := range packets {
		p := packet("eth0", flow.Ingress, flow.UDP, "198.51.100.7", ports(uint16(1024+i%60000), closedPort))
		b, err := lab.Marshal(&p, lab.Envelope{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Wire("eth0").Send(b); err != nil {
			t.Fatal(err)
		}
	}
}

// countFlood returns a function that tells how many packets of a flood have come
// to the rules of the host: the kernel may lose some before, from a queue that all
// namespaces share.
func countFlood(t *testing.T, ns *lab.Namespace) (arrived func() int) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	first := nftables.ChainPriority(-400)
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "flood"})
	chain := conn.AddChain(&nftables.Chain{
		Name: "arrived", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: &first,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(flow.UDP)}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(closedPort)},
		&expr.Counter{},
	}})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return func() int {
		t.Helper()
		rules, err := conn.GetRules(table, chain)
		if err != nil || len(rules) != 1 {
			t.Fatalf("read the counter: %v, %d rules", err, len(rules))
		}
		exprs := rules[0].Exprs
		return int(exprs[len(exprs)-1].(*expr.Counter).Packets)
	}
}

func TestLimitBoundsTheLogAndNeverTheDrop(t *testing.T) {
	t.Parallel()
	const rate, burst, packets = 50, 20, 5000
	s := labtest.Stand(t, standLocal, "eth0")
	enforce(t, s.Host, load(t, fmt.Sprintf(`
security_group "dns" {
  ingress {
    protocol    = "udp"
    ports       = [53]
    cidr_blocks = ["198.51.100.0/24"]
  }
}
interface "eth0" {
  security_groups = ["dns"]
  log_denied {
    rate  = "%d/second"
    burst = %d
    group = 5
  }
}
`, rate, burst)))
	closed, err := s.Host.ListenUDP(netip.AddrPortFrom(hostOf[flow.IPv4], closedPort))
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	open, err := s.Host.ListenUDP(netip.AddrPortFrom(hostOf[flow.IPv4], 53))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	conn := listen(t, s.Host)

	begin := time.Now()
	flood(t, s, packets)
	b := make([]byte, 100)
	// After a flood, one packet may be lost on its way to the rules.
	if !eventually(func() bool {
		cross(t, s, packet("eth0", flow.Ingress, flow.UDP, "198.51.100.7", ports(1024, 53)), lab.Envelope{})
		if err := open.SetReadDeadline(time.Now().Add(impatience)); err != nil {
			t.Fatal(err)
		}
		_, _, err := open.ReadFromUDPAddrPort(b)
		return err == nil
	}) {
		t.Fatal("the packet after the flood, which is allowed, does not come")
	}
	if err := closed.SetReadDeadline(time.Now().Add(impatience)); err != nil {
		t.Fatal(err)
	}
	if _, from, err := closed.ReadFromUDPAddrPort(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a packet of the flood came through, from %s (%v)", from, err)
	}
	got := len(finish(t, conn))
	took := time.Since(begin) // until nothing was logged any more
	most := burst + int(rate*took.Seconds()) + 1
	if got < burst || got > most {
		t.Errorf("%d of %d packets in %s were logged, want %d to %d", got, packets, took, burst, most)
	}
}

// Packets that the reader has no room for are counted.
func TestLostPacketsAreCounted(t *testing.T) {
	t.Parallel()
	const packets = 3000
	s := labtest.Stand(t, standLocal, "eth0")
	enforce(t, s.Host, load(t, strings.ReplaceAll(logging, "10000", "1000000")))
	conn := listen(t, s.Host, func(c *nflog.Config) { c.Buffer, c.AtOnce = 64<<10, true })
	arrived := countFlood(t, s.Host)
	flood(t, s, packets)

	all, seen, missed, lost := arrived(), 0, 0, false
	// More may be lost later, and be told of by a later packet.
	for end := time.Now().Add(patience); missed == 0 || seen+missed < all; all = arrived() {
		ctx, cancel := context.WithTimeout(context.Background(), impatience)
		copies, err := conn.Receive(ctx)
		cancel()
		switch {
		case errors.Is(err, nflog.ErrLost):
			lost = true
		case errors.Is(err, context.DeadlineExceeded) && time.Now().Before(end):
			// All is read. The next packet tells how many are missing.
			flood(t, s, 1)
		case err != nil:
			t.Fatalf("after %d packets of %d, with %d missed: %v", seen, all, missed, err)
		}
		for _, c := range copies {
			seen, missed = seen+1, missed+int(c.Missed)
		}
	}
	if !lost || missed == 0 || seen+missed != all {
		t.Errorf("lost %t: %d seen and %d missed of %d", lost, seen, missed, all)
	}
}

func TestGroupHasOneReader(t *testing.T) {
	t.Parallel()
	ns := labtest.Namespace(t, "host")
	first := listen(t, ns)
	_, err := nflog.Open(nflog.Config{NetNS: ns.FD(), Groups: []uint16{4, 5}})
	if !errors.Is(err, nflog.ErrTaken) || !strings.Contains(err.Error(), "group 5") {
		t.Errorf("a second reader: %v", err)
	}
	// A namespace has groups of its own.
	listen(t, labtest.Namespace(t, "other"))
	if _, err := first.Finish(); err != nil {
		t.Fatal(err)
	}
	listen(t, ns)
}

func TestReadingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	conn := listen(t, labtest.Namespace(t, "host"))
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := conn.Receive(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := conn.Receive(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a second time: got %v", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := conn.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestReadingTakesARight(t *testing.T) {
	t.Parallel()
	ns := labtest.Namespace(t, "host")
	listen(t, ns)
	for _, group := range []uint16{5, 7} {
		// The thread ends with the call, and its lack of rights with it.
		err := ns.Do(func() error {
			if err := drop(unix.CAP_NET_ADMIN); err != nil {
				t.Error(err)
			}
			conn, err := nflog.Open(nflog.Config{Groups: []uint16{group}})
			if err == nil {
				t.Errorf("group %d can be read without a right to", group)
				return conn.Close()
			}
			return err
		})
		if !errors.Is(err, os.ErrPermission) || errors.Is(err, nflog.ErrTaken) {
			t.Errorf("group %d: %v", group, err)
		}
	}
}

// drop takes a capability from the calling thread.
func drop(capability int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << capability
	return unix.Capset(&header, &data[0])
}
