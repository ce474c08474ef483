package cli

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"sgc/policies"
)

// row is one line of a plan: a change of something that the policy names.
type row struct {
	action policies.Action
	// cells are the columns; the first is the name within the block.
	cells []string
}

// section is a block of the policy with the changes in it.
type section struct {
	address string
	// action is that of the whole block, 0 if it stays.
	action policies.Action
	rows   []row
}

// sectionsOf groups changes by the block that they belong to.
func sectionsOf(changes []policies.Change, verbose bool) []section {
	var sections []section
	for _, c := range changes {
		if n := len(sections); n == 0 || sections[n-1].address != c.Parent {
			sections = append(sections, section{address: c.Parent})
		}
		s := &sections[len(sections)-1]
		if c.Name == "" {
			s.action = c.Action
			continue
		}
		s.rows = append(s.rows, row{c.Action, cellsOf(c, verbose)})
	}
	return sections
}

// countChanges returns how many lines are added, changed and removed. A block
// counts by its lines, or as one where it has none.
func countChanges(changes []policies.Change) (add, update, remove int) {
	one := func(a policies.Action) {
		switch a {
		case policies.Add:
			add++
		case policies.Remove:
			remove++
		default:
			update++
		}
	}
	for _, s := range sectionsOf(changes, false) {
		for _, r := range s.rows {
			one(r.action)
		}
		if len(s.rows) == 0 {
			one(s.action)
		}
	}
	return add, update, remove
}

// cellsOf returns the columns of a change.
func cellsOf(c policies.Change, verbose bool) []string {
	short := shortList
	if verbose {
		short = fullList
	}
	if c.Old == nil && c.New == nil {
		return []string{strings.ReplaceAll(c.Name, "_", " "), listText(c, short)}
	}
	var was, is policies.Columns
	if c.Old != nil {
		was = *c.Old
	}
	if c.New != nil {
		is = *c.New
	}
	column := func(get func(policies.Columns) string) string {
		return fromTo(c, get(was), get(is))
	}
	value := column(func(x policies.Columns) string { return x.Value })
	if was.Direction == "" && is.Direction == "" {
		name := strings.ReplaceAll(c.Name, "_", " ")
		if len(was.Peers)+len(is.Peers) == 0 {
			return []string{name, value}
		}
		return []string{c.Name, peersText(c, was.Peers, is.Peers, short), value}
	}
	what := column(func(x policies.Columns) string { return strings.TrimSpace(x.Protocol + " " + x.Ports) })
	if was.Protocol == is.Protocol && was.Ports != "" && is.Ports != "" {
		what = is.Protocol + " " + column(func(x policies.Columns) string { return x.Ports })
	}
	preposition := "from "
	if was.Direction == "egress" || is.Direction == "egress" {
		preposition = "to "
	}
	peers := preposition + peersText(c, was.Peers, is.Peers, short)
	if verdict := column(func(x policies.Columns) string { return x.Verdict }); verdict != "" {
		return []string{c.Name, verdict, what, peers}
	}
	return []string{c.Name, what, peers, column(func(x policies.Columns) string { return x.Class })}
}

// fromTo returns what a column holds, or "old → new" where that differs.
func fromTo(c policies.Change, was, is string) string {
	switch {
	case c.New == nil:
		return was
	case c.Old == nil, was == is:
		return is
	case was == "":
		return "none → " + is
	case is == "":
		return was + " → none"
	}
	return was + " → " + is
}

// peersText names the peers of a rule; of long lists that change, only what
// they gain and lose.
func peersText(c policies.Change, was, is []string, short func([]string) string) string {
	if c.Old == nil || c.New == nil || slices.Equal(was, is) {
		if c.New == nil {
			is = was
		}
		return short(is)
	}
	const few = 3
	if len(was) <= few && len(is) <= few {
		return strings.Join(was, ", ") + " → " + strings.Join(is, ", ")
	}
	return gainsAndLosses(c, short) + fmt.Sprintf(" (%s in all)", thousands(len(is)))
}

// listText writes a change of a plain list.
func listText(c policies.Change, short func([]string) string) string {
	switch c.Action {
	case policies.Add:
		return short(c.Added)
	case policies.Remove:
		return short(c.Removed)
	}
	return gainsAndLosses(c, short)
}

func gainsAndLosses(c policies.Change, short func([]string) string) string {
	var parts []string
	if len(c.Added) > 0 {
		parts = append(parts, "+ "+short(c.Added))
	}
	if len(c.Removed) > 0 {
		parts = append(parts, "- "+short(c.Removed))
	}
	return strings.Join(parts, "  ")
}

// fullList writes every value, shortList a few of many.
func fullList(values []string) string { return strings.Join(values, ", ") }

func shortList(values []string) string {
	const most, shown = 4, 3
	if len(values) <= most {
		return fullList(values)
	}
	return fmt.Sprintf("%s, … %s more", strings.Join(values[:shown], ", "), thousands(len(values)-shown))
}

// writeSections prints the changes, each block's in aligned columns.
func writeSections(b *strings.Builder, paint paint, sections []section) {
	for _, s := range sections {
		title := paint.bold(clean(s.address))
		if s.action != 0 {
			title = signOf(paint, s.action) + " " + title
		}
		fmt.Fprintln(b, title)
		widths := columnWidths(s.rows)
		for _, r := range s.rows {
			line := ""
			for i, cell := range r.cells {
				line += cell + strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell))+2)
			}
			fmt.Fprintf(b, "  %s %s\n", signOf(paint, r.action), strings.TrimRight(line, " "))
		}
	}
}

// maxColumn is the width beyond which a cell no longer pushes the column after
// it to the right in all other lines.
const maxColumn = 66

func columnWidths(rows []row) []int {
	var widths []int
	for _, r := range rows {
		for i, cell := range r.cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			// Nothing stands to the right of a line's last cell.
			if n := utf8.RuneCountInString(cell); n <= maxColumn && i < len(r.cells)-1 {
				widths[i] = max(widths[i], n)
			}
		}
	}
	return widths
}

func signOf(paint paint, a policies.Action) string {
	switch a {
	case policies.Add:
		return paint.green(a.Sign())
	case policies.Remove:
		return paint.red(a.Sign())
	}
	return paint.yellow(a.Sign())
}
