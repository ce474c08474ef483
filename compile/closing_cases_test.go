package compile_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/nftvm"
	"sgc/policies"
)

// tcpIn returns an ingress rule of a group, and anyOut lets everything out.
func tcpIn(group, id string, first, last uint16, peers ...string) *policies.Rule {
	r := &policies.Rule{
		Group: group, Direction: flow.Ingress, ID: id, Protocol: flow.TCP, Ports: []flow.PortRange{{First: first, Last: last}},
	}
	for _, p := range peers {
		r.Prefixes = append(r.Prefixes, netip.MustParsePrefix(p))
	}
	return r
}

func anyOut(group string) *policies.Rule {
	return &policies.Rule{Group: group, Direction: flow.Egress, ID: "any", AllProtocols: true, Prefixes: []netip.Prefix{flow.IPv4.Any()}}
}

// policyOf attaches a group with these rules to an interface.
func policyOf(iface, group string, rules ...*policies.Rule) *policies.Policy {
	return &policies.Policy{
		Groups:     []*policies.Group{{Name: group, Rules: rules}},
		Interfaces: []*policies.Interface{{Name: iface, Groups: []string{group}}},
	}
}

func TestCloses(t *testing.T) {
	on := func(rules ...*policies.Rule) *policies.Policy { return policyOf("eth0", "web", rules...) }
	http := func(peers ...string) *policies.Rule { return tcpIn("web", "http", 80, 89, peers...) }
	open := on(http("0.0.0.0/0"), anyOut("web"))
	listed := func(entry string) *policies.Policy {
		r := http()
		r.Lists = []string{"some"}
		p := on(r, anyOut("web"))
		p.Lists = []*policies.PrefixList{{Name: "some", Entries: []netip.Prefix{netip.MustParsePrefix(entry)}}}
		return p
	}
	tracked := on(http("0.0.0.0/0"), anyOut("web"))
	tracked.Interfaces[0].AlwaysTrack = []*policies.AlwaysTrack{{ID: "all", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	for _, c := range []struct {
		name     string
		old, new *policies.Policy
		want     bool
	}{
		{"no policy before", nil, open, false},
		{"the same policy", open, open, false},
		{"nothing was open", on(http("10.0.0.0/8"), anyOut("web")), on(), false},
		{"narrowed to some peers", open, on(http("10.0.0.0/8"), anyOut("web")), true},
		{"narrowed to some ports", open, on(tcpIn("web", "http", 80, 88, "0.0.0.0/0"), anyOut("web")), true},
		{"widened", open, on(tcpIn("web", "http", 0, 65535, "0.0.0.0/0"), anyOut("web")), false},
		{"the ports in other rules", open, on(tcpIn("web", "a", 80, 84, "0.0.0.0/0"), tcpIn("web", "b", 85, 90, "0.0.0.0/0"), anyOut("web")), false},
		{"open to a list of everybody, and so tracked", open, listed("0.0.0.0/0"), false},
		{"open to a list of some", open, listed("0.0.0.0/1"), true},
		{"tracked for some", open, tracked, false},
		{"nothing may go out: the host's own flows from an open port close", open, on(http("0.0.0.0/0")), true},
		{"the interface is not managed any more", open, policyOf("eth1", "web"), false},
		{"only the interface has another name", open, policyOf("eth*", "web", http("0.0.0.0/0"), anyOut("web")), false},
		{"another block governs the interface", open, policyOf("eth*", "web", anyOut("web")), true},
	} {
		if got := compile.Closes(c.old, c.new); got != c.want {
			t.Errorf("%s: got %t, want %t", c.name, got, c.want)
		}
	}
}

// What is temporary is told from everything else whatever things are called.
func TestNamesOfWhatCutsAreNobodyElses(t *testing.T) {
	for _, group := range []string{"cut", "to", strings.Repeat("g", 255)} {
		for _, iface := range []string{"cut", "a.to.b", "eth*", "*", "lo*", "ä b"} {
			open := policyOf(iface, group, tcpIn(group, "http", 80, 80, "0.0.0.0/0"), anyOut(group))
			open.Interfaces[0].AlwaysTrack = []*policies.AlwaysTrack{{ID: "a", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
			next := policyOf(iface, group, tcpIn(group, "http", 80, 80, "192.0.2.0/24"))
			cutting := compile.Compile(next, compile.Environment{Closing: open})
			if err := onlyAdds(compile.Compile(next, compile.Environment{}), cutting, true, map[string]int{}); err != nil {
				t.Errorf("group %s, interface %s: %v", group, iface, err)
			}
			for _, c := range cutting.Chains {
				if len(c.Name) > 255 {
					t.Errorf("chain %s has a name of %d bytes", c.Name, len(c.Name))
				}
			}
			for _, s := range cutting.Sets {
				if len(s.Name) > 255 {
					t.Errorf("set %s has a name of %d bytes", s.Name, len(s.Name))
				}
			}
		}
	}
}

// Where the table has a list of addresses, what cuts looks it up there; a set
// that the table does not have without the cut is temporary.
func TestWhatCutsSharesTheListsOfTheTable(t *testing.T) {
	var rules []*policies.Rule
	networks := func(n, count int) []string {
		var out []string
		for i := range count {
			out = append(out, fmt.Sprintf("10.%d.%d.0/24", n, i*2))
		}
		return out
	}
	// So many ranges that overlap that the table lays them out in layers, in
	// which wide and narrow never share a chain. Behind the cut they do.
	for i := range 200 {
		rules = append(rules, tcpIn("web", fmt.Sprintf("fill%d", i), uint16(20000+i), uint16(40000+i), "192.0.2.1/32"))
	}
	rules = append(rules, tcpIn("web", "wide", 4096, 8191, networks(1, 5)...), tcpIn("web", "narrow", 5000, 5000, networks(2, 6)...), anyOut("web"))
	listed := tcpIn("web", "listed", 80, 80)
	listed.Lists = []string{"many"}
	rules = append(rules, listed)
	next := policyOf("eth0", "web", rules...)
	many := &policies.PrefixList{Name: "many"}
	for i := range 5000 {
		many.Entries = append(many.Entries, netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 7), byte(i << 1), 0}), 24))
	}
	next.Lists = []*policies.PrefixList{many}

	old := policyOf("eth0", "web", tcpIn("web", "all", 0, 9000, "0.0.0.0/0"), anyOut("web"))
	cutting := compile.Compile(next, compile.Environment{Closing: old})
	if err := onlyAdds(compile.Compile(next, compile.Environment{}), cutting, true, map[string]int{}); err != nil {
		t.Fatal(err)
	}
	var own []string
	for _, s := range cutting.Sets {
		if compile.IsTemporary(s.Name) && !s.Map {
			own = append(own, s.Name)
		}
	}
	if want := []string{"_cut.web.ingress.narrow.ipv4"}; !slices.Equal(own, want) {
		t.Errorf("the temporary sets are %q, want %q", own, want)
	}

	vm, err := nftvm.New(cutting)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		peer string
		port uint16
		want bool
	}{
		{"11.0.0.1", 80, true}, {"11.39.14.1", 80, true}, {"11.0.1.1", 80, false},
		{"10.1.8.1", 5000, true}, {"10.2.10.1", 5000, true}, {"10.2.10.1", 5001, false}, {"10.1.8.1", 5001, true},
		{"10.2.11.1", 5000, false}, {"192.0.2.1", 20000, true}, {"198.51.100.7", 9001, true},
	} {
		p := flow.Packet{
			Interface: "eth0", Direction: flow.Ingress, Protocol: flow.TCP, TCPFlags: flow.ACK, State: flow.Established, HopLimit: 64,
			Source: netip.MustParseAddr(c.peer), Dest: netip.MustParseAddr("192.0.2.10"), SourcePort: 12345, DestPort: c.port,
		}
		reply := p.Reply()
		reply.IsReply = true
		for _, p := range []flow.Packet{p, reply} {
			if got, err := vm.Run(&p); err != nil || got.Accept != c.want {
				t.Errorf("%s: got %t, %v, want %t", &p, got.Accept, err, c.want)
			}
		}
	}
}
