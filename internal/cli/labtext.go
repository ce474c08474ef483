package cli

import (
	"fmt"
	"io"
	"net/netip"
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
	fmt.Fprintf(w, "Loaded %s into the kernel of a private network: %s, in one transaction of %s, %s.\n",
		p.bold(clean(r.path)), r.loaded, plural(r.messages, "message"), size(r.bytes))
	if len(r.interfaces) == 0 {
		fmt.Fprintln(w, "The policy names no interface, so it governs nothing, and no packets were sent.")
		return
	}
	var names []string
	for _, i := range r.interfaces {
		name := i.name
		if i.block.Name != i.name {
			name += " (for " + i.block.Name + ")"
		}
		names = append(names, fmt.Sprintf("%s %s", name, p.dim(fmt.Sprintf("%s, %s", i.host[flow.IPv4], i.host[flow.IPv6]))))
	}
	fmt.Fprintf(w, "The host there has %s; what is sent to it, and by it, are real packets.\n", strings.Join(names, "; "))
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
	if x.sent() && !x.agrees() {
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
	switch {
	case !x.sent():
		kernel = p.dim(pad(cells[columnKernel], widths[columnKernel]))
	case !x.agrees():
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
		cells[columnKernel] = "not sent"
	case x.finding.Passed:
		cells[columnKernel], cells[columnEntry] = "passed", "none"
		if x.tracked {
			cells[columnEntry] = "entry"
		}
	default:
		cells[columnKernel], cells[columnEntry] = "dropped", "none"
		if x.finding.Entry != nil {
			cells[columnEntry] = "entry"
		}
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
	return "allow " + d.Class.String()
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
	case d.Allow, d.ACLEntry != nil:
		why = d.Reason
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
	sent, passed, dropped, disagree := r.count()
	if disagree > 0 {
		writeDisagreements(w, p, r)
	}
	for i := range r.results {
		if x := &r.results[i]; !x.sent() {
			fmt.Fprintf(w, "%s %s could not be sent here: %v\n", p.yellow("Note:"), &x.packet, x.finding.Err)
		}
	}
	switch {
	case r.unseen > 0:
		fmt.Fprintf(w, "%s more, and %s more, with --all.\n", plural(r.more, "packet"), plural(r.unseen, "interface"))
	case r.more > 0:
		fmt.Fprintf(w, "%s more with --all.\n", plural(r.more, "packet"))
	}
	if len(r.interfaces) == 0 {
		return
	}
	verdict := p.green("as the policy says")
	if disagree > 0 {
		verdict = p.bold(p.red(fmt.Sprintf("%s not as the policy says", thousands(disagree))))
	}
	fmt.Fprintf(w, "%s: %s passed, %s dropped, %s.\n", plural(sent, "packet"), thousands(passed), thousands(dropped), verdict)
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
		fmt.Fprintf(w, "%s %s %s: %s %s → %s\n", p.red("✗"), x.packet.Interface, x.packet.Direction,
			labProtocol(&x.packet), labEnd(x.packet.Source, x.packet.SourcePort, &x.packet), labEnd(x.packet.Dest, x.packet.DestPort, &x.packet))
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
	case x.finding.Passed && x.tracked:
		return "let it through, with a conntrack entry"
	case x.finding.Passed:
		return "let it through, without a conntrack entry"
	case x.finding.Classified:
		return fmt.Sprintf("dropped it, which conntrack called %s", x.finding.State)
	default:
		return "dropped it before conntrack saw it"
	}
}
