package cli

import (
	"fmt"
	"slices"
	"strings"

	"sgc/internal/flow"
	"sgc/policies"
)

// willHoldFlows lists the single flows that the commit refuses for a while, on each
// interface by itself: those of connected UDP sockets. Those of which conntrack has
// entries are refused after the commit, see cutsUDPEntries.
func (w *liveWork) willHoldFlows() []heldView {
	if w == nil {
		return nil
	}
	var out []heldView
	seen := map[policies.Held]bool{}
	for i := range w.holds {
		if h := w.holds[i]; h.Exact() && !seen[h] {
			seen[h] = true
			out = append(out, newHeldView(&h, w.hold(h).Element.Timeout))
		}
	}
	slices.SortFunc(out, func(a, b heldView) int {
		return strings.Compare(a.Interface+" "+a.Flow, b.Interface+" "+b.Flow)
	})
	return out
}

// cutsUDPEntries reports whether flows are cut that are UDP and known by
// conntrack, as far as the flows that are shown tell; where not all are shown, they
// may be.
func (w *liveWork) cutsUDPEntries() bool {
	if w == nil {
		return false
	}
	return slices.ContainsFunc(w.flows.groups, func(g *flowGroup) bool {
		return g.Fate == fateCut && (len(g.Flows) < g.Count || slices.ContainsFunc(g.Flows, func(f liveFlowView) bool {
			return !f.Socket && f.Protocol == flow.UDP.Name(flow.IPv4)
		}))
	})
}

// writeFlowHolds prints which single flows will be held, below the live flows.
func writeFlowHolds(b *strings.Builder, paint paint, w *liveWork, verbose bool) {
	holds, entries := w.willHoldFlows(), w.cutsUDPEntries()
	if len(holds) > 0 {
		if len(w.flows.groups)+len(w.willHold()) == 0 {
			fmt.Fprintf(b, "%s\n", paint.bold("live flows"))
		}
		flows := heldFlowCount(holds)
		writeHeldFor(b, paint, fmt.Sprintf("%s of connected sockets will be refused for a while by %s addresses and ports:", plural(flows, "UDP flow"), possessive(flows)), heldLines(holds), verbose)
	}
	if entries {
		fmt.Fprintf(b, "  %s\n", "UDP flows of conntrack that are cut will be refused by their addresses and ports for the UDP stream timeout.")
	}
}

// writeHeldFor prints a line, and below it what will be refused for how long.
func writeHeldFor(b *strings.Builder, paint paint, line string, holds []heldView, verbose bool) {
	fmt.Fprintf(b, "  %s\n", line)
	shown := holds
	if !verbose && len(shown) > heldShown {
		shown = shown[:heldShown]
	}
	for _, h := range shown {
		fmt.Fprintf(b, "      %s  for %ds\n", h.what(), h.Expires)
	}
	if more := len(holds) - len(shown); more > 0 {
		fmt.Fprintf(b, "      %s\n", paint.dim(fmt.Sprintf("… and %s more; --verbose lists them", thousands(more))))
	}
}
