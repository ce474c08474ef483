package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/policies"
)

// When a rule went stays as it is, however many applies come after that; a record
// of an older version does not know it.
func TestExplainWhenARuleWent(t *testing.T) {
	requireNft(t)
	s := newStage(t, true)
	s.run("ip link add eth0 type veth peer name wire0")
	for _, command := range []string{"ip addr add 192.0.2.10/24 dev eth0", "ip link set eth0 up", "ip link set wire0 up"} {
		if text := s.run(command); text != "" {
			t.Fatal(text)
		}
	}
	rule := func(id, ports, peer string) string {
		return fmt.Sprintf("  ingress %q {\n    protocol    = \"tcp\"\n    ports       = [%q]\n    cidr_blocks = [%q]\n  }\n", id, ports, peer)
	}
	// applied writes a policy with such rules, applies it, and returns when.
	applied := func(rules ...string) time.Time {
		t.Helper()
		s.write("web/web.hcl", "security_group \"web\" {\n"+strings.Join(rules, "")+"}\ninterface \"eth0\" {\n  security_groups = [security_group.web]\n}\n")
		s.mustRun("apply", "--auto-approve", s.dir+"/web")
		_, dir := s.open()
		r, err := dir.Applied()
		if err != nil {
			t.Fatal(err)
		}
		for time.Since(r.Applied) < 1100*time.Millisecond { // the next one has another time
			time.Sleep(10 * time.Millisecond)
		}
		return r.Applied
	}
	applied(rule("ssh", "22", "203.0.113.0/24"), rule("too", "20-30", "203.0.113.7/32"))
	if text := s.run("conntrack -I -t 4000 --status ASSURED,SEEN_REPLY -p tcp --state ESTABLISHED -s 203.0.113.7 --sport 1000 -d 192.0.2.10 --dport 22"); !strings.Contains(text, "1 flow entries") {
		t.Fatal(text)
	}
	first := applied(rule("ssh", "22", "203.0.113.0/24"))
	second := applied(rule("ssh", "22", "203.0.113.8/32"))
	applied(rule("other", "22", "198.51.100.1/32"))
	applied()
	text := func(at time.Time) string { return at.Local().Format("2006-01-02 15:04:05 MST") }
	check := func(gone time.Time, want string) {
		t.Helper()
		flows := s.explain("--port=22")
		if len(flows) != 1 || flows[0].Explained.Legs[0].GoneSince == nil {
			t.Fatalf("%+v", flows)
		}
		if got := *flows[0].Explained.Legs[0].GoneSince; !got.Equal(gone) || !strings.Contains(flows[0].text(), want) {
			t.Errorf("gone since %s, want %s; it says\n%s\nwant\n%s", got, gone, flows[0].text(), want)
		}
	}
	check(second, fmt.Sprintf("It was allowed until the apply of %s by security_group.web.ingress.ssh, which is gone (ingress tcp 22 from 203.0.113.0/29; it stood at %s/web/web.hcl:2:3); "+
		"until the apply of %s by security_group.web.ingress.too, which is gone (ingress tcp 20-30 from 203.0.113.7; it stood at %[2]s/web/web.hcl:7:3).", text(second), s.dir, text(first)))

	// What an older version of sgc wrote has no names and no times.
	_, dir := s.open()
	r, err := dir.Applied()
	if err != nil {
		t.Fatal(err)
	}
	var content map[string]json.RawMessage
	var past struct {
		Rules []map[string]any `json:"rules"`
		Peers []any            `json:"peers"`
	}
	if err := errors.Join(json.Unmarshal(r.Policy, &content), json.Unmarshal(content["past"], &past)); err != nil {
		t.Fatal(err)
	}
	for _, rule := range past.Rules {
		for _, name := range []string{"id", "pos", "gone"} {
			if _, ok := rule[name]; !ok {
				t.Errorf("a past rule without %s: %v", name, rule)
			}
			delete(rule, name)
		}
	}
	raw, err := json.Marshal(past)
	if err != nil {
		t.Fatal(err)
	}
	content["past"] = raw
	if r.Policy, err = json.Marshal(content); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dir.WriteAhead(r), dir.Promote()); err != nil {
		t.Fatal(err)
	}
	check(r.Applied, fmt.Sprintf("It was allowed until the apply of %s at the latest by a rule of security_group.web (ingress tcp 22 from 203.0.113.0/29)", text(r.Applied)))
}

// What became of a rule is told by the policy that is enforced.
func TestWhatBecameOfPastRules(t *testing.T) {
	policy := &policies.Policy{
		Groups: []*policies.Group{
			{Name: "web", Rules: []*policies.Rule{{Group: "web", ID: "ssh"}, {Group: "web", Direction: flow.Egress, ID: "dns"}}},
			{Name: "debug"},
		},
		Interfaces: []*policies.Interface{{Name: "eth*", Groups: []string{"web"}}},
	}
	x := &explainer{tracking: &tracking{policy: policy}, step: &transition{}}
	for _, tc := range []struct {
		group, id string
		now       pastState
		text      string
	}{
		{"web", "ssh", pastNarrowed, "security_group.web.ingress.ssh, which does not cover it any more (ingress tcp 22 from 203.0.113.0/24)"},
		{"web", "dns", pastGone, "security_group.web.ingress.dns, which is gone (ingress tcp 22 from 203.0.113.0/24)"},
		{"web", "", pastUnknown, "a rule of security_group.web (ingress tcp 22 from 203.0.113.0/24)"},
		{"debug", "ssh", pastDetached, "security_group.debug.ingress.ssh, whose group is not attached to eth0 any more (ingress tcp 22 from 203.0.113.0/24)"},
		{"guest", "ssh", pastDeleted, "security_group.guest.ingress.ssh, whose group is deleted (ingress tcp 22 from 203.0.113.0/24)"},
		{"guest", "", pastDeleted, "a rule of security_group.guest, whose group is deleted (ingress tcp 22 from 203.0.113.0/24)"},
		{"web" + recovered, "tcp4.open", pastUnknown, "a rule of a policy of which there was no record (ingress tcp 22 from 203.0.113.0/24)"},
	} {
		r := &policies.PastRule{
			Group: tc.group, ID: tc.id, Protocol: flow.TCP, Ports: []flow.PortRange{{First: 22, Last: 22}},
			Peers: []flow.Range{flow.RangeOf(netip.MustParsePrefix("203.0.113.0/24"))},
		}
		p := flow.Packet{Interface: "eth0", Direction: flow.Ingress, Protocol: flow.TCP, Source: netip.MustParseAddr("203.0.113.7"), DestPort: 22}
		v := x.newPastView(r, &p)
		if v.Now != tc.now || v.text("eth0") != tc.text || v.GoneSince != nil || v.Position != "" {
			t.Errorf("%s %s: %+v, %q", tc.group, tc.id, v, v.text("eth0"))
		}
	}
}
