package policies

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"sgc/internal/flow"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// protocol is the protocol of a rule.
type protocol struct {
	all    bool
	number flow.Protocol
}

func (p protocol) hasPorts() bool { return !p.all && p.number.HasPorts() }
func (p protocol) isICMP() bool {
	return !p.all && (p.number == flow.ICMP || p.number == flow.ICMPv6)
}

func (p protocol) String() string {
	if p.all {
		return "-1"
	}
	return p.number.String()
}

// commonProtocols are offered before the rest of IANA's list.
var commonProtocols = []string{"tcp", "udp", "icmp", "icmpv6", "all"}

// protocol reads an attribute that is a protocol: a number, or its name.
func (d *decoder) protocol() field[protocol] {
	v := d.value("protocol")
	f := typed[protocol](v)
	if !f.set {
		return f
	}
	var s string
	switch v.val.Type() {
	case cty.String:
		s = v.val.AsString()
	case cty.Number:
		n, problem := integer(v.val)
		if problem != "" {
			s = problem
		} else {
			s = n.String()
		}
	default:
		fail(d, &f, "Wrong type", fmt.Sprintf(`protocol is a name or number, such as "tcp" or 47, not %s.`, friendly(v.val)))
		return f
	}
	if s == "-1" || strings.EqualFold(s, "all") {
		f.val.all = true
		return f
	}
	n, err := flow.ParseProtocol(s)
	if err != nil {
		detail := fmt.Sprintf("There is no protocol %s.", quoteShort(s))
		if i, ok := new(big.Int).SetString(s, 10); ok && i.String() != s {
			detail = fmt.Sprintf("A protocol number is written without a sign or zeros before it: not %s.", quoteShort(s))
		} else if ok {
			detail = fmt.Sprintf("A protocol number is from 0 to 255, or -1 for all protocols, not %s.", i)
		} else if s == "any" || s == "*" {
			detail += ` All protocols are "-1".`
		} else if n := didYouMean(s, commonProtocols); n != "" {
			detail += n
		} else if n := didYouMean(s, flow.ProtocolNames()); n != "" {
			detail += n
		} else {
			detail += ` Write "tcp", "udp", "icmp", "icmpv6", "-1" for all, another name of IANA's list, or a number.`
		}
		fail(d, &f, "Unknown protocol", detail)
		return f
	}
	f.val.number = n
	return f
}

// portsOf is what from_port, to_port and ports of a rule say.
type portsOf struct {
	ports              []flow.PortRange
	icmpType, icmpCode int
	broken             bool
}

// rulePorts reads the ports of a rule, or its ICMP type and code.
func (d *decoder) rulePorts(p field[protocol]) portsOf {
	from, to := d.number("from_port", math.MinInt32, math.MaxInt32), d.number("to_port", math.MinInt32, math.MaxInt32)
	list := d.portList()
	out := portsOf{broken: p.broken || from.broken || to.broken || list.broken}
	if p.broken || !p.set {
		return portsOf{broken: true}
	}
	switch {
	case p.val.hasPorts():
		switch {
		case out.broken:
		case list.set && (from.set || to.set):
			d.l.errorAt(list.attr.nameRange, "Ports set twice", "ports and from_port/to_port say the same thing in two ways; keep one of them.")
			out.broken = true
		case list.set:
			out.ports = list.val
		case from.set || to.set:
			r, ok := d.portRange(from, to)
			out.ports, out.broken = []flow.PortRange{r}, !ok
		case d.anyMeant("ports", "from_port", "to_port"):
			out.broken = true
		default:
			d.l.errorAt(d.in.header, "Missing ports", fmt.Sprintf(
				"Say which ports the rule is for: ports = [80, \"8000-8099\"], or from_port and to_port. For all ports of %s write from_port = 0 and to_port = 65535.", p.val))
			out.broken = true
		}
	case p.val.isICMP():
		if list.set || list.broken {
			if !list.broken {
				d.l.errorAt(list.attr.nameRange, "ICMP has no ports", fmt.Sprintf("Write the type of %s as from_port and its code as to_port, -1 for any.", p.val))
			}
			out.broken = true
		}
		out.icmpType, out.icmpCode = -1, -1
		if from.set {
			out.icmpType = from.val
		}
		if to.set {
			out.icmpCode = to.val
		}
		if !out.broken && !d.icmp(out.icmpType, out.icmpCode, from, to, "from_port", "to_port") {
			out.broken = true
		}
	case !out.broken:
		for _, f := range []*field[int]{&from, &to} {
			if f.set && (f.val < -1 || f.val > 65535) {
				fail(d, f, "Out of range", portNumbers)
				out.broken = true
			}
		}
		d.warnPorts(p.val, from, to, list)
	}
	return out
}

const portNumbers = "A port is a number from 0 to 65535. For all ports, write from_port = 0 and to_port = 65535."

// warnPorts tells that ports do not narrow a rule for other protocols. Those
// that say "all" in one of the cloud's ways need no warning.
func (d *decoder) warnPorts(p protocol, from, to field[int], list field[[]flow.PortRange]) {
	at := hcl.Range{}
	switch {
	case list.set && !slices.Equal(list.val, []flow.PortRange{flow.AllPorts}):
		at = list.attr.nameRange
	case from.set && from.val > 0:
		at = from.attr.nameRange
	case to.set && to.val > 0 && to.val != 65535:
		at = to.attr.nameRange
	default:
		return
	}
	what := "for protocol " + p.String()
	if p.all {
		what = "for all protocols"
	}
	d.l.warnAt(at, "Ports without effect", fmt.Sprintf("An entry %s covers all ports, whatever its ports say. Single ports need protocol = \"tcp\" or \"udp\".", what))
}

// icmp checks a type and a code.
func (d *decoder) icmp(typ, code int, t, c field[int], typeName, codeName string) bool {
	switch {
	case typ < -1 || typ > 255:
		fail(d, &t, "Out of range", fmt.Sprintf("%s is the ICMP type here: 0 to 255, or -1 for any, not %d.", typeName, typ))
	case code < -1 || code > 255:
		fail(d, &c, "Out of range", fmt.Sprintf("%s is the ICMP code here: 0 to 255, or -1 for any, not %d.", codeName, code))
	case typ == -1 && code != -1:
		fail(d, &c, "Code without a type", fmt.Sprintf("%s is the ICMP code here, and a code needs a type: set %s, or write %s = -1 for every code.", codeName, typeName, codeName))
	default:
		return true
	}
	return false
}

// portRange is from_port and to_port.
func (d *decoder) portRange(from, to field[int]) (flow.PortRange, bool) {
	switch {
	case !from.set && d.meant["from_port"], !to.set && d.meant["to_port"]: // reported
	case !from.set:
		d.l.errorAt(to.attr.nameRange, "Missing from_port", fmt.Sprintf("A range has two ends. For one port, write from_port = %d as well.", to.val))
	case !to.set:
		d.l.errorAt(from.attr.nameRange, "Missing to_port", fmt.Sprintf("A range has two ends. For one port, write to_port = %d as well.", from.val))
	case from.val < 0 || from.val > 65535:
		fail(d, &from, "Out of range", portNumbers)
	case to.val < 0 || to.val > 65535:
		fail(d, &to, "Out of range", portNumbers)
	case from.val > to.val:
		fail(d, &from, "Ports reversed", fmt.Sprintf("from_port %d is larger than to_port %d; exchange them.", from.val, to.val))
	default:
		return flow.PortRange{First: uint16(from.val), Last: uint16(to.val)}, true
	}
	return flow.PortRange{}, false
}

// portList reads ports = [80, "8000-8099"], sorted and merged.
func (d *decoder) portList() field[[]flow.PortRange] {
	list := d.list("ports", "ports")
	f := field[[]flow.PortRange]{set: list.set, broken: list.broken, expr: list.expr, attr: list.attr}
	seen := map[flow.PortRange]bool{}
	for _, i := range list.val {
		r, problem := portsItem(i.val)
		if problem == "" && seen[r] {
			problem = fmt.Sprintf("%s stands twice in ports; remove one of the two.", r)
		}
		if problem != "" {
			d.l.errorIn(i.expr, d.in.ctx, "Invalid ports", capitalOf(i.which, problem))
			f.broken = true
			continue
		}
		seen[r] = true
		f.val = append(f.val, r)
	}
	if f.set && !f.broken && len(f.val) == 0 {
		fail(d, &f, "No ports", "The list is empty, so the rule would be for no port; write ports, or remove the rule.")
	}
	f.val = mergePorts(f.val)
	return f
}

// portsItem reads one element of ports.
func portsItem(v value) (flow.PortRange, string) {
	if v.Type() == cty.String {
		if first, last, ok := strings.Cut(v.AsString(), "-"); ok && first != "" {
			a, problemA := portNumber(strings.TrimSpace(first))
			b, problemB := portNumber(strings.TrimSpace(last))
			switch {
			case problemA != "" || problemB != "":
				return flow.PortRange{}, fmt.Sprintf("A range is two numbers from 0 to 65535, such as \"8000-8099\", not %s.", quoteShort(v.AsString()))
			case a > b:
				return flow.PortRange{}, fmt.Sprintf("The range %s is reversed: write %q.", quoteShort(v.AsString()), fmt.Sprintf("%d-%d", b, a))
			}
			return flow.PortRange{First: a, Last: b}, ""
		}
		p, problem := portNumber(v.AsString())
		return flow.PortRange{First: p, Last: p}, problem
	}
	if v.Type() != cty.Number {
		return flow.PortRange{}, fmt.Sprintf("A port is a number, or a range in quotes, such as \"8000-8099\", not %s.", friendly(v))
	}
	n, problem := integer(v)
	if problem != "" {
		return flow.PortRange{}, fmt.Sprintf("A port is a whole number, not %s.", problem)
	}
	p, problem := portNumber(n.String())
	return flow.PortRange{First: p, Last: p}, problem
}

func portNumber(s string) (uint16, string) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err == nil && strconv.FormatUint(n, 10) != s {
		// Elsewhere such a number is octal.
		return 0, fmt.Sprintf("A port has no zeros before it: write %d instead of %s.", n, quoteShort(s))
	}
	if err == nil {
		return uint16(n), ""
	}
	if _, ok := new(big.Int).SetString(s, 10); ok {
		return 0, fmt.Sprintf("A port is a number from 0 to 65535, not %s.", s)
	}
	return 0, fmt.Sprintf("A port is a number, or a range in quotes, such as \"8000-8099\", not %s.", quoteShort(s))
}

// mergePorts sorts ranges and joins those that overlap or touch.
func mergePorts(ranges []flow.PortRange) []flow.PortRange {
	slices.SortFunc(ranges, func(a, b flow.PortRange) int { return int(a.First) - int(b.First) })
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}
