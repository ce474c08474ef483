package kerneltest

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// onPort is an interface block with a group of its own that lets TCP to one
// port through, in both directions.
func onPort(name string, port int, more string) string {
	group := fmt.Sprintf("p%d", port)
	text := fmt.Sprintf("security_group %q {\n", group)
	for _, d := range flow.Directions {
		text += fmt.Sprintf(`  %s {
    protocol         = "tcp"
    ports            = [%d]
    cidr_blocks      = ["198.51.100.0/24"]
    ipv6_cidr_blocks = ["2001:db8:77::/48"]
  }
`, d, port)
	}
	return text + fmt.Sprintf("}\ninterface %q {\n  security_groups = [%q]\n  %s\n}\n", name, group, more)
}

func TestInterfaceNames(t *testing.T) {
	t.Parallel()
	text := onPort("eth*", 1001, "") + onPort("eth1*", 1002, "") + onPort("eth1", 1003, "") + onPort("eth100*", 1004, "") +
		// As long as names may be, and one letter more than the wildcard.
		onPort("abcdefghijklmn*", 1005, "") + onPort("abcdefghijklmno", 1006, "")
	catchAll := onPort("*", 1007, "")
	const unmanaged, caught = 0, 1007
	b := newBench(t, text, "eth0", "eth1", "eth10", "eth1000", "eth", "et", "wlan0", "abcdefghijklmn", "abcdefghijklmno", "abcdefghijklmnp", "abcdefghijklm")
	if err := b.ask.Close(); err != nil {
		t.Fatal(err)
	}
	// Interfaces that appear after the apply are governed from their first
	// packet on.
	for _, name := range []string{"eth2", "eth1x", "eth100"} {
		if err := b.AddInterface(name); err != nil {
			t.Fatal(err)
		}
	}
	b.ask = labtest.Judge(t, b.Stand)
	for _, otherwise := range []uint16{unmanaged, caught} {
		if otherwise == caught {
			b.govern(t, text+catchAll)
		}
		for name, port := range map[string]uint16{
			"eth": 1001, "eth0": 1001, "eth2": 1001, "eth10": 1002, "eth1x": 1002, "eth1": 1003, "eth100": 1004, "eth1000": 1004,
			"abcdefghijklmn": 1005, "abcdefghijklmnp": 1005, "abcdefghijklmno": 1006,
			"et": otherwise, "wlan0": otherwise, "abcdefghijklm": otherwise,
		} {
			for _, f := range flow.Families {
				for _, d := range flow.Directions {
					var pass, drop []flow.Packet
					for to := uint16(1000); to <= 1008; to++ {
						p := packet(name, d, flow.TCP, peersOf[f], ports(40000, to))
						if port == unmanaged || to == port {
							pass = append(pass, p)
						} else {
							drop = append(drop, p)
						}
					}
					b.checkAll(t, name, pass, true)
					b.checkAll(t, name, drop, false)
				}
			}
		}
	}
}

const onePort = `
security_group "open" {
  ingress "http" {
    protocol    = "tcp"
    ports       = [%d]
    cidr_blocks = ["0.0.0.0/0"]
  }
  egress "any" {
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}
`

func TestUnmanagedInterfacesAreNotTouched(t *testing.T) {
	t.Parallel()
	b := newBench(t, fmt.Sprintf(onePort, 80)+`interface "eth0" { security_groups = ["open"] }`, "eth0", "eth1")
	for _, peer := range []string{"198.51.100.7", "2001:db8:77::7"} {
		for _, d := range flow.Directions {
			for _, p := range []flow.Packet{
				packet("eth1", d, flow.TCP, peer, ports(40000, 80)), packet("eth1", d, flow.TCP, peer, ports(80, 40000)),
				packet("eth1", d, flow.UDP, peer, ports(1, 2)), packet("eth1", d, 47, peer), packet("eth1", d, flow.ICMP, peer, icmp(8, 3)),
			} {
				if o := b.check(t, "unmanaged", p, true); o.Untracked {
					t.Errorf("%s is not tracked", &p)
				}
			}
			// The same on the managed one, so that the test can tell.
			b.check(t, "managed", packet("eth0", d, flow.UDP, peer, ports(1, 2)), d == flow.Egress && peer == "198.51.100.7")
		}
	}
}

// The same groups stand behind many interfaces, which differ in everything
// else.
func TestInterfacesThatShareGroups(t *testing.T) {
	t.Parallel()
	text := `
security_group "web" {
  ingress "http" {
    protocol         = "tcp"
    ports            = [80]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
  ingress "gre" {
    protocol         = "gre"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
security_group "out" {
  egress "tcp" {
    protocol         = "tcp"
    ports            = ["0-65535"]
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}
` + aclText("edge", append([]string{"ingress 10 deny -1 198.51.100.7/32", "ingress 11 deny -1 2001:db8:77::7/128"}, allowAll...)...) +
		aclText("core", append([]string{"egress 10 deny -1 198.51.100.7/32", "egress 11 deny -1 2001:db8:77::7/128"}, allowAll...)...)
	kinds := map[string]struct {
		block string
		// in and out tell whether a packet of the open flow passes, untracked
		// whether it is left out of conntrack.
		in, out, untracked bool
	}{
		"a": {`security_groups = ["web", "out"]`, true, true, true},
		"b": {`security_groups = ["out", "web"]`, true, true, true},
		"c": {"security_groups = [\"web\", \"out\"]\n  network_acl = \"edge\"", false, true, true},
		"d": {"security_groups = [\"web\", \"out\"]\n  network_acl = \"core\"", true, false, true},
		"e": {"security_groups = [\"web\", \"out\"]\n  notrack = \"off\"", true, true, false},
		"f": {"security_groups = [\"web\", \"out\"]\n  always_track {\n    cidr_blocks = [\"198.51.100.0/24\"]\n    ipv6_cidr_blocks = [\"2001:db8:77::/48\"]\n  }", true, true, false},
		"g": {`security_groups = ["web"]`, true, false, false},
		"h": {`security_groups = ["out"]`, false, true, false},
	}
	var names []string
	for kind, k := range kinds {
		for n := range 3 {
			name := fmt.Sprintf("%s%d", kind, n)
			names = append(names, name)
			text += fmt.Sprintf("interface %q {\n  %s\n}\n", name, k.block)
		}
	}
	slices.Sort(names)
	b := newBench(t, text, names...)
	for _, f := range flow.Families {
		for _, name := range names {
			k := kinds[name[:1]]
			in := packet(name, flow.Ingress, flow.TCP, peersOf[f], ports(40000, 80))
			out := packet(name, flow.Egress, flow.TCP, peersOf[f], ports(80, 40000))
			for _, p := range []struct {
				flow.Packet
				pass bool
			}{{in, k.in}, {out, k.out}} {
				o := b.check(t, "an open flow", p.Packet, p.pass)
				if o.Classified && o.Untracked != k.untracked {
					t.Errorf("%s: %s, want untracked %t", &p.Packet, o, k.untracked)
				}
			}
			// A flow of another protocol at one of them is none at the next.
			gre := packet(name, flow.Ingress, 47, peersOf[f])
			b.check(t, "an answer to nothing", gre.Reply(), false)
			b.check(t, "another protocol", gre, k.in)
			reply := gre.Reply()
			if k.in {
				reply.State = flow.Established
			}
			b.check(t, "its answer", reply, k.in && name[0] != 'd')
		}
	}
}

// A policy may be there before its interfaces, and stays when they go.
func TestInterfacesThatComeAndGo(t *testing.T) {
	t.Parallel()
	host := labtest.Namespace(t, "host")
	enforce(t, host, load(t, onPort("eth0", 80, "")+onPort("ppp*", 81, "")))
	for round, name := range []string{"eth0", "ppp0", "eth0", "ppp17"} {
		t.Run(fmt.Sprintf("%d %s", round, name), func(t *testing.T) {
			open, closed := uint16(80), uint16(81)
			if name != "eth0" {
				open, closed = closed, open
			}
			far := plug(t, host, name)
			for _, f := range flow.Families {
				for _, port := range []uint16{open, closed} {
					serve(t, host, hostOf[f], port)
					serve(t, far, worldOf[f], port)
				}
				connect(t, far, worldOf[f], netip.AddrPortFrom(hostOf[f], open))
				refused(t, far, worldOf[f], netip.AddrPortFrom(hostOf[f], closed))
				connect(t, host, hostOf[f], netip.AddrPortFrom(worldOf[f], open))
			}
			if err := host.DeleteLink(name); err != nil {
				t.Fatal(err)
			}
		})
	}
	// A name that is given later counts as well.
	t.Run("renamed", func(t *testing.T) {
		far := plug(t, host, "new0")
		f := flow.IPv4 // IPv6 addresses go when an interface goes down
		serve(t, host, hostOf[f], 80)
		serve(t, host, hostOf[f], 81)
		connect(t, far, worldOf[f], netip.AddrPortFrom(hostOf[f], 81))
		rename(t, host, "new0", "eth0")
		refused(t, far, worldOf[f], netip.AddrPortFrom(hostOf[f], 81))
		connect(t, far, worldOf[f], netip.AddrPortFrom(hostOf[f], 80))
		rename(t, host, "eth0", "ppp0")
		refused(t, far, worldOf[f], netip.AddrPortFrom(hostOf[f], 80))
		connect(t, far, worldOf[f], netip.AddrPortFrom(hostOf[f], 81))
	})
}

// plug gives the host an interface with somebody at its far end.
func plug(t *testing.T, host *lab.Namespace, name string) *lab.Namespace {
	t.Helper()
	far := labtest.Namespace(t, "far")
	labtest.Connect(t,
		lab.End{Namespace: host, Interface: name, Addresses: prefixes("192.0.2.10/24", "2001:db8:2::10/64")},
		lab.End{Namespace: far, Interface: "wire", Addresses: prefixes("192.0.2.20/24", "2001:db8:2::20/64", "198.51.100.7/32", "2001:db8:77::7/128")})
	for _, r := range []lab.Route{
		{Dest: prefix("198.51.100.0/24"), Interface: name}, {Dest: prefix("2001:db8:77::/48"), Interface: name},
	} {
		if err := host.AddRoute(r); err != nil {
			t.Fatal(err)
		}
	}
	return far
}

// rename gives an interface another name; its routes come back with it.
func rename(t *testing.T, ns *lab.Namespace, from, to string) {
	t.Helper()
	links := linksOf(t, ns)
	link, err := links.LinkByName(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{links.LinkSetDown(link), links.LinkSetName(link, to), links.LinkSetUp(link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := ns.AddRoute(lab.Route{Dest: prefix("198.51.100.0/24"), Interface: to}); err != nil {
		t.Fatal(err)
	}
}
