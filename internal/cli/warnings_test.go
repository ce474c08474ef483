package cli

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"sgc/apply"
	"sgc/internal/links"
	"sgc/policies"
)

// interfacesOf returns a policy with blocks for the interfaces.
func interfacesOf(names string) *policies.Policy {
	p := new(policies.Policy)
	for _, name := range strings.Fields(names) {
		p.Interfaces = append(p.Interfaces, &policies.Interface{Name: name})
	}
	return p
}

func textsOf(list []warning) string {
	var b strings.Builder
	for _, w := range list {
		b.WriteString(w.Kind + " " + w.Subject + ": " + w.Text + "\n")
	}
	return b.String()
}

// stack are links with masters, as "name kind master".
func stack(t *testing.T, lines ...string) []links.Link {
	t.Helper()
	var list []links.Link
	index := map[string]int{}
	for n, line := range lines {
		f := strings.Fields(line)
		index[f[0]] = n + 1
		list = append(list, links.Link{Name: f[0], Kind: f[1], Index: n + 1})
	}
	for n, line := range lines {
		if f := strings.Fields(line); len(f) > 2 {
			if index[f[2]] == 0 {
				t.Fatalf("%s has no master %s", f[0], f[2])
			}
			list[n].Master = index[f[2]]
		}
	}
	return list
}

func TestEnslavedInterfaces(t *testing.T) {
	for _, tc := range []struct {
		name, blocks string
		links        []links.Link
		want         string
	}{
		{"no interface is there", "eth0", nil, ""},
		{"free", "eth0", stack(t, "eth0 veth", "br0 bridge"), ""},
		{"another one is enslaved", "eth0", stack(t, "eth0 veth", "eth1 veth br0", "br0 bridge"), ""},
		{"the bridge itself", "br0", stack(t, "eth0 veth br0", "br0 bridge"), ""},
		{"bridge", "eth0", stack(t, "eth0 veth br0", "br0 bridge"),
			"enslaved_interface interface.eth0: eth0 is enslaved to bridge br0: its packets are br0's where rules judge them, or pass from port to port unjudged. Name br0 in the policy instead.\n"},
		{"bond", "eth0", stack(t, "eth0 device bond0", "bond0 bond"),
			"enslaved_interface interface.eth0: eth0 is enslaved to bond bond0: its packets are bond0's where rules judge them. Name bond0 in the policy instead.\n"},
		{"team", "eth0", stack(t, "eth0 device t0", "t0 team"),
			"enslaved_interface interface.eth0: eth0 is enslaved to team t0: its packets are t0's where rules judge them. Name t0 in the policy instead.\n"},
		{"VRF", "eth0", stack(t, "eth0 device blue", "blue vrf"),
			"enslaved_interface interface.eth0: eth0 belongs to VRF blue: the kernel takes its packets through the rules twice, under either name, and tracks no flow as the policy means it. Name blue in the policy instead.\n"},
		{"another kind", "eth0", stack(t, "eth0 device bat0", "bat0 batadv"),
			"enslaved_interface interface.eth0: eth0 is enslaved to bat0 (batadv): its packets are bat0's where rules judge them. Name bat0 in the policy instead.\n"},
		{"a bond in a bridge", "eth0", stack(t, "eth0 device bond0", "bond0 bond br0", "br0 bridge"),
			"enslaved_interface interface.eth0: eth0 is enslaved to bridge br0: its packets are br0's where rules judge them, or pass from port to port unjudged. Name br0 in the policy instead.\n"},
		{"the bridge is named, too", "br0 eth0", stack(t, "eth0 veth br0", "br0 bridge"),
			"enslaved_interface interface.eth0: eth0 is enslaved to bridge br0: its packets are br0's where rules judge them, or pass from port to port unjudged. interface.br0 governs br0; leave eth0 out of the policy.\n"},
		{"a wildcard for ports of two bridges", "veth*", stack(t, "veth1 veth br0", "veth2 veth br1", "veth3 veth br0", "veth4 veth", "br0 bridge", "br1 bridge"),
			"enslaved_interface interface.veth*: veth1, veth3 are enslaved to bridge br0: their packets are br0's where rules judge them, or pass from port to port unjudged. Name br0 in the policy instead.\n" +
				"enslaved_interface interface.veth*: veth2 is enslaved to bridge br1: its packets are br1's where rules judge them, or pass from port to port unjudged. Name br1 in the policy instead.\n"},
		{"a wildcard beside the bridge", "br0 veth*", stack(t, "veth1 veth br0", "br0 bridge"), ""},
		{"a wildcard for everything", "*", stack(t, "veth1 veth br0", "br0 bridge"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := textsOf(enslavedWarnings(interfacesOf(tc.blocks), tc.links)); got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
		})
	}
}

// TestEnslavedOnTheKernel puts a named interface into a bridge and takes it out
// again.
func TestEnslavedOnTheKernel(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	eth0 := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}
	eth1 := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}, PeerName: "peer1"}
	do := func(f func() error) {
		t.Helper()
		if err := s.ns.Do(f); err != nil {
			t.Fatal(err)
		}
	}
	do(func() error {
		return errors.Join(netlink.LinkAdd(bridge), netlink.LinkAdd(eth0), netlink.LinkAdd(eth1), netlink.LinkSetMaster(eth1, bridge))
	})
	const says = "warnings\n  eth0 is enslaved to bridge br0: "
	wantWarned := func(want bool) {
		t.Helper()
		for _, command := range [][]string{{"plan", s.dir}, {"apply", "--auto-approve", s.dir}, {"status"}} {
			if out := s.mustRun(command...).out; strings.Contains(out, says) != want || strings.Contains(out, "warnings") != want {
				t.Errorf("%s warns: %v, want %v:\n%s", command[0], !want, want, out)
			}
		}
		out := s.mustRun("status", "--json").out
		var view statusView
		if err := json.Unmarshal([]byte(out), &view); err != nil {
			t.Fatal(err)
		}
		if got := len(view.Warnings) == 1 && view.Warnings[0].Kind == warnEnslaved && view.Warnings[0].Subject == "interface.eth0"; got != want {
			t.Errorf("in JSON: %v, want %v:\n%s", got, want, out)
		}
	}
	wantWarned(false)
	do(func() error { return netlink.LinkSetMaster(eth0, bridge) })
	wantWarned(true)
	do(func() error { return netlink.LinkSetNoMaster(eth0) })
	wantWarned(false)
}

func TestManagedDevices(t *testing.T) {
	p := interfacesOf("eth* eth0 lo")
	got := managedDevices(p, stack(t, "lo device", "eth0 device", "eth1 bridge", "eth2 device", "wan0 device"))
	want := []apply.Device{{Name: "eth*", Indexes: []int{3, 4}, Bridge: true}, {Name: "eth0", Indexes: []int{2}}}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for n := range want {
		if got[n].Name != want[n].Name || got[n].Bridge != want[n].Bridge || len(got[n].Indexes) != len(want[n].Indexes) || got[n].Indexes[0] != want[n].Indexes[0] {
			t.Errorf("got %+v, want %+v", got[n], want[n])
		}
	}
}

func TestObstacleText(t *testing.T) {
	for _, tc := range []struct {
		chain apply.ObstacleChain
		want  string
	}{
		{apply.ObstacleChain{Name: "input", Policy: true}, "chain input (policy drop)"},
		{apply.ObstacleChain{Name: "input", Drops: []string{"input"}}, "chain input (drop rules)"},
		{apply.ObstacleChain{Name: "input", Drops: []string{"f2b"}}, "chain input (drop rules in chain f2b)"},
		{apply.ObstacleChain{Name: "input", Policy: true, Drops: []string{"a", "b", "input"}}, "chain input (policy drop, drop rules, also in chains a, b)"},
	} {
		if got := obstacleText(tc.chain); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestFlowtableWarnings(t *testing.T) {
	devices := []apply.Device{{Name: "eth0"}, {Name: "wan*"}}
	const and = "no group and no ACL judges the packets of a flow that is in it, and no change of the policy cuts it."
	for _, tc := range []struct {
		name     string
		shortcut apply.Shortcut
		want     string
	}{
		{"of the interface", apply.Shortcut{Table: "table inet fw", Flowtable: "f", Takes: []string{"eth0", "lan0"}, Devices: []string{"eth0"}},
			"takes flows that are routed over eth0 past sgc: " + and + " Take eth0 out of its devices."},
		{"of a wildcard", apply.Shortcut{Table: "table inet fw", Flowtable: "f", Takes: []string{"wan7"}, Devices: []string{"eth0", "wan*"}},
			"takes flows that are routed over wan* past sgc: " + and + " Take wan* out of its devices."},
		{"of another interface", apply.Shortcut{Table: "table inet fw", Flowtable: "f", Takes: []string{"lan0"}, Devices: []string{"eth0"}},
			"takes flows that come in on lan0 past sgc, also where they leave by eth0: " + and + " Add no flows of eth0 to it."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := "foreign_flowtable flowtable f of table inet fw: flowtable f of table inet fw " + tc.want + "\n"
			if got := textsOf(flowtableWarnings([]apply.Shortcut{tc.shortcut}, devices)); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func TestWarningsThatConcernNobody(t *testing.T) {
	around := &apply.Surroundings{Legacy: []string{"legacy ip6tables table filter"}, LegacyRaw: []string{"legacy ip6tables table raw"}}
	flushes := surroundings{flushes: []bootFlush{{File: "/etc/nftables.conf", Line: 3}}}
	for _, tc := range []struct {
		name   string
		policy *policies.Policy
		kinds  string
	}{
		{"a policy", interfacesOf("eth0"), "foreign_drop foreign_notrack boot_flush"},
		{"a policy without interfaces", interfacesOf(""), ""},
		{"a policy that only names the loopback", interfacesOf("lo"), ""},
		{"a policy that nobody knows", nil, "boot_flush"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var kinds []string
			for _, w := range warningsOf(tc.policy, around, flushes) {
				kinds = append(kinds, w.Kind)
				if w.Kind != warnBoot && !strings.Contains(w.Text, "ip6tables-legacy -S") {
					t.Errorf("no advice in %q", w.Text)
				}
			}
			if got := strings.Join(kinds, " "); got != tc.kinds {
				t.Errorf("got %q, want %q", got, tc.kinds)
			}
		})
	}
}
