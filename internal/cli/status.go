package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"sgc/apply"
	"sgc/conntrack"
)

func (s *session) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show what is enforced",
		Description: `Show which policy the kernel enforces, on which interfaces, since when and from
which files, and whether the kernel's table still is what was applied.

With --rules, also show what the kernel counted for every rule of every security
group: the packets that a rule itself let through. Of a flow that conntrack
follows, these are the ones that open it; of any other flow, all. Rules that the
kernel counts together stand in one line. What no apply changed counts on; a
rule that was changed begins anew.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "rules", Usage: "also show packets and bytes for each rule of the policy"},
		},
		Action: func(c *cli.Context) error {
			if err := none(c); err != nil {
				return err
			}
			return s.status(c.Context, c.Bool("rules"))
		},
	}
}

// statusView is the JSON form of status.
type statusView struct {
	FormatVersion int  `json:"format_version"`
	Enforced      bool `json:"enforced"`
	// Recorded is false where the kernel has a table but nobody wrote down
	// which policy it stands for; the fields up to Groups are empty then.
	Recorded bool       `json:"recorded"`
	Applied  *time.Time `json:"applied,omitempty"`
	Path     string     `json:"path,omitempty"`
	Files    []string   `json:"files,omitempty"`
	Digest   string     `json:"digest,omitempty"`
	// By is the version of sgc that applied the policy.
	By         string          `json:"by,omitempty"`
	Interfaces []interfaceView `json:"interfaces,omitempty"`
	Groups     []groupView     `json:"security_groups,omitempty"`
	// Rules are there with --rules, if the policy is known.
	Rules []ruleCount `json:"rules,omitzero"`
	Drift []drifted   `json:"drift"`
	Table *tableView  `json:"table,omitempty"`
	// Held is what is refused for a while, so that UDP flows which an apply cut do
	// not come back.
	Held []heldView `json:"held"`
	// Conntrack is null where the kernel does not tell.
	Conntrack *conntrackView `json:"conntrack"`
	Notes     []string       `json:"notes"`
	// Warnings are of what makes the policy moot; nothing is where nothing is
	// enforced.
	Warnings []warning `json:"warnings"`
}

type interfaceView struct {
	Name   string   `json:"name"`
	Groups []string `json:"security_groups"`
	ACL    string   `json:"network_acl,omitempty"`
}

type groupView struct {
	Name    string `json:"name"`
	Rules   int    `json:"rules"`
	Members int    `json:"members"`
}

// tableView counts what the kernel's table holds.
type tableView struct {
	Chains   int `json:"chains"`
	Rules    int `json:"rules"`
	Sets     int `json:"sets"`
	Elements int `json:"elements"`
}

func countTable(t *apply.Table) tableView {
	v := tableView{Chains: len(t.Chains), Sets: len(t.Sets)}
	for _, c := range t.Chains {
		v.Rules += len(c.Rules)
	}
	for _, set := range t.Sets {
		v.Elements += set.Size()
	}
	return v
}

func (v tableView) String() string {
	return strings.Join([]string{plural(v.Chains, "chain"), plural(v.Rules, "rule"), plural(v.Sets, "set"), plural(v.Elements, "element")}, ", ")
}

func (s *session) status(ctx context.Context, rules bool) (err error) {
	k, err := apply.Open(s.Netns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	dir, err := s.existingDir()
	if err != nil {
		return err
	}
	found, err := s.look(ctx, k, dir)
	if err != nil {
		return err
	}
	s.explainPending(found)
	view, err := newStatus(found)
	if err != nil {
		return err
	}
	if rules {
		if view.Rules, err = countRules(found); err != nil {
			return err
		}
		if view.Rules == nil && view.Table != nil {
			view.Notes = append(view.Notes, "without a record of the policy nobody knows for which of its rules the kernel counts")
		}
	}
	if s.JSON {
		return s.writeJSON(view)
	}
	return s.showStatus(view, rules)
}

// tableDormant is the kernel's flag of a table that is asleep.
const tableDormant = 1

func newStatus(found *sight) (*statusView, error) {
	v := &statusView{
		FormatVersion: formatVersion,
		Enforced:      enforces(found.snapshot.Table) && found.snapshot.Table.Flags&tableDormant == 0,
		Recorded:      found.last != nil,
		Conntrack:     newConntrackView(found.settings),
		Drift:         []drifted{},
		Held:          viewHeld(found.snapshot.Table, nil),
		Notes:         []string{},
		Warnings:      []warning{},
	}
	if t := found.snapshot.Table; t != nil {
		counts := countTable(t)
		v.Table = &counts
		v.Digest = digestOf(t)
	}
	if found.last == nil {
		if !enforces(found.snapshot.Table) {
			v.Notes = append(v.Notes, leftoverNotes(found.snapshot.Table)...)
			v.Notes = append(v.Notes, leftSettingsNotes(found.settings)...)
		} else {
			v.Notes = append(v.Notes, unknownPolicyNotes(found.snapshot.Foreign)...)
			v.Warnings = append(v.Warnings, warningsOf(nil, &found.snapshot.Around, found.surroundings)...)
		}
		return v, nil
	}
	if v.Table != nil {
		v.Notes = append(v.Notes, conntrackNotes(found.last.Policy, found)...)
		v.Warnings = append(v.Warnings, warningsOf(found.last.Policy, &found.snapshot.Around, found.surroundings)...)
	}
	applied := found.record.Applied
	v.Applied, v.Path, v.Files, v.Digest = &applied, found.record.Path, found.record.Files, found.record.Digest
	v.By = found.last.By
	for _, i := range found.last.Policy.Interfaces {
		v.Interfaces = append(v.Interfaces, interfaceView{i.Name, i.Groups, i.ACL})
	}
	for _, g := range found.last.Policy.Groups {
		v.Groups = append(v.Groups, groupView{g.Name, len(g.Rules), len(g.Members)})
	}
	drift, err := findDrift(found)
	if err != nil {
		return nil, err
	}
	v.Drift = append(v.Drift, drift...)
	v.Notes = append(v.Notes, versionNote(found, drift)...)
	settings := planSettings(found.settings, conntrack.Wanted(found.last.Policy), true)
	v.Drift = append(v.Drift, settings.drift(found.snapshot.Table == nil)...)
	v.Notes = append(v.Notes, settings.statusNotes()...)
	return v, nil
}

func (s *session) showStatus(v *statusView, rules bool) error {
	p := s.outPaint()
	var b strings.Builder
	switch {
	case !v.Enforced && !v.Recorded:
		b.WriteString("Nothing is enforced.\n")
	case !v.Recorded:
		fmt.Fprintf(&b, "%s\n", p.yellow("A policy is enforced, but there is no record of which: the state directory "+s.StateDir+" does not know it."))
		fmt.Fprintf(&b, "  table    %s\n", v.Table)
	default:
		s.writeStatus(&b, v)
		if rules {
			writeRuleCounts(&b, p, v.Rules)
		}
	}
	if len(v.Notes) > 0 {
		fmt.Fprintf(&b, "%s\n", p.bold("notes"))
		for _, n := range v.Notes {
			fmt.Fprintf(&b, "  %s\n", clean(n))
		}
	}
	writeWarnings(&b, p, v.Warnings)
	_, err := s.Out.Write([]byte(b.String()))
	return err
}

func (s *session) writeStatus(b *strings.Builder, v *statusView) {
	p := s.outPaint()
	when := v.Applied.Local().Format("2006-01-02 15:04:05 MST")
	if v.Enforced {
		fmt.Fprintf(b, "%s since %s\n", p.green("Enforced"), when)
	} else {
		fmt.Fprintf(b, "%s The policy applied at %s is not at work (see drift); sgc apply brings it back.\n", p.red("Nothing is enforced."), when)
	}
	var rows [][2]string
	rows = append(rows, [2]string{"policy", v.Path}, [2]string{"files", shortFiles(v.Path, v.Files)}, [2]string{"digest", v.Digest})
	if v.Table != nil {
		rows = append(rows, [2]string{"table", v.Table.String()})
	}
	writeRows(b, rows)

	fmt.Fprintf(b, "%s\n", p.bold("interfaces"))
	rows = nil
	for _, i := range v.Interfaces {
		groups := strings.Join(i.Groups, ", ")
		if groups == "" {
			groups = "no group: everything is dropped"
		}
		if i.ACL != "" {
			groups += "  (network ACL " + i.ACL + ")"
		}
		rows = append(rows, [2]string{i.Name, groups})
	}
	if rows == nil {
		b.WriteString("  none\n")
	}
	writeRows(b, rows)

	fmt.Fprintf(b, "%s\n", p.bold("security groups"))
	rows = nil
	for _, g := range v.Groups {
		text := plural(g.Rules, "rule")
		if g.Members > 0 {
			text += ", " + plural(g.Members, "member")
		}
		rows = append(rows, [2]string{g.Name, text})
	}
	if rows == nil {
		b.WriteString("  none\n")
	}
	writeRows(b, rows)

	if v.Conntrack != nil {
		v.Conntrack.write(b, p)
	}

	fmt.Fprintf(b, "%s\n", p.bold("drift"))
	if len(v.Drift) == 0 {
		b.WriteString("  none\n")
	}
	writeDrift(b, p, v.Drift, false)
	writeHeld(b, p, v.Held, false)
}

// shortFiles lists files, those below the policy's own directory by their
// names there.
func shortFiles(path string, files []string) string {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f
		if rel, err := filepath.Rel(path, f); err == nil && rel != "." && !strings.HasPrefix(rel, "..") {
			names[i] = rel
		}
	}
	return strings.Join(slices.Compact(names), ", ")
}
