package kerneltest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sgc/internal/flow"
)

// group is a policy of one group at eth0, from the text of its rules.
func group(rules string) string {
	return fmt.Sprintf("security_group \"a\" {\n%s\n}\ninterface \"eth0\" { security_groups = [\"a\"] }\n", rules)
}

// rule is an ingress rule for TCP.
func rule(name, ports string, cidrs ...string) string {
	return fmt.Sprintf(`
  ingress "%s" {
    protocol    = "tcp"
    ports       = [%s]
    cidr_blocks = ["%s"]
  }`, name, ports, strings.Join(cidrs, `", "`))
}

// networks are n networks, the first of them the peer's own.
func networks(n int, peer string) []string {
	out := []string{peer}
	for i := range n - 1 {
		out = append(out, fmt.Sprintf("10.%d.%d.0/24", i/128, i%128*2))
	}
	return out
}

// listed is a policy whose rule for port 22 names a prefix list of so many
// hundred networks, and that of a peer.
func listed(name string, hundreds int, peer string) string {
	return fmt.Sprintf(`
prefix_list "%s" {
  entries = concat(["%s"], flatten([for m in range(%d) : [for n in range(100) : cidrsubnet("10.0.0.0/8", 21, m * 200 + n * 2)]]))
}
security_group "a" {
  ingress "one" {
    protocol        = "tcp"
    ports           = [22]
    prefix_list_ids = [prefix_list.%s]
  }
}
interface "eth0" { security_groups = ["a"] }
`, name, peer, hundreds, name)
}

// acl is a policy that lets everybody in to port 22 but for what an ACL denies:
// n networks, the last of them a peer's own.
func acl(n int, peer string) string {
	var b strings.Builder
	entry := func(number int, action, cidr string) {
		fmt.Fprintf(&b, `
  ingress {
    rule_no    = %d
    action     = "%s"
    protocol   = "-1"
    cidr_block = "%s"
  }`, number, action, cidr)
	}
	b.WriteString("network_acl \"edge\" {")
	for i, cidr := range networks(n, peer) {
		entry(i+1, "deny", cidr)
	}
	entry(30000, "allow", "0.0.0.0/0")
	fmt.Fprintf(&b, `
}
security_group "a" {%s
}
interface "eth0" {
  security_groups = ["a"]
  network_acl     = network_acl.edge
}
`, rule("all", "22", "0.0.0.0/0"))
	return b.String()
}

// The two policies of replaced agree about port 22 from one network, and that
// nobody may reach port 19, and share nothing else, not even the name of a
// group.
var replaced = [2]string{`
security_group "a" {
  ingress "ssh" {
    protocol    = "tcp"
    ports       = [22]
    cidr_blocks = ["198.51.100.0/24"]
  }
  ingress "all" {
    protocol    = "udp"
    ports       = ["0-65535"]
    cidr_blocks = ["0.0.0.0/0"]
  }
  egress "all" {
    protocol         = "-1"
    ipv6_cidr_blocks = ["::/0"]
  }
}
interface "eth0" { security_groups = ["a"] }
`, `
prefix_list "many" {
  entries = [for n in range(1000) : cidrsubnet("10.0.0.0/8", 14, n * 2)]
}
security_group "b" {
  ingress "range" {
    protocol        = "tcp"
    ports           = ["20-30", 443]
    cidr_blocks     = ["198.51.100.0/25"]
    prefix_list_ids = [prefix_list.many]
  }
  ingress "rest" {
    protocol    = "tcp"
    ports       = ["22-24"]
    cidr_blocks = ["198.51.100.0/25", "198.51.0.0/16", "203.0.113.0/24"]
  }
}
security_group "c" {
  egress "all" {
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}
interface "eth0" { security_groups = ["b", "c"] }
`}

// edited is the same policy before and after edits of its lists, addresses and
// ports.
func edited(list, cidrs, ports string) string {
	return fmt.Sprintf(`
prefix_list "many" {
  entries = [for n in range(1000) : cidrsubnet("%s", 14, n * 2)]
}
security_group "a" {
  ingress "ssh" {
    protocol        = "tcp"
    ports           = [%s]
    cidr_blocks     = [%s]
    prefix_list_ids = [prefix_list.many]
  }
}
interface "eth0" { security_groups = ["a"] }
`, list, ports, cidrs)
}

// No packet is judged by a half-made policy: what both policies let through
// passes, and what both refuse does not, while one replaces the other.
//
// SGC_KERNEL_RACE says for how many seconds each change is tried, then with
// larger lists; by default it is a quarter of one.
func TestNoPacketMeetsAHalfMadePolicy(t *testing.T) {
	d, large := 250*time.Millisecond, 10_000
	if seconds := envNumber(t, "SGC_KERNEL_RACE", 0); seconds > 0 {
		d, large = time.Duration(seconds)*time.Second, 50_000
	}
	const peer, stranger = "198.51.100.7", "203.0.113.9"
	to := func(from string, ports ...uint16) []flow.Packet {
		var out []flow.Packet
		for _, port := range ports {
			out = append(out, packet("eth0", flow.Ingress, flow.TCP, from, func(p *flow.Packet) { p.DestPort = port }))
		}
		return out
	}
	other := networks(5, "192.0.2.128/25")
	for _, tt := range []struct {
		name             string
		from, to         string
		allowed, refused []flow.Packet
	}{
		{
			"edits of lists, addresses and ports",
			edited("10.0.0.0/8", `"198.51.100.0/24", "203.0.113.128/25"`, `22, "8000-8999"`),
			edited("11.0.0.0/8", `"198.51.100.0/25", "203.0.113.64/26"`, `"22-23", "8500-8700"`),
			to(peer, 22, 8600), to(stranger, 22, 8600, 19),
		},
		{"a policy of which nothing stays", replaced[0], replaced[1], to(peer, 22), to(peer, 19)},
		{
			"one rule more for a port", group(rule("one", "22", "203.0.113.0/29")),
			group(rule("one", "22", "203.0.113.0/29") + rule("two", "22", "203.0.113.128/25")),
			to("203.0.113.1", 22), to(peer, 22),
		},
		{
			"a set instead of prefixes in rules",
			group(rule("one", "22", networks(8, "198.51.100.0/24")...)), group(rule("one", "22", networks(9, "198.51.100.0/24")...)),
			to(peer, 22), to(stranger, 22),
		},
		{
			"a large set instead of prefixes in rules",
			group(rule("one", "22", networks(8, "198.51.100.0/24")...)), group(rule("one", "22", networks(4000, "198.51.100.0/24")...)),
			to(peer, 22), to(stranger, 22),
		},
		{
			"a rule of another name, with a set",
			group(rule("one", "22", networks(20, "198.51.100.0/24")...)), group(rule("two", "22", networks(20, "198.51.100.0/24")...)),
			to(peer, 22), to(stranger, 22),
		},
		{
			"a rule of another name, without sets",
			group(rule("one", "22", "198.51.100.0/24")), group(rule("two", "22", "198.51.100.0/24")),
			to(peer, 22), to(stranger, 22),
		},
		{
			"a group of another name",
			group(rule("one", "22", networks(20, "198.51.100.0/24")...)),
			strings.ReplaceAll(group(rule("one", "22", networks(20, "198.51.100.0/24")...)), `"a"`, `"b"`),
			to(peer, 22), to(stranger, 22),
		},
		{
			"rules in the middle of another's ports, which make a set of that one's prefixes",
			group(rule("one", `"8000-8999"`, append([]string{"198.51.100.0/24"}, other...)...)),
			group(rule("one", `"8000-8999"`, append([]string{"198.51.100.0/24"}, other...)...) + rule("two", "8500", networks(4, "192.0.2.0/25")...) + rule("big", "8500", networks(3000, "192.0.2.0/24")...)),
			to(peer, 8499, 8500, 8501), to(stranger, 8500, 7999),
		},
		{
			"an ACL's prefixes in rules and in a set", acl(8, "203.0.113.0/24"), acl(9, "203.0.113.0/24"),
			to(peer, 22), to(stranger, 22),
		},
		{
			"an ACL's prefixes in one set and in another", acl(12, "203.0.113.0/24"), acl(13, "203.0.113.0/24"),
			to(peer, 22), to(stranger, 22),
		},
		{
			"a large list instead of another",
			listed("many", large/100, "198.51.100.0/24"), listed("more", large/100, "198.51.100.0/24"),
			to(peer, 22), to(stranger, 22),
		},
		{
			"a list that grows into one of several sets",
			listed("many", 40, "198.51.100.0/24"), listed("many", 42, "198.51.100.0/24"),
			to(peer, 22), to(stranger, 22),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newStorm(t, [2]string{tt.from, tt.to}, tt.allowed, tt.refused).run(t, d)
		})
	}
}
