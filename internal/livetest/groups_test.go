package livetest

import (
	"testing"

	"sgc/internal/flow"
)

// Deleting a security group cuts tracked flows that no rule allows now and
// that only deleted groups have ever allowed. Detaching one does not.
func TestDeletedGroup(t *testing.T) {
	t.Parallel()
	type step struct {
		// groups have the rule of the service, but for those in without.
		groups, attached, without []string
		cut                       bool
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"deleted", []step{
			{groups: []string{"g"}, attached: []string{"g"}},
			{cut: true},
		}},
		{"detached", []step{
			{groups: []string{"g"}, attached: []string{"g"}},
			{groups: []string{"g"}},
		}},
		{"detached, and deleted later", []step{
			{groups: []string{"g"}, attached: []string{"g"}},
			{groups: []string{"g"}},
			{cut: true},
		}},
		{"the rule gone, and the group deleted later", []step{
			{groups: []string{"g"}, attached: []string{"g"}},
			{groups: []string{"g"}, attached: []string{"g"}, without: []string{"g"}},
			{cut: true},
		}},
		{"deleted, and another group allows it now", []step{
			{groups: []string{"g", "h"}, attached: []string{"g", "h"}},
			{groups: []string{"h"}, attached: []string{"h"}},
		}},
		{"deleted, and a new group allows it now", []step{
			{groups: []string{"g"}, attached: []string{"g"}},
			{groups: []string{"h"}, attached: []string{"h"}},
		}},
		{"deleted, and a group that is still there once allowed it", []step{
			{groups: []string{"g", "h"}, attached: []string{"g", "h"}},
			{groups: []string{"g", "h"}, attached: []string{"g"}},
			{groups: []string{"h"}},
		}},
		{"deleted, and a group that is still attached once allowed it", []step{
			{groups: []string{"g", "h"}, attached: []string{"g", "h"}},
			{groups: []string{"g", "h"}, attached: []string{"g", "h"}, without: []string{"h"}},
			{groups: []string{"h"}, attached: []string{"h"}, without: []string{"h"}},
		}},
		{"two, one after the other", []step{
			{groups: []string{"g", "h"}, attached: []string{"g", "h"}},
			{groups: []string{"h"}, attached: []string{"h"}},
			{cut: true},
		}},
		{"two at once", []step{
			{groups: []string{"g", "h"}, attached: []string{"g", "h"}},
			{cut: true},
		}},
		{"deleted, after the other one was detached and deleted", []step{
			{groups: []string{"g", "h"}, attached: []string{"g", "h"}},
			{groups: []string{"g", "h"}, attached: []string{"g"}},
			{groups: []string{"g"}, attached: []string{"g"}},
			{cut: true},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, at := range []place{plain, routed} {
				for _, d := range flow.Directions {
					t.Run(at.String()+"/"+d.String(), func(t *testing.T) {
						t.Parallel()
						s := newStand(t, at)
						var talks, others []*talk
						for i, st := range tt.steps {
							p := closed(d)
							p.groups = map[string][]string{}
							for _, g := range st.groups {
								p.groups[g] = []string{serviceRule(d, friends)}
							}
							for _, g := range st.without {
								p.groups[g] = []string{both(d, "third", "7003", friends)}
							}
							p.attached = append([]string{"a"}, st.attached...)
							s.mark(append(talks, others...)...)
							s.apply(p)
							if i == 0 {
								talks = s.open(s.serviceCalls(d)...)
								others = s.open(kinds(call{direction: d, port: otherService})...)
							}
							switch {
							case st.cut:
								s.areCut("at the end", talks...)
								s.haveNone("at the end", talks...)
								s.apply(p.with(both(d, "third", "7003", anyone)))
								s.areCut("after another apply", talks...)
							default:
								s.smoothly("after the change", talks...)
							}
							s.smoothly("others", others...)
						}
					})
				}
			}
		})
	}
}
