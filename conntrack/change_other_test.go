package conntrack

import (
	"net/netip"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/policies"
)

// A flow of which nobody knows who opened it ends only if no rule of either
// direction allows it, and, of groups that are deleted, if no other group ever
// did.
func TestWhatAChangeDoesToOtherFlows(t *testing.T) {
	const in, out, ping = "in", "out", "ping"
	policy := func(attached bool, groups ...string) string {
		text, names := "", ""
		for _, g := range groups {
			direction, protocol := "egress", `"gre"`
			switch g {
			case in:
				direction = "ingress"
			case ping:
				protocol = "\"icmp\"\n from_port = -1\n to_port = -1"
			}
			text += "security_group \"" + g + "\" {\n " + direction + " {\n protocol = " + protocol + "\n cidr_blocks = [\"198.51.100.0/24\"]\n}\n}\n"
			names += "\"" + g + "\", "
		}
		if !attached {
			names = ""
		}
		return text + "interface \"eth0\" {\n security_groups = [" + names + "]\n}\n"
	}
	none := policy(false)
	for _, tc := range []struct {
		name   string
		steps  []string
		flush  FlushMode
		want   Fate
		reason Reason
	}{
		{"allowed inwards", []string{policy(true, in), policy(true, in)}, FlushRevoked, Stays, NoReason},
		{"allowed the other way", []string{policy(true, in), policy(true, out)}, FlushRevoked, Stays, NoReason},
		{"detached", []string{policy(true, in), policy(false, in)}, FlushCloud, Lingers, WasTracked},
		{"detached, and revoked", []string{policy(true, out), policy(false, out)}, FlushRevoked, Cut, WasRevoked},
		{"deleted", []string{policy(true, in), none}, FlushCloud, Cut, GroupDeleted},
		{"deleted, of the other direction", []string{policy(true, out), none}, FlushCloud, Cut, GroupDeleted},
		{"deleted, and nothing is to be cut", []string{policy(true, in), none}, FlushNone, Lingers, WasTracked},
		{"deleted, and another group allows the other way", []string{policy(true, in, out), policy(true, out)}, FlushCloud, Stays, NoReason},
		{"deleted, and another group once allowed the other way", []string{policy(true, in, out), policy(false, out)}, FlushCloud, Lingers, WasTracked},
		{"both deleted", []string{policy(true, in, out), none}, FlushCloud, Cut, GroupDeleted},
		{"both deleted, one after the other", []string{policy(true, in, out), policy(true, out), none}, FlushCloud, Cut, GroupDeleted},
		{"detached, then deleted", []string{policy(true, out), policy(false, out), none}, FlushCloud, Cut, GroupDeleted},
		{"a group is deleted that is for something else", []string{policy(true, in, ping), policy(false, in)}, FlushCloud, Lingers, WasTracked},
		{"the first policy", []string{"", none}, FlushRevoked, Lingers, Adopted},
		{"the interface was not governed", []string{"interface \"eth1\" {\n security_groups = []\n}\n", none}, FlushRevoked, Lingers, Adopted},
		{"the interface is governed no more", []string{policy(true, in), "interface \"eth1\" {\n security_groups = []\n}\n"}, FlushRevoked, Elsewhere, NoReason},
		{"never filtered", []string{policy(true, in), none + "host {\n exempt = [\"198.51.100.7\"]\n}\n"}, FlushRevoked, Stays, NoReason},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var past *policies.Past
			o := ChangeOptions{Flush: tc.flush}
			for _, text := range tc.steps {
				o.Old = o.New
				if text == "" {
					continue
				}
				o.New = &Enforced{Policy: load(t, text)}
				if o.Old != nil {
					o.Past = past.Forget(o.Old.Policy)
					past = o.Past.Add(o.Old.Policy, o.New.Policy, time.Time{})
				}
			}
			c := NewChange(o)
			var changed Changed
			for range 2 {
				f := policies.OtherFlow{Interface: "eth0", Protocol: 47, Peer: netip.MustParseAddr("198.51.100.7")}
				c.Other(f, &changed)
				if changed.Fate != tc.want || changed.Reason != tc.reason || changed.Delete != (tc.want == Cut) {
					t.Errorf("%s (%s), deleted %t; want %s (%s)", changed.Fate, changed.Reason, changed.Delete, tc.want, tc.reason)
				}
				if tc.want != Elsewhere && policies.OtherFlowOf(&changed.Leg().Packet) != f {
					t.Errorf("the leg is %s", &changed.Leg().Packet)
				}
				if leg := changed.Leg(); tc.want == Cut && len(tc.steps) == 2 && leg.Old.Rule == nil {
					t.Error("nobody knows which rule had allowed it")
				}
				f.Interface = "eth7"
				if c.Other(f, &changed); changed.Fate != Elsewhere || len(changed.Legs) != 0 {
					t.Errorf("at another interface it %s", changed.Fate)
				}
			}
			if p := (&policies.OtherFlow{Peer: netip.MustParseAddr("2001:db8::1")}).Packet(flow.Egress); p.Family() != flow.IPv6 || p.Peer() != netip.MustParseAddr("2001:db8::1") {
				t.Errorf("a packet of IPv6 is %s", &p)
			}
		})
	}
}
