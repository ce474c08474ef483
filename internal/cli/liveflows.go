package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sgc/internal/flow"
)

// liveFlows says what an apply means for the flows that are alive.
type liveFlows struct {
	// groups hold the flows by what becomes of them and why, in the order in
	// which they are shown.
	groups []*flowGroup
	// limit is how many flows are shown of all groups together.
	limit int
}

// flowGroup are flows that share their fate and the reason for it.
type flowGroup struct {
	Fate string `json:"fate"`
	// Reason says why, without the number of flows.
	Reason string `json:"reason"`
	// Rule is the address of the rule that let the flows open, "" where nobody
	// knows it.
	Rule  string `json:"rule,omitempty"`
	Count int    `json:"count"`
	// Flows are the first of them, as many as were asked for.
	Flows []liveFlowView `json:"flows"`
}

// liveFlowView is one live flow, with the addresses that are on the wire where it
// crosses the interface. It is written in the direction in which it was opened.
type liveFlowView struct {
	Interface string `json:"interface"`
	Protocol  string `json:"protocol"`
	// Peer is set for flows of protocols other than TCP, UDP and ICMP. It is all
	// that is known of their ends; nobody knows in which direction they were opened.
	Peer       *netip.Addr `json:"peer,omitempty"`
	Direction  string      `json:"direction,omitempty"`
	Source     netip.Addr  `json:"source,omitzero"`
	SourcePort *uint16     `json:"source_port,omitempty"`
	Dest       netip.Addr  `json:"destination,omitzero"`
	DestPort   *uint16     `json:"destination_port,omitempty"`
	// Socket is set for flows that are known by a socket of the host, since
	// conntrack has no entry of them.
	Socket bool `json:"socket,omitempty"`
}

// liveFlowsView is the JSON form. A flow is counted under one fate, and under
// Denied beside; those that go on as they were are not counted.
type liveFlowsView struct {
	// Known is false if nobody could be asked.
	Known            bool `json:"known"`
	Cut              int  `json:"cut"`
	GoOn             int  `json:"go_on"`
	Adopted          int  `json:"adopted"`
	BecomesTracked   int  `json:"become_tracked"`
	BecomesUntracked int  `json:"become_untracked"`
	// Denied are those of which a network ACL stops packets that it let through
	// before, in one direction or both.
	Denied int `json:"denied"`
	// Groups hold the flows themselves, up to --flows of them.
	Groups []*flowGroup `json:"groups"`
	// WillHold is what will be refused for a while under UDP ports of the host,
	// whose flows nobody knows.
	WillHold []heldView `json:"will_hold"`
}

func (l *liveFlows) view(known bool) liveFlowsView {
	v := liveFlowsView{
		Known: known, Cut: l.count(fateCut), GoOn: l.count(fateLingers), Adopted: l.count(fateAdopted),
		BecomesTracked: l.count(fateTracked), BecomesUntracked: l.count(fateUntracked), Denied: l.count(fateDenied),
		Groups: l.groups, WillHold: []heldView{},
	}
	if v.Groups == nil {
		v.Groups = []*flowGroup{}
	}
	return v
}

// What becomes of flows, in the order in which it is shown.
const (
	fateCut       = "cut"
	fateLingers   = "goes_on"
	fateAdopted   = "adopted"
	fateTracked   = "becomes_tracked"
	fateUntracked = "becomes_untracked"
	// fateDenied flows have another fate as well.
	fateDenied = "denied"
)

var fates = []string{fateCut, fateDenied, fateLingers, fateAdopted, fateTracked, fateUntracked}

// add counts a flow.
func (l *liveFlows) add(fate, reason, rule string, view func() liveFlowView) {
	var g *flowGroup
	for _, other := range l.groups {
		if other.Fate == fate && other.Reason == reason && other.Rule == rule {
			g = other
			break
		}
	}
	if g == nil {
		g = &flowGroup{Fate: fate, Reason: reason, Rule: rule, Flows: []liveFlowView{}}
		l.groups = append(l.groups, g)
	}
	g.Count++
	if len(g.Flows) < l.limit {
		g.Flows = append(g.Flows, view())
	}
}

// sort puts the groups into their order, by fate, then the rule, and leaves the
// first flows of all to be shown.
func (l *liveFlows) sort() {
	slices.SortStableFunc(l.groups, func(a, b *flowGroup) int {
		if n := slices.Index(fates, a.Fate) - slices.Index(fates, b.Fate); n != 0 {
			return n
		}
		if n := strings.Compare(a.Rule, b.Rule); n != 0 {
			return n
		}
		return strings.Compare(a.Reason, b.Reason)
	})
	left := l.limit
	for _, g := range l.groups {
		g.Flows = g.Flows[:min(left, len(g.Flows))]
		left -= len(g.Flows)
	}
}

// count returns how many flows share a fate.
func (l *liveFlows) count(fate string) int {
	n := 0
	for _, g := range l.groups {
		if g.Fate == fate {
			n += g.Count
		}
	}
	return n
}

func newLiveFlowView(p *flow.Packet, socket bool) liveFlowView {
	v := liveFlowView{
		Interface: p.Interface, Direction: p.Direction.String(), Protocol: p.Protocol.Name(p.Family()),
		Source: p.Source, Dest: p.Dest, Socket: socket,
	}
	if p.Protocol.HasPorts() {
		source, dest := p.SourcePort, p.DestPort
		v.SourcePort, v.DestPort = &source, &dest
	}
	return v
}

func (v liveFlowView) String() string {
	if v.Peer != nil {
		return fmt.Sprintf("%s with %s  (%s)", v.Protocol, v.Peer, v.Interface)
	}
	end := func(a netip.Addr, port *uint16) string {
		if port == nil {
			return a.String()
		}
		return netip.AddrPortFrom(a, *port).String()
	}
	return fmt.Sprintf("%s %s → %s  (%s, %s)", v.Protocol, end(v.Source, v.SourcePort), end(v.Dest, v.DestPort), v.Interface, v.Direction)
}

// writeLiveFlows prints the groups, each with the flows that were kept of it, and
// what will be held.
func writeLiveFlows(b *strings.Builder, paint paint, l *liveFlows, holds []heldView, verbose bool) {
	if len(l.groups)+len(holds) == 0 {
		return
	}
	fmt.Fprintf(b, "%s\n", paint.bold("live flows"))
	for _, g := range l.groups {
		text := groupText(g)
		if g.Fate == fateCut {
			text = paint.red(text)
		}
		fmt.Fprintf(b, "  %s\n", text)
		for _, f := range g.Flows {
			fmt.Fprintf(b, "      %s\n", f)
		}
		if more := g.Count - len(g.Flows); more > 0 && len(g.Flows) > 0 {
			fmt.Fprintf(b, "      %s\n", paint.dim(fmt.Sprintf("… and %s more; --flows N lists N", thousands(more))))
		}
	}
	writeHolds(b, paint, holds, verbose)
}

// writeHolds prints what will be held.
func writeHolds(b *strings.Builder, paint paint, holds []heldView, verbose bool) {
	if len(holds) == 0 {
		return
	}
	fmt.Fprintf(b, "  %s\n", "UDP that was untracked leaves no trace; so that it does not go on, this is refused for a while:")
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

// groupText says how many flows share a fate, and which.
func groupText(g *flowGroup) string {
	one := func(singular, plural string) string {
		if g.Count == 1 {
			return "1 " + singular
		}
		return thousands(g.Count) + " " + plural
	}
	text := ""
	switch g.Fate {
	case fateCut:
		text = thousands(g.Count) + " will be cut"
	case fateLingers:
		text = one("goes on", "go on") + ", although no rule allows " + pronoun(g.Count) + " any more, until idle for " + possessive(g.Count) + " timeout"
	case fateAdopted:
		text = one("is adopted", "are adopted") + ", and goes on, although the policy would not let " + pronoun(g.Count) + " open"
		if g.Count != 1 {
			text = strings.Replace(text, "and goes on", "and go on", 1)
		}
	case fateTracked:
		text = one("goes on, tracked from now on", "go on, tracked from now on")
	case fateDenied:
		text = one("does not get through while a network ACL denies it", "do not get through while a network ACL denies them")
	case fateUntracked:
		text = one("goes on, untracked from now on", "go on, untracked from now on")
	}
	if why := g.why(); why != "" {
		text += ": " + why
	}
	return text
}

// why names the rule and the reason, in one clause.
func (g *flowGroup) why() string {
	const was = "was "
	switch {
	case g.Rule == "":
		return strings.TrimPrefix(g.Reason, was)
	case g.Reason == "":
		return g.Rule
	case strings.HasPrefix(g.Reason, was):
		return g.Rule + " " + g.Reason
	}
	return g.Rule + " allowed it, and " + g.Reason
}

func pronoun(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

func possessive(n int) string {
	if n == 1 {
		return "its"
	}
	return "their"
}
