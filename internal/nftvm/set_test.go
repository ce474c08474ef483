package nftvm

import (
	"net/netip"
	"strings"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// TestTimedSets: the sets are empty but for what New is given; ranges of several
// fields match field by field.
func TestTimedSets(t *testing.T) {
	address := func(s string) string { return ruleset.AddrKey(netip.MustParseAddr(s)) }
	key := func(addr string, port uint16, name string) string {
		return ruleset.Concat(address(addr), ruleset.PortKey(port), ruleset.IfNameKey(name))
	}
	fields := []ruleset.Type{ruleset.IPv4Addr, ruleset.InetService, ruleset.IfName}
	loads := []ruleset.Field{ruleset.IPSource, ruleset.DestPort, ruleset.IIFName}
	table := prerouting([]*ruleset.Set{
		{Name: "exact", Key: fields, Timed: true},
		{Name: "ranges", Key: fields, Timed: true, Interval: true},
	}, rules(
		when(ruleset.Lookup{Fields: loads, Set: "exact"}, ruleset.Log{Prefix: "exact"}),
		when(ruleset.Lookup{Fields: loads, Set: "ranges"}, ruleset.Log{Prefix: "ranges"}),
	))
	vm, err := New(table,
		Timed{"exact", ruleset.TimedElement{First: key("10.0.0.1", 80, "eth0"), Last: key("10.0.0.1", 80, "eth0")}},
		Timed{"ranges", ruleset.TimedElement{First: key("10.0.0.0", 70, "eth0"), Last: key("10.0.0.255", 90, "eth0")}},
		Timed{"ranges", ruleset.TimedElement{First: key("9.0.0.0", 443, "eth1"), Last: key("9.0.0.0", 443, "eth1")}},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		source string
		port   uint16
		name   string
		want   string
	}{
		{"10.0.0.1", 80, "eth0", "exact ranges"},
		{"10.0.0.2", 80, "eth0", "ranges"},
		{"10.0.0.0", 70, "eth0", "ranges"},
		{"10.0.0.255", 90, "eth0", "ranges"},
		{"10.0.0.2", 69, "eth0", ""},
		{"10.0.0.2", 91, "eth0", ""},
		{"10.0.1.0", 80, "eth0", ""},
		{"10.0.0.1", 80, "eth1", ""},
		{"9.0.0.0", 443, "eth1", "ranges"},
	} {
		p := packet(func(p *flow.Packet) {
			p.Source, p.DestPort, p.Interface = netip.MustParseAddr(row.source), row.port, row.name
		})
		result, err := vm.Run(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(result.Logged, " "); got != row.want {
			t.Errorf("%s: in %q, want %q", p, got, row.want)
		}
		if result, err := mustNew(t, table).Run(p); err != nil || len(result.Logged) > 0 {
			t.Errorf("%s: an empty set holds it: %v, %v", p, result.Logged, err)
		}
	}
}
