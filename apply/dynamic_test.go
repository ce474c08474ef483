package apply

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

const flowsName = "flows.ipv4"

// dynamicTable has a set into which packets put elements, and one into which they
// do not.
func dynamicTable() *ruleset.Table {
	return &ruleset.Table{Name: "sgc", Sets: []*ruleset.Set{
		{Name: flowsName, Key: []ruleset.Type{ruleset.IfName, ruleset.InetProto, ruleset.IPv4Addr}, Dynamic: true, Timeout: 600 * time.Second, Size: 65536},
		{Name: "window", Key: []ruleset.Type{ruleset.NFProto}, Timed: true},
	}}
}

func flowKey(n int) string {
	a := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	return ruleset.Concat(ruleset.IfNameKey("eth0"), ruleset.ProtoKey(flow.Protocol(47)), ruleset.AddrKey(a))
}

// putFlows has nft put elements in, as packets would.
func (l *lab) putFlows(n int, timeout string) {
	l.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "add element inet sgc %s { ", flowsName)
	for i := range n {
		fmt.Fprintf(&b, "\"eth0\" . gre . 10.%d.%d.%d%s, ", i>>16, i>>8&255, i&255, timeout)
	}
	l.nft(b.String() + "}\n")
}

func (l *lab) flows() []string {
	l.t.Helper()
	elements, err := l.kernel.DynamicElements(context.Background(), flowsName)
	if err != nil {
		l.t.Fatal(err)
	}
	var keys []string
	for _, e := range elements {
		keys = append(keys, e.First)
		if e.Expires <= 0 || e.Expires > 600*time.Second {
			l.t.Errorf("an element has %s left", e.Expires)
		}
	}
	return keys
}

func TestDynamicElements(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if got := l.flows(); len(got) != 0 {
		t.Errorf("without a table there are %q", got)
	}
	l.apply(dynamicTable())
	if got := l.flows(); len(got) != 0 {
		t.Errorf("a new set holds %q", got)
	}
	const n = 5000
	l.putFlows(n, "")
	got := l.flows()
	if len(got) != n || !slices.IsSorted(got) || got[0] != flowKey(0) || got[n-1] != flowKey(n-1) {
		t.Fatalf("%d elements", len(got))
	}

	remove := func(keys ...string) Generations {
		t.Helper()
		g, err := l.kernel.RemoveDynamic(context.Background(), dynamicTable(), flowsName, keys)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	before := l.snapshot().Generation
	// What is not there is no error, and is counted all the same.
	g := remove(append(got[10:], flowKey(n), flowKey(n+1))...)
	if now := l.snapshot().Generation; g.From != before || g.To != now {
		t.Errorf("it led from %d to %d, but the generation was %d and is %d", g.From, g.To, before, now)
	}
	if left := l.flows(); !slices.Equal(left, got[:10]) {
		t.Errorf("%d elements are left", len(left))
	}
	if g = remove(flowKey(n)); g.To != l.snapshot().Generation {
		t.Errorf("nothing to remove led to generation %d, but it is %d", g.To, l.snapshot().Generation)
	}
	l.wantSame(dynamicTable())

	// Time takes the rest out.
	l.nft("flush set inet sgc " + flowsName)
	l.putFlows(10, " timeout 300ms")
	time.Sleep(400 * time.Millisecond)
	if got := l.flows(); len(got) != 0 {
		t.Errorf("after their time there are %d elements", len(got))
	}
}

func TestDynamicElementsThatCannotBeRemoved(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, tc := range []struct{ set, key, want string }{
		{"window", flowKey(1), "there is no such dynamic set"},
		{"nowhere", flowKey(1), "there is no such dynamic set"},
		{flowsName, "short", "a key of set flows.ipv4 has 5 bytes: 24 are wanted"},
		{flowsName, flowKey(1), "the kernel holds no set flows.ipv4 of table inet sgc"},
	} {
		g, err := l.kernel.RemoveDynamic(context.Background(), dynamicTable(), tc.set, []string{tc.key})
		if err == nil || !strings.Contains(err.Error(), tc.want) || g != (Generations{}) {
			t.Errorf("set %s: got %v, %v; want an error that says %q", tc.set, g, err, tc.want)
		}
	}
	l.nft("table inet sgc {\n set flows.ipv4 {\n type ifname . inet_proto . ipv4_addr; timeout 5s; flags dynamic\n}\n}\n")
	if _, err := l.kernel.RemoveDynamic(context.Background(), dynamicTable(), flowsName, []string{flowKey(1)}); err == nil || !strings.Contains(err.Error(), "is not as it was made") {
		t.Errorf("a set that somebody else made: %v", err)
	}
}
