package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sgc/compile"
	"sgc/conntrack"
)

// statsView is the JSON form of conntrack stats.
type statsView struct {
	FormatVersion int    `json:"format_version"`
	Entries       uint64 `json:"entries"`
	// Max and Available are null where the table has no limit.
	Max       *uint64 `json:"max"`
	Available *uint64 `json:"conntrack_allowance_available"`
	// Exceeded and EarlyDrops count since the namespace was made.
	Exceeded   uint64 `json:"conntrack_allowance_exceeded"`
	EarlyDrops uint64 `json:"early_drops"`
	// Flows is null without a policy.
	Flows *flowsView `json:"flows"`
}

// flowsView counts flows by what the policy says of them.
type flowsView struct {
	conntrack.Count
	// Elsewhere are those that cross no interface of the policy.
	Elsewhere  int                        `json:"elsewhere"`
	Interfaces []conntrack.InterfaceCount `json:"interfaces"`
	// Remembered are the flows of protocols that sgc tracks by itself, by family,
	// whether they have entries or not. Beyond a limit it remembers no more.
	Remembered rememberedCount `json:"remembered"`
}

// rememberedCount counts live flows of other protocols.
type rememberedCount struct {
	IPv4 int `json:"ipv4"`
	IPv6 int `json:"ipv6"`
	// Limit is that of each family.
	Limit int `json:"limit"`
}

func (s *session) countRemembered(ctx context.Context) (rememberedCount, error) {
	var c rememberedCount
	for _, set := range compile.OtherFlows() {
		c.Limit = int(set.Size)
	}
	flows, err := s.otherFlowsOnce(ctx)
	for f := range flows {
		if f.Peer.Is4() {
			c.IPv4++
		} else {
			c.IPv6++
		}
	}
	return c, err
}

func (s *session) conntrackStats(ctx context.Context, path string, prometheus bool) error {
	if prometheus && s.JSON {
		return errors.New("--json and --prometheus contradict each other")
	}
	policy, err := s.knownPolicy(ctx, path)
	if err != nil {
		return err
	}
	var v *statsView
	if policy == nil {
		s.inform("There is no record of an enforced policy: flows are not told apart. Name one to do so: sgc conntrack stats PATH.")
		err = s.withTable(func(table *conntrack.Table) (err error) { v, err = newStatsView(table); return err })
	} else {
		err = s.withTracking(ctx, policy, func(t *tracking) (err error) {
			if v, err = newStatsView(t.table); err != nil {
				return err
			}
			census, err := t.table.Census(ctx, t.judge)
			if err := s.explainTorn(err); err != nil {
				return err
			}
			v.Flows = &flowsView{Count: census.Entries, Elsewhere: census.Elsewhere, Interfaces: census.Interfaces}
			v.Flows.Remembered, err = s.countRemembered(ctx)
			return err
		})
	}
	if err != nil {
		return err
	}
	switch {
	case s.JSON:
		return s.writeJSON(v)
	case prometheus:
		_, err = s.Out.Write(v.prometheus())
	default:
		_, err = s.Out.Write([]byte(v.text(s.outPaint())))
	}
	return err
}

// newStatsView reads the numbers that need no policy.
func newStatsView(table *conntrack.Table) (*statsView, error) {
	size, err := table.Size()
	if err != nil {
		return nil, err
	}
	counters, err := table.Counters()
	if err != nil {
		return nil, err
	}
	totals := new(conntrack.Meter).Add(counters)
	v := &statsView{FormatVersion: formatVersion, Entries: size.Entries, Exceeded: totals.Exceeded(), EarlyDrops: totals.EarlyDrop}
	if size.Max > 0 {
		available := size.Available()
		v.Max, v.Available = &size.Max, &available
	}
	return v, nil
}

func (v *statsView) text(p paint) string {
	var b strings.Builder
	count := func(n uint64) string { return thousands(int(n)) }
	entries, available := count(v.Entries)+", without a limit", "no limit"
	if v.Max != nil {
		entries, available = count(v.Entries)+" of "+count(*v.Max), count(*v.Available)
	}
	exceeded := count(v.Exceeded)
	if v.Exceeded > 0 {
		exceeded = p.red(exceeded)
	}
	fmt.Fprintln(&b, p.bold("conntrack"))
	writeRows(&b, [][2]string{
		{"entries", entries},
		{"allowance available", available},
		{"allowance exceeded", exceeded + "  (packets dropped because the table was full)"},
		{"early drops", count(v.EarlyDrops) + "  (flows forgotten to make room for others)"},
	})
	if v.Flows == nil {
		return b.String()
	}
	fmt.Fprintln(&b, p.bold("flows"))
	rows := [][2]string{{"all", countText(v.Flows.Count)}}
	for _, i := range v.Flows.Interfaces {
		rows = append(rows, [2]string{clean(i.Name), countText(i.Count)})
	}
	rows = append(rows, [2]string{"elsewhere", thousands(v.Flows.Elsewhere)})
	if r := v.Flows.Remembered; r.IPv4+r.IPv6 > 0 {
		rows = append(rows, [2]string{"remembered", fmt.Sprintf("%s IPv4, %s IPv6, of %s each  (protocols that sgc tracks by itself, with and without entries)",
			thousands(r.IPv4), thousands(r.IPv6), thousands(r.Limit))})
	}
	writeRows(&b, rows)
	return b.String()
}

func countText(c conntrack.Count) string {
	text := fmt.Sprintf("%s tracked, %s open, %s exempt", thousands(c.Tracked), thousands(c.Open), thousands(c.Exempt))
	if c.Revoked > 0 {
		text += fmt.Sprintf("; no rule allows %s of them any more", thousands(c.Revoked))
	}
	return text
}

// prometheus writes the text exposition format of Prometheus, version 0.0.4.
func (v *statsView) prometheus() []byte {
	var b strings.Builder
	metric := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	limit := func(n *uint64) string {
		if n == nil {
			return "+Inf"
		}
		return strconv.FormatUint(*n, 10)
	}
	metric("conntrack_allowance_available", "gauge", "Entries for which the conntrack table has room.")
	fmt.Fprintf(&b, "conntrack_allowance_available %s\n", limit(v.Available))
	metric("conntrack_allowance_exceeded", "counter", "Packets dropped because the conntrack table was full.")
	fmt.Fprintf(&b, "conntrack_allowance_exceeded %d\n", v.Exceeded)
	metric("conntrack_entries", "gauge", "Entries in the conntrack table.")
	fmt.Fprintf(&b, "conntrack_entries %d\n", v.Entries)
	metric("conntrack_entries_limit", "gauge", "Entries that the conntrack table may hold.")
	fmt.Fprintf(&b, "conntrack_entries_limit %s\n", limit(v.Max))
	metric("conntrack_early_drops", "counter", "Entries removed to make room for others.")
	fmt.Fprintf(&b, "conntrack_early_drops %d\n", v.EarlyDrops)
	if v.Flows == nil {
		return []byte(b.String())
	}
	metric("conntrack_flows", "gauge", "Live flows, by the class that the policy gives them.")
	for _, c := range classCounts(v.Flows.Count) {
		fmt.Fprintf(&b, "conntrack_flows{class=%q} %d\n", c.class, c.count)
	}
	fmt.Fprintf(&b, "conntrack_flows{class=\"elsewhere\"} %d\n", v.Flows.Elsewhere)
	metric("conntrack_revoked_flows", "gauge", "Live flows that no rule allows any more.")
	fmt.Fprintf(&b, "conntrack_revoked_flows %d\n", v.Flows.Revoked)
	metric("conntrack_remembered_flows", "gauge", "Live flows of protocols that sgc tracks by itself, with and without entries.")
	fmt.Fprintf(&b, "conntrack_remembered_flows{family=\"ipv4\"} %d\nconntrack_remembered_flows{family=\"ipv6\"} %d\n", v.Flows.Remembered.IPv4, v.Flows.Remembered.IPv6)
	metric("conntrack_remembered_flows_limit", "gauge", "How many of them sgc remembers of each family.")
	fmt.Fprintf(&b, "conntrack_remembered_flows_limit %d\n", v.Flows.Remembered.Limit)
	if len(v.Flows.Interfaces) == 0 {
		return []byte(b.String())
	}
	metric("conntrack_interface_flows", "gauge", "Live flows that cross an interface of the policy, by class.")
	for _, i := range v.Flows.Interfaces {
		for _, c := range classCounts(i.Count) {
			fmt.Fprintf(&b, "conntrack_interface_flows{interface=%s,class=%q} %d\n", label(i.Name), c.class, c.count)
		}
	}
	metric("conntrack_interface_revoked_flows", "gauge", "Live flows that cross an interface of the policy and that no rule allows there any more.")
	for _, i := range v.Flows.Interfaces {
		fmt.Fprintf(&b, "conntrack_interface_revoked_flows{interface=%s} %d\n", label(i.Name), i.Revoked)
	}
	return []byte(b.String())
}

type classCount struct {
	class string
	count int
}

func classCounts(c conntrack.Count) []classCount {
	return []classCount{{"tracked", c.Tracked}, {"open", c.Open}, {"exempt", c.Exempt}}
}

// label quotes a label's value: of an interface's name, which may hold nearly
// any byte, only three need it.
func label(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(value, "�")) + `"`
}
