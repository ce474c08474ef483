package policies

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sgc/internal/flow"
)

func (c *comparison) groups(old, new *Group) {
	var was, is Group
	if old != nil {
		was = *old
		c.parent = old.Address()
	}
	if new != nil {
		is = *new
		c.parent = new.Address()
	}
	c.block(c.parent, old != nil, new != nil)
	c.prefixes("members", was.Members, is.Members)
	// The key sorts ingress before egress, as a policy does.
	key := func(r *Rule) string { return fmt.Sprintf("%d.%s", r.Direction, r.ID) }
	inPairs(was.Rules, is.Rules, key, func(old, new *Rule) {
		if old != nil && new != nil && sameRule(old, new) && c.oldEffects.of(old) == c.newEffects.of(new) {
			return
		}
		name := ""
		for _, r := range []*Rule{old, new} {
			if r != nil {
				name = r.Direction.String() + "." + r.ID
			}
		}
		c.columns(name, ruleColumns(old, c.oldEffects), ruleColumns(new, c.newEffects))
	})
}

// sameRule reports whether two rules of one address allow the same.
func sameRule(a, b *Rule) bool {
	return a.AllProtocols == b.AllProtocols && a.Protocol == b.Protocol && slices.Equal(a.Ports, b.Ports) &&
		a.ICMPType == b.ICMPType && a.ICMPCode == b.ICMPCode &&
		slices.Equal(a.Prefixes, b.Prefixes) && slices.Equal(a.Lists, b.Lists) && slices.Equal(a.Groups, b.Groups)
}

func ruleColumns(r *Rule, e *effects) *Columns {
	if r == nil {
		return nil
	}
	x := &Columns{
		Direction: r.Direction.String(),
		Protocol:  protocolText(r.AllProtocols, r.Protocol),
		Ports:     portsText(r.AllProtocols, r.Protocol, r.Ports, r.ICMPType, r.ICMPCode),
		Peers:     texts(r.Prefixes),
		Class:     e.of(r),
	}
	for _, name := range r.Lists {
		x.Peers = append(x.Peers, "prefix_list."+name)
	}
	for _, name := range r.Groups {
		if name == r.Group {
			x.Peers = append(x.Peers, "self")
		} else {
			x.Peers = append(x.Peers, "security_group."+name)
		}
	}
	return x
}

func protocolText(all bool, p flow.Protocol) string {
	if all {
		return "all"
	}
	return p.String()
}

// portsText writes ports, or ICMP type and code; "" for protocols that have
// neither.
func portsText(all bool, p flow.Protocol, ports []flow.PortRange, icmpType, icmpCode int) string {
	switch {
	case all:
		return ""
	case p.HasPorts():
		if slices.Equal(ports, []flow.PortRange{flow.AllPorts}) {
			return "all"
		}
		return strings.Join(texts(ports), ", ")
	case p != flow.ICMP && p != flow.ICMPv6:
		return ""
	case icmpType < 0:
		return "all"
	case icmpCode < 0:
		return fmt.Sprintf("type %d", icmpType)
	default:
		return fmt.Sprintf("type %d code %d", icmpType, icmpCode)
	}
}

func (c *comparison) lists(old, new *PrefixList) {
	var was, is PrefixList
	if old != nil {
		was = *old
		c.parent = old.Address()
	}
	if new != nil {
		is = *new
		c.parent = new.Address()
	}
	c.block(c.parent, old != nil, new != nil)
	c.prefixes("entries", was.Entries, is.Entries)
}

func (c *comparison) acls(old, new *ACL) {
	var was, is ACL
	if old != nil {
		was = *old
		c.parent = old.Address()
	}
	if new != nil {
		is = *new
		c.parent = new.Address()
	}
	c.block(c.parent, old != nil, new != nil)
	key := func(e *ACLEntry) string { return fmt.Sprintf("%d.%05d", e.Direction, e.Number) }
	inPairs(was.Entries, is.Entries, key, func(old, new *ACLEntry) {
		name := ""
		for _, e := range []*ACLEntry{old, new} {
			if e != nil {
				name = fmt.Sprintf("%s.%d", e.Direction, e.Number)
			}
		}
		c.columns(name, entryColumns(old), entryColumns(new))
	})
}

func entryColumns(e *ACLEntry) *Columns {
	if e == nil {
		return nil
	}
	verdict := "deny"
	if e.Allow {
		verdict = "allow"
	}
	return &Columns{
		Direction: e.Direction.String(), Verdict: verdict,
		Protocol: protocolText(e.AllProtocols, e.Protocol),
		Ports:    portsText(e.AllProtocols, e.Protocol, []flow.PortRange{e.Ports}, e.ICMPType, e.ICMPCode),
		Peers:    []string{e.Prefix.String()},
	}
}

func (c *comparison) interfaces(old, new *Interface) {
	var was, is Interface
	if old != nil {
		was = *old
		c.parent = old.Address()
	}
	if new != nil {
		is = *new
		c.parent = new.Address()
	}
	c.block(c.parent, old != nil, new != nil)
	c.list("security_groups", was.Groups, is.Groups)
	c.setting("network_acl", was.ACL, is.ACL)
	c.setting("notrack", notrackText(old, new), notrackText(new, old))
	inPairs(was.AlwaysTrack, is.AlwaysTrack, func(t *AlwaysTrack) string { return t.ID }, func(old, new *AlwaysTrack) {
		name := ""
		for _, t := range []*AlwaysTrack{old, new} {
			if t != nil {
				name = "always_track." + t.ID
			}
		}
		c.columns(name, alwaysTrackColumns(old), alwaysTrackColumns(new))
	})
	c.timeouts(old, new)
	c.setting("log_denied", logText(was.Log), logText(is.Log))
}

// notrackText is what an interface says of notrack: nothing if it is not there,
// or if the other one is not and it says the default.
func notrackText(i, other *Interface) string {
	switch {
	case i == nil, other == nil && !i.NotrackOff:
		return ""
	case i.NotrackOff:
		return "off"
	}
	return "auto"
}

func alwaysTrackColumns(t *AlwaysTrack) *Columns {
	if t == nil {
		return nil
	}
	var timeouts []string
	if t.TCPEstablished != 0 {
		timeouts = append(timeouts, "tcp established "+seconds(t.TCPEstablished))
	}
	if t.UDPStream != 0 {
		timeouts = append(timeouts, "udp stream "+seconds(t.UDPStream))
	}
	return &Columns{Peers: texts(t.Prefixes), Value: strings.Join(timeouts, ", ")}
}

// timeouts compares what is in force: without a block, the defaults. These are
// left out where an interface is added or removed.
func (c *comparison) timeouts(old, new *Interface) {
	of := func(i *Interface) Timeouts {
		if i != nil && i.Timeouts != nil {
			return *i.Timeouts
		}
		return DefaultTimeouts
	}
	setting := func(name string, get func(Timeouts) time.Duration) {
		text := func(i, other *Interface) string {
			if i == nil || other == nil && get(of(i)) == get(DefaultTimeouts) {
				return ""
			}
			return seconds(get(of(i)))
		}
		c.setting(name, text(old, new), text(new, old))
	}
	setting("tcp_established_timeout", func(t Timeouts) time.Duration { return t.TCPEstablished })
	setting("udp_timeout", func(t Timeouts) time.Duration { return t.UDP })
	setting("udp_stream_timeout", func(t Timeouts) time.Duration { return t.UDPStream })
}

// seconds writes a timeout in the largest unit that fits it, "5d" or "350s";
// "" for none.
func seconds(d time.Duration) string {
	day := 24 * time.Hour
	switch {
	case d == 0:
		return ""
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	default:
		return fmt.Sprintf("%ds", d/time.Second)
	}
}

func logText(l *LogDenied) string {
	if l == nil {
		return ""
	}
	units := map[time.Duration]string{time.Second: "second", time.Minute: "minute", time.Hour: "hour", 24 * time.Hour: "day"}
	target := "the kernel log"
	if l.Group != nil {
		target = fmt.Sprintf("nflog group %d", *l.Group)
	}
	return fmt.Sprintf("%d/%s, burst %d, to %s", l.Rate, units[l.Unit], l.Burst, target)
}

// host compares the host's settings. There is always a host; what a policy
// does not say of it has the default.
func (c *comparison) host(old, new *Host) {
	c.parent = "host"
	c.prefixes("dns_resolvers", old.DNSResolvers, new.DNSResolvers)
	c.prefixes("exempt", old.Exempt, new.Exempt)
	c.setting("icmp_errors", icmpErrorsText(old), icmpErrorsText(new))
	var was, is HostConntrack
	if old.Conntrack != nil {
		was = *old.Conntrack
	}
	if new.Conntrack != nil {
		is = *new.Conntrack
	}
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprint(n)
	}
	c.setting("conntrack.max", number(was.Max), number(is.Max))
	c.setting("conntrack.icmp_timeout", seconds(was.ICMPTimeout), seconds(is.ICMPTimeout))
	c.setting("conntrack.generic_timeout", seconds(was.GenericTimeout), seconds(is.GenericTimeout))
}

func icmpErrorsText(h *Host) string {
	if h.ICMPErrorsByRules {
		return "rules"
	}
	return "related"
}
