package links_test

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/internal/links"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// list lists the links of a namespace, by name.
func list(t *testing.T, ns *lab.Namespace) []links.Link {
	t.Helper()
	var found []links.Link
	err := ns.Do(func() (err error) {
		found, err = links.List()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func find(t *testing.T, found []links.Link, name string) links.Link {
	t.Helper()
	n := slices.IndexFunc(found, func(l links.Link) bool { return l.Name == name })
	if n < 0 {
		t.Fatalf("%s is not among %v", name, found)
	}
	return found[n]
}

func TestMasters(t *testing.T) {
	for _, kind := range []string{"bridge", "bond", "vrf", "team"} {
		t.Run(kind, func(t *testing.T) {
			ns := labtest.Namespace(t, "host")
			err := ns.Do(func() error {
				port, other := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}, master(kind)
				if err := netlink.LinkAdd(other); err != nil {
					return err
				}
				return errors.Join(netlink.LinkAdd(port), netlink.LinkSetMaster(port, other))
			})
			if errors.Is(err, unix.EOPNOTSUPP) {
				t.Skipf("SKIP: this kernel has no interfaces of kind %s: %v", kind, err)
			}
			if err != nil {
				t.Fatal(err)
			}
			found := list(t, ns)
			if !slices.IsSortedFunc(found, func(a, b links.Link) int {
				if a.Name < b.Name {
					return -1
				}
				return 1
			}) {
				t.Errorf("not sorted: %v", found)
			}
			m := find(t, found, "m0")
			if m.Kind != kind || m.Index == 0 || m.Master != 0 {
				t.Errorf("the master is %+v", m)
			}
			if top, ok := links.Top(found, find(t, found, "eth0")); !ok || top != m {
				t.Errorf("eth0 is below %+v, %v", top, ok)
			}
			for _, free := range []string{"lo", "m0", "peer0"} {
				if top, ok := links.Top(found, find(t, found, free)); ok {
					t.Errorf("%s is below %+v", free, top)
				}
			}
		})
	}
}

func master(kind string) netlink.Link {
	attrs := netlink.LinkAttrs{Name: "m0"}
	switch kind {
	case "bridge":
		return &netlink.Bridge{LinkAttrs: attrs}
	case "bond":
		bond := netlink.NewLinkBond(attrs)
		bond.Mode = netlink.BOND_MODE_ACTIVE_BACKUP
		return bond
	case "vrf":
		return &netlink.Vrf{LinkAttrs: attrs, Table: 10}
	default:
		return &netlink.GenericLink{LinkAttrs: attrs, LinkType: kind}
	}
}

func TestTopOfAStack(t *testing.T) {
	eth0 := links.Link{Name: "eth0", Index: 2, Master: 3}
	bond0 := links.Link{Name: "bond0", Index: 3, Kind: "bond", Master: 4}
	br0 := links.Link{Name: "br0", Index: 4, Kind: "bridge"}
	for _, tc := range []struct {
		name string
		list []links.Link
		of   links.Link
		want string
	}{
		{"the last master counts", []links.Link{bond0, br0, eth0}, eth0, "br0"},
		{"from the middle", []links.Link{bond0, br0, eth0}, bond0, "br0"},
		{"the top itself has none", []links.Link{bond0, br0, eth0}, br0, ""},
		{"a master that is gone by now ends the way", []links.Link{bond0, eth0}, eth0, "bond0"},
		{"a circle ends", []links.Link{{Name: "a", Index: 1, Master: 2}, {Name: "b", Index: 2, Master: 1}}, links.Link{Name: "a", Index: 1, Master: 2}, "a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if top, ok := links.Top(tc.list, tc.of); top.Name != tc.want || ok != (tc.want != "") {
				t.Errorf("got %q, %v; want %q", top.Name, ok, tc.want)
			}
		})
	}
}
