package kerneltest

import (
	"net/netip"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// narrowPath is a server, a router and a client, of which only the router
// knows that the way to the client is narrow.
func narrowPath(t *testing.T) (server, client *lab.Namespace) {
	t.Helper()
	server, client = labtest.Namespace(t, "server"), labtest.Namespace(t, "client")
	router := labtest.Namespace(t, "router")
	labtest.Connect(t,
		lab.End{Namespace: server, Interface: "eth0", Addresses: prefixes("192.0.2.10/24", "2001:db8:2::10/64")},
		lab.End{Namespace: router, Interface: "wide", Addresses: prefixes("192.0.2.1/24", "2001:db8:2::1/64")})
	labtest.Connect(t,
		lab.End{Namespace: client, Interface: "wire", Addresses: prefixes("198.51.100.7/24", "2001:db8:77::7/64")},
		lab.End{Namespace: router, Interface: "narrow", Addresses: prefixes("198.51.100.1/24", "2001:db8:77::1/64")})
	for _, err := range []error{
		router.Forward(),
		router.SetMTU("narrow", 1300),
		server.AddRoute(lab.Route{Dest: flow.IPv4.Any(), Via: addr("192.0.2.1"), Interface: "eth0"}),
		server.AddRoute(lab.Route{Dest: flow.IPv6.Any(), Via: addr("2001:db8:2::1"), Interface: "eth0"}),
		client.AddRoute(lab.Route{Dest: flow.IPv4.Any(), Via: addr("198.51.100.1"), Interface: "wire"}),
		client.AddRoute(lab.Route{Dest: flow.IPv6.Any(), Via: addr("2001:db8:77::1"), Interface: "wire"}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return server, client
}

func TestPathMTUDiscovery(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		policy  string
		tracked bool
		works   bool
	}{
		"untracked":        {openPorts, false, true},
		"tracked":          {onlyIn, true, true},
		"errors by rules":  {openPorts + "\nhost { icmp_errors = \"rules\" }\n", false, false},
		"tracked by rules": {onlyIn + "\nhost { icmp_errors = \"rules\" }\n", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, client := narrowPath(t)
			witness := labtest.Witness(t, server)
			port := uint16(80)
			if tt.tracked {
				port = 22
			}
			enforce(t, server, load(t, tt.policy))
			for _, f := range flow.Families {
				serve(t, server, hostOf[f], port)
				c, err := tryConnect(t, client, worldOf[f], netip.AddrPortFrom(hostOf[f], port), patience)
				if err != nil {
					t.Fatal(err)
				}
				wait := patience
				if !tt.works {
					wait = impatience
				}
				err = lab.RoundTrip(c.conn, make([]byte, 200_000), wait)
				if (err == nil) != tt.works {
					t.Errorf("%s: got %v, want it to work: %t", f, err, tt.works)
				}
				entries, err := witness.Entries()
				if err != nil {
					t.Fatal(err)
				}
				if got := lab.Tracks(entries, c.packet()); got != tt.tracked {
					t.Errorf("%s: tracked %t, want %t", f, got, tt.tracked)
				}
			}
		})
	}
}
