package apply

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

func asidesText(list []Aside) string {
	var lines []string
	for _, a := range list {
		lines = append(lines, fmt.Sprintf("%s: %s for %s", a.Table, strings.Join(a.Chains, " "), strings.Join(a.Devices, " ")))
	}
	return strings.Join(lines, "\n")
}

// What keeps packets out of conntrack, and what puts them into zones, is found
// alike: each script is tried with both in place of SAYS.
func TestWhoTellsConntrackOfPackets(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		// devices are "eth0" if empty.
		devices, want string
	}{
		{"on both hooks", `table ip f { chain p { type filter hook prerouting priority -300; tcp dport 80 SAYS; }; chain o { type filter hook output priority -300; tcp sport 80 SAYS; }; }`, "", "table ip f: o p for eth0"},
		{"tables of each family", `table inet b { chain p { type filter hook prerouting priority -201; SAYS; }; }; table ip6 a { chain p { type filter hook output priority -400; SAYS; }; }`, "",
			"table inet b: p for eth0\ntable ip6 a: p for eth0"},
		{"behind conntrack", `table ip f { chain p { type filter hook prerouting priority -200; SAYS; }; chain q { type filter hook prerouting priority -150; SAYS; }; chain o { type filter hook output priority 0; SAYS; }; }`, "", ""},
		{"on other hooks", `table ip f { chain i { type filter hook input priority -300; SAYS; }; chain f { type filter hook forward priority -300; SAYS; }; chain o { type filter hook postrouting priority -300; SAYS; }; }`, "", ""},
		{"as packets come in", `table inet f { chain in { type filter hook ingress device "lo" priority 0; SAYS; }; }`, "lo", "table inet f: in for lo"},
		{"as packets come in elsewhere", `table inet f { chain in { type filter hook ingress device "lo" priority 0; SAYS; }; }`, "", ""},
		{"a chain that nothing leads to", `table ip f { chain c { SAYS; }; }`, "", ""},
		{"a chain that one leads to", `table ip f { chain c { SAYS; }; chain p { type filter hook prerouting priority -300; udp dport 53 jump c; }; }`, "", "table ip f: c for eth0"},
		{"the loopback by name", `table ip f { chain p { type filter hook prerouting priority -300; iifname "lo" SAYS; }; chain o { type filter hook output priority -300; oifname "lo" SAYS; }; }`, "", ""},
		{"the loopback by number", `table ip f { chain p { type filter hook prerouting priority -300; iif "lo" SAYS; }; }`, "", ""},
		{"all but the loopback", `table ip f { chain p { type filter hook prerouting priority -300; iifname != "lo" SAYS; }; }`, "", "table ip f: p for eth0"},
		{"one of several", `table ip f { chain p { type filter hook prerouting priority -300; iifname { "eth1", "eth2" } SAYS; }; }`, "eth0 eth1 eth*", "table ip f: p for eth1 eth*"},
		{"behind an accept", `table ip f { chain p { type filter hook prerouting priority -300; iifname "eth0" accept; SAYS; }; }`, "eth0 eth1", "table ip f: p for eth1"},
		{"and then accepted", `table ip f { chain p { type filter hook prerouting priority -300; udp dport 53 SAYS accept; }; }`, "", "table ip f: p for eth0"},
		{"a dormant table", `table ip f { flags dormant; chain p { type filter hook prerouting priority -300; SAYS; }; }`, "", ""},
		{"sgc itself", `table inet sgc { chain p { type filter hook prerouting priority -300; SAYS; }; }`, "", ""},
	} {
		for _, says := range []string{"notrack", "ct zone set 5"} {
			t.Run(tc.name+"/"+says, func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				l.nft(strings.ReplaceAll(tc.script, "SAYS", says))
				around := l.snapshot().Around
				want, other := [2]string{tc.want}, devicesOf(tc.devices)
				if says != "notrack" {
					slices.Reverse(want[:])
				}
				got := [2]string{asidesText(around.Untracking(other)), asidesText(around.Zoning(other))}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("out of conntrack, in zones (-want +got)\n%s", diff)
				}
				if got := obstaclesText(around.Obstacles(other)); got != "" {
					t.Errorf("and drops: %s", got)
				}
			})
		}
	}
}

// The target CT of iptables does either, or neither.
func TestTargetCT(t *testing.T) {
	info := func(flags, zone uint16) []byte {
		b := binary.NativeEndian.AppendUint16(nil, flags)
		b = binary.NativeEndian.AppendUint16(b, zone)
		return append(b, make([]byte, 44)...) // events, helper, timeout
	}
	for _, tc := range []struct {
		name, target    string
		info            []byte
		untracks, zones bool
	}{
		{"-j CT --notrack", "CT", info(1, 0), true, false},
		{"-j NOTRACK", "NOTRACK", nil, true, false},
		{"-j NOTRACK, as newer tools write it", "CT", info(1|2, 0), true, false},
		{"-j CT --zone 5", "CT", info(0, 5), false, true},
		{"-j CT --zone-orig 5", "CT", info(4, 5), false, true},
		{"-j CT --zone mark", "CT", info(16, 0), false, true},
		{"-j CT --helper ftp", "CT", info(0, 0), false, false},
		{"another target", "LOG", info(1, 5), false, false},
		{"cut short", "CT", info(1, 5)[:2], false, false},
	} {
		var m nlmsg.Message
		m.CString(unix.NFTA_TARGET_NAME, tc.target)
		m.Uint32(unix.NFTA_TARGET_REV, 1)
		if tc.info != nil {
			m.Bytes(unix.NFTA_TARGET_INFO, tc.info)
		}
		untracks, zones, err := targetCT(m.Buf)
		if untracks != tc.untracks || zones != tc.zones || err != nil {
			t.Errorf("%s: out of conntrack %t, zone %t, %v", tc.name, untracks, zones, err)
		}
		want := needsNothing
		if tc.zones {
			want = setsZones
		}
		if got, err := extensionNeeds(m.Buf); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", tc.name, got, err, want)
		}
		var r foreignRuleReader
		if err := r.expression("target", m.Buf); err != nil {
			t.Fatal(err)
		}
		var kinds []effectKind
		for _, e := range r.rule.effects {
			kinds = append(kinds, e.kind)
		}
		var wantKinds []effectKind
		if tc.untracks {
			wantKinds = append(wantKinds, untracksPacket)
		}
		if tc.zones {
			wantKinds = append(wantKinds, setsZone)
		}
		if !slices.Equal(kinds, wantKinds) {
			t.Errorf("%s: does %v, want %v", tc.name, kinds, wantKinds)
		}
	}
}
