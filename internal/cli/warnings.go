package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"sgc/apply"
	"sgc/internal/links"
	"sgc/policies"
)

// warning is something on the host that makes the policy moot, or part of it.
type warning struct {
	// Kind is one of the words below.
	Kind string `json:"kind"`
	// Subject is what is warned of: a table, a flowtable, a file with a line,
	// or the address of an interface block.
	Subject string `json:"subject"`
	// Text says in a sentence or two what is wrong and what to do.
	Text string `json:"text"`
}

// The kinds of warnings.
const (
	warnBoot      = "boot_flush"
	warnDrop      = "foreign_drop"
	warnFlowtable = "foreign_flowtable"
	warnNotrack   = "foreign_notrack"
	warnZone      = "foreign_zone"
	warnEnslaved  = "enslaved_interface"
)

// surroundings are what the warnings need to know of the host besides the
// kernel's tables.
type surroundings struct {
	links []links.Link
	// flushes are nil in a network namespace that the boot configuration is not
	// for.
	flushes []bootFlush
}

// lookAround reads what the warnings need to know. It changes nothing.
func (s *session) lookAround(k *apply.Kernel) (surroundings, error) {
	var around surroundings
	err := k.Inside(func() (err error) {
		around.links, err = links.List()
		return err
	})
	if err != nil {
		return around, err
	}
	key, err := namespaceKey(s.Netns)
	if err == nil && key == "" {
		around.flushes = findBootFlushes(os.DirFS("/"))
	}
	return around, err
}

// warningsOf says what makes the policy moot. What an accept of the policy
// does not bind comes first, then who tells conntrack what to do, then the
// interfaces that never see a packet, and then the boot. A policy without
// interfaces has nothing that could be moot. p is nil where a policy is enforced
// that nobody has a record of: there are only the warnings that hold for every
// policy.
func warningsOf(p *policies.Policy, around *apply.Surroundings, s surroundings) []warning {
	if p == nil {
		return bootWarnings(s.flushes)
	}
	devices := managedDevices(p, s.links)
	if len(devices) == 0 {
		return nil
	}
	return slices.Concat(
		dropWarnings(around.Obstacles(devices)),
		legacyWarnings(around.Legacy),
		flowtableWarnings(around.Shortcuts(devices), devices),
		notrackWarnings(around.Untracking(devices)),
		legacyRawWarnings(around.LegacyRaw),
		zoneWarnings(around.Zoning(devices)),
		enslavedWarnings(p, s.links),
		bootWarnings(s.flushes),
	)
}

// managedDevices returns the interfaces that the policy's blocks name.
func managedDevices(p *policies.Policy, list []links.Link) []apply.Device {
	var devices []apply.Device
	for _, i := range p.Interfaces {
		if i.Name == policies.Loopback {
			continue
		}
		d := apply.Device{Name: i.Name}
		for _, l := range governedBy(p, i, list) {
			d.Indexes = append(d.Indexes, l.Index)
			d.Bridge = d.Bridge || l.Kind == "bridge"
		}
		devices = append(devices, d)
	}
	return devices
}

// governedBy returns the interfaces there are that a block governs.
func governedBy(p *policies.Policy, i *policies.Interface, list []links.Link) []links.Link {
	var out []links.Link
	for _, l := range list {
		if p.Interface(l.Name) == i {
			out = append(out, l)
		}
	}
	return out
}

func dropWarnings(obstacles []apply.Obstacle) []warning {
	var out []warning
	for _, o := range obstacles {
		var chains []string
		for _, c := range o.Chains {
			chains = append(chains, obstacleText(c))
		}
		names := shortList(o.Devices)
		out = append(out, warning{
			Kind: warnDrop, Subject: o.Table,
			Text: fmt.Sprintf("%s may drop packets of %s that the policy lets through: %s. A packet passes only if every table accepts it; accept those of %s there, too, or remove the chains.", o.Table, names, shortList(chains), names),
		})
	}
	return out
}

// legacyWarnings names tables of the iptables before nf_tables.
func legacyWarnings(tables []string) []warning {
	var out []warning
	for _, table := range tables {
		out = append(out, warning{
			Kind: warnDrop, Subject: table,
			Text: fmt.Sprintf("%s is loaded, and sgc does not look into it: its rules may drop what the policy lets through. Look at them with %s.", table, legacyCommand(table)),
		})
	}
	return out
}

// obstacleText names a chain and what in it drops.
func obstacleText(c apply.ObstacleChain) string {
	var what []string
	if c.Policy {
		what = append(what, "policy drop")
	}
	inner := slices.DeleteFunc(slices.Clone(c.Drops), func(name string) bool { return name == c.Name })
	where := ""
	switch {
	case len(inner) == 1:
		where = "in chain " + inner[0]
	case len(inner) > 1:
		where = "in chains " + shortList(inner)
	}
	switch {
	case len(c.Drops) == 0:
	case len(inner) == 0:
		what = append(what, "drop rules")
	case len(inner) < len(c.Drops):
		what = append(what, "drop rules, also "+where)
	default:
		what = append(what, "drop rules "+where)
	}
	return fmt.Sprintf("chain %s (%s)", c.Name, strings.Join(what, ", "))
}

// legacyCommand returns the command that lists the rules of such a table.
func legacyCommand(table string) string {
	if strings.Contains(table, "ip6tables") {
		return "ip6tables-legacy -S"
	}
	return "iptables-legacy -S"
}

func flowtableWarnings(shortcuts []apply.Shortcut, devices []apply.Device) []warning {
	var out []warning
	for _, s := range shortcuts {
		subject := fmt.Sprintf("flowtable %s of %s", s.Flowtable, s.Table)
		var own []string
		for _, d := range devices {
			if slices.Contains(s.Devices, d.Name) && s.TakesFrom(d) {
				own = append(own, d.Name)
			}
		}
		const and = "no group and no ACL judges the packets of a flow that is in it, and no change of the policy cuts it."
		text := fmt.Sprintf("%s takes flows that are routed over %s past sgc: %s Take %s out of its devices.", subject, shortList(own), and, shortList(own))
		if len(own) == 0 {
			names := shortList(s.Devices)
			text = fmt.Sprintf("%s takes flows that come in on %s past sgc, also where they leave by %s: %s Add no flows of %s to it.", subject, shortList(s.Takes), names, and, names)
		}
		out = append(out, warning{Kind: warnFlowtable, Subject: subject, Text: text})
	}
	return out
}

// notrackWarnings names the tables that take from the policy what it tracks.
func notrackWarnings(tables []apply.Aside) []warning {
	var out []warning
	for _, a := range tables {
		out = append(out, warning{
			Kind: warnNotrack, Subject: a.Table,
			Text: fmt.Sprintf("%s may keep packets of %s out of conntrack (notrack in %s): %s Take notrack out of there; sgc has the kernel leave out what the policy calls untracked.", a.Table, shortList(a.Devices), chainNames(a.Chains), judgedAlone),
		})
	}
	return out
}

// judgedAlone is what becomes of packets that another table keeps out of conntrack.
const judgedAlone = "those of tracked flows are judged one by one by the rules alone then. No answer passes unless a rule of its own direction lets it, and a flow ends when its rule goes."

// legacyRawWarnings is notrackWarnings for the iptables before nf_tables.
func legacyRawWarnings(tables []string) []warning {
	var out []warning
	for _, table := range tables {
		out = append(out, warning{
			Kind: warnNotrack, Subject: table,
			Text: fmt.Sprintf("%s is loaded, and sgc does not look into it: its rules may keep packets out of conntrack (NOTRACK), and %s Look at them with %s -t raw.", table, judgedAlone, legacyCommand(table)),
		})
	}
	return out
}

// zoneWarnings names the tables that divide conntrack into zones. sgc reads and
// deletes the entries of all zones, but nobody can tell it in which to make one.
func zoneWarnings(tables []apply.Aside) []warning {
	var out []warning
	for _, a := range tables {
		out = append(out, warning{
			Kind: warnZone, Subject: a.Table,
			Text: fmt.Sprintf("%s may put packets of %s into zones of conntrack (%s). The entries that sgc makes for connections that are open already are in no zone, where the kernel does not look for them: TCP connections that are older than that table may end.", a.Table, shortList(a.Devices), chainNames(a.Chains)),
		})
	}
	return out
}

// chainNames names one or more chains.
func chainNames(names []string) string {
	if len(names) == 1 {
		return "chain " + names[0]
	}
	return "chains " + shortList(names)
}

// enslavedWarnings names the blocks whose interfaces belong to another one. A
// wildcard is not meant for each of them: nothing is said of it where a block
// governs the other one.
func enslavedWarnings(p *policies.Policy, list []links.Link) []warning {
	var out []warning
	for _, i := range p.Interfaces {
		var tops []links.Link
		ports := map[string][]string{}
		for _, l := range governedBy(p, i, list) {
			top, ok := links.Top(list, l)
			if !ok || p.Interface(top.Name) != nil && l.Name != i.Name {
				continue
			}
			if ports[top.Name] == nil {
				tops = append(tops, top)
			}
			ports[top.Name] = append(ports[top.Name], l.Name)
		}
		for _, top := range tops {
			out = append(out, warning{
				Kind: warnEnslaved, Subject: i.Address(),
				Text: enslavedText(ports[top.Name], top, p.Interface(top.Name)),
			})
		}
	}
	return out
}

// enslavedText says what it means that interfaces belong to top, which by
// governs, or nil.
//
// Source: for VRFs, Linux drivers/net/vrf.c, vrf_rcv_nfhook and
// vrf_ip_out_direct.
func enslavedText(names []string, top links.Link, by *policies.Interface) string {
	is, belongs, packets := "is", "belongs", "its packets"
	if len(names) > 1 {
		is, belongs, packets = "are", "belong", "their packets"
	}
	ports := shortList(names)
	advice := fmt.Sprintf("Name %s in the policy instead.", top.Name)
	if by != nil {
		advice = fmt.Sprintf("%s governs %s; leave %s out of the policy.", by.Address(), top.Name, ports)
	}
	switch top.Kind {
	case "vrf":
		return fmt.Sprintf("%s %s to VRF %s: the kernel takes %s through the rules twice, under either name, and tracks no flow as the policy means it. %s", ports, belongs, top.Name, packets, advice)
	case "bridge":
		return fmt.Sprintf("%s %s enslaved to bridge %s: %s are %s's where rules judge them, or pass from port to port unjudged. %s", ports, is, top.Name, packets, top.Name, advice)
	case "bond", "team":
		return fmt.Sprintf("%s %s enslaved to %s %s: %s are %s's where rules judge them. %s", ports, is, top.Kind, top.Name, packets, top.Name, advice)
	}
	return fmt.Sprintf("%s %s enslaved to %s (%s): %s are %s's where rules judge them. %s", ports, is, top.Name, top.Kind, packets, top.Name, advice)
}

// writeWarnings prints the warnings below a title.
func writeWarnings(b *strings.Builder, paint paint, list []warning) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "%s\n", paint.bold(paint.yellow("warnings")))
	for _, w := range list {
		fmt.Fprintf(b, "  %s\n", clean(w.Text))
	}
}
