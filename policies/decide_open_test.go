package policies_test

import (
	"slices"
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

func TestUntrackedFlows(t *testing.T) {
	const any4, any6 = "0.0.0.0/0", "::/0"
	peer4, peer6 := "198.51.100.7", "2001:db8:7::7"
	all := ports(flow.AllPorts)
	web := func(rules ...*policies.Rule) *policies.Policy { return attached(group("web", rules...)) }

	testDecisions(t, web(
		rule(flow.Ingress, "one", flow.TCP, ports(port(22)), "203.0.113.1/32"),
		rule(flow.Ingress, "any", flow.TCP, ports(flow.PortRange{First: 20, Last: 23}), any4),
		rule(flow.Egress, "out", flow.TCP, all, any4),
	), []decision{
		{"of several rules the most permissive counts", in(flow.TCP, "203.0.113.1", 1, 22), policies.Untracked, "any", "out", ""},
		{"the first port of the open range", in(flow.TCP, peer4, 1, 20), policies.Untracked, "any", "out", ""},
		{"the last port of the open range", in(flow.TCP, peer4, 1, 23), policies.Untracked, "any", "out", ""},
		{"the port after it", in(flow.TCP, peer4, 1, 24), policies.None, "", "", ""},
		{"the port before it", in(flow.TCP, peer4, 1, 19), policies.None, "", "", ""},
		{"a reply, from the first port", out(flow.TCP, peer4, 1, 20), policies.Untracked, "out", "any", ""},
		{"from the port before it a flow of the host", out(flow.TCP, peer4, 1, 19), policies.Tracked, "out", "", ""},
	})
	testDecisions(t, web(
		rule(flow.Egress, "dns", flow.UDP, ports(port(53)), any4, any6),
		rule(flow.Ingress, "back", flow.UDP, all, any4, any6),
	), []decision{
		{"a flow of the host is untracked where all ports are open inwards", out(flow.UDP, peer6, 53, 40000), policies.Untracked, "dns", "back", ""},
		{"so is its reply", in(flow.UDP, peer6, 53, 40000), policies.Untracked, "back", "dns", ""},
		{"another peer port is tracked", in(flow.UDP, peer6, 54, 40000), policies.Tracked, "back", "", ""},
		{"the host's own port does not count there", in(flow.UDP, peer4, 54, 53), policies.Tracked, "back", "", ""},
		{"and the host may not open to it", out(flow.UDP, peer4, 54, 53), policies.None, "", "", ""},
	})
	testDecisions(t, attached(
		group("a", everything(flow.Ingress, "in", any4)), group("b", everything(flow.Egress, "out", any4)),
	), []decision{
		{"the two rules may come from two groups", in(flow.UDP, peer4, 9, 9), policies.Untracked, "in", "out", ""},
		{"ICMP is always tracked", icmp(flow.Ingress, peer4, 8, 0), policies.Tracked, "in", "", ""},
		{"other protocols are always tracked", in(132, peer4, 0, 0), policies.Tracked, "in", "", ""},
		{"a family without its rules is dropped", in(flow.UDP, peer6, 9, 9), policies.None, "", "", ""},
	})
	testDecisions(t, web(rule(flow.Ingress, "in", flow.TCP, ports(port(80)), any4), rule(flow.Egress, "out", flow.UDP, all, any4)), []decision{
		{"the other direction's rule is of another protocol", in(flow.TCP, peer4, 9, 80), policies.Tracked, "in", "", ""},
	})
	testDecisions(t, web(rule(flow.Ingress, "in", flow.TCP, ports(port(80)), any4), everything(flow.Egress, "out", any6)), []decision{
		{"the other direction's rule is of the other family", in(flow.TCP, peer4, 9, 80), policies.Tracked, "in", "", ""},
	})
	testDecisions(t, web(
		rule(flow.Ingress, "in", flow.TCP, ports(port(80)), any4),
		rule(flow.Egress, "out", flow.TCP, ports(flow.PortRange{First: 1, Last: 65535}), any4),
	), []decision{
		{"ports 1–65535 are not all ports", in(flow.TCP, peer4, 9, 80), policies.Tracked, "in", "", ""},
	})
	testDecisions(t, web(
		rule(flow.Ingress, "in", flow.TCP, ports(port(80)), any4),
		rule(flow.Egress, "low", flow.TCP, ports(flow.PortRange{First: 0, Last: 32767}), any4),
		rule(flow.Egress, "high", flow.TCP, ports(flow.PortRange{First: 32768, Last: 65535}), any4),
	), []decision{
		{"nor are two rules that make up all ports", in(flow.TCP, peer4, 9, 80), policies.Tracked, "in", "", ""},
	})
	testDecisions(t, web(
		rule(flow.Ingress, "in", flow.TCP, ports(port(80)), "0.0.0.0/1", "128.0.0.0/1"), everything(flow.Egress, "out", any4),
	), []decision{
		{"two halves of the address space are not any address", in(flow.TCP, peer4, 9, 80), policies.Tracked, "in", "", ""},
	})

	indirect := web(everything(flow.Egress, "out", any4, any6))
	world := group("world")
	world.Members = prefixes(any4, any6)
	http := rule(flow.Ingress, "list", flow.TCP, ports(port(80)))
	http.Lists = []string{"world"}
	https := rule(flow.Ingress, "group", flow.TCP, ports(port(443)))
	https.Groups = []string{"world"}
	http.Group, https.Group = "web", "web"
	indirect.Groups[0].Rules = append(indirect.Groups[0].Rules, http, https)
	indirect.Groups = append(indirect.Groups, world)
	indirect.Lists = []*policies.PrefixList{{Name: "world", Entries: prefixes(any4, any6)}}
	testDecisions(t, indirect, []decision{
		{"a prefix list that holds the any-address does not count", in(flow.TCP, peer4, 9, 80), policies.Tracked, "list", "", ""},
		{"nor does a group whose member it is", in(flow.TCP, peer6, 9, 443), policies.Tracked, "group", "", ""},
	})
}

func TestAlwaysTrack(t *testing.T) {
	p := documentation()
	p.Interfaces[0].AlwaysTrack = []*policies.AlwaysTrack{
		{ID: "balancers", Prefixes: prefixes("10.0.0.0/8", "2001:db8:1::/48")},
		{ID: "near", Prefixes: prefixes("10.1.0.0/16")},
	}
	testDecisions(t, p, []decision{
		{"the first address", in(flow.TCP, "10.0.0.0", 1, 80), policies.Tracked, "http", "", ""},
		{"the last address", in(flow.TCP, "10.255.255.255", 1, 80), policies.Tracked, "http", "", ""},
		{"the address before", in(flow.TCP, "9.255.255.255", 1, 80), policies.Untracked, "http", "any4", ""},
		{"the address after", in(flow.TCP, "11.0.0.0", 1, 80), policies.Untracked, "http", "any4", ""},
		{"in IPv6", in(flow.TCP, "2001:db8:1::1", 1, 80), policies.Tracked, "http", "", ""},
		{"the reply is tracked too", state(flow.Established, out(flow.TCP, "10.0.0.1", 1, 80)), policies.Tracked, "", "", ""},
		{"and invalid packets are dropped again", state(flow.Invalid, in(flow.TCP, "10.0.0.1", 1, 80)), policies.None, "", "", ""},
	})
	judge := policies.NewJudge(p)
	for peer, want := range map[string]string{"10.0.0.1": "balancers", "10.1.0.1": "near", "11.0.0.1": ""} {
		packet, got := in(flow.TCP, peer, 1, 80), ""
		if block := judge.AlwaysTrack(&packet); block != nil {
			got = block.ID
		}
		if got != want {
			t.Errorf("%s is in always_track %q, want %q", peer, got, want)
		}
	}
}

func TestNetworkACLs(t *testing.T) {
	p := documentation()
	p.Interfaces[0].ACL = "edge"
	entry := func(d flow.Direction, number int, allow bool, protocol flow.Protocol, on flow.PortRange, prefix string) *policies.ACLEntry {
		return &policies.ACLEntry{
			ACL: "edge", Direction: d, Number: number, Allow: allow, AllProtocols: protocol == 0, Protocol: protocol,
			Ports: on, ICMPType: -1, ICMPCode: -1, Prefix: prefixes(prefix)[0],
		}
	}
	echo := entry(flow.Ingress, 110, true, flow.ICMP, flow.PortRange{}, "203.0.113.0/24")
	echo.ICMPType, echo.ICMPCode = 8, 0
	p.ACLs = []*policies.ACL{{Name: "edge", Entries: []*policies.ACLEntry{
		// Not in their order, which must not matter.
		entry(flow.Ingress, 100, true, flow.TCP, flow.AllPorts, "0.0.0.0/0"),
		entry(flow.Ingress, 90, false, 0, flow.PortRange{}, "198.51.100.66/32"),
		entry(flow.Ingress, 95, false, flow.TCP, flow.PortRange{First: 22, Last: 23}, "203.0.113.1/32"),
		echo,
		entry(flow.Ingress, 120, true, flow.ICMPv6, flow.PortRange{}, "0.0.0.0/0"),
		entry(flow.Egress, 100, true, 0, flow.PortRange{}, "0.0.0.0/0"),
	}}}
	const (
		allows, denies, blocks = "network_acl.edge.ingress.100", "network_acl.edge.ingress.90", "network_acl.edge.ingress.95"
		pings, lets            = "network_acl.edge.ingress.110", "network_acl.edge.egress.100"
	)
	testDecisions(t, p, []decision{
		{"what an entry allows goes on to the groups", in(flow.TCP, "198.51.100.7", 1, 80), policies.Untracked, "http", "any4", allows},
		{"which may drop it", in(flow.TCP, "198.51.100.7", 1, 81), policies.None, "", "", allows},
		{"the lowest number decides", in(flow.TCP, "198.51.100.66", 1, 80), policies.None, "", "", denies},
		{"also for established flows", state(flow.Established, in(flow.TCP, "198.51.100.66", 443, 40000)), policies.None, "", "", denies},
		{"and for other protocols that are established", state(flow.Established, in(47, "198.51.100.66", 0, 0)), policies.None, "", "", denies},
		{"the destination port is matched", in(flow.TCP, "203.0.113.1", 1, 22), policies.None, "", "", blocks},
		{"a port beside it goes on", in(flow.TCP, "203.0.113.1", 22, 80), policies.Untracked, "http", "any4", allows},
		{"ICMP type and code are matched", icmp(flow.Ingress, "203.0.113.1", 8, 0), policies.Tracked, "ping", "", pings},
		{"another code matches nothing, which is a deny", icmp(flow.Ingress, "203.0.113.1", 8, 1), policies.None, "", "", ""},
		{"an entry for icmpv6 is not one for protocol 58 in IPv4", in(flow.ICMPv6, "203.0.113.1", 0, 0), policies.None, "", "", ""},
		{"an IPv4 entry never decides for IPv6", in(flow.TCP, "2001:db8:7::7", 1, 80), policies.None, "", "", ""},
		{"the directions have entries of their own", out(flow.TCP, "198.51.100.66", 443, 40000), policies.Tracked, "any4", "", lets},
		{"replies need an entry too", state(flow.Established, out(flow.TCP, "2001:db8:7::7", 443, 40000)), policies.None, "", "", ""},
		{"exempt traffic passes without", in(flow.UDP, "169.254.169.123", 123, 40000), policies.Exempt, "", "", ""},
	})
	p.Interfaces[0].ACL = "gone"
	testDecisions(t, p, []decision{
		{"an ACL without entries denies everything", in(flow.TCP, "198.51.100.7", 1, 80), policies.None, "", "", ""},
	})
}

func TestOtherProtocols(t *testing.T) {
	testDecisions(t, attached(group("web",
		&policies.Rule{Direction: flow.Egress, ID: "gre", Protocol: 47, Prefixes: prefixes("10.0.0.0/8", "2001:db8:1::/48")},
	)), []decision{
		{"a rule opens", out(47, "10.0.0.1", 0, 0), policies.Tracked, "gre", "", ""},
		{"the same protocol is let in within 600 seconds", state(flow.Established, in(47, "10.0.0.1", 0, 0)), policies.Tracked, "", "", ""},
		{"and not after", in(47, "10.0.0.1", 0, 0), policies.None, "", "", ""},
		{"and goes out, as the same flow, whatever the rules say", state(flow.Established, out(47, "192.0.2.99", 0, 0)), policies.Tracked, "", "", ""},
		{"what conntrack calls related is judged by the rules", state(flow.Related, in(47, "10.0.0.1", 0, 0)), policies.None, "", "", ""},
		{"in IPv6 too", out(47, "2001:db8:1::1", 0, 0), policies.Tracked, "gre", "", ""},
	})
}

func TestICMPErrors(t *testing.T) {
	p := documentation()
	p.Interfaces[0].AlwaysTrack = []*policies.AlwaysTrack{{ID: "balancers", Prefixes: prefixes("10.0.0.0/8")}}
	p.Groups[0].Rules = append(p.Groups[0].Rules, ping(flow.Ingress, "quench", flow.ICMPv6, 2, 0, "2001:db8:99::/48"))
	// No rule for ICMP in IPv4, to see what passes without.
	for i, r := range p.Groups[0].Rules {
		if r.ID == "ping" {
			p.Groups[0].Rules = append(p.Groups[0].Rules[:i:i], p.Groups[0].Rules[i+1:]...)
			break
		}
	}
	const router4, router6 = "203.0.113.254", "2001:db8:99::1"
	web4, ssh4 := out(flow.TCP, "198.51.100.7", 40000, 80), out(flow.TCP, "203.0.113.1", 40000, 22)
	web6 := out(flow.TCP, "2001:db8:7::7", 40000, 80)
	wrongWay := in(flow.TCP, "198.51.100.7", 40000, 80)
	swapped := out(flow.TCP, "198.51.100.7", 80, 40000)
	balancer := out(flow.TCP, "10.0.0.1", 40000, 80)
	udp := out(flow.UDP, "198.51.100.7", 40000, 80)
	gre := out(47, "198.51.100.7", 0, 0)
	inbound := in(flow.TCP, "198.51.100.7", 40000, 80)
	invalid := func(p flow.Packet) flow.Packet { return state(flow.Invalid, p) }

	rows := []decision{
		{"an error about a tracked flow passes", state(flow.Related, quoting(ssh4, icmp(flow.Ingress, router4, 3, 4))), policies.Related, "", "", ""},
		{"so does one in IPv6", state(flow.Related, quoting(web6, icmp(flow.Ingress, router6, 1, 0))), policies.Related, "", "", ""},
		{"an error about an untracked flow passes", invalid(quoting(web4, icmp(flow.Ingress, router4, 3, 4))), policies.Related, "", "", ""},
		{"time exceeded", invalid(quoting(web4, icmp(flow.Ingress, router4, 11, 0))), policies.Related, "", "", ""},
		{"parameter problem", invalid(quoting(web4, icmp(flow.Ingress, router4, 12, 0))), policies.Related, "", "", ""},
		{"a redirect does not", invalid(quoting(web4, icmp(flow.Ingress, router4, 5, 0))), policies.None, "", "", ""},
		{"even if it is related", state(flow.Related, quoting(web4, icmp(flow.Ingress, router4, 5, 0))), policies.None, "", "", ""},
		{"nor does a source quench", invalid(quoting(web4, icmp(flow.Ingress, router4, 4, 0))), policies.None, "", "", ""},
		{"IPv6 destination unreachable", invalid(quoting(web6, icmp(flow.Ingress, router6, 1, 0))), policies.Related, "", "", ""},
		{"IPv6 packet too big", invalid(quoting(web6, icmp(flow.Ingress, router6, 2, 0))), policies.Related, "", "", ""},
		{"IPv6 parameter problem", invalid(quoting(web6, icmp(flow.Ingress, router6, 4, 0))), policies.Related, "", "", ""},
		{"IPv6 type 5 is no error that is known", invalid(quoting(web6, icmp(flow.Ingress, router6, 5, 0))), policies.None, "", "", ""},
		{"IPv6 type 0 neither", invalid(quoting(web6, icmp(flow.Ingress, router6, 0, 0))), policies.None, "", "", ""},
		{"an error about a closed port does not pass", invalid(quoting(ssh4, icmp(flow.Ingress, router4, 3, 4))), policies.None, "", "", ""},
		{"the quoted packet must have gone the other way", invalid(quoting(wrongWay, icmp(flow.Ingress, router4, 3, 4))), policies.None, "", "", ""},
		{"its ports are not interchangeable", invalid(quoting(swapped, icmp(flow.Ingress, router4, 3, 4))), policies.None, "", "", ""},
		{"its peer must not be always tracked", invalid(quoting(balancer, icmp(flow.Ingress, router4, 3, 4))), policies.None, "", "", ""},
		{"the sender of the error may be", invalid(quoting(web4, icmp(flow.Ingress, "10.0.0.1", 3, 4))), policies.Related, "", "", ""},
		{"another protocol is not open", invalid(quoting(udp, icmp(flow.Ingress, router4, 3, 4))), policies.None, "", "", ""},
		{"nor is one without ports", invalid(quoting(gre, icmp(flow.Ingress, router4, 3, 4))), policies.None, "", "", ""},
		{"an error that quotes nothing does not pass", invalid(icmp(flow.Ingress, router4, 3, 4)), policies.None, "", "", ""},
		{"a new error about an open flow does not exist, and does not pass", quoting(web4, icmp(flow.Ingress, router4, 3, 4)), policies.None, "", "", ""},
		{"the host's own errors about untracked flows pass", invalid(quoting(inbound, icmp(flow.Egress, "198.51.100.7", 3, 3))), policies.Related, "", "", ""},
		{"a rule lets the rest through", invalid(quoting(ssh4, icmp(flow.Egress, "198.51.100.7", 3, 3))), policies.Stateless, "any4", "", ""},
	}
	testDecisions(t, p, rows)

	p.Host.ICMPErrorsByRules = true
	testDecisions(t, p, []decision{
		{`with icmp_errors = "rules" an error about a tracked flow needs a rule`, state(flow.Related, quoting(ssh4, icmp(flow.Ingress, router4, 3, 4))), policies.None, "", "", ""},
		{"and so does one about an untracked flow", invalid(quoting(web6, icmp(flow.Ingress, "2001:db8:98::1", 2, 0))), policies.None, "", "", ""},
		{"which it may have", invalid(quoting(web6, icmp(flow.Ingress, router6, 2, 0))), policies.Stateless, "quench", "", ""},
	})
}

// TestICMPFlows: the types that conntrack makes an entry for are tracked, all
// others pass as themselves.
func TestICMPFlows(t *testing.T) {
	judge := policies.NewJudge(attached(group("ping",
		ping(flow.Ingress, "icmp", flow.ICMP, -1, -1, "0.0.0.0/0"), ping(flow.Ingress, "icmpv6", flow.ICMPv6, -1, -1, "::/0"))))
	tracked := map[flow.Family][]uint8{flow.IPv4: {8, 13, 15, 17}, flow.IPv6: {128, 139}}
	for peer, opens := range map[string][]uint8{"198.51.100.7": tracked[flow.IPv4], "2001:db8:7::7": tracked[flow.IPv6]} {
		for n := range 256 {
			p := icmp(flow.Ingress, peer, uint8(n), 0)
			want := policies.Stateless
			if slices.Contains(opens, uint8(n)) {
				want = policies.Tracked
			}
			if got := judge.Decide(&p); got.Class != want {
				t.Errorf("%s is %s, want %s", &p, got.Class, want)
			}
		}
	}
}

func TestNeverFiltered(t *testing.T) {
	p := attached(group("closed"))
	p.Host = policies.Host{DNSResolvers: prefixes("192.0.2.2", "2001:db8::2"), Exempt: prefixes("192.0.2.77", "2001:db8:77::/64")}
	var rows []decision
	exempt := func(sentence string, packets ...flow.Packet) {
		for _, packet := range packets {
			rows = append(rows, decision{sentence, packet, policies.Exempt, "", "", ""})
		}
	}
	dropped := func(sentence string, packets ...flow.Packet) {
		for _, packet := range packets {
			rows = append(rows, decision{sentence, packet, policies.None, "", "", ""})
		}
	}
	for _, service := range []string{
		"169.254.169.254", "fd00:ec2::254", "169.254.169.253", "fd00:ec2::253", "169.254.169.123", "fd00:ec2::123",
		"169.254.170.2", "169.254.169.250", "169.254.169.251",
	} {
		exempt("the cloud's service "+service, out(flow.TCP, service, 80, 40000), in(flow.TCP, service, 80, 40000),
			in(47, service, 0, 0), icmp(flow.Egress, service, 8, 0), state(flow.Invalid, in(flow.UDP, service, 1, 2)))
	}
	dropped("addresses beside the services", in(flow.TCP, "169.254.169.252", 80, 1), in(flow.TCP, "169.254.170.1", 80, 1),
		in(flow.TCP, "fd00:ec2::250", 80, 1))
	exempt("host.exempt in both directions", in(flow.TCP, "192.0.2.77", 1, 2), out(flow.UDP, "2001:db8:77::1", 1, 2), out(50, "192.0.2.77", 0, 0))
	dropped("the host's own address is no peer", in(flow.TCP, "192.0.2.78", 1, 2), out(flow.TCP, "2001:db8:78::", 1, 2))

	exempt("resolvers on port 53", out(flow.UDP, "192.0.2.2", 53, 40000), in(flow.UDP, "192.0.2.2", 53, 40000),
		out(flow.TCP, "2001:db8::2", 53, 40000), in(flow.TCP, "2001:db8::2", 53, 40000), state(flow.Invalid, in(flow.TCP, "192.0.2.2", 53, 40000)))
	dropped("resolvers on other ports", out(flow.UDP, "192.0.2.2", 54, 53), in(flow.UDP, "192.0.2.2", 40000, 53))
	dropped("other protocols of resolvers", in(132, "192.0.2.2", 0, 0), icmp(flow.Ingress, "192.0.2.2", 8, 0))
	dropped("other resolvers", out(flow.UDP, "192.0.2.3", 53, 40000))

	exempt("the DHCP client", out(flow.UDP, "255.255.255.255", 67, 68), in(flow.UDP, "192.0.2.1", 67, 68))
	dropped("a DHCP server on the host", in(flow.UDP, "192.0.2.1", 68, 67), out(flow.UDP, "192.0.2.1", 68, 67))
	dropped("DHCP over TCP or IPv6", in(flow.TCP, "192.0.2.1", 67, 68), in(flow.UDP, "2001:db8::1", 67, 68))
	exempt("the DHCPv6 client", out(flow.UDP, "ff02::1:2", 547, 546), in(flow.UDP, "fe80::1", 547, 546))
	dropped("a DHCPv6 server on the host", in(flow.UDP, "fe80::1", 546, 547), out(flow.UDP, "fe80::1", 546, 547))
	dropped("DHCPv6 over IPv4", in(flow.UDP, "192.0.2.1", 547, 546))

	for _, d := range flow.Directions {
		exempt("router and neighbour messages", hops(255, icmp(d, "fe80::1", 133, 0)), hops(255, icmp(d, "fe80::1", 134, 0)),
			hops(255, icmp(d, "fe80::1", 135, 0)), hops(255, icmp(d, "fe80::1", 136, 0)))
		dropped("redirects", hops(255, icmp(d, "fe80::1", 137, 0)))
		dropped("neighbour messages that a router has touched", hops(254, icmp(d, "fe80::1", 135, 0)))
		exempt("multicast listener messages", hops(1, icmp(d, "fe80::1", 130, 0)), hops(1, icmp(d, "fe80::1", 131, 0)),
			hops(1, icmp(d, "fe80::1", 132, 0)), hops(1, icmp(d, "ff02::16", 143, 0)))
		dropped("listener messages from afar", hops(2, icmp(d, "fe80::1", 130, 0)), hops(255, icmp(d, "fe80::1", 143, 0)))
		dropped("types beside them", hops(1, icmp(d, "fe80::1", 129, 0)), hops(1, icmp(d, "fe80::1", 142, 0)), hops(1, icmp(d, "fe80::1", 144, 0)),
			hops(255, icmp(d, "fe80::1", 132, 0)))
		dropped("the same types in IPv4", hops(255, icmp(d, "192.0.2.1", 135, 0)), hops(1, icmp(d, "192.0.2.1", 130, 0)))
	}
	testDecisions(t, p, rows)
}

func TestNothingIsOpenWithoutPorts(t *testing.T) {
	judge := policies.NewJudge(attached(group("open", everything(flow.Ingress, "in", "0.0.0.0/0"), everything(flow.Egress, "out", "0.0.0.0/0"))))
	for _, p := range []flow.Packet{
		icmp(flow.Ingress, "198.51.100.7", 8, 0), in(47, "198.51.100.7", 0, 0), in(flow.ICMPv6, "198.51.100.7", 0, 0),
		on("wlan0", in(flow.TCP, "198.51.100.7", 1, 2)), on("lo", in(flow.TCP, "198.51.100.7", 1, 2)),
	} {
		if judge.Open(&p) {
			t.Errorf("%s is open", &p)
		}
	}
	metadata := out(flow.TCP, "169.254.169.254", 80, 40000)
	if d := judge.Decide(&metadata); d.Class != policies.Exempt || !judge.Open(&metadata) {
		t.Errorf("%s is %s, open %t; exempt flows are judged by nothing, and may be open", &metadata, d.Class, judge.Open(&metadata))
	}
}
