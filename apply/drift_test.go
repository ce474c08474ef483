package apply

import (
	"fmt"
	"strings"
	"testing"
)

// TestDriftIsSeenAndMended changes the committed table by hand in every way
// there is, and wants each change told of and undone.
func TestDriftIsSeenAndMended(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		nft  string
		// want are the changes as "action kind name: text", or parts of them.
		want []string
	}{
		{"a rule added at the end", `add rule inet sgc web.ingress.tcp4.ssh tcp dport 4444 accept`,
			[]string{`remove rule web.ingress.tcp4.ssh: tcp dport 4444 accept`}},
		{"a rule added at the head", `insert rule inet sgc web.ingress ip saddr 10.1.0.0/16 accept comment "mine"`,
			[]string{`remove rule web.ingress: ip saddr 10.1.0.0/16 accept comment "mine"`}},
		{"a rule with an anonymous set", `add rule inet sgc web.ingress tcp dport { 1, 2 } accept`,
			[]string{`remove rule web.ingress: tcp dport @__set`}},
		{"a rule with an anonymous verdict map", `add rule inet sgc web.ingress tcp dport vmap { 1 : accept, 2 : goto web.ingress.tcp4 }`,
			[]string{`remove rule web.ingress: tcp dport vmap @__map`}},
		{"a rule that sets a mark", `add rule inet sgc web.ingress meta mark set 0x1`,
			[]string{`remove rule web.ingress: meta mark set 1`}},
		{"a rule that only counts", `add rule inet sgc web.ingress counter`,
			[]string{`remove rule web.ingress: counter`}},
		{"a rule with a synproxy", `add chain inet sgc early { type filter hook input priority 0; }; add rule inet sgc early tcp dport 80 synproxy mss 1460 wscale 7`,
			[]string{`remove chain early`, `remove rule early: tcp dport 80 synproxy`}},
		{"a rule with an expression without a decoder", `add rule inet sgc web.ingress meta random > 1000 accept`,
			[]string{`remove rule web.ingress`}},
		{"a log rule", `insert rule inet sgc web.ingress.tcp4.ssh log prefix "x" limit rate 10/second accept`,
			[]string{`remove rule web.ingress.tcp4.ssh: log prefix "x" limit rate 10/second burst 5 packets accept`}},
		{"all rules of a chain removed", `flush chain inet sgc web.ingress.tcp4`,
			[]string{
				`add rule web.ingress.tcp4: ct state established accept comment "established"`,
				`add rule web.ingress.tcp4: ct state invalid drop comment "invalid"`,
				`add rule web.ingress.tcp4: tcp flags`,
				`add rule web.ingress.tcp4: th dport vmap @web.ingress.tcp4.ports comment "ports"`,
				`add rule web.ingress.tcp4: drop`,
			}},
		{"an element added", `add element inet sgc exempt.ipv4 { 192.0.2.1 }`,
			[]string{`remove element exempt.ipv4: 192.0.2.1`}},
		{"an element removed", `delete element inet sgc exempt.ipv4 { 169.254.169.254 }`,
			[]string{`add element exempt.ipv4: 169.254.169.254`}},
		{"a range added", `add element inet sgc pl.partners.ipv4 { 172.16.0.0/12, 203.0.113.0/24 }`,
			[]string{`remove element pl.partners.ipv4: 172.16.0.0/12`, `remove element pl.partners.ipv4: 203.0.113.0/24`}},
		{"a range removed", `delete element inet sgc pl.partners.ipv4 { 11.0.0.0/29 }`,
			[]string{`add element pl.partners.ipv4: 11.0.0.0/29`}},
		{"the first range removed", `delete element inet sgc pl.partners.ipv4 { 0.0.0.0/8 }`,
			[]string{`add element pl.partners.ipv4: 0.0.0.0/8`}},
		{"the range up to the last key removed", `delete element inet sgc pl.partners.ipv4 { 240.0.0.0/4 }`,
			[]string{`add element pl.partners.ipv4: 240.0.0.0/4`}},
		{"a range made longer", `delete element inet sgc pl.partners.ipv4 { 10.0.0.0/8 }; delete element inet sgc pl.partners.ipv4 { 11.0.0.0/29 }; add element inet sgc pl.partners.ipv4 { 10.0.0.0/7 }`,
			[]string{`remove element pl.partners.ipv4: 10.0.0.0/7`, `add element pl.partners.ipv4: 10.0.0.0/8`, `add element pl.partners.ipv4: 11.0.0.0/29`}},
		{"all elements removed", `flush set inet sgc exempt.ipv6`,
			[]string{`add element exempt.ipv6: fd00:ec2::123`, `add element exempt.ipv6: fd00:ec2::253-fd00:ec2::254`, `add element exempt.ipv6: ff00::/8`}},
		{"another verdict", `delete element inet sgc web.ingress.tcp4.ports { 22 }; add element inet sgc web.ingress.tcp4.ports { 22 : accept }`,
			[]string{`change element web.ingress.tcp4.ports: 22 : goto web.ingress.tcp4.ssh, was 22 : accept`}},
		{"another interface in the map", `add element inet sgc interfaces.ingress { "eth1" : accept }`,
			[]string{`remove element interfaces.ingress: "eth1" : accept`}},
		{"an element with a comment", `delete element inet sgc exempt.ipv4 { 169.254.169.254 }; add element inet sgc exempt.ipv4 { 169.254.169.254 comment "x" }`,
			[]string{`change element exempt.ipv4: 169.254.169.254, was 169.254.169.254 (with`}},
		{"the catch-all element", `add element inet sgc exempt.ipv4 { * }`,
			[]string{`remove element exempt.ipv4: *`}},
		{"the catch-all element of a map", `add element inet sgc web.ingress.protocols { * : accept }`,
			[]string{`remove element web.ingress.protocols: *`}},
		{"a chain added", `add chain inet sgc mine; add rule inet sgc mine accept; add rule inet sgc web.ingress jump mine`,
			[]string{`remove chain mine: chain mine`, `remove rule mine: accept`, `remove rule web.ingress: jump mine`}},
		{"chains that refer to each other", `add chain inet sgc a1; add chain inet sgc b1; add chain inet sgc a0; add rule inet sgc a1 jump b1; add rule inet sgc a0 jump a1; add rule inet sgc b1 accept`,
			[]string{`remove chain a0`, `remove rule a0: jump a1`, `remove chain a1`, `remove rule a1: jump b1`, `remove chain b1`, `remove rule b1: accept`}},
		{"a base chain added", `add chain inet sgc early { type filter hook input priority -500; policy drop; }`,
			[]string{`remove chain early: chain early; type filter hook input priority -500; policy drop`}},
		{"a NAT chain added", `add chain inet sgc nat { type nat hook postrouting priority 100; }; add rule inet sgc nat masquerade`,
			[]string{`remove chain nat: chain nat; type nat hook postrouting priority 100; policy accept`, `remove rule nat: masquerade`}},
		{"the policy of a base chain", `add chain inet sgc prerouting { policy drop; }`,
			[]string{`change chain prerouting: chain prerouting; type filter hook prerouting priority -150; policy accept, was chain prerouting; type filter hook prerouting priority -150; policy drop`}},
		{"a set added", `add set inet sgc mine { type ipv4_addr; elements = { 10.0.0.1 }; }; add rule inet sgc web.ingress ip saddr @mine accept`,
			[]string{`remove rule web.ingress: ip saddr @mine accept`, `remove set mine: set mine; key of 4 bytes; 1 elements`}},
		{"a map to data added", `add map inet sgc mine { type ipv4_addr : inet_service; elements = { 10.0.0.1 : 80 }; }`,
			[]string{`remove set mine: map mine; key of 4 bytes; maps to data; 1 elements`}},
		{"a counter object added", `add counter inet sgc hits; add rule inet sgc web.ingress counter name "hits"`,
			[]string{`remove object hits: counter hits`, `remove rule web.ingress: counter hits`}},
		{"a ct timeout object added", "table inet sgc {\nct timeout slow { protocol tcp; l3proto ip; policy = { established : 100 }; }\n}",
			[]string{`remove object slow: ct timeout slow`}},
		{"a map to objects added", `add quota inet sgc q { over 10 bytes; }; add map inet sgc mine { type ipv4_addr : quota; elements = { 10.0.0.1 : "q" }; }; add rule inet sgc web.ingress quota name ip saddr map @mine`,
			[]string{`remove object q: quota q`, `remove rule web.ingress`, `remove set mine`}},
		{"a flowtable added", `add flowtable inet sgc ft { hook ingress priority 0; devices = { lo }; }; add rule inet sgc web.ingress ip protocol tcp flow add @ft`,
			[]string{`remove object ft: flowtable ft`, `remove rule web.ingress: `}},
		{"the table made dormant", `add table inet sgc { flags dormant; }`,
			[]string{`change table sgc: table inet sgc; comment "made by sgc", was table inet sgc; dormant; comment "made by sgc"`}},
		{"the table replaced by one without a comment", `delete table inet sgc; add table inet sgc`,
			[]string{`change table sgc`, `add chain`, `add rule`, `add rule`, `add chain`}},
		{"the table removed", `delete table inet sgc`,
			[]string{`add table sgc: sgc`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.apply(webTable())
			before := l.list()
			if strings.Contains(test.nft, "flowtable") {
				l.try(test.nft)
			} else {
				l.nft(test.nft)
			}
			d := l.apply(webTable())
			var got []string
			for c := range d.Changes() {
				line := fmt.Sprintf("%s %s %s: %s", c.Action, c.Kind, c.Name, c.Text)
				if c.Was != "" {
					line += ", was " + c.Was
				}
				got = append(got, line)
			}
			for i, want := range test.want {
				if i >= len(got) || !strings.HasPrefix(got[i], want) {
					t.Errorf("change %d is not %q; all changes:\n%s", i, want, strings.Join(got, "\n"))
					break
				}
			}
			if len(got) != len(test.want) && !strings.Contains(test.name, "the table") {
				t.Errorf("got %d changes, want %d:\n%s", len(got), len(test.want), strings.Join(got, "\n"))
			}
			l.wantSame(webTable())
			if after := l.list(); after != before {
				t.Errorf("after mending the table is\n%s\nand was\n%s", after, before)
			}
		})
	}
}

// TestRulesChangedByHand needs the handles of rules.
func TestRulesChangedByHand(t *testing.T) {
	t.Parallel()
	const chain = "web.ingress.tcp4.ssh"
	tests := []struct {
		name string
		nft  func(handles []uint64) string
		want []string
	}{
		{"a rule removed", func(h []uint64) string { return fmt.Sprintf("delete rule inet sgc %s handle %d", chain, h[1]) },
			[]string{"add rule: ip saddr 192.0.2.0/25 accept comment \"security_group.web.ingress.ssh\""}},
		{"the first rule removed", func(h []uint64) string { return fmt.Sprintf("delete rule inet sgc %s handle %d", chain, h[0]) },
			[]string{"add rule: ip saddr 203.0.113.1 accept"}},
		{"the last rule removed", func(h []uint64) string { return fmt.Sprintf("delete rule inet sgc %s handle %d", chain, h[3]) },
			[]string{"add rule: drop"}},
		{"the drop moved to the head", func(h []uint64) string {
			return fmt.Sprintf("delete rule inet sgc %s handle %d; insert rule inet sgc %s drop", chain, h[3], chain)
		}, []string{"move rule: drop"}},
		{"a prefix edited", func(h []uint64) string {
			return fmt.Sprintf(`replace rule inet sgc %s handle %d ip saddr 192.0.2.0/24 accept comment "security_group.web.ingress.ssh"`, chain, h[1])
		}, []string{`change rule: ip saddr 192.0.2.0/25 accept comment "security_group.web.ingress.ssh" was ip saddr 192.0.2.0/24 accept comment "security_group.web.ingress.ssh"`}},
		{"a comment edited", func(h []uint64) string {
			return fmt.Sprintf(`replace rule inet sgc %s handle %d ip saddr 192.0.2.0/25 accept comment "mine"`, chain, h[1])
		}, []string{"remove rule: ip saddr 192.0.2.0/25 accept comment \"mine\"", "add rule: ip saddr 192.0.2.0/25"}},
		{"a counter put in", func(h []uint64) string {
			return fmt.Sprintf(`replace rule inet sgc %s handle %d ip saddr 192.0.2.0/25 counter accept comment "security_group.web.ingress.ssh"`, chain, h[1])
		}, []string{`change rule: ip saddr 192.0.2.0/25 accept comment "security_group.web.ingress.ssh" was ip saddr 192.0.2.0/25 counter accept`}},
		{"a verdict edited", func(h []uint64) string { return fmt.Sprintf(`replace rule inet sgc %s handle %d accept`, chain, h[3]) },
			[]string{"remove rule: accept", "add rule: drop"}},
		{"a rule doubled", func(h []uint64) string {
			return fmt.Sprintf(`insert rule inet sgc %s position %d ip saddr 192.0.2.0/25 accept comment "security_group.web.ingress.ssh"`, chain, h[1])
		}, []string{"remove rule: ip saddr 192.0.2.0/25 accept"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.apply(webTable())
			before := l.list()
			var handles []uint64
			for _, r := range l.snapshot().Table.Chain(chain).Rules {
				handles = append(handles, r.Handle)
			}
			l.nft(test.nft(handles))
			d := l.apply(webTable())
			i := 0
			for c := range d.Changes() {
				line := fmt.Sprintf("%s %s: %s", c.Action, c.Kind, c.Text)
				if c.Was != "" {
					line += " was " + c.Was
				}
				if i >= len(test.want) || !strings.HasPrefix(line, test.want[i]) || c.Name != chain {
					t.Errorf("change %d is %q", i, line)
				}
				i++
			}
			if i != len(test.want) {
				t.Errorf("%d changes, want %d", i, len(test.want))
			}
			l.wantSame(webTable())
			if after := l.list(); after != before {
				t.Errorf("after mending the table is\n%s\nand was\n%s", after, before)
			}
		})
	}
}

// TestChainsAndSetsMadeAnew changes what cannot change in place.
func TestChainsAndSetsMadeAnew(t *testing.T) {
	t.Parallel()
	script := scriptOf(t, webTable())
	tests := []struct{ name, old, new, want string }{
		{"the hook of a base chain", "hook prerouting priority -300", "hook output priority -300", "change chain raw.prerouting"},
		{"the priority of a base chain", "priority -150", "priority -140", "change chain prerouting"},
		{"the comment of a base chain", `comment "what conntrack shall not see"`, `comment "nothing"`, "change chain raw.prerouting"},
		{"the comment of a chain that rules and maps refer to", "chain web.ingress {\n\t\tcomment \"interface.eth0\"", "chain web.ingress {\n\t\tcomment \"x\"", "change chain web.ingress"},
		{"a base chain that should be a regular one", "chain web.ingress.tcp4.ssh {\n\t\tcomment \"security_group.web.ingress.ssh\"\n\t\tip", "chain web.ingress.tcp4.sshx {\n\t\ttype filter hook input priority 3;\n\t\tip", ""},
		{"the flags of a set", "set exempt.ipv4 {\n\t\ttype ipv4_addr", "set exempt.ipv4 {\n\t\ttype ipv4_addr\n\t\tflags interval", "change set exempt.ipv4"},
		{"the size of a set", "set exempt.ipv4 {\n\t\ttype ipv4_addr", "set exempt.ipv4 {\n\t\ttype ipv4_addr\n\t\tsize 100", "change set exempt.ipv4"},
		{"a timeout", "set exempt.ipv4 {\n\t\ttype ipv4_addr", "set exempt.ipv4 {\n\t\ttype ipv4_addr\n\t\ttimeout 1h", "change set exempt.ipv4"},
		{"a set with counters", "set exempt.ipv4 {\n\t\ttype ipv4_addr", "set exempt.ipv4 {\n\t\ttype ipv4_addr\n\t\tcounter", "change set exempt.ipv4"},
		{"the policy of a set", "set exempt.ipv4 {\n\t\ttype ipv4_addr", "set exempt.ipv4 {\n\t\ttype ipv4_addr\n\t\tpolicy memory", "change set exempt.ipv4"},
		{"the comment of a map", "set pl.partners.ipv4 {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\tcomment \"prefix_list.partners\"", "set pl.partners.ipv4 {\n\t\ttype ipv4_addr\n\t\tflags interval\n", "change set pl.partners.ipv4"},
		{"the size of a dynamic set", "size 65536", "size 4", "change set flows.ipv4"},
		{"the timeout of a dynamic set", "\t\ttimeout 10m", "\t\ttimeout 5m", "change set flows.ipv4"},
	}
	for _, test := range tests {
		if test.want == "" {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(script, test.old) {
				t.Fatalf("the script does not contain %q:\n%s", test.old, script)
			}
			l := newLab(t)
			l.nft(strings.Replace(script, test.old, test.new, 1))
			d := l.apply(webTable())
			n := 0
			for c := range d.Changes() {
				if line := fmt.Sprintf("%s %s %s", c.Action, c.Kind, c.Name); line != test.want {
					t.Errorf("unexpected change: %s", line)
				}
				n++
			}
			if n != 1 {
				t.Errorf("%d changes, want one:\n%s", n, changesText(d))
			}
			l.wantSame(webTable())
			fresh := newLab(t)
			fresh.apply(webTable())
			if got, want := l.list(), fresh.list(); got != want {
				t.Errorf("after mending the table is\n%s\nwant\n%s", got, want)
			}
		})
	}
}
