package scenario

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sgc/internal/flow"
)

// town is a managed router with a container behind it, a laptop behind another
// router, and a client with two ways to the server.
const town = `
host "server" {
  managed    = true
  forward    = true
  masquerade = ["eth0"]
  interface "eth0" {
    network   = "wan"
    addresses = ["192.0.2.10/24", "2001:db8::10/64"]
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
host "router" {
  forward    = true
  masquerade = ["eth1"]
  interface "eth0" {
    network   = "home"
    addresses = ["10.0.0.1/24"]
  }
  interface "eth1" {
    network   = "wan"
    addresses = ["192.0.2.66/24"]
  }
}
host "laptop" {
  interface "eth0" {
    network   = "home"
    addresses = ["10.0.0.2/24"]
  }
}
host "client" {
  interface "eth0" {
    network   = "wan"
    addresses = ["192.0.2.77/24"]
  }
  interface "eth1" {
    network   = "back"
    addresses = ["198.51.100.77/24"]
  }
  route {
    to  = "172.17.0.0/24"
    via = "198.51.100.10"
  }
}
step "nothing" {}
`

func townTopology(t *testing.T) (*Scenario, *Topology) {
	t.Helper()
	l := LoadText("town.lab.hcl", []byte(town))
	if l.Scenario == nil {
		t.Fatal(l.Report.Diagnostics)
	}
	return l.Scenario, NewTopology(l.Scenario)
}

func TestRoutes(t *testing.T) {
	s, topology := townTopology(t)
	for _, tt := range []struct{ host, to, via, iface string }{
		{"laptop", "10.0.0.1", "", "eth0"},
		{"laptop", "192.0.2.10", "10.0.0.1", "eth0"},
		{"laptop", "172.17.0.2", "10.0.0.1", "eth0"},
		{"router", "172.17.0.2", "192.0.2.10", "eth1"},
		{"router", "198.51.100.77", "192.0.2.10", "eth1"},
		{"container", "10.0.0.2", "172.17.0.1", "eth0"},
		// The file's own route goes before the shortest way.
		{"client", "172.17.0.2", "198.51.100.10", "eth1"},
		{"server", "10.0.0.2", "192.0.2.66", "eth0"},
		{"laptop", "203.0.113.1", "no route", ""},
		{"laptop", "2001:db8::10", "no route", ""},
	} {
		r, ok := topology.next(s.Host(tt.host), netip.MustParseAddr(tt.to))
		via, iface := "", ""
		switch {
		case !ok:
			via = "no route"
		case r.via.IsValid():
			via, iface = r.via.String(), r.iface.Name
		default:
			iface = r.iface.Name
		}
		if via != tt.via || iface != tt.iface {
			t.Errorf("%s to %s: via %q by %q, want %q by %q", tt.host, tt.to, via, iface, tt.via, tt.iface)
		}
	}
}

// A packet is seen at the managed host's interfaces with the addresses that are
// on the wire there.
func TestPath(t *testing.T) {
	s, topology := townTopology(t)
	for _, tt := range []struct {
		name, from, source, dest string
		port                     uint16
		want, end                string
	}{
		{"to the host", "client", "192.0.2.77", "192.0.2.10", 22, "eth0 ingress 192.0.2.77 → 192.0.2.10:22", "server"},
		{"from behind a router", "laptop", "10.0.0.2", "192.0.2.10", 22, "eth0 ingress 192.0.2.66 → 192.0.2.10:22", "server"},
		{"to a published port", "client", "192.0.2.77", "192.0.2.10", 8080, "eth0 ingress 192.0.2.77 → 192.0.2.10:8080 forwarded, docker0 egress 192.0.2.77 → 172.17.0.2:80 forwarded", "container"},
		{"from a container", "container", "172.17.0.2", "192.0.2.77", 443, "docker0 ingress 172.17.0.2 → 192.0.2.77:443 forwarded, eth0 egress 192.0.2.10 → 192.0.2.77:443 forwarded", "client"},
		{"from the host", "server", "192.0.2.10", "192.0.2.77", 443, "eth0 egress 192.0.2.10 → 192.0.2.77:443", "client"},
		{"past the host", "laptop", "10.0.0.2", "192.0.2.77", 443, "", "client"},
		{"nowhere", "laptop", "10.0.0.2", "203.0.113.1", 443, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			crossings, end, _ := topology.path(s.Host(tt.from), flow.Packet{
				Protocol: flow.TCP, Source: netip.MustParseAddr(tt.source), Dest: netip.MustParseAddr(tt.dest), SourcePort: 40000, DestPort: tt.port,
			})
			var got []string
			for _, p := range crossings {
				text := fmt.Sprintf("%s %s %s → %s:%d", p.Interface, p.Direction, p.Source, p.Dest, p.DestPort)
				if p.Forwarded {
					text += " forwarded"
				}
				got = append(got, text)
			}
			name := ""
			if end != nil {
				name = end.Name
			}
			if strings.Join(got, ", ") != tt.want || name != tt.end {
				t.Errorf("got  %s at %q\nwant %s at %q", strings.Join(got, ", "), name, tt.want, tt.end)
			}
		})
	}
}

// Routers that lead to each other in circles end the search.
func TestPathInCircles(t *testing.T) {
	text := strings.Replace(town, "  route {\n    to  = \"172.17.0.0/24\"\n    via = \"198.51.100.10\"\n  }", "  forward = true\n  route {\n    to  = \"10.9.0.0/16\"\n    via = \"192.0.2.66\"\n  }", 1)
	text = strings.Replace(text, `  masquerade = ["eth1"]`, "  route {\n    to  = \"10.9.0.0/16\"\n    via = \"192.0.2.77\"\n  }", 1)
	l := LoadText("circles.lab.hcl", []byte(text))
	if l.Scenario == nil {
		t.Fatal(l.Report.Diagnostics)
	}
	if _, end, _ := NewTopology(l.Scenario).path(l.Scenario.Host("client"), flow.Packet{
		Protocol: flow.UDP, Source: netip.MustParseAddr("192.0.2.77"), Dest: netip.MustParseAddr("10.9.0.1"), DestPort: 1,
	}); end != nil {
		t.Errorf("it ended at %s", end.Name)
	}
	if routes := NewTopology(l.Scenario).routes[l.Scenario.Host("laptop")]; !slices.ContainsFunc(routes, func(r hop) bool { return r.found }) {
		t.Errorf("got %v", routes)
	}
}
