package apply

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sgc/internal/netns"
	"sgc/internal/nlmsg"
)

func TestForeignTablesThatNeedConntrack(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, nft string
		want      Foreign
	}{
		{"nothing", ``, Foreign{}},
		{"a filter without state", `table ip f { chain in { type filter hook input priority 0; tcp dport 22 accept; drop; }; }`, Foreign{}},
		{"an empty NAT chain", `table ip nat { chain post { type nat hook postrouting priority 100; }; }`, Foreign{}},
		{"masquerading", `table ip nat { chain post { type nat hook postrouting priority 100; oifname "eth0" masquerade; }; }`,
			Foreign{IPv4: []string{"table ip nat does NAT (chain post)"}}},
		{"destination NAT in a chain that a NAT chain jumps to", `table ip6 n { chain dockerd { tcp dport 80 dnat to [fd00::1]:80; }; chain pre { type nat hook prerouting priority -100; fib daddr type local jump dockerd; }; }`,
			Foreign{IPv6: []string{"table ip6 n does NAT (chain dockerd)"}}},
		{"any rule in a NAT chain", `table ip nat { chain post { type nat hook postrouting priority 100; accept; }; }`,
			Foreign{IPv4: []string{"table ip nat does NAT (chain post)"}}},
		{"redirecting in both families", `table inet n { chain pre { type nat hook prerouting priority -100; tcp dport 80 redirect to :8080; }; }`,
			Foreign{IPv4: []string{"table inet n does NAT (chain pre)"}, IPv6: []string{"table inet n does NAT (chain pre)"}}},
		{"a state", `table inet filter { chain input { type filter hook input priority 0; ct state established accept; ct state invalid drop; }; chain through { type filter hook forward priority 0; ct state related accept; }; }`,
			Foreign{IPv4: []string{"table inet filter judges by conntrack state (chain input)"}, IPv6: []string{"table inet filter judges by conntrack state (chain input)"}}},
		{"a state map", `table ip filter { chain input { type filter hook input priority 0; ct state vmap { established : accept, invalid : drop }; }; }`,
			Foreign{IPv4: []string{"table ip filter judges by conntrack state (chain input)"}}},
		{"a mark that is kept", `table ip m { chain c { type filter hook output priority -150; ct mark set 0x1; }; }`,
			Foreign{IPv4: []string{"table ip m keeps marks in conntrack (chain c)"}}},
		{"notrack", `table ip r { chain c { type filter hook prerouting priority -300; udp dport 53 notrack; }; }`, Foreign{}},
		{"a zone", `table inet z { chain c { type filter hook prerouting priority -300; ct zone set 5; }; }`,
			Foreign{IPv4: []string{"table inet z sets conntrack zones (chain c)"}, IPv6: []string{"table inet z sets conntrack zones (chain c)"}}},
		{"a zone of one direction, behind the raw chains", `table ip z { chain c { type filter hook output priority -250; ct reply zone set 5; }; }`,
			Foreign{IPv4: []string{"table ip z sets conntrack zones (chain c)"}}},
		{"a ct timeout", "table ip r {\nct timeout slow { protocol tcp; l3proto ip; policy = { established : 100 }; }\nchain c { type filter hook output priority 0; tcp dport 80 ct timeout set \"slow\"; }\n}", Foreign{}},
		{"a connection limit", `table ip l { chain c { type filter hook input priority 0; tcp dport 22 ct count over 3 drop; }; }`,
			Foreign{IPv4: []string{"table ip l counts connections (chain c)"}}},
		{"other families", `table arp a { chain c { type filter hook input priority 0; accept; }; }; table bridge b { chain c { type filter hook forward priority 0; accept; }; }; table netdev n { }`, Foreign{}},
		{"sgc's own table", `table inet sgc { chain c { type filter hook input priority 0; ct state established accept; }; }`, Foreign{}},
		{"tables called sgc of other families", `table ip sgc { chain c { type filter hook input priority 0; ct state established accept; }; }`,
			Foreign{IPv4: []string{"table ip sgc judges by conntrack state (chain c)"}}},
		{"two reasons in one table", `table ip f { chain a { type filter hook input priority 0; ct state new accept; }; chain b { type nat hook postrouting priority 0; masquerade; }; }`,
			Foreign{IPv4: []string{"table ip f judges by conntrack state (chain a)", "table ip f does NAT (chain b)"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.nft(test.nft)
			if diff := cmp.Diff(test.want, l.snapshot().Foreign); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestExtensionsOfIptables builds what iptables-nft makes of its extensions;
// the tool itself may not be installed.
func TestExtensionsOfIptables(t *testing.T) {
	t.Parallel()
	rule := func(expression, name string) []byte {
		var m nlmsg.Message
		m.CString(unix.NFTA_RULE_CHAIN, "INPUT")
		list := m.Nest(unix.NFTA_RULE_EXPRESSIONS)
		elem := m.Nest(unix.NFTA_LIST_ELEM)
		m.CString(unix.NFTA_EXPR_NAME, expression)
		data := m.Nest(unix.NFTA_EXPR_DATA)
		m.CString(unix.NFTA_MATCH_NAME, name)
		m.Uint32(unix.NFTA_MATCH_REV, 3)
		m.End(data)
		m.End(elem)
		m.End(list)
		return m.Buf
	}
	for _, test := range []struct{ expression, name, want string }{
		{"match", "conntrack", judges}, {"match", "state", judges}, {"match", "comment", ""}, {"match", "tcp", ""},
		{"target", "MASQUERADE", doesNAT}, {"target", "DNAT", doesNAT}, {"target", "CT", ""}, {"target", "LOG", ""},
		{"target", "CONNMARK", marksFlows}, {"target", "SYNPROXY", proxiesSYN}, {"match", "connlimit", countsFlows},
	} {
		chain, got, err := foreignNeeds(rule(test.expression, test.name))
		if chain != "INPUT" || got != test.want || err != nil {
			t.Errorf("%s %s: chain %s %q, want %q: %v", test.expression, test.name, chain, got, test.want, err)
		}
	}
}

// TestLegacyTables asks the kernel for a table of the old iptables, which
// makes it.
func TestLegacyTables(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	loaded := map[string]bool{}
	err := netns.Do(int(l.netns.Fd()), "", func() error {
		for _, table := range []string{"nat", "filter", "raw"} {
			loaded[table] = loadLegacyTable(table) == nil
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var want, raw []string
	for _, name := range loadedOrder(t, l) {
		switch name {
		case "nat":
			want = append(want, "legacy iptables table nat is loaded and may do NAT")
		case "filter":
			want = append(want, "legacy iptables table filter is loaded and may judge by conntrack state")
		case "raw":
			want = append(want, "legacy iptables table raw is loaded and may set conntrack zones")
			raw = append(raw, "legacy iptables table raw")
		}
	}
	if loaded["filter"] && len(want) == 0 {
		t.Error("table filter was loaded and is not listed")
	}
	snapshot := l.snapshot()
	if diff := cmp.Diff(Foreign{IPv4: want}, snapshot.Foreign); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(raw, snapshot.Around.LegacyRaw); diff != "" {
		t.Errorf("of raw tables (-want +got)\n%s", diff)
	}
	if len(want) == 0 {
		t.Log("this kernel has no legacy iptables")
	}
}

func loadedOrder(t *testing.T, l *lab) []string {
	out, err := l.run("", "cat", "/proc/thread-self/net/ip_tables_names")
	if err != nil {
		t.Skipf("SKIP: %v", err)
	}
	var names []string
	for n := 0; n < len(out); {
		var name string
		if _, err := fmt.Sscanln(out[n:], &name); err != nil {
			break
		}
		names = append(names, name)
		n += len(name) + 1
	}
	return names
}

// loadLegacyTable is what "iptables-legacy -t TABLE -L" begins with.
func loadLegacyTable(table string) error {
	const soGetInfo = 64 // IPT_SO_GET_INFO
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var info [84]byte // struct ipt_getinfo
	copy(info[:], table)
	size := uint32(len(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, soGetInfo,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	runtime.KeepAlive(&info)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}

func TestSnapshotReportsProgress(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	want := webTable()
	want.Sets = append(want.Sets, largeSet(20_000))
	l.apply(want)
	var calls [][2]int
	if _, err := l.kernel.Snapshot(context.Background(), func(done, total int) { calls = append(calls, [2]int{done, total}) }); err != nil {
		t.Fatal(err)
	}
	if len(calls) < 4 {
		t.Fatalf("only %d calls", len(calls))
	}
	for i, c := range calls {
		if c[0] > c[1] || i > 0 && c[0] < calls[i-1][0] {
			t.Errorf("call %d: %d of %d", i, c[0], c[1])
		}
	}
	if last := calls[len(calls)-1]; last[0] != last[1] || last[0] < 20_000 {
		t.Errorf("the last call says %d of %d", last[0], last[1])
	}
}
