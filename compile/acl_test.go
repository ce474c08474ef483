package compile

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

// entry returns an ingress entry of ACL edge for all protocols.
func entry(number int, allow bool, prefix string) *policies.ACLEntry {
	return &policies.ACLEntry{ACL: "edge", Direction: flow.Ingress, Number: number, Allow: allow, AllProtocols: true, Prefix: netip.MustParsePrefix(prefix)}
}

// tcpEntry returns an ingress entry of ACL edge for one TCP port.
func tcpEntry(number int, allow bool, prefix string, port uint16) *policies.ACLEntry {
	e := entry(number, allow, prefix)
	e.AllProtocols, e.Protocol, e.Ports = false, flow.TCP, flow.PortRange{First: port, Last: port}
	return e
}

// aclPolicy attaches an ACL with these entries to eth0, beside group web.
func aclPolicy(entries ...*policies.ACLEntry) *policies.Policy {
	p := webPolicy(tcpRule("all", 0, 65535, "0.0.0.0/0"))
	p.ACLs = []*policies.ACL{{Name: "edge", Entries: entries}}
	p.Interfaces[0].ACL = "edge"
	return p
}

func TestFirstMatchIsTheFirstMatch(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		var entries []*policies.ACLEntry
		for i := range rng.IntN(12) {
			// In the last 16 addresses of the space: its end is a border too.
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 240 + byte(rng.IntN(16))}), 28+rng.IntN(5)).Masked()
			entries = append(entries, entry(i+1, rng.IntN(2) == 0, p.String()))
		}
		allow, deny := firstMatch(entries)
		none := complement(flow.MergeRanges(append(append([]flow.Range{}, allow...), deny...)), flow.IPv4)
		for n := range 17 {
			a := netip.AddrFrom4([4]byte{255, 255, 255, byte(239 + n)})
			want := "none"
			for _, e := range entries {
				if e.Prefix.Contains(a) {
					want = map[bool]string{true: "allow", false: "deny"}[e.Allow]
					break
				}
			}
			got := ""
			for word, ranges := range map[string][]flow.Range{"allow": allow, "deny": deny, "none": none} {
				for _, r := range ranges {
					if r.Contains(a) {
						got += word
					}
				}
			}
			if got != want {
				t.Fatalf("%s: got %s, want %s", a, got, want)
			}
		}
	}
}

func TestHiddenEntriesAreLeftOutAndNamed(t *testing.T) {
	p := aclPolicy(
		entry(100, true, "10.0.0.0/8"),
		tcpEntry(110, false, "10.1.0.0/16", 22), // hidden by 100
		tcpEntry(120, false, "11.0.0.0/8", 22),
		tcpEntry(130, true, "11.0.0.0/8", 23), // another port
		entry(140, false, "11.0.0.0/8"),       // more protocols
		tcpEntry(150, true, "11.1.1.1/32", 22),
		entry(160, false, "12.0.0.0/9"),
		tcpEntry(170, false, "12.128.0.0/10", 80), // not all that 190 has there
		entry(180, true, "12.128.0.0/9"),
		entry(190, false, "12.0.0.0/8"), // hidden by 160 and 180
	)
	_, notes := CompileWithNotes(p, Environment{})
	var got []string
	for _, n := range notes {
		got = append(got, n.Text)
		if n.Hidden == nil || len(n.By) == 0 || n.Hidden.Number <= n.By[len(n.By)-1].Number {
			t.Errorf("%s: entry %v by %v", n.Text, n.Hidden, n.By)
		}
	}
	if alone := Notes(p); !reflect.DeepEqual(alone, notes) {
		t.Errorf("Notes says %v", alone)
	}
	want := []string{
		"network_acl.edge.ingress.110 never decides anything: network_acl.edge.ingress.100 (:0:0) comes first and matches everything that it matches",
		"network_acl.edge.ingress.150 never decides anything: network_acl.edge.ingress.120 (:0:0) comes first and matches everything that it matches",
		"network_acl.edge.ingress.190 never decides anything: network_acl.edge.ingress.160 (:0:0), network_acl.edge.ingress.170 (:0:0), network_acl.edge.ingress.180 (:0:0) come first and together match everything that it matches",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Entries for all ports around those for some are in no leaf chain.
func TestEntriesForEverythingAreNotRepeatedForEachPort(t *testing.T) {
	var entries []*policies.ACLEntry
	for i := range 200 {
		entries = append(entries, entry(1+i, false, fmt.Sprintf("10.0.%d.0/25", i)))
	}
	for i := range 50 {
		entries = append(entries, tcpEntry(1000+i, false, "203.0.113.0/24", uint16(i)))
	}
	entries = append(entries, entry(2000, true, "0.0.0.0/0"))
	table, notes := CompileWithNotes(aclPolicy(entries...), Environment{})
	if len(notes) > 0 {
		t.Errorf("notes: %v", notes)
	}
	n := 0
	for _, s := range table.Sets {
		if !s.Map {
			n += len(s.Elements)
		}
	}
	if n > 500 { // once for TCP, once for the other protocols
		t.Errorf("250 entries made %d set elements", n)
	}
	for _, c := range table.Chains {
		if len(c.Rules) > maxInline+4 {
			t.Errorf("chain %s has %d rules", c.Name, len(c.Rules))
		}
	}
}

func TestTangledEntriesAreWalkedInOrderAndSaid(t *testing.T) {
	// Each entry covers half of the ports: every atom holds half of them.
	var entries []*policies.ACLEntry
	for i := range 3000 {
		e := tcpEntry(1+i, i%2 == 0, fmt.Sprintf("10.%d.%d.0/24", i/256, i%256), 0)
		e.Ports = flow.PortRange{First: uint16(i * 7), Last: uint16(i*7 + 30000)}
		entries = append(entries, e)
	}
	table, notes := CompileWithNotes(aclPolicy(entries...), Environment{})
	if len(notes) != 1 || !strings.Contains(notes[0].Text, "walk them in order") || notes[0].Hidden != nil {
		t.Errorf("notes: %v", notes)
	}
	if alone := Notes(aclPolicy(entries...)); !reflect.DeepEqual(alone, notes) {
		t.Errorf("Notes says %v", alone)
	}
	if got := len(chain(t, table, "network_acl.edge.ingress.tcp4")); got < 3000 {
		t.Errorf("the chain has %d rules", got)
	}
}

func TestAnACLWithoutEntriesRefusesEverything(t *testing.T) {
	table := Compile(aclPolicy(), Environment{})
	for _, d := range flow.Directions {
		for _, proto := range []string{"tcp4", "udp4", "icmp4", "other4", "tcp6", "udp6", "icmp6", "other6"} {
			got := chain(t, table, fmt.Sprintf("network_acl.edge.%s.%s", d, proto))
			for _, r := range got[:len(got)-1] {
				if !strings.Contains(r, "never filtered") {
					t.Errorf("%s %s: %q", d, proto, r)
				}
			}
			if !strings.HasPrefix(got[len(got)-1], "drop ") {
				t.Errorf("%s %s: %q", d, proto, got)
			}
		}
	}
}

func TestRefusedPacketsAreLoggedWhereTheInterfaceSaysSo(t *testing.T) {
	p := aclPolicy(entry(100, true, "10.0.0.0/8"))
	group := 7
	p.Interfaces[0].Log = &policies.LogDenied{Rate: 10, Unit: 1e9, Burst: 20, Group: &group}
	p.Interfaces = append(p.Interfaces, &policies.Interface{Name: "eth1", Groups: []string{"web"}}, &policies.Interface{Name: "wan*", Log: &policies.LogDenied{Rate: 1, Unit: 60e9, Burst: 5}})
	table := Compile(p, Environment{})
	for name, want := range map[string]string{
		"refused.ingress.groups.eth0":     `limit rate 10/second burst 20 packets log prefix "sgc eth0 ingress groups: " group 7`,
		"refused.egress.acl.eth0":         `limit rate 10/second burst 20 packets log prefix "sgc eth0 egress acl: " group 7`,
		"refused.ingress.groups.wan/2a":   `limit rate 1/minute burst 5 packets log prefix "sgc wan* ingress groups: "`,
		"network_acl.edge.ingress.tcp4":   `ip saddr 10.0.0.0/8 accept`,
		"network_acl.edge.ingress.other6": `goto refused.ingress.acl`,
	} {
		if got := chain(t, table, name); !strings.HasPrefix(got[0], want) {
			t.Errorf("%s: got %q, want %q", name, got[0], want)
		}
	}
	got := elements(set(t, table, "refused.ingress.groups"))
	if want := `"eth1" : drop`; got[1] != want {
		t.Errorf("an interface without log: got %q, want %q", got[1], want)
	}
}

func BenchmarkCompileACL32766(b *testing.B) {
	var entries []*policies.ACLEntry
	for i := range 32765 {
		e := entry(1+i, i%3 == 0, fmt.Sprintf("10.%d.%d.%d/32", i>>14, i>>6&255, i<<2&255))
		if i%2 == 0 {
			e = tcpEntry(1+i, i%3 == 0, e.Prefix.String(), uint16(i%1000))
		}
		entries = append(entries, e)
	}
	benchmarkCompile(b, aclPolicy(append(entries, entry(32766, true, "0.0.0.0/0"))...))
}
