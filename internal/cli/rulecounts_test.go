package cli

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// countedPolicy has a tracked rule and an open one, in both families.
const countedPolicy = `
security_group "web" {
  ingress "ssh" {
    protocol         = "tcp"
    ports            = [22]
    cidr_blocks      = ["192.0.2.0/24"]
    ipv6_cidr_blocks = ["2001:db8::/64"]
  }
  ingress "http" {
    protocol         = "tcp"
    ports            = [80]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "any" {
    protocol         = "tcp"
    ports            = ["0-65535"]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}

interface "eth0" {
  security_groups = [security_group.web]
}
`

// ruleCounts returns what status --rules counted, by address.
func (s *stage) ruleCounts() map[string]uint64 {
	s.t.Helper()
	var v struct{ Rules []ruleCount }
	if err := json.Unmarshal([]byte(s.mustRun("status", "--rules", "--json").out), &v); err != nil {
		s.t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, r := range v.Rules {
		if r.Packets == nil || r.Bytes == nil || (*r.Packets == 0) != (*r.Bytes == 0) {
			s.t.Fatalf("%v: %v packets, %v bytes", r.Addresses, r.Packets, r.Bytes)
		}
		counts[strings.TrimPrefix(strings.Join(r.Addresses, " "), "security_group.web.")] = *r.Packets
	}
	return counts
}

// Of a tracked flow the packet that opens it is counted, of an open one every
// packet, in both directions; both families add up.
func TestRulesCountWhatTheyLetThrough(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", countedPolicy)
	client := labtest.Namespace(t, "client")
	at := func(addresses ...string) []netip.Prefix {
		var out []netip.Prefix
		for _, a := range addresses {
			out = append(out, netip.MustParsePrefix(a))
		}
		return out
	}
	labtest.Connect(t,
		lab.End{Namespace: s.ns, Interface: "eth0", Addresses: at("192.0.2.10/24", "2001:db8::10/64")},
		lab.End{Namespace: client, Interface: "wire", Addresses: at("192.0.2.20/24", "2001:db8::20/64")})
	s.mustRun("apply", "--auto-approve", s.dir)
	talk := func(host string, port uint16, times int) {
		t.Helper()
		to := netip.AddrPortFrom(netip.MustParseAddr(host), port)
		l, err := s.ns.ListenTCP(to)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go lab.Echo(l)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		c, err := client.DialTCP(ctx, netip.AddrPort{}, to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range times {
			if err := lab.RoundTrip(net.Conn(c), []byte("hello"), 30*time.Second); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := s.ruleCounts(); len(got) != 3 || got["ingress.ssh"]+got["ingress.http"]+got["egress.any"] != 0 {
		t.Fatalf("before any packet: %v", got)
	}
	talk("192.0.2.10", 22, 10)
	if got := s.ruleCounts(); got["ingress.ssh"] != 1 || got["ingress.http"] != 0 || got["egress.any"] != 0 {
		t.Errorf("after a tracked flow: %v", got)
	}
	talk("2001:db8::10", 22, 10)
	if got := s.ruleCounts(); got["ingress.ssh"] != 2 || got["ingress.http"] != 0 || got["egress.any"] != 0 {
		t.Errorf("after a tracked flow of each family: %v", got)
	}
	talk("192.0.2.10", 80, 10)
	first := s.ruleCounts()
	if first["ingress.ssh"] != 2 || first["ingress.http"] < 12 || first["egress.any"] < 11 {
		t.Errorf("after an open flow: %v", first)
	}
	talk("2001:db8::10", 80, 10)
	if got := s.ruleCounts(); got["ingress.http"] < first["ingress.http"]+12 || got["egress.any"] < first["egress.any"]+11 {
		t.Errorf("after an open flow of each family: %v, before %v", got, first)
	}
}
