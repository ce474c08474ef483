package corpus

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sgc/internal/flow"
	"sgc/policies"
)

// HCL writes a policy down in the language, so that a test that fails shows
// something to work with. Tests, descriptions and timeouts are left out.
func HCL(p *policies.Policy) string {
	var w writer
	for _, l := range p.Lists {
		w.open("prefix_list %q", l.Name)
		w.list("entries", texts(l.Entries))
		w.close()
	}
	for _, g := range p.Groups {
		w.open("security_group %q", g.Name)
		w.list("members", texts(g.Members))
		for _, r := range g.Rules {
			w.rule(r)
		}
		w.close()
	}
	for _, a := range p.ACLs {
		w.open("network_acl %q", a.Name)
		for _, e := range a.Entries {
			w.entry(e)
		}
		w.close()
	}
	for _, i := range p.Interfaces {
		w.iface(i)
	}
	w.host(&p.Host)
	return w.String()
}

// writer lays blocks and attributes out.
type writer struct {
	strings.Builder
	depth int
}

func (w *writer) line(format string, args ...any) {
	w.WriteString(strings.Repeat("  ", w.depth) + fmt.Sprintf(format, args...) + "\n")
}

func (w *writer) open(format string, args ...any) {
	w.line(format+" {", args...)
	w.depth++
}

func (w *writer) close() {
	w.depth--
	w.line("}")
}

// list writes a list of strings, unless it is empty.
func (w *writer) list(name string, values []string) {
	if len(values) == 0 {
		return
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	w.line("%s = [%s]", name, strings.Join(quoted, ", "))
}

func (w *writer) rule(r *policies.Rule) {
	w.open("%s %q", r.Direction, r.ID)
	w.protocol(r.AllProtocols, r.Protocol)
	switch {
	case r.AllProtocols:
	case r.Protocol.HasPorts():
		w.list("ports", texts(r.Ports))
	default:
		w.icmp(r.Protocol, "from_port", r.ICMPType, "to_port", r.ICMPCode)
	}
	w.families(r.Prefixes)
	w.list("prefix_list_ids", r.Lists)
	w.list("security_groups", r.Groups)
	w.close()
}

func (w *writer) entry(e *policies.ACLEntry) {
	w.open("%s", e.Direction)
	w.line("rule_no = %d", e.Number)
	action := "deny"
	if e.Allow {
		action = "allow"
	}
	w.line("action = %q", action)
	w.protocol(e.AllProtocols, e.Protocol)
	switch {
	case e.AllProtocols:
	case e.Protocol.HasPorts():
		w.line("from_port = %d", e.Ports.First)
		w.line("to_port = %d", e.Ports.Last)
	default:
		w.icmp(e.Protocol, "icmp_type", e.ICMPType, "icmp_code", e.ICMPCode)
	}
	if e.Prefix.Addr().Is4() {
		w.line("cidr_block = %q", e.Prefix)
	} else {
		w.line("ipv6_cidr_block = %q", e.Prefix)
	}
	w.close()
}

func (w *writer) protocol(all bool, p flow.Protocol) {
	if all {
		w.line(`protocol = "-1"`)
	} else {
		w.line("protocol = %q", p)
	}
}

// icmp writes type and code, which rules and ACL entries name differently.
func (w *writer) icmp(p flow.Protocol, typeName string, icmpType int, codeName string, icmpCode int) {
	if p == flow.ICMP || p == flow.ICMPv6 {
		w.line("%s = %d", typeName, icmpType)
		w.line("%s = %d", codeName, icmpCode)
	}
}

// families writes the CIDRs of each family into the attribute of its own.
func (w *writer) families(prefixes []netip.Prefix) {
	var v4, v6 []netip.Prefix
	for _, p := range prefixes {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	w.list("cidr_blocks", texts(v4))
	w.list("ipv6_cidr_blocks", texts(v6))
}

func (w *writer) iface(i *policies.Interface) {
	w.open("interface %q", i.Name)
	if len(i.Groups) == 0 {
		// Nothing attached has to be said.
		w.line("security_groups = []")
	}
	w.list("security_groups", i.Groups)
	if i.ACL != "" {
		w.line("network_acl = %q", i.ACL)
	}
	if i.NotrackOff {
		w.line(`notrack = "off"`)
	}
	for _, t := range i.AlwaysTrack {
		w.open("always_track %q", t.ID)
		w.families(t.Prefixes)
		w.seconds("tcp_established_timeout", t.TCPEstablished)
		w.seconds("udp_stream_timeout", t.UDPStream)
		w.close()
	}
	if t := i.Timeouts; t != nil {
		w.open("connection_tracking")
		w.seconds("tcp_established_timeout", t.TCPEstablished)
		w.seconds("udp_timeout", t.UDP)
		w.seconds("udp_stream_timeout", t.UDPStream)
		w.close()
	}
	if i.Log != nil {
		units := map[time.Duration]string{time.Second: "second", time.Minute: "minute", time.Hour: "hour", 24 * time.Hour: "day"}
		w.open("log_denied")
		w.line(`rate = "%d/%s"`, i.Log.Rate, units[i.Log.Unit])
		w.line("burst = %d", i.Log.Burst)
		if i.Log.Group != nil {
			w.line("group = %d", *i.Log.Group)
		}
		w.close()
	}
	w.close()
}

// seconds writes a timeout, unless there is none.
func (w *writer) seconds(name string, d time.Duration) {
	if d > 0 {
		w.line("%s = %d", name, d/time.Second)
	}
}

func (w *writer) host(h *policies.Host) {
	w.open("host")
	w.list("dns_resolvers", texts(h.DNSResolvers))
	w.list("exempt", texts(h.Exempt))
	if h.ICMPErrorsByRules {
		w.line(`icmp_errors = "rules"`)
	}
	w.close()
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = x.String()
	}
	return out
}
