package livetest

import (
	"fmt"
	"testing"

	"sgc/internal/flow"
)

// The ports of a service whose listeners do not stay, such as those of passive FTP
// and of media: the kernel may give them to clients as well.
const (
	firstPassing = 50000
	lastPassing  = 50099
)

// passing lets the peers use the service that does not stay, and the host
// everything.
func passing(rules ...string) policy {
	return policy{rules: append([]string{otherRule(flow.Ingress), all(flow.Egress)}, rules...)}
}

// A flow that outlives its listener, between two ports that clients may have, is
// still the peer's where the rules name the host's port; and the host's own flows
// from such ports are its own.
func TestFlowsThatOutliveTheirListener(t *testing.T) {
	t.Parallel()
	for _, at := range []place{plain, notrackOff} {
		t.Run(at.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, at)
			rule := func(name string) string {
				return both(flow.Ingress, name, fmt.Sprintf(`"%d-%d"`, firstPassing, lastPassing), anyone)
			}
			narrow := both(flow.Ingress, "passing", fmt.Sprintf(`"%d-%d"`, firstPassing, lastPassing), friends)
			s.apply(passing(rule("passing")))
			var orphans, own []*talk
			for _, f := range flow.Families {
				orphans = append(orphans, s.open(
					call{protocol: flow.TCP, family: f, direction: flow.Ingress, port: firstPassing + 1},
					call{protocol: flow.UDP, family: f, direction: flow.Ingress, port: lastPassing, connected: true})...)
				own = append(own, s.open(
					call{protocol: flow.TCP, family: f, direction: flow.Egress, port: firstPassing + 2},
					call{protocol: flow.TCP, family: f, direction: flow.Egress, port: lastPassing + 3},
					call{protocol: flow.UDP, family: f, direction: flow.Egress, port: lastPassing + 4, connected: true})...)
			}
			s.deafen()
			flows := append(append([]*talk{}, orphans...), own...)

			s.mark(flows...)
			s.apply(passing(narrow))
			s.smoothly("narrowed", flows...)
			s.haveEntries("narrowed", flows...)

			s.mark(flows...)
			s.apply(passing(rule("passing")))
			s.smoothly("open again", flows...)
			if at.untracks() {
				s.haveNone("open again", orphans...)
			}

			s.mark(own...)
			s.says("the plan", s.plan(passing()).out, fmt.Sprintf("%d will be cut", len(orphans)/2))
			s.apply(passing())
			s.areCut("without its rule", orphans...)
			s.haveNone("without its rule", orphans...)
			s.smoothly("the host's own", own...)
		})
	}
}

// deafen closes all TCP listeners of the host.
func (s *stand) deafen() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, l := range s.listeners {
		if at.ns != s.host {
			continue
		}
		if err := l.socket.Close(); err != nil {
			s.t.Error(err)
		}
		delete(s.listeners, at)
	}
}
