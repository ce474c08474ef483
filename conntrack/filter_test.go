package conntrack

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

func networks(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func filtered(p *policies.Policy) []struct {
	name   string
	filter Filter
	want   []int
} {
	ports := func(first, last uint16) []flow.PortRange { return []flow.PortRange{{First: first, Last: last}} }
	rules := func(group, id string) []*policies.Rule {
		for _, r := range p.Group(group).Rules {
			if r.ID == id {
				return []*policies.Rule{r}
			}
		}
		panic(id)
	}
	return []struct {
		name   string
		filter Filter
		want   []int
	}{
		{"all that cross the policy's interfaces", Filter{}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"an interface", Filter{Interfaces: []string{"br0"}}, []int{5, 6, 7}},
		{"interfaces by prefix", Filter{Interfaces: []string{"e*"}}, []int{0, 1, 2, 3, 4, 5, 6}},
		{"no such interface", Filter{Interfaces: []string{"eth"}}, nil},
		{"a group", Filter{Groups: []string{"inside"}}, []int{5, 6, 7}},
		{"a rule", Filter{Rules: rules("web", "ssh")}, []int{1}},
		{"open", Filter{Classes: []Class{ClassOpen}}, []int{0, 5}},
		{"tracked, of any rule or none", Filter{Classes: []Class{ClassTracked}}, []int{1, 2, 3, 5, 6, 7}},
		{"either", Filter{Classes: []Class{ClassOpen, ClassExempt}}, []int{0, 4, 5}},
		{"a protocol", Filter{Protocols: []flow.Protocol{flow.UDP}}, []int{4}},
		{"ICMP", Filter{Protocols: []flow.Protocol{flow.ICMP}}, []int{3}},
		{"a peer", Filter{Peers: networks("198.51.100.0/24")}, []int{0, 2, 3, 5}},
		{"a peer that sees the flow after NAT", Filter{Peers: networks("203.0.113.9/32")}, []int{6}},
		{"a port", Filter{Ports: ports(22, 22)}, []int{1, 2}},
		{"ports, and so no protocol without ports", Filter{Ports: ports(0, 65535)}, []int{0, 1, 2, 4, 5, 6}},
		{"a port behind NAT", Filter{Ports: ports(80, 80)}, []int{5}},
		{"any of several interfaces", Filter{Interfaces: []string{"br0", "eth7"}}, []int{5, 6, 7}},
		{"any of several groups", Filter{Groups: []string{"inside", "web"}}, []int{0, 1, 3, 5, 6, 7}},
		{"any of several rules", Filter{Rules: append(rules("web", "ssh"), rules("inside", "published")...)}, []int{1, 5}},
		{"any of several protocols", Filter{Protocols: []flow.Protocol{flow.UDP, flow.ICMP, flow.UDP}}, []int{3, 4}},
		{"any of several peers", Filter{Peers: networks("203.0.113.9/32", "203.0.113.53/32", "2001:db8::/32")}, []int{4, 6}},
		{"any of several ports", Filter{Ports: append(ports(22, 22), ports(50, 60)...)}, []int{1, 2, 4}},
		{"any of several ports, of one of several protocols", Filter{Ports: append(ports(22, 22), ports(50, 60)...), Protocols: []flow.Protocol{flow.ICMP, flow.UDP}}, []int{4}},
		{"all on one leg", Filter{Interfaces: []string{"eth0"}, Ports: ports(80, 80)}, nil},
		{"what no rule allows any more", Filter{Revoked: true}, []int{2}},
		{"what no rule allows any more on an interface", Filter{Revoked: true, Interfaces: []string{"br0"}}, nil},
	}
}

// crossing are entries to choose among.
func crossing() []seed {
	return []seed{
		tcpSeed("198.51.100.7:1000", "192.0.2.10:443"),
		tcpSeed("203.0.113.7:1000", "192.0.2.10:22"),
		tcpSeed("198.51.100.7:1000", "192.0.2.10:22"),
		pingSeed("198.51.100.7", "192.0.2.10", 9),
		udpSeed("192.0.2.10:1000", "203.0.113.53:53"),
		natted("198.51.100.7:1001", "192.0.2.10:443", "172.17.0.2:80", "198.51.100.7:1001"),
		natted("172.17.0.2:2000", "203.0.113.9:25", "203.0.113.9:25", "192.0.2.10:40000"),
		otherSeed("172.17.0.2", "172.17.0.1", 50),
		tcpSeed("127.0.0.1:1", "127.0.0.1:80"),
	}
}

func TestFilters(t *testing.T) {
	table := openTable(t, hostNamespace(t))
	p := load(t, bothPolicy)
	judge := judgeOf(t, table, p)
	seeds := crossing()
	createSeeds(t, table, seeds...)
	for _, tc := range filtered(p) {
		t.Run(tc.name, func(t *testing.T) {
			var got []int
			if err := table.Select(context.Background(), judge, &tc.filter, func(e *Entry, _ *Judged) error {
				got = append(got, slices.IndexFunc(seeds, func(s seed) bool { return s.original == e.Original }))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			slices.Sort(got)
			if !slices.Equal(got, tc.want) {
				t.Errorf("entries %v, want %v", got, tc.want)
			}
		})
	}
	// What is chosen is what is deleted, and nothing else.
	for _, tc := range filtered(p) {
		r, err := table.Flush(context.Background(), judge, &tc.filter)
		if err != nil || r != (Result{Done: len(tc.want)}) {
			t.Errorf("%s: %+v, %v", tc.name, r, err)
		}
		if left := read(t, table); len(left) != len(seeds)-len(tc.want) {
			t.Errorf("%s: %d entries are left, want %d", tc.name, len(left), len(seeds)-len(tc.want))
		}
		if _, err := table.inBatches(func(b *Batch) error { return table.Entries(context.Background(), b.Delete) }); err != nil {
			t.Fatal(err)
		}
		createSeeds(t, table, seeds...)
	}
}

func TestCensus(t *testing.T) {
	table := openTable(t, hostNamespace(t))
	judge := judgeOf(t, table, load(t, bothPolicy))
	createSeeds(t, table, crossing()...)
	got, err := table.Census(context.Background(), judge)
	want := &Census{
		Entries:   Count{Tracked: 5, Open: 2, Exempt: 1, Revoked: 1},
		Elsewhere: 1,
		Interfaces: []InterfaceCount{
			{"br0", Count{Tracked: 3}},
			{"eth0", Count{Tracked: 4, Open: 2, Exempt: 1, Revoked: 1}},
		},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	// Interfaces without entries are counted, too.
	empty, err := openTable(t, hostNamespace(t)).Census(context.Background(), judge)
	if err != nil || fmt.Sprint(empty.Interfaces) != "[{br0 {0 0 0 0}} {eth0 {0 0 0 0}}]" {
		t.Errorf("%+v, %v", empty, err)
	}
}
