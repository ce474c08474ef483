package cli

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"sgc/internal/flow"
	"sgc/policies"
)

// The columns of a packet's line.
const (
	columnProtocol = iota
	columnSource
	columnDest
	columnPolicy
	columnKernel
	columnEntry
	columnWhy
	labColumns
)

// showLab prints what the lab found, for people.
func (s *session) showLab(r *labReport) error {
	p := s.outPaint()
	var b strings.Builder
	writeLabIntroduction(&b, p, r)
	if r.withTable {
		b.WriteString("\n")
		if err := r.table.WriteText(&b); err != nil {
			return err
		}
	}
	writeLabResults(&b, p, r)
	writeLabEnd(&b, p, r)
	_, err := io.WriteString(s.Out, b.String())
	return err
}

func writeLabIntroduction(w *strings.Builder, p paint, r *labReport) {
	fmt.Fprintf(w, "Loaded %s into the kernel of a private network: %s.\n%s, %s, %s. This machine's own network is not touched.\n",
		p.bold(clean(r.path)), r.loaded, r.transactions, plural(r.messages, "message"), size(r.bytes))
	if len(r.interfaces) == 0 {
		fmt.Fprintln(w, "The policy names no interface, so it governs nothing, and no packets were sent.")
		return
	}
	fmt.Fprintln(w)
	rows := make([][2]string, len(r.interfaces))
	for n, i := range r.interfaces {
		rows[n] = [2]string{i.name, fmt.Sprintf("the host, %s and %s", i.host[flow.IPv4], i.host[flow.IPv6])}
		if i.block.Name != i.name {
			rows[n][1] += fmt.Sprintf("  (an example of %s)", i.block.Name)
		}
	}
	writeRows(w, rows)
}

// writeLabResults prints the packets, grouped by interface and direction, all
// in the same columns.
func writeLabResults(w *strings.Builder, p paint, r *labReport) {
	titles := [labColumns]string{columnPolicy: "policy", columnKernel: "kernel", columnEntry: "conntrack", columnWhy: "because"}
	lines := make([][labColumns]string, len(r.results))
	var widths [labColumns]int
	for c, title := range titles {
		widths[c] = utf8.RuneCountInString(title)
	}
	for i := range r.results {
		lines[i] = labCells(&r.results[i])
		for c, cell := range lines[i] {
			widths[c] = max(widths[c], utf8.RuneCountInString(cell))
		}
	}
	packetWidth := widths[columnProtocol] + 2 + widths[columnSource] + 3 + widths[columnDest]
	group := ""
	for i := range r.results {
		x := &r.results[i]
		if name := x.packet.Interface + " " + x.packet.Direction.String(); name != group {
			group = name
			title := pad(name, packetWidth+2)
			header := ""
			for c := columnPolicy; c < labColumns; c++ {
				header += "  " + pad(titles[c], widths[c])
			}
			fmt.Fprintf(w, "\n%s%s\n", p.bold(title), p.dim(strings.TrimRight(header, " ")))
		}
		fmt.Fprintln(w, labLine(p, x, lines[i], widths))
	}
	if len(r.results) > 0 {
		fmt.Fprintln(w)
	}
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

func labLine(p paint, x *labResult, cells [labColumns]string, widths [labColumns]int) string {
	mark := "  "
	bad := !x.sent() || !x.agrees()
	if bad {
		mark = "✗ "
	}
	verdict := func(cell string, good bool) string {
		if good {
			return p.green(cell)
		}
		return p.yellow(cell)
	}
	kernel := verdict(pad(cells[columnKernel], widths[columnKernel]), x.finding.Passed)
	entry := pad(cells[columnEntry], widths[columnEntry])
	if bad {
		mark, kernel, entry = p.bold(p.red(mark)), p.red(pad(cells[columnKernel], widths[columnKernel])), p.red(entry)
	}
	line := mark + pad(cells[columnProtocol], widths[columnProtocol]) + "  " +
		pad(cells[columnSource], widths[columnSource]) + p.dim(" → ") + pad(cells[columnDest], widths[columnDest]) + "  " +
		verdict(pad(cells[columnPolicy], widths[columnPolicy]), x.meaning.Allow) + "  " + kernel + "  " + entry + "  " + p.dim(cells[columnWhy])
	return strings.TrimRight(line, " ")
}

// labCells returns the columns of a packet's line.
func labCells(x *labResult) (cells [labColumns]string) {
	p := &x.packet
	cells[columnProtocol] = labProtocol(p)
	cells[columnSource], cells[columnDest] = p.Source.String(), p.Dest.String()
	if p.Protocol.HasPorts() {
		cells[columnDest] = netip.AddrPortFrom(p.Dest, p.DestPort).String()
		// The source's port tells something of answers alone.
		if x.isAnswer() {
			cells[columnSource] = netip.AddrPortFrom(p.Source, p.SourcePort).String()
		}
	}
	cells[columnPolicy] = labMeaning(x.meaning)
	switch {
	case !x.sent():
		cells[columnKernel] = "lost"
	case x.finding.Passed:
		cells[columnKernel] = "passed"
	default:
		cells[columnKernel] = "dropped"
	}
	switch {
	case !x.sent():
	case x.entry:
		cells[columnEntry] = "entry"
	default:
		cells[columnEntry] = "none"
	}
	cells[columnWhy] = x.why()
	return cells
}

func labProtocol(p *flow.Packet) string {
	name := p.Protocol.Name(p.Family())
	if !p.Protocol.IsICMP(p.Family()) {
		return name
	}
	name += fmt.Sprintf(" type %d", p.ICMPType)
	if p.ICMPCode != 0 {
		name += fmt.Sprintf(" code %d", p.ICMPCode)
	}
	return name
}

func labMeaning(d policies.Decision) string {
	if !d.Allow {
		return "drop"
	}
	return "allow, " + d.Class.String()
}

// isAnswer reports whether the packet is one that answers another, or claims
// to.
func (x *labResult) isAnswer() bool { return x.answers != nil || x.packet.State == flow.Invalid }

// why says which rule decides about the packet, or that none does, and what
// the packet is an example of.
func (x *labResult) why() string {
	d := x.meaning
	why := ""
	switch {
	case d.Rule != nil:
		why = d.Rule.Address()
	case d.Allow && x.packet.State == flow.Established:
		why = "tracked flow"
	case d.Allow:
		why = d.Reason
	case d.ACLEntry != nil && !d.ACLEntry.Allow:
		why = "denied by " + d.ACLEntry.Address()
	case d.ACLEntry == nil && x.acl != "":
		why = "no entry of network_acl." + x.acl
	case x.packet.State == flow.Invalid:
		why = "no flow"
	default:
		why = "no rule"
	}
	if x.shows != "" {
		why += " (" + x.shows + ")"
	}
	return why
}

// writeLabEnd explains packets that did not do what the policy says, and sums
// up.
func writeLabEnd(w *strings.Builder, p paint, r *labReport) {
	c := r.count()
	if c.Disagreements > 0 {
		writeDisagreements(w, p, r)
	}
	for i := range r.results {
		if x := &r.results[i]; !x.sent() {
			why := "it never came to the host"
			if x.finding.Err != nil {
				why = x.finding.Err.Error()
			}
			fmt.Fprintf(w, "%s %s was not tried: %s\n", p.red("✗"), x.heading(), why)
		}
	}
	writeLegend(w, p, r)
	switch {
	case r.unseen > 0:
		fmt.Fprintf(w, "%s and %s with --all.\n", plural(r.more, "more packet"), plural(r.unseen, "more interface"))
	case r.more > 0:
		fmt.Fprintf(w, "%s with --all.\n", plural(r.more, "more packet"))
	}
	if len(r.interfaces) == 0 {
		return
	}
	verdict := p.green("as the policy says")
	if c.Disagreements > 0 {
		verdict = p.bold(p.red(fmt.Sprintf("%s not as the policy says", thousands(c.Disagreements))))
	}
	fmt.Fprintf(w, "%s: %s passed, %s dropped, %s.\n", plural(c.Packets, "packet"), thousands(c.Passed), thousands(c.Dropped), verdict)
}

// writeLegend explains the words of the packets that passed.
func writeLegend(w *strings.Builder, p paint, r *labReport) {
	for _, word := range []struct {
		class policies.Class
		text  string
	}{
		{policies.Tracked, "tracked: conntrack has an entry of the flow, and lets its answers through."},
		{policies.Untracked, "untracked: open to everybody; the rules judge every packet, and conntrack needs no entry."},
	} {
		if slices.ContainsFunc(r.results, func(x labResult) bool { return x.meaning.Class == word.class }) {
			fmt.Fprintln(w, p.dim(word.text))
		}
	}
}

// maxExplained is how many packets are explained one by one.
const maxExplained = 10

// writeDisagreements explains each packet that the kernel treated in another
// way than the policy, and what may be the cause.
func writeDisagreements(w *strings.Builder, p paint, r *labReport) {
	fmt.Fprintln(w, p.bold(p.red("The kernel does not do what the policy says.")))
	explained := 0
	for i := range r.results {
		x := &r.results[i]
		if !x.sent() || x.agrees() {
			continue
		}
		if explained++; explained > maxExplained {
			continue
		}
		fmt.Fprintf(w, "%s %s\n", p.red("✗"), x.heading())
		fmt.Fprintf(w, "    the policy  %s\n", x.meaningText())
		fmt.Fprintf(w, "    the kernel  %s\n", x.findingText())
	}
	if explained > maxExplained {
		fmt.Fprintf(w, "  and %s more\n", plural(explained-maxExplained, "packet"))
	}
	if len(r.drift) == 0 {
		fmt.Fprintln(w, "The kernel's table is the one that was loaded, so the fault is in sgc or in this kernel.\nPlease report it, with the output of sgc lab run --json --table.")
		return
	}
	fmt.Fprintln(w, "The kernel's table is not the one that was loaded:")
	writeDrift(w, p, r.drift, false)
}

// heading names the packet in full.
func (x *labResult) heading() string {
	p := &x.packet
	return fmt.Sprintf("%s %s: %s %s → %s", p.Interface, p.Direction, labProtocol(p), labEnd(p.Source, p.SourcePort, p), labEnd(p.Dest, p.DestPort, p))
}

func labEnd(a netip.Addr, port uint16, p *flow.Packet) string {
	if p.Protocol.HasPorts() {
		return netip.AddrPortFrom(a, port).String()
	}
	return a.String()
}

func (x *labResult) meaningText() string {
	d := x.meaning
	if !d.Allow {
		return "drops it: " + d.Reason
	}
	text := fmt.Sprintf("lets it through, %s: ", d.Class)
	if d.Rule == nil {
		return text + d.Reason
	}
	return text + fmt.Sprintf("%s (%s)", d.Rule.Address(), d.Rule.Pos)
}

func (x *labResult) findingText() string {
	switch {
	case x.finding.Passed && x.entry:
		return "let it through, with a conntrack entry"
	case x.finding.Passed:
		return "let it through, without a conntrack entry"
	case x.finding.Classified:
		return fmt.Sprintf("dropped it, which conntrack called %s", x.finding.State)
	default:
		return "dropped it before conntrack saw it"
	}
}
