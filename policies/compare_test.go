package policies_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/policies"
)

// line writes a change as a plan would.
func line(c policies.Change) string {
	words := []string{c.Action.Sign(), c.Address}
	columns := func(old, new string) {
		switch {
		case old == new && new != "":
			words = append(words, new)
		case old != "" || new != "":
			words = append(words, strings.TrimSpace(old+" → "+new))
		}
	}
	text := func(x policies.Columns, of func(policies.Columns) string) string { return of(x) }
	var old, new policies.Columns
	switch {
	case c.Old != nil && c.New != nil:
		old, new = *c.Old, *c.New
	case c.New != nil:
		old, new = *c.New, *c.New
	case c.Old != nil:
		old, new = *c.Old, *c.Old
	}
	for _, of := range []func(policies.Columns) string{
		func(x policies.Columns) string { return x.Direction },
		func(x policies.Columns) string { return x.Verdict },
		func(x policies.Columns) string { return x.Protocol },
		func(x policies.Columns) string { return x.Ports },
		func(x policies.Columns) string { return strings.Join(x.Peers, ", ") },
		func(x policies.Columns) string { return x.Value },
		func(x policies.Columns) string { return x.Class },
	} {
		columns(text(old, of), text(new, of))
	}
	if len(c.Added) > 0 {
		words = append(words, "+"+strings.Join(c.Added, " +"))
	}
	if len(c.Removed) > 0 {
		words = append(words, "-"+strings.Join(c.Removed, " -"))
	}
	return strings.Join(words, "  ")
}

func testChanges(t *testing.T, sentence string, old, new *policies.Policy, want string) {
	t.Helper()
	t.Run(sentence, func(t *testing.T) {
		var got []string
		for _, c := range policies.Compare(old, new) {
			got = append(got, line(c))
			if parent := strings.TrimSuffix(c.Address, "."+c.Name); c.Name != "" && parent != c.Parent || c.Name == "" && c.Address != c.Parent {
				t.Errorf("address %q is not made of parent %q and name %q", c.Address, c.Parent, c.Name)
			}
		}
		var lines []string
		for l := range strings.Lines(want) {
			if l = strings.TrimSpace(l); l != "" {
				lines = append(lines, l)
			}
		}
		if !slices.Equal(got, lines) {
			t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(lines, "\n\t"))
		}
	})
}

func TestCompare(t *testing.T) {
	base := documentation
	// edited returns the example with a change.
	edited := func(edit func(*policies.Policy)) *policies.Policy {
		p := base()
		edit(p)
		return p
	}
	testChanges(t, "nothing changes", base(), base(), ``)
	testChanges(t, "everything is added", nil, base(), `
		+  security_group.web
		+  security_group.web.ingress.http  ingress  tcp  80  0.0.0.0/0, ::/0  untracked
		+  security_group.web.ingress.ping  ingress  icmp  all  0.0.0.0/0  tracked
		+  security_group.web.ingress.ssh  ingress  tcp  22  203.0.113.1/32  tracked
		+  security_group.web.egress.any4  egress  all  0.0.0.0/0  tracked
		+  security_group.web.egress.any6  egress  all  ::/0  tracked
		+  interface.eth0
		+  interface.eth0.security_groups  +web`)
	testChanges(t, "everything is removed", base(), &policies.Policy{}, `
		-  security_group.web
		-  security_group.web.ingress.http  ingress  tcp  80  0.0.0.0/0, ::/0  untracked
		-  security_group.web.ingress.ping  ingress  icmp  all  0.0.0.0/0  tracked
		-  security_group.web.ingress.ssh  ingress  tcp  22  203.0.113.1/32  tracked
		-  security_group.web.egress.any4  egress  all  0.0.0.0/0  tracked
		-  security_group.web.egress.any6  egress  all  ::/0  tracked
		-  interface.eth0
		-  interface.eth0.security_groups  -web`)
	testChanges(t, "a rule's sources change", base(), edited(func(p *policies.Policy) {
		p.Groups[0].Rules[0].Prefixes = prefixes("203.0.113.0/24")
	}), `~  security_group.web.ingress.ssh  ingress  tcp  22  203.0.113.1/32 → 203.0.113.0/24  tracked  +203.0.113.0/24  -203.0.113.1/32`)
	testChanges(t, "a rule becomes untracked for everybody", base(), edited(func(p *policies.Policy) {
		p.Groups[0].Rules[0].Prefixes = prefixes("0.0.0.0/0")
	}), `~  security_group.web.ingress.ssh  ingress  tcp  22  203.0.113.1/32 → 0.0.0.0/0  tracked → untracked  +0.0.0.0/0  -203.0.113.1/32`)
	testChanges(t, "a rule that is removed changes another one's flows", base(), edited(func(p *policies.Policy) {
		p.Groups[0].Rules = p.Groups[0].Rules[:3]
	}), `
		~  security_group.web.ingress.http  ingress  tcp  80  0.0.0.0/0, ::/0  untracked → tracked
		-  security_group.web.egress.any4  egress  all  0.0.0.0/0  tracked
		-  security_group.web.egress.any6  egress  all  ::/0  tracked`)
	testChanges(t, "one family of a rule becomes tracked", base(), edited(func(p *policies.Policy) {
		p.Groups[0].Rules = slices.Delete(p.Groups[0].Rules, 3, 4)
	}), `
		~  security_group.web.ingress.http  ingress  tcp  80  0.0.0.0/0, ::/0  untracked → mixed
		-  security_group.web.egress.any4  egress  all  0.0.0.0/0  tracked`)
	testChanges(t, "ports, protocol, ICMP type and code change", base(), edited(func(p *policies.Policy) {
		rules := p.Groups[0].Rules
		rules[0].Ports = ports(port(22), flow.PortRange{First: 8000, Last: 8099})
		rules[1].Protocol = flow.UDP
		rules[2].ICMPType, rules[2].ICMPCode = 3, 4
	}), `
		~  security_group.web.ingress.http  ingress  tcp → udp  80  0.0.0.0/0, ::/0  untracked
		~  security_group.web.ingress.ping  ingress  icmp  all → type 3 code 4  0.0.0.0/0  tracked
		~  security_group.web.ingress.ssh  ingress  tcp  22 → 22, 8000-8099  203.0.113.1/32  tracked`)
	testChanges(t, "lists and groups are peers, the own group is self", nil, edited(func(p *policies.Policy) {
		p.Groups = p.Groups[:1]
		p.Interfaces = nil
		p.Groups[0].Rules = p.Groups[0].Rules[:1]
		p.Groups[0].Rules[0].Lists = []string{"partners"}
		p.Groups[0].Rules[0].Groups = []string{"app", "web"}
	}), `
		+  security_group.web
		+  security_group.web.ingress.ssh  ingress  tcp  22  203.0.113.1/32, prefix_list.partners, security_group.app, self`)
	testChanges(t, "descriptions, positions, files and tests are no change", base(), edited(func(p *policies.Policy) {
		p.Groups[0].Description, p.Groups[0].Rules[0].Description = "a", "b"
		p.Groups[0].Pos.Line, p.Groups[0].Rules[0].Pos.Line, p.Interfaces[0].Pos.Line = 1, 2, 3
		p.Files = []string{"web.hcl"}
		p.Tests = []*policies.Test{{Name: "t"}}
	}), ``)
	testChanges(t, "attaching a group is one line", edited(func(p *policies.Policy) {
		p.Interfaces[0].Groups = nil
	}), base(), `+  interface.eth0.security_groups  +web`)
	testChanges(t, "a group is renamed", base(), edited(func(p *policies.Policy) {
		p.Groups[0] = group("www", p.Groups[0].Rules[0])
		p.Interfaces[0].Groups = []string{"www"}
	}), `
		-  security_group.web
		-  security_group.web.ingress.http  ingress  tcp  80  0.0.0.0/0, ::/0  untracked
		-  security_group.web.ingress.ping  ingress  icmp  all  0.0.0.0/0  tracked
		-  security_group.web.ingress.ssh  ingress  tcp  22  203.0.113.1/32  tracked
		-  security_group.web.egress.any4  egress  all  0.0.0.0/0  tracked
		-  security_group.web.egress.any6  egress  all  ::/0  tracked
		+  security_group.www
		+  security_group.www.ingress.ssh  ingress  tcp  22  203.0.113.1/32  tracked
		~  interface.eth0.security_groups  +www  -web`)
}

func TestCompareListsACLsInterfacesAndHost(t *testing.T) {
	five := 5
	old := &policies.Policy{
		Groups: []*policies.Group{{Name: "app", Members: prefixes("192.0.2.20", "2001:db8::20")}},
		Lists:  []*policies.PrefixList{{Name: "partners", Entries: prefixes("10.0.0.0/8", "198.51.100.0/24")}},
		ACLs: []*policies.ACL{{Name: "edge", Entries: []*policies.ACLEntry{
			{ACL: "edge", Number: 90, AllProtocols: true, Prefix: prefixes("192.0.2.66")[0]},
			{ACL: "edge", Number: 1000, Allow: true, Protocol: flow.TCP, Ports: flow.AllPorts, Prefix: prefixes("0.0.0.0/0")[0]},
		}}},
		Interfaces: []*policies.Interface{{Name: "eth0", Groups: []string{"app"}}},
	}
	new := &policies.Policy{
		Groups: []*policies.Group{{Name: "app", Members: prefixes("192.0.2.20", "192.0.2.21")}},
		Lists:  []*policies.PrefixList{{Name: "partners", Entries: prefixes("10.0.0.0/8", "198.51.100.0/25", "2001:db8:7::/48")}},
		ACLs: []*policies.ACL{{Name: "edge", Entries: []*policies.ACLEntry{
			{ACL: "edge", Number: 90, Allow: true, AllProtocols: true, Prefix: prefixes("192.0.2.66")[0]},
			{ACL: "edge", Number: 100, Allow: true, Protocol: flow.ICMPv6, ICMPType: 2, ICMPCode: -1, Prefix: prefixes("::/0")[0]},
			{ACL: "edge", Number: 1000, Allow: true, Protocol: flow.TCP, Ports: flow.AllPorts, Prefix: prefixes("0.0.0.0/0")[0]},
			{ACL: "edge", Direction: flow.Egress, Number: 1, Protocol: 47, Prefix: prefixes("0.0.0.0/0")[0]},
		}}},
		Interfaces: []*policies.Interface{{
			Name: "eth0", Groups: []string{"app"}, ACL: "edge", NotrackOff: true,
			AlwaysTrack: []*policies.AlwaysTrack{{ID: "balancers", Prefixes: prefixes("10.0.0.0/8"), TCPEstablished: 350 * time.Second}},
			Timeouts:    &policies.Timeouts{TCPEstablished: 350 * time.Second, UDP: 30 * time.Second, UDPStream: 180 * time.Second},
			Log:         &policies.LogDenied{Rate: 10, Unit: time.Second, Burst: 20, Group: &five},
		}},
		Host: policies.Host{
			DNSResolvers: prefixes("192.0.2.2"), Exempt: prefixes("192.0.2.3"), ICMPErrorsByRules: true,
			Conntrack: &policies.HostConntrack{Max: 262144, ICMPTimeout: 30 * time.Second, GenericTimeout: 10 * time.Minute},
		},
	}
	testChanges(t, "forth", old, new, `
		~  security_group.app.members  +192.0.2.21/32  -2001:db8::20/128
		~  prefix_list.partners.entries  +198.51.100.0/25 +2001:db8:7::/48  -198.51.100.0/24
		~  network_acl.edge.ingress.90  ingress  deny → allow  all  192.0.2.66/32
		+  network_acl.edge.ingress.100  ingress  allow  icmpv6  type 2  ::/0
		+  network_acl.edge.egress.1  egress  deny  gre  0.0.0.0/0
		+  interface.eth0.network_acl  edge
		~  interface.eth0.notrack  auto → off
		+  interface.eth0.always_track.balancers  10.0.0.0/8  tcp established 350s
		~  interface.eth0.tcp_established_timeout  5d → 350s
		+  interface.eth0.log_denied  10/second, burst 20, to nflog group 5
		+  host.dns_resolvers  +192.0.2.2/32
		+  host.exempt  +192.0.2.3/32
		~  host.icmp_errors  related → rules
		+  host.conntrack.max  262144
		+  host.conntrack.icmp_timeout  30s
		+  host.conntrack.generic_timeout  10m`)
	testChanges(t, "and back", new, old, `
		~  security_group.app.members  +2001:db8::20/128  -192.0.2.21/32
		~  prefix_list.partners.entries  +198.51.100.0/24  -198.51.100.0/25 -2001:db8:7::/48
		~  network_acl.edge.ingress.90  ingress  allow → deny  all  192.0.2.66/32
		-  network_acl.edge.ingress.100  ingress  allow  icmpv6  type 2  ::/0
		-  network_acl.edge.egress.1  egress  deny  gre  0.0.0.0/0
		-  interface.eth0.network_acl  edge
		~  interface.eth0.notrack  off → auto
		-  interface.eth0.always_track.balancers  10.0.0.0/8  tcp established 350s
		~  interface.eth0.tcp_established_timeout  350s → 5d
		-  interface.eth0.log_denied  10/second, burst 20, to nflog group 5
		-  host.dns_resolvers  -192.0.2.2/32
		-  host.exempt  -192.0.2.3/32
		~  host.icmp_errors  rules → related
		-  host.conntrack.max  262144
		-  host.conntrack.icmp_timeout  30s
		-  host.conntrack.generic_timeout  10m`)
}

// class returns the class of the rule in a plan that adds everything.
func class(t *testing.T, p *policies.Policy, address string) string {
	t.Helper()
	for _, c := range policies.Compare(nil, p) {
		if c.Address == address {
			return c.New.Class
		}
	}
	t.Fatalf("no change of %s", address)
	return ""
}

func TestTheClassOfARule(t *testing.T) {
	all := ports(flow.AllPorts)
	const http = "security_group.web.ingress.http"
	web := func(rules ...*policies.Rule) *policies.Policy {
		return attached(group("web", append(rules, rule(flow.Ingress, "http", flow.TCP, ports(flow.PortRange{First: 80, Last: 89}), "203.0.113.1/32"))...))
	}
	open := func(r ...*policies.Rule) *policies.Policy {
		return web(append(r, rule(flow.Egress, "out", flow.TCP, all, "0.0.0.0/0"))...)
	}
	with := func(p *policies.Policy, edit func(*policies.Policy)) *policies.Policy {
		edit(p)
		return p
	}
	for _, row := range []struct {
		sentence string
		policy   *policies.Policy
		want     string
	}{
		{"alone it is tracked", web(), "tracked"},
		{"it needs the any-address", open(), "tracked"},
		{"another rule may have it", open(rule(flow.Ingress, "any", flow.TCP, ports(flow.PortRange{First: 1, Last: 100}), "0.0.0.0/0")), "untracked"},
		{"for all of its ports", open(rule(flow.Ingress, "any", flow.TCP, ports(flow.PortRange{First: 1, Last: 88}), "0.0.0.0/0")), "mixed"},
		{"together", open(rule(flow.Ingress, "a", flow.TCP, ports(flow.PortRange{First: 1, Last: 84}), "0.0.0.0/0"),
			rule(flow.Ingress, "b", flow.TCP, ports(flow.PortRange{First: 85, Last: 90}), "0.0.0.0/0")), "untracked"},
		{"of its protocol", open(rule(flow.Ingress, "any", flow.UDP, all, "0.0.0.0/0")), "tracked"},
		{"or of all", open(everything(flow.Ingress, "any", "0.0.0.0/0")), "untracked"},
		{"of its family", open(everything(flow.Ingress, "any", "::/0")), "tracked"},
		{"and the other direction's", web(everything(flow.Ingress, "any", "0.0.0.0/0")), "tracked"},
		{"an unattached group has no effect", with(open(), func(p *policies.Policy) { p.Interfaces = nil }), ""},
		{"always_track of all its peers", with(open(everything(flow.Ingress, "any", "0.0.0.0/0")), func(p *policies.Policy) {
			p.Interfaces[0].AlwaysTrack = []*policies.AlwaysTrack{{ID: "b", Prefixes: prefixes("203.0.113.0/24")}}
		}), "tracked"},
		{"always_track of others", with(open(everything(flow.Ingress, "any", "0.0.0.0/0")), func(p *policies.Policy) {
			p.Interfaces[0].AlwaysTrack = []*policies.AlwaysTrack{{ID: "b", Prefixes: prefixes("203.0.113.2/31", "2001:db8::/32")}}
		}), "untracked"},
		{"always_track of some", with(open(everything(flow.Ingress, "any", "0.0.0.0/0")), func(p *policies.Policy) {
			p.Groups[0].Rules[2].Prefixes = prefixes("203.0.113.0/24")
			p.Interfaces[0].AlwaysTrack = []*policies.AlwaysTrack{{ID: "b", Prefixes: prefixes("203.0.113.2/31")}}
		}), "mixed"},
		{"one interface of two", with(open(everything(flow.Ingress, "any", "0.0.0.0/0")), func(p *policies.Policy) {
			p.Interfaces = append(p.Interfaces, &policies.Interface{
				Name: "eth1", Groups: []string{"web"},
				AlwaysTrack: []*policies.AlwaysTrack{{ID: "b", Prefixes: prefixes("0.0.0.0/0")}},
			})
		}), "mixed"},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			slices.SortFunc(row.policy.Groups[0].Rules, func(a, b *policies.Rule) int { return strings.Compare(a.ID, b.ID) })
			if got := class(t, row.policy, http); got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
	everybody := attached(group("open", everything(flow.Ingress, "in", "0.0.0.0/0"), everything(flow.Egress, "out", "0.0.0.0/0")))
	for _, address := range []string{"security_group.open.ingress.in", "security_group.open.egress.out"} {
		if got := class(t, everybody, address); got != "untracked" {
			t.Errorf("%s of an open policy is %q", address, got)
		}
	}
}

// TestCompareIsSymmetric: what is added one way is removed the other way, and
// a policy differs from itself in nothing.
func TestCompareIsSymmetric(t *testing.T) {
	for seed := range uint64(200) {
		a := corpus.Policy(corpus.Seeded(seed), corpus.Options{ACLs: true, AlwaysTrack: true})
		b := corpus.Policy(corpus.Seeded(seed+1000), corpus.Options{ACLs: true, AlwaysTrack: true})
		for _, p := range []*policies.Policy{a, b} {
			if changes := policies.Compare(p, p); len(changes) > 0 {
				t.Fatalf("seed %d: a policy differs from itself: %+v", seed, changes)
			}
		}
		forth, back := policies.Compare(a, b), policies.Compare(b, a)
		if len(forth) != len(back) {
			t.Fatalf("seed %d: %d changes one way, %d the other", seed, len(forth), len(back))
		}
		opposite := map[policies.Action]policies.Action{policies.Add: policies.Remove, policies.Remove: policies.Add, policies.Update: policies.Update}
		for i, c := range forth {
			d := back[i]
			if d.Address != c.Address || d.Action != opposite[c.Action] || !slices.Equal(c.Added, d.Removed) || !slices.Equal(c.Removed, d.Added) {
				t.Fatalf("seed %d: %+v one way, %+v the other", seed, c, d)
			}
		}
	}
}

func TestChangesAreReadableAsJSON(t *testing.T) {
	p := documentation()
	changes := policies.Compare(p, attached(group("web", rule(flow.Ingress, "ssh", flow.TCP, ports(port(22)), "203.0.113.1/32"))))
	got, err := json.Marshal(changes[0])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"action":"remove","address":"security_group.web.ingress.http","parent":"security_group.web","name":"ingress.http",` +
		`"old":{"direction":"ingress","protocol":"tcp","ports":"80","peers":["0.0.0.0/0","::/0"],"class":"untracked"}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func BenchmarkCompareOneOfAMillionCIDRs(b *testing.B) {
	entries := million()
	old := &policies.Policy{Lists: []*policies.PrefixList{{Name: "many", Entries: entries}}}
	new := &policies.Policy{Lists: []*policies.PrefixList{{Name: "many", Entries: entries[:len(entries)-1]}}}
	for b.Loop() {
		if changes := policies.Compare(old, new); len(changes) != 1 || len(changes[0].Removed) != 1 {
			b.Fatal(fmt.Sprint(len(changes)))
		}
	}
}

// million returns a million disjoint prefixes, sorted.
func million() []netip.Prefix {
	out := make([]netip.Prefix, 1_000_000)
	for i := range out {
		out[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(10 + i>>16), byte(i >> 8), byte(i), 0}), 25)
	}
	return out
}

func BenchmarkJudgeAMillionCIDRs(b *testing.B) {
	r := rule(flow.Ingress, "many", flow.TCP, ports(port(443)))
	r.Lists = []string{"many"}
	p := attached(group("web", r))
	p.Lists = []*policies.PrefixList{{Name: "many", Entries: million()}}
	b.Run("index", func(b *testing.B) {
		for b.Loop() {
			policies.NewJudge(p)
		}
	})
	judge := policies.NewJudge(p)
	b.Run("decide", func(b *testing.B) {
		packet := in(flow.TCP, "20.77.88.9", 1, 443)
		for b.Loop() {
			if !judge.Decide(&packet).Allow {
				b.Fatal("dropped")
			}
		}
	})
}

func BenchmarkJudgeTenThousandRules(b *testing.B) {
	var rules []*policies.Rule
	for i := range 10000 {
		rules = append(rules, rule(flow.Ingress, fmt.Sprint("r", i), flow.TCP, ports(port(uint16(i))), fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)))
	}
	judge := policies.NewJudge(attached(group("web", rules...)))
	packet := in(flow.TCP, "10.20.5.1", 1, 5125)
	for b.Loop() {
		if !judge.Decide(&packet).Allow {
			b.Fatal("dropped")
		}
	}
}
