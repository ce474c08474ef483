package conntrack

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/policies"
)

// judgeOf makes a judge of the policy for the namespace as it is now.
func judgeOf(t testing.TB, table *Table, p *policies.Policy) *Judge {
	t.Helper()
	routes, err := table.Routes()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := routes.Close(); err != nil {
			t.Error(err)
		}
	})
	return NewJudge(policies.NewJudge(p), routes)
}

// entryOf is the entry of a seed, without the kernel.
func entryOf(s seed) *Entry {
	return &Entry{Original: s.original, Reply: s.reply, Status: s.status, TCPState: s.tcp, Remaining: time.Duration(s.seconds) * time.Second}
}

// legText writes what a test wants to know of the legs.
func legText(j *Judged) string {
	var legs []string
	for i := range j.Legs {
		l := &j.Legs[i]
		p := &l.Packet
		text := fmt.Sprintf("%s %s %s %s", p.Interface, p.Direction, p.Source, p.Dest)
		if p.Protocol.HasPorts() {
			text = fmt.Sprintf("%s %s %s %s", p.Interface, p.Direction, netip.AddrPortFrom(p.Source, p.SourcePort), netip.AddrPortFrom(p.Dest, p.DestPort))
		}
		if p.Forwarded {
			text += " forwarded"
		}
		rule := "none"
		if l.Rule != nil {
			rule = l.Rule.ID
		}
		legs = append(legs, fmt.Sprintf("%s: %s by %s", text, l.Class(), rule))
	}
	return strings.Join(legs, "; ")
}

// bothPolicy governs both interfaces of hostNamespace.
const bothPolicy = webPolicy + `
security_group "inside" {
  ingress "any" {
    protocol         = "-1"
    cidr_blocks      = ["172.17.0.0/16"]
    ipv6_cidr_blocks = ["fd00:17::/64"]
  }
  egress "published" {
    protocol    = "tcp"
    ports       = [80]
    cidr_blocks = ["172.17.0.2/32"]
  }
}

interface "br*" {
  security_groups = [security_group.inside]
}

host {
  dns_resolvers = ["203.0.113.53"]
}
`

func icmpSeed(s seed, icmpType uint8) seed {
	s.original.ICMPType = icmpType
	return s
}

func TestWhereAFlowCrosses(t *testing.T) {
	host := hostNamespace(t)
	for _, r := range []lab.Route{
		{Dest: netip.MustParsePrefix("198.18.0.0/24"), Local: true},
		{Dest: netip.MustParsePrefix("10.99.0.0/16"), Via: netip.MustParseAddr("172.17.0.2"), Interface: "br0"},
	} {
		if err := host.AddRoute(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := host.AddAddress("lo", netip.MustParsePrefix("192.0.2.200/32")); err != nil {
		t.Fatal(err)
	}
	judge := judgeOf(t, openTable(t, host), load(t, bothPolicy))
	for _, tc := range []struct {
		name string
		seed seed
		want string
	}{
		{"a client of the host", tcpSeed("198.51.100.7:1000", "192.0.2.10:443"),
			"eth0 ingress 198.51.100.7:1000 192.0.2.10:443: open by https"},
		{"a client on the host's own network", tcpSeed("192.0.2.77:1000", "192.0.2.10:443"),
			"eth0 ingress 192.0.2.77:1000 192.0.2.10:443: open by https"},
		{"a client of the host over IPv6", tcpSeed("[2001:db8:1::7]:1000", "[2001:db8::10]:80"),
			"eth0 ingress [2001:db8:1::7]:1000 [2001:db8::10]:80: open by https"},
		{"a client that no rule allows any more", tcpSeed("198.51.100.7:1000", "192.0.2.10:22"),
			"eth0 ingress 198.51.100.7:1000 192.0.2.10:22: tracked by none"},
		{"a client that a rule allows", tcpSeed("203.0.113.7:1000", "192.0.2.10:22"),
			"eth0 ingress 203.0.113.7:1000 192.0.2.10:22: tracked by ssh"},
		{"the host as a client", tcpSeed("192.0.2.10:1000", "198.51.100.7:25"),
			"eth0 egress 192.0.2.10:1000 198.51.100.7:25: tracked by any"},
		{"the host asks its resolver", udpSeed("192.0.2.10:1000", "203.0.113.53:53"),
			"eth0 egress 192.0.2.10:1000 203.0.113.53:53: exempt by none"},
		{"a ping of the host", pingSeed("198.51.100.7", "192.0.2.10", 1),
			"eth0 ingress 198.51.100.7 192.0.2.10: tracked by ping"},
		{"a ping by the host", pingSeed("192.0.2.10", "198.51.100.7", 1),
			"eth0 egress 192.0.2.10 198.51.100.7: tracked by any"},
		{"another protocol", otherSeed("172.17.0.2", "172.17.0.1", 50),
			"br0 ingress 172.17.0.2 172.17.0.1: tracked by any"},
		{"GRE has keys and no ports", func() seed { s := tcpSeed("172.17.0.2:99", "172.17.0.1:99"); s.original.Protocol = 47; return s }(),
			"br0 ingress 172.17.0.2 172.17.0.1: tracked by any"},

		{"the host talks to itself", tcpSeed("192.0.2.10:1000", "192.0.2.10:80"), ""},
		{"the host talks to itself between two of its addresses", tcpSeed("192.0.2.10:1000", "172.17.0.1:80"), ""},
		{"the loopback", tcpSeed("127.0.0.1:1000", "127.0.0.53:53"), ""},
		{"the loopback over IPv6", tcpSeed("[::1]:1000", "[::1]:53"), ""},
		{"somebody without an address", udpSeed("0.0.0.0:68", "255.255.255.255:67"), ""},

		{"an address on the loopback is reached by the route to the peer", tcpSeed("198.51.100.7:1000", "192.0.2.200:443"),
			"eth0 ingress 198.51.100.7:1000 192.0.2.200:443: open by https"},
		{"the same from inside", tcpSeed("10.99.1.1:1000", "192.0.2.200:443"),
			"br0 ingress 10.99.1.1:1000 192.0.2.200:443: tracked by none"},
		{"an address that only the routing table calls the host's", tcpSeed("198.51.100.7:1000", "198.18.0.5:443"),
			"eth0 ingress 198.51.100.7:1000 198.18.0.5:443: open by https"},
		{"the host as a client, from such an address", tcpSeed("198.18.0.5:1000", "198.51.100.7:25"),
			"eth0 egress 198.18.0.5:1000 198.51.100.7:25: tracked by any"},
		{"a neighbour inside asks for the address outside", tcpSeed("172.17.0.2:1000", "192.0.2.10:443"),
			"br0 ingress 172.17.0.2:1000 192.0.2.10:443: tracked by any"},
		{"multicast that the host hears", udpSeed("192.0.2.77:5353", "224.0.0.251:5353"),
			"eth0 ingress 192.0.2.77:5353 224.0.0.251:5353: tracked by none"},
		{"multicast that the host sends", udpSeed("192.0.2.10:5353", "224.0.0.251:5353"),
			"eth0 egress 192.0.2.10:5353 224.0.0.251:5353: tracked by any"},
		{"a broadcast that the host sends", udpSeed("192.0.2.10:137", "192.0.2.255:137"),
			"eth0 egress 192.0.2.10:137 192.0.2.255:137: tracked by any"},
		{"a broadcast to everybody that the host hears", udpSeed("192.0.2.77:137", "255.255.255.255:137"),
			"eth0 ingress 192.0.2.77:137 255.255.255.255:137: tracked by none"},
		{"multicast of IPv6 that the host hears", udpSeed("[fd00:17::2]:5353", "[ff02::fb]:5353"),
			"br0 ingress [fd00:17::2]:5353 [ff02::fb]:5353: tracked by any"},
		{"a broadcast that the host hears", udpSeed("192.0.2.77:137", "192.0.2.255:137"),
			"eth0 ingress 192.0.2.77:137 192.0.2.255:137: tracked by none"},

		{"a published port", natted("198.51.100.7:1000", "192.0.2.10:443", "172.17.0.2:80", "198.51.100.7:1000"),
			"eth0 ingress 198.51.100.7:1000 192.0.2.10:443 forwarded: open by https; br0 egress 198.51.100.7:1000 172.17.0.2:80 forwarded: tracked by published"},
		{"a port redirected to another of the host", natted("198.51.100.7:1000", "192.0.2.10:443", "192.0.2.10:8443", "198.51.100.7:1000"),
			"eth0 ingress 198.51.100.7:1000 192.0.2.10:443: open by https"},
		{"a masqueraded client inside", natted("172.17.0.2:2000", "198.51.100.7:25", "198.51.100.7:25", "192.0.2.10:40000"),
			"br0 ingress 172.17.0.2:2000 198.51.100.7:25 forwarded: tracked by any; eth0 egress 192.0.2.10:40000 198.51.100.7:25 forwarded: tracked by any"},
		{"a routed client inside", tcpSeed("10.99.1.1:2000", "198.51.100.7:25"),
			"br0 ingress 10.99.1.1:2000 198.51.100.7:25 forwarded: tracked by none; eth0 egress 10.99.1.1:2000 198.51.100.7:25 forwarded: tracked by any"},
		{"the host, redirected to the inside", natted("192.0.2.10:2000", "203.0.113.9:80", "172.17.0.2:80", "172.17.0.1:2000"),
			"br0 egress 172.17.0.1:2000 172.17.0.2:80: tracked by published"},
		{"hairpin: inside to inside by the address outside", natted("172.17.0.3:2000", "192.0.2.10:443", "172.17.0.2:80", "172.17.0.1:2000"),
			"br0 ingress 172.17.0.3:2000 192.0.2.10:443 forwarded: tracked by any; br0 egress 172.17.0.1:2000 172.17.0.2:80 forwarded: tracked by published"},
		{"an ICMP type that opens no flow", icmpSeed(pingSeed("198.51.100.7", "192.0.2.10", 1), 5),
			"eth0 ingress 198.51.100.7 192.0.2.10: tracked by none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var judged Judged
			for range 2 { // the second time from what is remembered
				if err := judge.Entry(entryOf(tc.seed), &judged); err != nil {
					t.Fatal(err)
				}
				if got := legText(&judged); got != tc.want {
					t.Errorf("%s\nwant %s", got, tc.want)
				}
			}
		})
	}
}

// Where nothing leads to the peer, nobody knows the interface.
func TestAFlowToNowhere(t *testing.T) {
	ns := labtest.Namespace(t, "host")
	if err := ns.AddAddress("lo", netip.MustParsePrefix("192.0.2.200/32")); err != nil {
		t.Fatal(err)
	}
	judge := judgeOf(t, openTable(t, ns), load(t, strings.Replace(webPolicy, `"eth0"`, `"*"`, 1)))
	for _, s := range []seed{
		tcpSeed("198.51.100.7:1000", "192.0.2.200:443"), tcpSeed("198.51.100.7:1000", "203.0.113.9:443"),
		tcpSeed("[2001:db8::1]:1000", "[2001:db8::2]:443"),
	} {
		var judged Judged
		if err := judge.Entry(entryOf(s), &judged); err != nil || len(judged.Legs) != 0 || judged.Class() != ClassElsewhere {
			t.Errorf("%s: %s, %v", &s.original, legText(&judged), err)
		}
	}
}

func TestPrefixes(t *testing.T) {
	var p prefixes[string]
	for _, text := range []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "0.0.0.0/0", "fd00::/8", "10.1.0.0/24"} {
		p.set(netip.MustParsePrefix(text), func(old string, known bool) string {
			if known {
				t.Errorf("%s is known already", text)
			}
			return text
		})
	}
	p.set(netip.MustParsePrefix("10.1.9.9/16"), func(old string, known bool) string {
		if !known || old != "10.1.0.0/16" {
			t.Errorf("10.1.0.0/16 was %q", old)
		}
		return "again"
	})
	for a, want := range map[string]string{
		"10.1.1.1": "10.1.1.1/32", "10.1.1.2": "again", "10.1.0.2": "10.1.0.0/24", "10.2.0.1": "10.0.0.0/8", "11.0.0.1": "0.0.0.0/0",
		"fd01::1": "fd00::/8", "fe80::1": "",
	} {
		if got, ok := p.longest(netip.MustParseAddr(a)); got != want || ok != (want != "") {
			t.Errorf("%s: %q, want %q", a, got, want)
		}
	}
}

func TestClassesAreThoseOfTheLegs(t *testing.T) {
	host := hostNamespace(t)
	judge := judgeOf(t, openTable(t, host), load(t, bothPolicy))
	for _, tc := range []struct {
		seed    seed
		class   Class
		revoked bool
	}{
		{tcpSeed("127.0.0.1:1", "127.0.0.1:2"), ClassElsewhere, false},
		{udpSeed("192.0.2.10:1000", "203.0.113.53:53"), ClassExempt, false},
		{tcpSeed("203.0.113.7:1000", "192.0.2.10:22"), ClassTracked, false},
		{tcpSeed("198.51.100.7:1000", "192.0.2.10:22"), ClassTracked, true},
		{tcpSeed("198.51.100.7:1000", "192.0.2.10:443"), ClassOpen, false},
		{natted("198.51.100.7:1000", "192.0.2.10:443", "172.17.0.2:80", "198.51.100.7:1000"), ClassOpen, false},
		{natted("198.51.100.7:1000", "192.0.2.10:443", "172.17.0.2:81", "198.51.100.7:1000"), ClassOpen, true},
	} {
		var judged Judged
		if err := judge.Entry(entryOf(tc.seed), &judged); err != nil {
			t.Fatal(err)
		}
		if judged.Class() != tc.class || judged.Revoked() != tc.revoked {
			t.Errorf("%s: %s, revoked %t; want %s, %t", &tc.seed.original, judged.Class(), judged.Revoked(), tc.class, tc.revoked)
		}
	}
}

// An ACL refuses packets, but revokes no flow (2.4).
func TestAnACLRevokesNothing(t *testing.T) {
	p := load(t, strings.Replace(webPolicy, `security_groups = [security_group.web]`,
		"security_groups = [security_group.web]\n  network_acl = network_acl.deny", 1)+`
network_acl "deny" {
  ingress {
    rule_no    = 10
    action     = "deny"
    protocol   = "-1"
    cidr_block = "0.0.0.0/0"
  }
}
`)
	judge := judgeOf(t, openTable(t, hostNamespace(t)), p)
	var judged Judged
	if err := judge.Entry(entryOf(tcpSeed("203.0.113.7:1000", "192.0.2.10:22")), &judged); err != nil {
		t.Fatal(err)
	}
	if judged.Revoked() || !judged.Legs[0].Denied || judged.Legs[0].Rule == nil {
		t.Errorf("%+v", judged.Legs[0])
	}
}

// The kernel makes the entries itself here, with NAT of its own.
func TestRealFlowsThroughNAT(t *testing.T) {
	labtest.Command(t, "nft")
	host, outside, inside := labtest.Namespace(t, "host"), labtest.Namespace(t, "outside"), labtest.Namespace(t, "inside")
	end := func(ns *lab.Namespace, name string, addresses ...string) lab.End {
		e := lab.End{Namespace: ns, Interface: name}
		for _, a := range addresses {
			e.Addresses = append(e.Addresses, netip.MustParsePrefix(a))
		}
		return e
	}
	labtest.Connect(t, end(host, "eth0", "192.0.2.10/24", "2001:db8::10/64"), end(outside, "wire", "192.0.2.1/24", "2001:db8::1/64"))
	labtest.Connect(t, end(host, "br0", "172.17.0.1/16", "fd00:17::1/64"), end(inside, "wire", "172.17.0.2/16", "fd00:17::2/64"))
	if err := host.Forward(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []lab.Route{
		{Dest: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.17.0.1"), Interface: "wire"},
		{Dest: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd00:17::1"), Interface: "wire"},
	} {
		if err := inside.AddRoute(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := host.Do(func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(`table inet nat {
	chain pre { type nat hook prerouting priority -100; iifname eth0 tcp dport 443 dnat ip to 172.17.0.2:80; iifname eth0 tcp dport 443 dnat ip6 to [fd00:17::2]:80; }
	chain post { type nat hook postrouting priority 100; oifname eth0 masquerade; }
}`)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	listen(t, inside, "tcp", ":80")
	listen(t, outside, "tcp", ":25")
	listen(t, host, "tcp", ":22")
	for _, c := range []struct {
		from *lab.Namespace
		to   string
	}{
		{outside, "192.0.2.10:443"}, {outside, "[2001:db8::10]:443"},
		{inside, "192.0.2.1:25"}, {inside, "[2001:db8::1]:25"},
		{host, "192.0.2.1:25"}, {outside, "192.0.2.10:22"}, {host, "127.0.0.1:22"},
	} {
		connect(t, c.from, c.to)
	}
	table := openTable(t, host)
	judge := judgeOf(t, table, load(t, strings.Replace(bothPolicy, `cidr_blocks = ["172.17.0.2/32"]`, `cidr_blocks = ["172.17.0.2/32"]
    ipv6_cidr_blocks = ["fd00:17::2/128"]`, 1)))
	var got []string
	if err := table.Select(context.Background(), judge, &Filter{}, func(e *Entry, j *Judged) error {
		if e.Original.Protocol == flow.TCP {
			got = append(got, anonymous(legText(j)))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	want := []string{
		"br0 ingress 172.17.0.2:* 192.0.2.1:25 forwarded: tracked by any; eth0 egress 192.0.2.10:* 192.0.2.1:25 forwarded: tracked by any",
		"br0 ingress [fd00:17::2]:* [2001:db8::1]:25 forwarded: tracked by any; eth0 egress [2001:db8::10]:* [2001:db8::1]:25 forwarded: tracked by any",
		"eth0 egress 192.0.2.10:* 192.0.2.1:25: tracked by any",
		"eth0 ingress 192.0.2.1:* 192.0.2.10:22: tracked by none",
		"eth0 ingress 192.0.2.1:* 192.0.2.10:443 forwarded: open by https; br0 egress 192.0.2.1:* 172.17.0.2:80 forwarded: tracked by published",
		"eth0 ingress [2001:db8::1]:* [2001:db8::10]:443 forwarded: open by https; br0 egress [2001:db8::1]:* [fd00:17::2]:80 forwarded: tracked by published",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// anonymous replaces the clients' ports, which the kernel chose.
func anonymous(text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		if a, err := netip.ParseAddrPort(strings.TrimSuffix(w, ":")); err == nil && a.Port() > 1024 {
			words[i] = strings.TrimSuffix(w, fmt.Sprint(a.Port())) + "*"
		}
	}
	return strings.Join(words, " ")
}

// listen accepts connections in a namespace until the test ends.
func listen(t *testing.T, ns *lab.Namespace, network, address string) {
	t.Helper()
	var l net.Listener
	if err := ns.Do(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go io.Copy(io.Discard, c)
		}
	}()
}

// connect makes a connection that lasts until the test ends.
func connect(t *testing.T, ns *lab.Namespace, to string) net.Conn {
	t.Helper()
	var c net.Conn
	if err := ns.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", to, 30*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
