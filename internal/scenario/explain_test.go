package scenario

import (
	"strings"
	"testing"
)

// street has a managed host that is reached by one network and answers by
// another, and one that is a router in front of a container.
const street = `
host "server" {
  managed = true
  forward = true
  interface "eth0" {
    network   = "front"
    addresses = ["192.0.2.10/24", "203.0.113.10/32"]
  }
  interface "eth1" {
    network   = "back"
    addresses = ["198.51.100.10/24"]
  }
  interface "docker0" {
    network   = "containers"
    addresses = ["172.17.0.1/24"]
  }
  publish {
    interface = "eth0"
    port      = 8080
    to        = "172.17.0.2:80"
  }
}
host "container" {
  interface "eth0" {
    network   = "containers"
    addresses = ["172.17.0.2/24"]
  }
}
host "near" {
  interface "eth0" {
    network   = "front"
    addresses = ["192.0.2.77/24"]
  }
}
host "roundabout" {
  interface "eth0" {
    network   = "front"
    addresses = ["192.0.2.78/24"]
  }
  interface "eth1" {
    network   = "back"
    addresses = ["198.51.100.78/24"]
  }
}
policy "p" {
POLICY
}
step "s" {
  check "flow" {
FLOW
    traffic = "allowed"
  }
}
`

// What eats the answers is named, be it that the packet that opened the flow may
// pass.
func TestPolicyOfNamesWhatEatsTheAnswers(t *testing.T) {
	const ssh = `
  security_group "web" {
    ingress "all" {
      protocol    = "-1"
      cidr_blocks = ["192.0.2.0/24", "198.51.100.0/24"]
    }
  }
`
	const open = `
  security_group "web" {
    ingress "all" {
      protocol    = "-1"
      cidr_blocks = ["0.0.0.0/0"]
    }
    egress "all" {
      protocol    = "-1"
      cidr_blocks = ["0.0.0.0/0"]
    }
  }
`
	const in = `
  network_acl "edge" {
    ingress {
      rule_no    = 100
      action     = "allow"
      protocol   = "-1"
      cidr_block = "0.0.0.0/0"
    }
    EGRESS
  }
  interface "eth0" {
    security_groups = [security_group.web]
    network_acl     = network_acl.edge
  }
`
	const deny = `egress {
      rule_no    = 90
      action     = "deny"
      protocol   = "tcp"
      from_port  = 32768
      to_port    = 65535
      cidr_block = "0.0.0.0/0"
    }
    egress {
      rule_no    = 100
      action     = "allow"
      protocol   = "-1"
      cidr_block = "0.0.0.0/0"
    }`
	with := func(egress string) string { return strings.Replace(in, "EGRESS", egress, 1) }
	const ping, tcp, udp = "protocol = \"icmp\"\n", "protocol = \"tcp\"\nport = 22\n", "protocol = \"udp\"\nport = 53\n"
	const fromNear = "from = \"near\"\nto = \"server\"\n"
	for _, tt := range []struct {
		name, policy, flow string
		// want begins each line.
		want []string
	}{
		{
			"an ACL without egress entries, and a ping", ssh + with(""), ping + fromNear,
			[]string{"eth0 ingress, a new icmp 192.0.2.77 → 192.0.2.10 is let through", "eth0 egress, the answer icmp type 0 192.0.2.10 → 192.0.2.77 is dropped: no egress entry of network_acl.edge matches"},
		},
		{
			"an entry that denies the client's ports", ssh + with(deny), tcp + fromNear,
			[]string{"eth0 ingress, a new tcp 192.0.2.77:40001 → 192.0.2.10:22 is let through", "eth0 egress, the answer tcp 192.0.2.10:22 → 192.0.2.77:40001 is dropped: network_acl.edge.egress.90 denies it"},
		},
		{"an entry for another protocol", ssh + with(deny), udp + fromNear, []string{"eth0 ingress, a new udp 192.0.2.77:40001 → 192.0.2.10:53 is let through"}},
		{"nobody answers", ssh + with(""), udp + fromNear + "sends = \"from\"\n", []string{"eth0 ingress, a new udp"}},
		{
			"TCP acknowledges what one side sends", ssh + with(""), tcp + fromNear + "sends = \"from\"\n",
			[]string{"eth0 ingress, a new tcp", "eth0 egress, the answer tcp 192.0.2.10:22 → 192.0.2.77:40001 is dropped: no egress entry"},
		},
		{
			"the host's own flow", ssh + "security_group \"out\" {\n egress \"all\" {\n protocol = \"-1\"\n cidr_blocks = [\"10.0.0.0/8\", \"192.0.2.0/24\"]\n}\n}\n" +
				"network_acl \"edge\" {\n egress {\n rule_no = 1\n action = \"allow\"\n protocol = \"-1\"\n cidr_block = \"0.0.0.0/0\"\n}\n}\n" +
				"interface \"eth0\" {\n security_groups = [security_group.out]\n network_acl = network_acl.edge\n}\n",
			udp + "from = \"server\"\nto = \"near\"\n",
			[]string{"eth0 egress, a new udp 192.0.2.10:40001 → 192.0.2.77:53 is let through", "eth0 ingress, the answer udp 192.0.2.77:53 → 192.0.2.10:40001 is dropped: no ingress entry of network_acl.edge matches"},
		},
		{
			"the opener is refused as well", "security_group \"web\" {}\n" + with(""), ping + fromNear,
			[]string{"eth0 ingress, a new icmp 192.0.2.77 → 192.0.2.10 is dropped: no ingress rule", "eth0 egress, the answer icmp type 0"},
		},
		{
			"a published port", ssh + with(""), "protocol = \"tcp\"\nport = 8080\nreaches = \"container\"\nreaches_port = 80\n" + fromNear,
			[]string{"eth0 ingress, a new tcp 192.0.2.77:40001 → 192.0.2.10:8080 is let through", "docker0 egress, a new tcp 192.0.2.77:40001 → 172.17.0.2:80 is let through", "eth0 egress, the answer tcp 192.0.2.10:8080 → 192.0.2.77:40001 is dropped: no egress entry"},
		},
		{
			"tracked: the answers leave by an interface without rules", ssh + "security_group \"none\" {}\ninterface \"eth0\" {\n security_groups = [security_group.web]\n}\ninterface \"eth1\" {\n security_groups = [security_group.none]\n}\n",
			tcp + "from = \"roundabout\"\nto = \"server\"\nsource = \"198.51.100.78\"\ndestination = \"192.0.2.10\"\n",
			[]string{"eth0 ingress, a new tcp 198.51.100.78:40001 → 192.0.2.10:22 is let through, tracked"},
		},
		{
			"untracked: the answers leave by an interface without rules", open + "security_group \"none\" {}\ninterface \"eth0\" {\n security_groups = [security_group.web]\n}\ninterface \"eth1\" {\n security_groups = [security_group.none]\n}\n",
			tcp + "from = \"roundabout\"\nto = \"server\"\nsource = \"198.51.100.78\"\ndestination = \"192.0.2.10\"\n",
			[]string{"eth0 ingress, a new tcp 198.51.100.78:40001 → 192.0.2.10:22 is let through, untracked", "eth1 egress, the answer tcp 192.0.2.10:22 → 198.51.100.78:40001 is dropped: no egress rule of the groups of interface.eth1 allows it"},
		},
		{
			"untracked on both", open + "interface \"eth0\" {\n security_groups = [security_group.web]\n}\ninterface \"eth1\" {\n security_groups = [security_group.web]\n}\n",
			tcp + "from = \"roundabout\"\nto = \"server\"\nsource = \"198.51.100.78\"\ndestination = \"192.0.2.10\"\n",
			[]string{"eth0 ingress, a new tcp 198.51.100.78:40001 → 192.0.2.10:22 is let through, untracked"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := LoadText("street.lab.hcl", []byte(strings.NewReplacer("POLICY", tt.policy, "FLOW", tt.flow).Replace(street)))
			if l.Scenario == nil {
				t.Fatal(l.Report.Diagnostics)
			}
			r := &Run{scenario: l.Scenario, topology: NewTopology(l.Scenario), policy: l.Scenario.Policies[0].Loaded.Policy}
			p := &player{spec: l.Scenario.Steps[0].Actions[0].(*Check).Flow}
			if p.spec.Protocol.HasPorts() {
				p.sourcePort = 40001
			}
			got := r.policyOf(p)
			if len(got) != len(tt.want) {
				t.Fatalf("got  %q\nwant %q", got, tt.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tt.want[i]) {
					t.Errorf("got  %s\nwant %s", got[i], tt.want[i])
				}
			}
		})
	}
}
