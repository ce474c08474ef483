package apply

import (
	"slices"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

func tcpTimeout(name string, seconds int) *ruleset.Timeout {
	return &ruleset.Timeout{Name: name, Family: flow.IPv4, Protocol: flow.TCP, States: []ruleset.StateTimeout{
		{State: ruleset.TCPEstablished, Timeout: time.Duration(seconds) * time.Second},
	}}
}

func udpTimeout(name string, unreplied, replied int) *ruleset.Timeout {
	return &ruleset.Timeout{Name: name, Family: flow.IPv6, Protocol: flow.UDP, States: []ruleset.StateTimeout{
		{State: ruleset.UDPUnreplied, Timeout: time.Duration(unreplied) * time.Second},
		{State: ruleset.UDPReplied, Timeout: time.Duration(replied) * time.Second},
	}}
}

// timeoutTable has a chain in use and one that only it leads to, which both set
// timeouts.
func timeoutTable() *ruleset.Table {
	set := func(f flow.Family, p flow.Protocol, name string) ruleset.Rule {
		return ruleset.Rule{Comment: "interface.eth0", Statements: []ruleset.Statement{
			ruleset.MatchState{State: ruleset.CtNew},
			ruleset.Match{Field: ruleset.NFProtocol, Value: ruleset.NFProtoKey(f)},
			ruleset.Match{Field: ruleset.L4Protocol, Value: ruleset.ProtoKey(p)},
			ruleset.SetTimeout{Object: name},
		}}
	}
	return &ruleset.Table{
		Name:     "sgc",
		Timeouts: []*ruleset.Timeout{tcpTimeout("eth0.tcp4", 350), udpTimeout("eth0.udp6", 30, 90)},
		Chains: []*ruleset.Chain{
			{Name: "prerouting", Hook: &ruleset.Hook{Point: ruleset.Prerouting, Priority: -150}, Rules: []ruleset.Rule{
				set(flow.IPv4, flow.TCP, "eth0.tcp4"),
				{Statements: []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Jump, Chain: "eth0.udp"}}},
			}},
			{Name: "eth0.udp", Rules: []ruleset.Rule{set(flow.IPv6, flow.UDP, "eth0.udp6"), {Statements: []ruleset.Statement{ruleset.Verdict{Kind: ruleset.Accept}}}}},
		},
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	changes := func(d *Delta) []string {
		var out []string
		for c := range d.Changes() {
			text := c.Action.String() + " " + c.Text
			if c.Was != "" {
				text += " was " + c.Was
			}
			out = append(out, text)
		}
		return out
	}
	l.apply(timeoutTable())
	l.wantSame(timeoutTable())
	l.apply(timeoutTable())

	changed := timeoutTable()
	changed.Timeouts[0].States[0].Timeout = time.Hour
	d := l.apply(changed)
	want := []string{"change ct timeout eth0.tcp4: tcp ip { established : 3600 } was ct timeout eth0.tcp4: tcp ip { established : 350 }"}
	if got := changes(d); !slices.Equal(got, want) || d.Transactions() != 1 {
		t.Errorf("got %q in %d transactions, want %q", got, d.Transactions(), want)
	}
	l.wantSame(changed)
	if list := l.list(); !contains(list, "established : 3600") && !contains(list, "established : 1h") {
		t.Errorf("the listing has no 3600:\n%s", list)
	}

	family := timeoutTable()
	family.Timeouts[1].Family = flow.IPv4
	l.apply(family)
	l.wantSame(family)

	renamed := timeoutTable()
	renamed.Timeouts[1] = udpTimeout("eth0.udp6.60", 30, 60)
	renamed.Chains[1].Rules[0].Statements[3] = ruleset.SetTimeout{Object: "eth0.udp6.60"}
	l.apply(renamed)
	l.wantSame(renamed)

	l.nft(`table inet sgc { ct timeout mine { protocol udp; l3proto ip; policy = { replied : 17 }; }; counter cnt { }; chain eth0.udp { ct timeout set "mine"; counter name "cnt"; }; }`)
	d = l.diff(renamed)
	got := changes(d)
	want = []string{
		"remove counter cnt", "remove ct timeout mine: udp ip { unreplied : 30, replied : 17 }",
		`remove ct timeout set "mine"`, `remove counter cnt`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	l.apply(renamed)
	l.wantSame(renamed)

	without := timeoutTable()
	without.Timeouts = without.Timeouts[1:]
	without.Chains[0].Rules = without.Chains[0].Rules[1:]
	l.apply(without)
	l.wantSame(without)
	l.apply(webTable())
	l.wantSame(webTable())
	l.apply(nil)
}

func TestTimeoutsAreThoseThatNftMakesOfTheText(t *testing.T) {
	t.Parallel()
	committed, loaded := newLab(t), newLab(t)
	committed.apply(timeoutTable())
	loaded.nft(scriptOf(t, timeoutTable()))
	if got, want := committed.list(), loaded.list(); got != want {
		t.Errorf("committed over netlink:\n%s\nloaded by nft:\n%s", got, want)
	}
	loaded.wantSame(timeoutTable())
}
