package apply

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// obstaclesText writes obstacles down in short: a line for each table, its
// chains with "policy" and the chains that drop, and the devices.
func obstaclesText(list []Obstacle) string {
	var b strings.Builder
	for _, o := range list {
		fmt.Fprintf(&b, "%s:", o.Table)
		for _, c := range o.Chains {
			what := c.Drops
			if c.Policy {
				what = append([]string{"policy"}, what...)
			}
			fmt.Fprintf(&b, " %s(%s)", c.Name, strings.Join(what, " "))
		}
		fmt.Fprintf(&b, " for %s\n", strings.Join(o.Devices, " "))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func TestObstacles(t *testing.T) {
	for _, tc := range []struct {
		name   string
		script string
		// devices are "eth0" if empty.
		devices string
		want    string
	}{
		{"an empty table", `table inet a { }`, "", ""},
		{"Debian's table, which does nothing", `table inet filter {
			chain input { type filter hook input priority filter; }
			chain forward { type filter hook forward priority filter; }
			chain output { type filter hook output priority filter; }
		}`, "", ""},
		{"policies", `table inet filter {
			chain input { type filter hook input priority filter; policy drop; }
			chain forward { type filter hook forward priority filter; policy drop; }
			chain output { type filter hook output priority filter; policy drop; }
		}`, "", "table inet filter: forward(policy) input(policy) output(policy) for eth0"},
		{"a drop rule in each family", `
			table ip a { chain c { type filter hook input priority 0; tcp dport 1 drop; }; }
			table ip6 b { chain c { type filter hook output priority 0; tcp dport 1 drop; }; }
			table inet c { chain c { type filter hook postrouting priority 200; tcp dport 1 drop; }; }`, "",
			"table inet c: c(c) for eth0\ntable ip a: c(c) for eth0\ntable ip6 b: c(c) for eth0"},
		{"a reject", `table inet a { chain c { type filter hook input priority 0; tcp dport 1 reject; }; }`, "", "table inet a: c(c) for eth0"},
		{"a drop in a chain of type nat sees the first packets of flows", `table ip a { chain c { type nat hook postrouting priority 100; tcp dport 1 drop; }; }`, "", "table ip a: c(c) for eth0"},
		{"a drop in a chain of type route", `table ip a { chain c { type route hook output priority 0; tcp dport 1 drop; }; }`, "", "table ip a: c(c) for eth0"},
		{"a drop that is led to", `table inet a {
			chain deep { tcp dport 1 drop; }
			chain mid { tcp dport 1 goto deep; }
			chain c { type filter hook input priority 0; jump mid; }
		}`, "", "table inet a: c(deep) for eth0"},
		{"a drop that nothing leads to", `table inet a {
			chain deep { tcp dport 1 drop; }
			chain c { type filter hook input priority 0; accept; }
		}`, "", ""},
		{"a drop behind an accept of everything", `table inet a {
			chain c { type filter hook input priority 0; counter accept; drop; }
		}`, "", ""},
		{"a policy behind an accept of everything", `table inet a {
			chain c { type filter hook input priority 0; policy drop; counter accept; }
		}`, "", ""},
		{"a policy behind an accept of something", `table inet a {
			chain c { type filter hook input priority 0; policy drop; tcp dport 1-65535 accept; }
		}`, "", "table inet a: c(policy) for eth0"},
		{"a policy behind a return", `table inet a {
			chain c { type filter hook input priority 0; policy drop; return; }
		}`, "", "table inet a: c(policy) for eth0"},
		{"a policy behind a chain that accepts everything", `table inet a {
			chain every { ip saddr 192.0.2.1 return; tcp dport 1 accept; accept; }
			chain c { type filter hook input priority 0; policy drop; goto every; }
		}`, "", "table inet a: c(policy) for eth0"},
		{"a policy behind a jump that never returns", `table inet a {
			chain every { tcp dport 1 accept; accept; }
			chain c { type filter hook input priority 0; policy drop; jump every; drop; }
		}`, "", ""},

		{"the device is let through, as the warning advises", `table inet a {
			chain in { type filter hook input priority 0; policy drop; iifname "eth0" accept; tcp dport 22 accept; }
			chain out { type filter hook output priority 0; policy drop; oifname "eth0" accept; }
			chain through { type filter hook forward priority 0; policy drop; iifname "eth0" accept; oifname "eth0" accept; }
		}`, "", ""},
		{"another device is let through", `table inet a {
			chain in { type filter hook input priority 0; policy drop; iifname "eth1" accept; }
		}`, "", "table inet a: in(policy) for eth0"},
		{"one of two devices is let through", `table inet a {
			chain in { type filter hook input priority 0; policy drop; iifname "eth0" accept; }
		}`, "eth0 eth1", "table inet a: in(policy) for eth1"},
		{"devices in a set are let through", `table inet a {
			chain in { type filter hook input priority 0; policy drop; iifname { "eth0", "eth1" } accept; }
		}`, "eth0 eth1 eth2", "table inet a: in(policy) for eth2"},
		{"all devices but some are dropped", `table inet a {
			chain in { type filter hook input priority 0; iifname != { "lo", "eth1" } drop; }
		}`, "eth0 eth1", "table inet a: in(in) for eth0"},
		{"only a port of the device is let through", `table inet a {
			chain in { type filter hook input priority 0; policy drop; iifname "eth0" tcp dport 22 accept; }
		}`, "", "table inet a: in(policy) for eth0"},
		{"a drop for another device", `table inet a {
			chain in { type filter hook input priority 0; iifname "docker0" drop; }
			chain out { type filter hook output priority 0; oifname "docker0" drop; }
			chain through { type filter hook forward priority 0; iifname "docker0" oifname "docker0" drop; }
		}`, "", ""},
		{"a drop for the device", `table inet a {
			chain in { type filter hook input priority 0; iifname "eth0" tcp dport 1 drop; }
		}`, "", "table inet a: in(in) for eth0"},
		{"a drop for all devices but another", `table inet a {
			chain in { type filter hook input priority 0; iifname != "lo" drop; }
		}`, "", "table inet a: in(in) for eth0"},
		{"a drop for all devices but this one", `table inet a {
			chain in { type filter hook input priority 0; iifname != "eth0" drop; }
		}`, "", ""},
		{"a drop of what is routed between the device and another", `table inet a {
			chain through { type filter hook forward priority 0; iifname "eth0" oifname "docker0" drop; }
		}`, "", "table inet a: through(through) for eth0"},
		{"what is routed to or from another device", `table inet a {
			chain zone { drop; }
			chain through { type filter hook forward priority 0; iifname "docker0" drop; iifname != "docker0" oifname "docker0" drop; oifname vmap { "docker0" : goto zone }; oifname { "docker0", "docker1" } jump zone; }
			chain post { type filter hook postrouting priority 0; iifname "docker0" drop; }
		}`, "", ""},
		{"what is routed between another device and this one, in two steps", `table inet a {
			chain out { iifname "docker0" drop; }
			chain through { type filter hook forward priority 0; oifname "eth0" jump out; }
		}`, "", "table inet a: through(out) for eth0"},
		{"what is routed between another device and this one, in two maps", `table inet a {
			chain out { iifname vmap { "docker0" : drop }; }
			chain through { type filter hook forward priority 0; oifname vmap { "eth0" : jump out, "eth1" : jump out }; }
		}`, "eth0 wan0", "table inet a: through(out) for eth0"},
		{"everything that is routed but from another device", `table inet a {
			chain through { type filter hook forward priority 0; iifname != "docker0" drop; }
		}`, "", "table inet a: through(through) for eth0"},
		{"a chain for another device", `table inet a {
			chain zone { tcp dport 1 accept; drop; }
			chain in { type filter hook input priority 0; iifname "docker0" jump zone; }
		}`, "", ""},
		{"a chain for the device, by a map", `table inet a {
			chain inside { accept; }
			chain outside { tcp dport 1 accept; drop; }
			chain in { type filter hook input priority 0; policy drop; iifname vmap { "eth0" : jump outside, "eth1" : jump inside, "lo" : accept }; }
		}`, "eth0 eth1", "table inet a: in(outside) for eth0"},
		{"a device that is not in the map", `table inet a {
			chain in { type filter hook input priority 0; iifname vmap { "eth1" : drop, "lo" : accept }; }
		}`, "eth0 eth1", "table inet a: in(in) for eth1"},
		{"a map of something else", `table inet a {
			chain in { type filter hook input priority 0; tcp dport vmap { 22 : accept, 23 : drop }; }
		}`, "", "table inet a: in(in) for eth0"},
		{"a named map of ranges", `table inet a {
			map m { type inet_service : verdict; flags interval; elements = { 22 : accept, 100-200 : drop }; }
			chain in { type filter hook input priority 0; tcp dport vmap @m; }
		}`, "", "table inet a: in(in) for eth0"},
		{"a map that only accepts", `table inet a {
			chain in { type filter hook input priority 0; tcp dport vmap { 22 : accept, 23 : accept }; }
		}`, "", ""},
		{"a policy behind a map that accepts some", `table inet a {
			chain in { type filter hook input priority 0; policy drop; tcp dport vmap { 22 : accept, 23 : accept }; }
		}`, "", "table inet a: in(policy) for eth0"},
		{"a policy behind a map of interfaces that accepts the device", `table inet a {
			chain in { type filter hook input priority 0; policy drop; iifname vmap { "eth0" : accept, "lo" : accept }; }
		}`, "eth0 eth1 eth*", "table inet a: in(policy) for eth1 eth*"},
		{"a policy behind a map that accepts all the rest", `table inet a {
			map m { type inet_service : verdict; elements = { 22 : accept, * : accept }; }
			chain in { type filter hook input priority 0; policy drop; tcp dport vmap @m; }
		}`, "", "table inet a: in(policy) for eth0"},
		{"a map that drops all the rest", `table inet a {
			map m { type ifname : verdict; elements = { "eth0" : accept, * : drop }; }
			chain in { type filter hook input priority 0; iifname vmap @m; }
		}`, "eth0 eth1", "table inet a: in(in) for eth1"},
		{"by prefix: a drop for the device's kind", `table inet a {
			chain in { type filter hook input priority 0; iifname "eth*" drop; }
		}`, "eth0 wan0", "table inet a: in(in) for eth0"},
		{"a wildcard, one of whose interfaces is let through", `table inet a {
			chain in { type filter hook input priority 0; policy drop; iifname "eth0" accept; }
		}`, "eth*", "table inet a: in(policy) for eth*"},
		{"a wildcard that is let through", `table inet a {
			chain in { type filter hook input priority 0; policy drop; iifname "e*" accept; }
		}`, "eth*", ""},
		{"a wildcard, one of whose interfaces is dropped", `table inet a {
			chain in { type filter hook input priority 0; iifname "eth7" drop; }
		}`, "eth* wan*", "table inet a: in(in) for eth*"},
		{"by number, the loopback's", `table inet a {
			chain in { type filter hook input priority 0; policy drop; iif != "lo" accept; }
			chain out { type filter hook output priority 0; oif "lo" drop; }
		}`, "", ""},

		{"packets that belong to no flow", `table inet a {
			chain bad { log; drop; }
			chain in { type filter hook input priority 0; ct state invalid drop; ct state vmap { established : accept, invalid : drop }; ct state invalid jump bad; ct state == invalid drop; }
		}`, "", ""},
		{"new flows", `table inet a {
			chain in { type filter hook input priority 0; ct state new drop; }
		}`, "", "table inet a: in(in) for eth0"},
		{"new flows and packets that belong to none", `table inet a {
			chain in { type filter hook input priority 0; ct state invalid,new drop; }
		}`, "", "table inet a: in(in) for eth0"},
		{"new flows, by a map", `table inet a {
			chain in { type filter hook input priority 0; ct state vmap { established : accept, new : drop }; }
		}`, "", "table inet a: in(in) for eth0"},

		{"a shield ahead of sgc", `table inet a {
			chain pre { type filter hook prerouting priority raw; ip saddr 192.0.2.0/24 drop; }
		}`, "", ""},
		{"a policy ahead of sgc", `table inet a {
			chain pre { type filter hook prerouting priority raw; policy drop; ip saddr 192.0.2.0/24 drop; }
		}`, "", "table inet a: pre(policy) for eth0"},
		{"a drop beside sgc", `table inet a {
			chain pre { type filter hook prerouting priority mangle; ip saddr 192.0.2.0/24 drop; }
		}`, "", "table inet a: pre(pre) for eth0"},
		{"a dormant table", `table inet a { flags dormant; chain in { type filter hook input priority 0; policy drop; }; }`, "", ""},
		{"a family that sgc has nothing to do with", `table arp a { chain in { type filter hook input priority 0; policy drop; }; }`, "", ""},
		{"a bridge that is not the device", `table bridge a { chain out { type filter hook output priority 0; policy drop; }; }`, "", ""},
		{"the device is a bridge", `table bridge a {
			chain pre { type filter hook prerouting priority 0; tcp dport 1 drop; }
			chain through { type filter hook forward priority 0; policy drop; }
			chain out { type filter hook output priority 0; oifname "port1" drop; }
		}`, "bridge:br0", "table bridge a: out(out) for br0"},
		{"chains of devices", `
			table netdev a {
				chain in { type filter hook ingress device "lo" priority 0; policy drop; }
				chain shield { type filter hook ingress device "lo" priority 1; ip saddr 192.0.2.0/24 drop; }
			}
			table inet b { chain in { type filter hook ingress device "lo" priority 0; policy drop; }; }`, "lo",
			"table inet b: in(policy) for lo\ntable netdev a: in(policy) for lo"},
		{"chains of other devices", `
			table netdev a { chain in { type filter hook ingress device "lo" priority 0; policy drop; }; }
			table inet b { chain in { type filter hook ingress device "lo" priority 0; policy drop; }; }`, "", ""},
		{"sgc's own table", `table inet sgc { chain in { type filter hook input priority 0; policy drop; }; }`, "", ""},
		{"a table of the same name in another family", `table ip sgc { chain in { type filter hook input priority 0; policy drop; }; }`, "", "table ip sgc: in(policy) for eth0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.nft(tc.script)
			around := l.snapshot().Around
			if got := obstaclesText(around.Obstacles(devicesOf(tc.devices))); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			if got := around.Obstacles(nil); len(got) > 0 {
				t.Errorf("without a device there is %v", got)
			}
		})
	}
}

// devicesOf reads names, "bridge:" in front of bridges.
func devicesOf(names string) []Device {
	if names == "" {
		names = "eth0"
	}
	var devices []Device
	for _, name := range strings.Fields(names) {
		bare, isBridge := strings.CutPrefix(name, "bridge:")
		devices = append(devices, Device{Name: bare, Bridge: isBridge})
	}
	return devices
}

func TestObstaclesByNumber(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.nft(`table inet a { chain in { type filter hook input priority 0; policy drop; iif "lo" accept; }; }`)
	around := l.snapshot().Around
	for _, tc := range []struct {
		device Device
		want   string
	}{
		{Device{Name: "lo", Indexes: []int{1}}, ""},
		{Device{Name: "eth0", Indexes: []int{2}}, "table inet a: in(policy) for eth0"},
		{Device{Name: "l*", Indexes: []int{1, 2}}, "table inet a: in(policy) for l*"},
	} {
		if got := obstaclesText(around.Obstacles([]Device{tc.device})); got != tc.want {
			t.Errorf("%+v: got %q, want %q", tc.device, got, tc.want)
		}
	}
}

func TestEgressHook(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.try(`table netdev a { chain out { type filter hook egress device "lo" priority 0; tcp dport 1 drop; }; }`)
	around := l.snapshot().Around
	if got, want := obstaclesText(around.Obstacles(devicesOf("lo eth0"))), "table netdev a: out(out) for lo"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestObstaclesOfIptables writes rules as iptables-nft does.
func TestObstaclesOfIptables(t *testing.T) {
	t.Parallel()
	state := func(mask uint16, invert uint16) expr.Any {
		return &expr.Match{Name: "conntrack", Rev: 3, Info: &xt.ConntrackMtinfo3{ConntrackMtinfo2: xt.ConntrackMtinfo2{
			ConntrackMtinfoBase: xt.ConntrackMtinfoBase{MatchFlags: 1, InvertFlags: invert}, StateMask: mask,
		}}}
	}
	drop, accept := &expr.Verdict{Kind: expr.VerdictDrop}, &expr.Verdict{Kind: expr.VerdictAccept}
	reject := &expr.Target{Name: "REJECT", Rev: 0, Info: unknownInfo(make([]byte, 4))}
	counter := &expr.Counter{}
	in := func(name string) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(name)}}
	}
	rule := func(first []expr.Any, rest ...expr.Any) []expr.Any { return append(first, rest...) }
	for _, tc := range []struct {
		name  string
		rules [][]expr.Any
		want  string
	}{
		{"-m conntrack --ctstate INVALID -j DROP", [][]expr.Any{{state(1, 0), counter, drop}}, ""},
		{"-m conntrack --ctstate NEW -j DROP", [][]expr.Any{{state(8, 0), counter, drop}}, "table ip filter: INPUT(INPUT) for eth0"},
		{"-m conntrack ! --ctstate INVALID -j DROP", [][]expr.Any{{state(1, 1), counter, drop}}, "table ip filter: INPUT(INPUT) for eth0"},
		{"-j REJECT", [][]expr.Any{{counter, reject}}, "table ip filter: INPUT(INPUT) for eth0"},
		{"-i eth0 -j ACCEPT, -j REJECT", [][]expr.Any{rule(in("eth0\x00"), counter, accept), {counter, reject}}, ""},
		{"-i eth+ -j ACCEPT, -j REJECT", [][]expr.Any{rule(in("eth"), counter, accept), {counter, reject}}, ""},
		{"-i eth -j ACCEPT, -j REJECT", [][]expr.Any{rule(in("eth\x00"), counter, accept), {counter, reject}}, "table ip filter: INPUT(INPUT) for eth0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			c, err := nftables.New(nftables.WithNetNSFd(int(l.netns.Fd())))
			if err != nil {
				t.Fatal(err)
			}
			table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
			chain := c.AddChain(&nftables.Chain{Name: "INPUT", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
			for _, r := range tc.rules {
				c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r})
			}
			if err := c.Flush(); errors.Is(err, unix.ENOENT) {
				t.Skipf("SKIP: this kernel has not the extension: %v", err)
			} else if err != nil {
				t.Fatal(err)
			}
			around := l.snapshot().Around
			if got := obstaclesText(around.Obstacles(devicesOf(""))); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func unknownInfo(b []byte) *xt.Unknown { u := xt.Unknown(b); return &u }

// TestShortcuts reads flowtables as the kernel would dump them: the messages
// that make objects have the attributes of those that dump them. Not every
// kernel can be asked to make flowtables.
func TestShortcuts(t *testing.T) {
	t.Parallel()
	add := func(more ...expr.Any) []expr.Any { return append(more, &expr.FlowOffload{Name: "f"}) }
	out := func(name string) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(name + "\x00")}}
	}
	for _, tc := range []struct {
		name    string
		devices []string
		rules   [][]expr.Any
		managed string
		want    string
	}{
		{"on the device", []string{"eth0", "lan0"}, [][]expr.Any{add()}, "", "table ip fw f takes from eth0 lan0 (own: true) for eth0"},
		{"on two devices", []string{"eth0", "lan0"}, [][]expr.Any{add()}, "lan0 eth0", "table ip fw f takes from eth0 lan0 (own: true) for lan0 eth0"},
		{"on another device, for all that is routed", []string{"lan0"}, [][]expr.Any{add()}, "", "table ip fw f takes from lan0 (own: false) for eth0"},
		{"for what comes from another device", []string{"lan0"}, [][]expr.Any{add(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("lan0\x00")})}, "", "table ip fw f takes from lan0 (own: false) for eth0"},
		{"for what goes to the device", []string{"lan0"}, [][]expr.Any{add(out("eth0")...)}, "eth0", "table ip fw f takes from lan0 (own: false) for eth0"},
		{"no rule uses it", []string{"eth0"}, nil, "", ""},
		{"nothing comes to the rule", []string{"eth0"}, [][]expr.Any{{&expr.Verdict{Kind: expr.VerdictAccept}}, add()}, "", ""},
		{"it takes nothing", nil, [][]expr.Any{add()}, "", ""},
		{"it is for a wildcard", []string{"eth7"}, [][]expr.Any{add()}, "eth*", "table ip fw f takes from eth7 (own: true) for eth*"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			around := Surroundings{tables: []*foreignTable{fakeTable(t, tc.devices, tc.rules)}}
			devices := devicesOf(tc.managed)
			got := ""
			for _, s := range around.Shortcuts(devices) {
				got += fmt.Sprintf("%s %s takes from %s (own: %v) for %s", s.Table, s.Flowtable, strings.Join(s.Takes, " "), s.TakesFrom(devices[0]), strings.Join(s.Devices, " "))
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// fakeTable reads a table with a forward chain and a flowtable from the
// messages that would make it.
func fakeTable(t *testing.T, devices []string, rules [][]expr.Any) *foreignTable {
	t.Helper()
	table := newForeignTable(unix.NFPROTO_IPV4, &Table{Name: "fw"})
	for _, m := range requests(t, func(c *nftables.Conn) {
		to := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "fw"})
		chain := c.AddChain(&nftables.Chain{Name: "forward", Table: to, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
		c.AddFlowtable(&nftables.Flowtable{Table: to, Name: "f", Devices: devices, Hooknum: nftables.FlowtableHookIngress, Priority: nftables.FlowtablePriorityFilter})
		for _, r := range rules {
			c.AddRule(&nftables.Rule{Table: to, Chain: chain, Exprs: r})
		}
	}) {
		var err error
		switch m.Header.Type & 0xff {
		case unix.NFT_MSG_NEWCHAIN:
			var c *Chain
			if _, c, err = decodeChain(m.Data[nlmsg.NetfilterSize:]); err == nil {
				err = table.addChain(c, m.Data[nlmsg.NetfilterSize:])
			}
		case unix.NFT_MSG_NEWRULE:
			err = table.addRule(m.Data[nlmsg.NetfilterSize:])
		case unix.NFT_MSG_NEWFLOWTABLE:
			err = table.addFlowtable(m.Data[nlmsg.NetfilterSize:])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return table
}

// requests returns the messages that f sends.
func requests(t *testing.T, f func(*nftables.Conn)) []netlink.Message {
	t.Helper()
	var sent []netlink.Message
	c, err := nftables.New(nftables.WithTestDial(func(m []netlink.Message) ([]netlink.Message, error) {
		sent = append(sent, m...)
		return nil, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	f(c)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	return sent
}

// TestFlowtableOfTheKernel is TestShortcuts where the kernel has flowtables.
func TestFlowtableOfTheKernel(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.try(`table inet fw {
		flowtable f { hook ingress priority 0; devices = { lo }; }
		chain through { type filter hook forward priority 0; flow add @f; }
	}`)
	found := l.snapshot()
	if got := found.Around.Shortcuts(devicesOf("lo")); len(got) != 1 || got[0].Flowtable != "f" || !got[0].TakesFrom(Device{Name: "lo"}) {
		t.Errorf("got %+v", got)
	}
	if len(found.Foreign.IPv4) == 0 || len(found.Foreign.IPv6) == 0 {
		t.Errorf("conntrack is not needed: %+v", found.Foreign)
	}
}
