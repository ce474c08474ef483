package policies

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"sgc/internal/flow"
)

// interfaces decodes the interface blocks.
func (l *loader) interfaces(blocks []declared) []*Interface {
	var names declarations
	var out []*Interface
	for _, b := range blocks {
		i := l.interfaceBlock(b)
		at := b.labels[0].rng
		switch problem := interfaceProblem(b.name, true); {
		case problem != "":
			l.errorAt(at, "Invalid interface name", problem)
		case b.name == Loopback:
			l.errorAt(at, "Loopback is never filtered", "Traffic over lo always passes; remove this block.")
		default:
			l.declare(&names, "interface", b.name, at)
		}
		out = append(out, i)
	}
	return out
}

func (l *loader) interfaceBlock(b declared) *Interface {
	d := l.decodeTop(b)
	i := &Interface{Name: b.name, Pos: l.pos(b.header)}
	groups := d.names("security_groups", groupRef)
	i.Groups = sortedNames(groups.val)
	i.ACL = d.name("network_acl", aclRef)
	i.NotrackOff = d.choice("notrack", "auto", "off").val == "off"
	if !groups.set && !groups.broken && !d.meant["security_groups"] {
		l.warnAt(b.header, "Interface without groups", fmt.Sprintf(
			"No security group is attached to %s, so nothing is let in or out there. If that is meant, write security_groups = [].", b.name))
	}

	i.AlwaysTrack = l.alwaysTrack(d)
	if in := d.only("connection_tracking"); in != nil {
		i.Timeouts = l.connectionTracking(in)
	}
	if in := d.only("log_denied"); in != nil {
		i.Log = l.logDenied(in)
	}
	return i
}

// name reads one reference, or the name in quotes.
func (d *decoder) name(attribute string, kind refKind) string {
	v := d.value(attribute)
	if !v.set {
		return ""
	}
	name, ok := d.resolveName(attribute, kind, item{val: v.val, expr: v.expr})
	if !ok {
		return ""
	}
	return name
}

// alwaysTrack decodes the always_track blocks of an interface.
func (l *loader) alwaysTrack(d *decoder) []*AlwaysTrack {
	s := rootSchema.block("interface").block("always_track")
	var labels, prefixes declarations
	var out []*AlwaysTrack
	for _, in := range d.blocks {
		if in.kind != s.kind {
			continue
		}
		d := l.decode(in, s)
		t := &AlwaysTrack{ID: strconv.Itoa(len(out) + 1), Pos: l.pos(in.header)}
		if label, at := in.label(); len(in.labels) > 0 {
			t.ID = label
			if problem := nameProblem(label); problem != "" {
				l.errorAt(at, "Invalid label", problem)
			} else {
				l.declare(&labels, "always_track label", label, at)
			}
		}
		v4 := d.prefixes("cidr_blocks", prefixForm{family: flow.IPv4, other: "ipv6_cidr_blocks"})
		v6 := d.prefixes("ipv6_cidr_blocks", prefixForm{family: flow.IPv6, other: "cidr_blocks"})
		t.Prefixes = append(d.uniqueOrError("cidr_blocks", v4.val), d.uniqueOrError("ipv6_cidr_blocks", v6.val)...)
		if len(t.Prefixes) == 0 && !v4.broken && !v6.broken && !d.anyMeant("cidr_blocks", "ipv6_cidr_blocks") {
			l.errorAt(in.header, "No peers", "Say which peers are always tracked: cidr_blocks or ipv6_cidr_blocks.")
		}
		for _, p := range t.Prefixes {
			if first, taken := prefixes.at[p.String()]; taken {
				l.errorAt(in.header, "Peer named twice", fmt.Sprintf("%s stands in the always_track block at line %d too, so that its timeouts are open to doubt; remove it from one of the two.", p, l.pos(first).Line))
				continue
			}
			l.declare(&prefixes, "peer", p.String(), in.header)
		}
		t.TCPEstablished = d.duration("tcp_established_timeout", time.Second, maxIdle).val
		t.UDPStream = d.duration("udp_stream_timeout", time.Second, maxIdle).val
		out = append(out, t)
	}
	slices.SortStableFunc(out, func(a, b *AlwaysTrack) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// connectionTracking decodes the timeouts of an interface.
func (l *loader) connectionTracking(in *instance) *Timeouts {
	d := l.decode(in, rootSchema.block("interface").block(in.kind))
	t := DefaultTimeouts
	for _, f := range []struct {
		name        string
		least, most time.Duration
		to          *time.Duration
	}{
		{"tcp_established_timeout", 60 * time.Second, maxIdle, &t.TCPEstablished},
		{"udp_timeout", 30 * time.Second, 60 * time.Second, &t.UDP},
		{"udp_stream_timeout", 60 * time.Second, 180 * time.Second, &t.UDPStream},
	} {
		if v := d.duration(f.name, f.least, f.most); v.set {
			*f.to = v.val
		}
	}
	return &t
}

// The defaults of log_denied.
const (
	defaultLogRate  = 10
	defaultLogUnit  = time.Second
	defaultLogBurst = 5
)

// logUnits are the units of a rate, in the words of nft.
var logUnits = []struct {
	name string
	unit time.Duration
}{{"second", time.Second}, {"minute", time.Minute}, {"hour", time.Hour}, {"day", day}}

// logDenied decodes a log_denied block.
func (l *loader) logDenied(in *instance) *LogDenied {
	d := l.decode(in, rootSchema.block("interface").block(in.kind))
	out := &LogDenied{Rate: defaultLogRate, Unit: defaultLogUnit, Burst: defaultLogBurst, Pos: l.pos(in.header)}
	if rate := d.text("rate"); rate.set {
		d.rate(&rate, out)
	}
	if burst := d.number("burst", 1, math.MaxInt32); burst.set {
		out.Burst = burst.val
	}
	if group := d.number("group", 0, 65535); group.set {
		out.Group = &group.val
	}
	return out
}

// rate reads "10/second".
func (d *decoder) rate(f *field[string], out *LogDenied) {
	const form = `A rate is a number of packets in a second, minute, hour or day, such as "10/second"`
	number, unit, slash := strings.Cut(f.val, "/")
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 32)
	unit = strings.TrimSpace(unit)
	var names []string
	for _, u := range logUnits {
		names = append(names, u.name)
		if u.name != unit {
			continue
		}
		if err != nil || n < 1 {
			break
		}
		out.Rate, out.Unit = int(n), u.unit
		return
	}
	detail := fmt.Sprintf("%s, not %s.", form, quoteShort(f.val))
	switch {
	case !slash:
	case err != nil || n < 1:
		detail = fmt.Sprintf("%s; the number is from 1 to %d.", form, math.MaxInt32)
	default:
		for _, name := range names {
			if unit != "" && strings.HasPrefix(name, unit) {
				detail += fmt.Sprintf(" Did you mean %q?", number+"/"+name)
				break
			}
		}
	}
	fail(d, f, "Invalid rate", detail)
}
