package kerneltest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// cloudPolicy is the example of the cloud's documentation on connection
// tracking: SSH from one address, HTTP and ICMP from everybody, and all egress
// of the given families.
func cloudPolicy(egress string) string {
	return fmt.Sprintf(`
security_group "web" {
  ingress "ssh" {
    protocol         = "tcp"
    ports            = [22]
    cidr_blocks      = ["203.0.113.1/32"]
    ipv6_cidr_blocks = ["2001:db8:78::1/128"]
  }
  ingress "http" {
    protocol         = "tcp"
    ports            = [80]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "ping" {
    protocol    = "icmp"
    from_port   = -1
    to_port     = -1
    cidr_blocks = ["0.0.0.0/0"]
  }
  ingress "ping6" {
    protocol         = "icmpv6"
    from_port        = -1
    to_port          = -1
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "any" {
    protocol = "-1"
    %s
  }
}

interface "eth0" {
  security_groups = [security_group.web]
}
`, egress)
}

const (
	egressBoth = `cidr_blocks = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]`
	egressIPv6 = `ipv6_cidr_blocks = ["::/0"]`
)

func TestCloudDocumentationExample(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, f := range flow.Families {
		serve(t, s.host, hostOf[f], 22)
		serve(t, s.host, hostOf[f], 80)
		serve(t, s.client, worldOf[f], 80)
	}
	for _, step := range []struct {
		egress string
		// untracked tells the families in which HTTP is.
		untracked map[flow.Family]bool
		// opens tells the families in which the host may open flows.
		opens map[flow.Family]bool
	}{
		{egressBoth, map[flow.Family]bool{flow.IPv4: true, flow.IPv6: true}, map[flow.Family]bool{flow.IPv4: true, flow.IPv6: true}},
		{egressIPv6, map[flow.Family]bool{flow.IPv6: true}, map[flow.Family]bool{flow.IPv6: true}},
		{egressBoth, map[flow.Family]bool{flow.IPv4: true, flow.IPv6: true}, map[flow.Family]bool{flow.IPv4: true, flow.IPv6: true}},
	} {
		enforce(t, s.host, load(t, cloudPolicy(step.egress)))
		s.flush(t)
		for n, f := range flow.Families {
			host := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(hostOf[f], port) }

			ssh := connect(t, s.client, officeOf[f], host(22))
			if !s.tracked(t, ssh.packet()) {
				t.Errorf("%s: SSH from the office has no entry", f)
			}
			refused(t, s.client, worldOf[f], host(22))

			http := connect(t, s.client, worldOf[f], host(80))
			if got, want := s.tracked(t, http.packet()), !step.untracked[f]; got != want {
				t.Errorf("%s: HTTP has an entry: %t, want %t", f, got, want)
			}

			if err := ping(t, s.client, worldOf[f], hostOf[f], uint16(10+n), patience); err != nil {
				t.Error(err)
			}
			echo := flow.Packet{Protocol: flow.ICMPOf(f), Source: worldOf[f], Dest: hostOf[f]}
			if !s.tracked(t, &echo) {
				t.Errorf("%s: ping has no entry", f)
			}

			if step.opens[f] {
				out := connect(t, s.host, netip.Addr{}, netip.AddrPortFrom(worldOf[f], 80))
				if !s.tracked(t, out.packet()) {
					t.Errorf("%s: the host's own flow has no entry", f)
				}
			} else if _, err := tryConnect(t, s.host, netip.Addr{}, netip.AddrPortFrom(worldOf[f], 80), impatience); err == nil {
				t.Errorf("%s: the host opened a flow without an egress rule", f)
			}
		}
	}
}

// The example that the repository shows to newcomers means the same.
func TestRepositoryExample(t *testing.T) {
	t.Parallel()
	const path = "../../examples/web"
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		t.Skip("SKIP: there is no examples/web")
	}
	s := newScene(t)
	for _, f := range flow.Families {
		serve(t, s.host, hostOf[f], 80)
	}
	enforce(t, s.host, loadPath(t, path))
	for _, f := range flow.Families {
		http := connect(t, s.client, worldOf[f], netip.AddrPortFrom(hostOf[f], 80))
		if s.tracked(t, http.packet()) {
			t.Errorf("%s: HTTP has an entry", f)
		}
		refused(t, s.client, worldOf[f], netip.AddrPortFrom(hostOf[f], 22))
	}
}

const onlyIn = `
security_group "in" {
  ingress "tcp" {
    protocol         = "tcp"
    ports            = [22]
    cidr_blocks      = ["198.51.100.0/24"]
    ipv6_cidr_blocks = ["2001:db8:77::/48"]
  }
  ingress "ping" {
    protocol    = "icmp"
    from_port   = 8
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }
  ingress "ping6" {
    protocol         = "icmpv6"
    from_port        = 128
    to_port          = 0
    ipv6_cidr_blocks = ["::/0"]
  }
}
interface "eth0" { security_groups = ["in"] }
`

const onlyOut = `
security_group "out" {
  egress "tcp" {
    protocol         = "tcp"
    ports            = [80]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  egress "ping" {
    protocol    = "icmp"
    from_port   = 8
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }
  egress "ping6" {
    protocol         = "icmpv6"
    from_port        = 128
    to_port          = 0
    ipv6_cidr_blocks = ["::/0"]
  }
}
interface "eth0" { security_groups = ["out"] }
`

func TestRepliesPassWhateverTheRulesSay(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, f := range flow.Families {
		serve(t, s.host, hostOf[f], 22)
		serve(t, s.client, worldOf[f], 80)
	}
	enforce(t, s.host, load(t, onlyIn))
	for n, f := range flow.Families {
		connect(t, s.client, worldOf[f], netip.AddrPortFrom(hostOf[f], 22))
		if err := ping(t, s.client, worldOf[f], hostOf[f], uint16(20+n), patience); err != nil {
			t.Error(err)
		}
		if _, err := tryConnect(t, s.host, netip.Addr{}, netip.AddrPortFrom(worldOf[f], 80), impatience); err == nil {
			t.Errorf("%s: the host opened a flow without an egress rule", f)
		}
		if err := ping(t, s.host, hostOf[f], worldOf[f], uint16(30+n), impatience); err == nil {
			t.Errorf("%s: the host pinged without an egress rule", f)
		}
	}
	enforce(t, s.host, load(t, onlyOut))
	for n, f := range flow.Families {
		connect(t, s.host, netip.Addr{}, netip.AddrPortFrom(worldOf[f], 80))
		if err := ping(t, s.host, hostOf[f], worldOf[f], uint16(40+n), patience); err != nil {
			t.Error(err)
		}
		refused(t, s.client, worldOf[f], netip.AddrPortFrom(hostOf[f], 22))
		if err := ping(t, s.client, worldOf[f], hostOf[f], uint16(50+n), impatience); !errors.Is(err, lab.ErrNoReply) {
			t.Errorf("%s: ping without a rule: got %v, want no reply", f, err)
		}
	}
}

func TestLoopbackIsNeverFiltered(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	enforce(t, s.host, load(t, `
security_group "none" {
  description = "lets nothing through"
}
interface "*" { security_groups = ["none"] }
`))
	for _, at := range []string{"127.0.0.1", "::1", "192.0.2.10", "2001:db8:9::1"} {
		serve(t, s.host, addr(at), 80)
		connect(t, s.host, netip.Addr{}, netip.AddrPortFrom(addr(at), 80))
	}
	refused(t, s.client, worldOf[flow.IPv4], netip.AddrPortFrom(hostOf[flow.IPv4], 80))
	refused(t, s.inside, insideOf[flow.IPv6], addrPort("[2001:db8:9::1]:80"))
}
