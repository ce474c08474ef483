package cli

import (
	"net/netip"
	"strings"
	"testing"

	"sgc/internal/flow"
)

// some returns live flows of every fate, one or three of each.
func someFlows(n, limit int) *liveFlows {
	l := &liveFlows{limit: limit}
	for i := range n {
		p := &flow.Packet{
			Interface: "eth0", Protocol: flow.TCP,
			Source: netip.MustParseAddr("198.51.100.7"), SourcePort: uint16(40000 + i),
			Dest: netip.MustParseAddr("192.0.2.10"), DestPort: 80,
		}
		view := func() liveFlowView { return newLiveFlowView(p, false) }
		l.add(fateDenied, "", "network_acl.edge", view)
		l.add(fateUntracked, "", "security_group.web.ingress.open", view)
		l.add(fateTracked, "", "security_group.web.ingress.narrow", view)
		l.add(fateAdopted, "", "", view)
		l.add(fateLingers, "", "security_group.web.ingress.ssh", view)
		l.add(fateCut, "was untracked, and no rule allows it any more", "security_group.web.ingress.http", view)
	}
	l.sort()
	return l
}

func TestLiveFlowsText(t *testing.T) {
	for _, tc := range []struct {
		name     string
		n, limit int
		want     string
	}{
		{"one of each, none listed", 1, 0, `live flows
  1 will be cut: security_group.web.ingress.http was untracked, and no rule allows it any more
  1 does not get through while a network ACL denies it: network_acl.edge
  1 goes on, although no rule allows it any more, until idle for its timeout: security_group.web.ingress.ssh
  1 is adopted, and goes on, although the policy would not let it open
  1 goes on, tracked from now on: security_group.web.ingress.narrow
  1 goes on, untracked from now on: security_group.web.ingress.open
`},
		{"three of each, those that are cut are listed first", 3, 4, `live flows
  3 will be cut: security_group.web.ingress.http was untracked, and no rule allows it any more
      tcp 198.51.100.7:40000 → 192.0.2.10:80  (eth0, ingress)
      tcp 198.51.100.7:40001 → 192.0.2.10:80  (eth0, ingress)
      tcp 198.51.100.7:40002 → 192.0.2.10:80  (eth0, ingress)
  3 do not get through while a network ACL denies them: network_acl.edge
      tcp 198.51.100.7:40000 → 192.0.2.10:80  (eth0, ingress)
      … and 2 more; --flows N lists N
  3 go on, although no rule allows them any more, until idle for their timeout: security_group.web.ingress.ssh
  3 are adopted, and go on, although the policy would not let them open
  3 go on, tracked from now on: security_group.web.ingress.narrow
  3 go on, untracked from now on: security_group.web.ingress.open
`},
	} {
		var b strings.Builder
		writeLiveFlows(&b, paint{}, someFlows(tc.n, tc.limit), nil, false)
		if b.String() != tc.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.name, b.String(), tc.want)
		}
	}
}

func TestWhyFlowsAreCut(t *testing.T) {
	const ssh = "security_group.web.ingress.ssh"
	for _, tc := range []struct{ rule, reason, want string }{
		{ssh, "was untracked, and no rule allows it any more", "1 will be cut: " + ssh + " was untracked, and no rule allows it any more"},
		{"", "was untracked, and no rule allows it any more", "1 will be cut: untracked, and no rule allows it any more"},
		{ssh, "no rule allows it any more (--flush revoked)", "1 will be cut: " + ssh + " allowed it, and no rule allows it any more (--flush revoked)"},
		{"", "only groups that are deleted have ever allowed it", "1 will be cut: only groups that are deleted have ever allowed it"},
	} {
		if got := groupText(&flowGroup{Fate: fateCut, Count: 1, Rule: tc.rule, Reason: tc.reason}); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}

// Every flow is counted under one fate.
func TestLiveFlowsCount(t *testing.T) {
	v := someFlows(3, 1).view(true)
	if v.Cut != 3 || v.GoOn != 3 || v.Adopted != 3 || v.BecomesTracked != 3 || v.BecomesUntracked != 3 || v.Denied != 3 {
		t.Errorf("%+v", v)
	}
	listed := 0
	for _, g := range v.Groups {
		if g.Count != 3 {
			t.Errorf("%+v", g)
		}
		listed += len(g.Flows)
	}
	if listed != 1 {
		t.Errorf("%d flows are listed, want 1", listed)
	}
}
