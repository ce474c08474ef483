package kerneltest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/lab/labtest"
)

// everyday is a policy to edit. Its parts are replaced by name.
const everyday = `
prefix_list "partners" {
  entries = ["198.51.100.0/24", "203.0.113.0/25"]
}
prefix_list "large" {
  entries = flatten([[for m in range(45) : [for n in range(100) : cidrsubnet("10.0.0.0/8", 21, m * 200 + n * 2)]]])
}
security_group "web" {
  members = ["192.0.2.10"]
  ingress "ssh" {
    protocol    = "tcp"
    ports       = [22]
    cidr_blocks = ["198.51.100.7/32", "203.0.113.7/32"]
  }
  ingress "set" {
    protocol    = "tcp"
    ports       = ["2000-2999"]
    cidr_blocks = ["192.168.0.0/30", "192.168.1.0/30", "192.168.2.0/30", "192.168.3.0/30", "192.168.4.0/30", "192.168.5.0/30", "192.168.6.0/30", "192.168.7.0/30", "192.168.8.0/30"]
  }
  ingress "http" {
    protocol         = "tcp"
    ports            = [80]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "lists" {
    protocol        = "tcp"
    ports           = [443]
    prefix_list_ids = [prefix_list.partners, prefix_list.large]
  }
  ingress "ping" {
    protocol    = "icmp"
    from_port   = 8
    to_port     = -1
    cidr_blocks = ["198.51.100.0/24"]
  }
  # more rules
  egress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
network_acl "edge" {
  ingress {
    rule_no    = 90
    action     = "deny"
    protocol   = "-1"
    cidr_block = "192.0.2.66/32"
  }
  # more entries
  ingress {
    rule_no    = 100
    action     = "allow"
    protocol   = "-1"
    cidr_block = "0.0.0.0/0"
  }
  egress {
    rule_no    = 100
    action     = "allow"
    protocol   = "-1"
    cidr_block = "0.0.0.0/0"
  }
}
interface "eth0" {
  security_groups = ["web"]
  network_acl     = network_acl.edge
}
host {
  dns_resolvers = ["192.0.2.2"]
  exempt        = ["203.0.113.64/32"]
}
# more blocks
`

// What people edit every day is one transaction, and so one generation.
func TestEverydayEditsAreOneTransaction(t *testing.T) {
	t.Parallel()
	k := openKernel(t, labtest.Namespace(t, "host"))
	ctx := context.Background()
	before := compile.Compile(load(t, everyday), compile.Environment{})
	const moreRules, moreEntries, moreBlocks = "  # more rules", "  # more entries", "# more blocks\n"
	entry := func(number int, cidr string) string {
		return fmt.Sprintf("\n  ingress {\n    rule_no    = %d\n    action     = \"deny\"\n    protocol   = \"-1\"\n    cidr_block = \"%s\"\n  }\n", number, cidr)
	}
	for _, tt := range []struct{ name, old, new string }{
		{"an address more in a rule", `"203.0.113.7/32"]`, `"203.0.113.7/32", "192.0.2.99/32"]`},
		{"an address less in a rule", `, "203.0.113.7/32"]`, `]`},
		{"another address in a rule", `"203.0.113.7/32"]`, `"203.0.113.8/32"]`},
		{"an address more in a rule with a set", `"192.168.8.0/30"]`, `"192.168.8.0/30", "192.168.9.0/30"]`},
		{"an address more in a list", `"203.0.113.0/25"]`, `"203.0.113.0/25", "192.0.2.128/25"]`},
		{"an address less in a list", `, "203.0.113.0/25"]`, `]`},
		{"an address more in a large list", `entries = flatten([`, `entries = flatten([["172.16.0.0/24"], `},
		{"a member more", `["192.0.2.10"]`, `["192.0.2.10", "192.0.2.11"]`},
		{"a rule with a new port", moreRules, rule("new", "8080", "198.51.100.7/32")},
		{"a rule with a new port and a set of its own", moreRules, rule("new", "8080", networks(3000, "198.51.100.0/24")...)},
		{"a rule with a new port for everybody", moreRules, rule("new", "8080", "0.0.0.0/0")},
		{"a rule with a port among another's", moreRules, rule("new", "2500", "198.51.100.7/32")},
		{"a rule with a new port and a list", moreRules, strings.Replace(rule("new", "8080", "198.51.100.7/32"), "cidr_blocks = [\"198.51.100.7/32\"]", "prefix_list_ids = [prefix_list.partners, prefix_list.large]", 1)},
		{"a port more", "ports       = [22]", "ports       = [22, 22022]"},
		{"another port", "ports       = [22]", "ports       = [22022]"},
		{"more ports", `["2000-2999"]`, `["2000-3999"]`},
		{"an ICMP type more", moreRules, "  ingress \"time\" {\n    protocol    = \"icmp\"\n    from_port   = 13\n    to_port     = -1\n    cidr_blocks = [\"198.51.100.0/24\"]\n  }\n"},
		{"an entry of an ACL more", moreEntries, entry(91, "192.0.2.67/32")},
		{"another address in an ACL", "192.0.2.66/32", "192.0.2.67/32"},
		{"a resolver more", `["192.0.2.2"]`, `["192.0.2.2", "192.0.2.3"]`},
		{"an exempt address more", `["203.0.113.64/32"]`, `["203.0.113.64/32", "203.0.113.66/32"]`},
		{"a log", "network_acl     = network_acl.edge", "network_acl     = network_acl.edge\n  log_denied {\n    rate  = \"10/second\"\n    burst = 20\n  }"},
		{"another interface with the same groups", moreBlocks, "interface \"eth1\" { security_groups = [\"web\"] }\n"},
	} {
		after := strings.Replace(everyday, tt.old, tt.new, 1)
		if after == everyday {
			t.Fatalf("%s: nothing is edited", tt.name)
		}
		commit(t, k, snapshot(t, k), before)
		table := compile.Compile(load(t, after), compile.Environment{})
		have := snapshot(t, k)
		delta, err := apply.Diff(have, table)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Commit(ctx, delta); err != nil {
			t.Fatal(err)
		}
		if now, err := k.Generation(ctx); err != nil || now != have.Generation+1 || delta.Transactions() != 1 {
			t.Errorf("%s: %d transactions, from generation %d to %d, %v", tt.name, delta.Transactions(), have.Generation, now, err)
			for c := range delta.Changes() {
				t.Logf("%s %s %s: %s", c.Action, c.Kind, c.Name, c.Text)
			}
		}
		back, err := apply.Diff(snapshot(t, k), before)
		if err != nil {
			t.Fatal(err)
		}
		// The keys of a rule that goes fall to one that stays: packets must not
		// find its chain empty before they find the other's.
		want := 1
		if tt.name == "a rule with a port among another's" {
			want = 2
		}
		if back.Transactions() != want {
			t.Errorf("%s: %d transactions back, want %d", tt.name, back.Transactions(), want)
		}
	}
}
