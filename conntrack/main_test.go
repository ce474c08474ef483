package conntrack

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/policies"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// openTable opens the table of a namespace until the test ends.
func openTable(t testing.TB, ns *lab.Namespace) *Table {
	t.Helper()
	table, err := Open(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}

// hostNamespace makes a host with two interfaces, eth0 outwards and br0 inwards,
// the default route by eth0.
func hostNamespace(t testing.TB) *lab.Namespace {
	t.Helper()
	host, outside, inside := labtest.Namespace(t, "host"), labtest.Namespace(t, "outside"), labtest.Namespace(t, "inside")
	labtest.Connect(t,
		lab.End{Namespace: host, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24"), netip.MustParsePrefix("2001:db8::10/64")}},
		lab.End{Namespace: outside, Interface: "wire", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}})
	labtest.Connect(t,
		lab.End{Namespace: host, Interface: "br0", Addresses: []netip.Prefix{netip.MustParsePrefix("172.17.0.1/16"), netip.MustParsePrefix("fd00:17::1/64")}},
		lab.End{Namespace: inside, Interface: "wire", Addresses: []netip.Prefix{netip.MustParsePrefix("172.17.0.2/16"), netip.MustParsePrefix("fd00:17::2/64")}})
	for _, r := range []lab.Route{
		{Dest: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Interface: "eth0"},
		{Dest: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("2001:db8::1"), Interface: "eth0"},
	} {
		if err := host.AddRoute(r); err != nil {
			t.Fatal(err)
		}
	}
	return host
}

// load reads a policy, without which no test can go on.
func load(t testing.TB, text string) *policies.Policy {
	t.Helper()
	name := filepath.Join(t.TempDir(), "policy.hcl")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	loaded := policies.Load(name, policies.Inputs{})
	if loaded.Diagnostics.HasErrors() {
		t.Fatal(loaded.Diagnostics)
	}
	return loaded.Policy
}

// webPolicy opens two ports to the world, and a few to some.
const webPolicy = `
security_group "web" {
  ingress "https" {
    protocol         = "tcp"
    ports            = [80, 443]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "ssh" {
    protocol    = "tcp"
    ports       = [22]
    cidr_blocks = ["203.0.113.0/24"]
  }
  ingress "ping" {
    protocol    = "icmp"
    from_port   = 8
    to_port     = -1
    cidr_blocks = ["0.0.0.0/0"]
  }
  egress "any" {
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}

interface "eth0" {
  security_groups = [security_group.web]
}
`
