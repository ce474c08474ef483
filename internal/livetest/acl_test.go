package livetest

import (
	"fmt"
	"strings"
	"testing"

	"sgc/internal/flow"
)

// entries are those of a network ACL that denies the friends in a direction,
// and allows everything else.
func entries(denied flow.Direction) string {
	var b strings.Builder
	number := 0
	entry := func(d flow.Direction, action string, peer string, v6 bool) {
		number++
		attribute := "cidr_block"
		if v6 {
			attribute = "ipv6_cidr_block"
		}
		fmt.Fprintf(&b, "  %s {\n    rule_no = %d\n    action = %q\n    protocol = \"-1\"\n    %s = %q\n  }\n", d, number, action, attribute, peer)
	}
	for _, f := range flow.Families {
		entry(denied, "deny", fmt.Sprintf("%s/%d", friendOf[f], f.Bits()), f == flow.IPv6)
	}
	for _, d := range flow.Directions {
		for _, f := range flow.Families {
			entry(d, "allow", f.Any().String(), f == flow.IPv6)
		}
	}
	return b.String()
}

// No packet passes in the direction that a network ACL denies while the entry
// is there; a tracked flow goes on when it is taken away.
func TestACLDenies(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		base := narrowed(d, friends...)
		s.apply(base)
		tracked := s.open(s.serviceCalls(d)...)
		untracked := s.open(kinds(call{direction: d, port: otherService})...)
		others := s.open(fromStrangers(kinds(call{direction: d, port: otherService}))...)
		for _, denied := range flow.Directions {
			when := fmt.Sprintf("%s denied", denied)
			p := base
			p.acl = entries(denied)
			s.mark(others...)
			s.apply(p)
			s.deniedIn(when, denied, append(tracked, untracked...)...)
			s.smoothly(when+", others", others...)
			s.apply(p.with(both(d, "third", "7003", anyone)))
			s.deniedIn(when+", after another apply", denied, append(tracked, untracked...)...)
			s.apply(base)
			s.goOn(when+" no more", append(tracked, untracked...)...)
			s.haveEntries(when+" no more", tracked...)
		}
	})
}

// Not even its rule being gone, too, ends a tracked flow that an ACL denied
// for a while.
func TestACLDeniesWhatOutlivedItsRule(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(narrowed(d, friends...))
		tracked := s.open(s.serviceCalls(d)...)
		s.apply(closed(d))
		s.goOn("the rule is gone", tracked...)
		p := closed(d)
		p.acl = entries(flow.Ingress)
		s.apply(p)
		s.deniedIn("denied", flow.Ingress, tracked...)
		s.apply(closed(d))
		s.goOn("denied no more", tracked...)
	})
}
