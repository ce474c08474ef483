package policies

import (
	"fmt"
	"strconv"

	"sgc/internal/flow"
)

// Class says how the flow of an allowed packet is treated.
type Class uint8

const (
	// None is the class of a packet that is dropped.
	None Class = iota
	// Unmanaged: no block names the interface.
	Unmanaged
	// Exempt: never filtered (2.6), neither by groups nor by ACLs.
	Exempt
	// Tracked: the reply passes whatever the rules of its direction say (2.2).
	Tracked
	// Untracked: both directions are judged packet by packet, by the rules
	// alone (2.3).
	Untracked
	// Related: an ICMP error that passes because the flow that it is about
	// does (2.5).
	Related
	// Stateless: an ICMP message that belongs to no flow, let through by a rule.
	// A reply to it needs a rule of its own.
	Stateless
)

func (c Class) String() string {
	switch c {
	case None:
		return "none"
	case Unmanaged:
		return "unmanaged"
	case Exempt:
		return "exempt"
	case Tracked:
		return "tracked"
	case Untracked:
		return "untracked"
	case Related:
		return "related"
	case Stateless:
		return "stateless"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// MarshalText is the class's name, for JSON.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Decision is what a policy means for one packet.
type Decision struct {
	Allow bool
	Class Class
	// Reason says to people why the verdict or the class is what it is.
	Reason string
	// Rule is the rule that lets the packet through: of several, the most
	// specific (a named protocol before all, then fewer ports or ICMP types,
	// then the longest prefix), and for an untracked flow the rule that names
	// the any-address. It is nil where no rule was asked, and where none allows.
	Rule *Rule
	// Returning is, for an untracked flow, the rule of the other direction that
	// makes it so.
	Returning *Rule
	// ACLEntry is the entry that let the packet pass, or denied it. It is nil
	// without an ACL, and where no entry matched.
	ACLEntry *ACLEntry
}

// Decide says what the policy means for p (section 2 of the language's
// definition). Source and Dest must be of one family.
func (j *Judge) Decide(p *flow.Packet) Decision {
	a := j.attachment(p.Interface)
	if a == nil {
		return Decision{Allow: true, Class: Unmanaged, Reason: "no interface block names " + p.Interface}
	}
	if why := j.host.exempt(p); why != "" {
		return Decision{Allow: true, Class: Exempt, Reason: why}
	}
	if a.acl == nil {
		return a.judgeByGroups(p)
	}
	entry := a.acl.first(p)
	if entry == nil {
		return Decision{Reason: fmt.Sprintf("no %s entry of %s matches", p.Direction, a.acl.Address())}
	}
	if !entry.Allow {
		return Decision{ACLEntry: entry, Reason: entry.Address() + " denies it"}
	}
	d := a.judgeByGroups(p)
	d.ACLEntry = entry
	return d
}

// first returns the entry with the lowest number that matches the packet, or
// nil. ACLs are stateless: nothing but the packet counts.
func (a *ACL) first(p *flow.Packet) *ACLEntry {
	var first *ACLEntry
	for _, e := range a.Entries {
		if e.Direction == p.Direction && e.matches(p) && (first == nil || e.Number < first.Number) {
			first = e
		}
	}
	return first
}

func (e *ACLEntry) matches(p *flow.Packet) bool {
	// Contains is false for addresses of the other family.
	if !e.Prefix.Contains(p.Peer()) {
		return false
	}
	switch {
	case e.AllProtocols:
		return true
	case e.Protocol != p.Protocol:
		return false
	case p.Protocol.HasPorts():
		return e.Ports.Contains(p.DestPort)
	case p.Protocol.IsICMP(p.Family()):
		return matchesICMP(p, e.ICMPType, e.ICMPCode)
	default:
		// As in rules, icmp is IPv4's and icmpv6 is IPv6's.
		return p.Protocol != flow.ICMP && p.Protocol != flow.ICMPv6
	}
}

// judgeByGroups is what the security groups of the interface say.
func (a *attachment) judgeByGroups(p *flow.Packet) Decision {
	family := p.Family()
	switch {
	case p.Protocol.IsOther(family):
		return a.judgeOther(p)
	case p.Protocol.IsICMP(family):
		return a.judgeICMP(p)
	default:
		return a.judgePorts(p)
	}
}

// judgeOther judges the protocols that are tracked by address and protocol
// alone (2.2).
func (a *attachment) judgeOther(p *flow.Packet) Decision {
	if p.State == flow.Established {
		return Decision{Allow: true, Class: Tracked, Reason: fmt.Sprintf(
			"protocol %s went the other way, %s %s, within the last 600 seconds",
			p.Protocol.Name(p.Family()), p.Direction.Opposite().Preposition(), p.Peer())}
	}
	return a.judgeByRules(p, Tracked, func() string {
		return fmt.Sprintf("protocol %s is always tracked, by address and protocol", p.Protocol.Name(p.Family()))
	})
}

// judgePorts judges TCP and UDP (2.2 and 2.3).
func (a *attachment) judgePorts(p *flow.Packet) Decision {
	if here, back := a.open(p); here != nil {
		return Decision{Allow: true, Class: Untracked, Rule: here.Rule, Returning: back.Rule, Reason: openReason(here, back, p)}
	}
	switch p.State {
	case flow.Established:
		return Decision{Allow: true, Class: Tracked, Reason: "it belongs to a tracked flow"}
	case flow.Invalid:
		return Decision{Reason: "it belongs to no flow and cannot open one"}
	case flow.New:
		if p.Protocol == flow.TCP && !opensTCPFlow(p) {
			return Decision{Reason: "a connection begins with a SYN; this segment belongs to no known one"}
		}
	}
	return a.judgeByRules(p, Tracked, func() string { return a.whyTracked(p) })
}

// opensTCPFlow reports whether the segment begins a connection (2.4). Else a
// connection that was cut would come back with the next segment of the side that
// may still send.
func opensTCPFlow(p *flow.Packet) bool {
	return p.TCPFlags&(flow.FIN|flow.SYN|flow.RST|flow.ACK) == flow.SYN
}

// judgeICMP judges the family's own ICMP (2.5 for errors).
func (a *attachment) judgeICMP(p *flow.Packet) Decision {
	if p.State == flow.Established {
		return Decision{Allow: true, Class: Tracked, Reason: "it belongs to a tracked flow"}
	}
	if isICMPError(p) && !a.icmpErrorsByRules {
		switch {
		case p.State == flow.Related:
			return Decision{Allow: true, Class: Related, Reason: "an error about a tracked flow"}
		case p.State == flow.Invalid && a.quotesOpenFlow(p):
			return Decision{Allow: true, Class: Related, Reason: "an error about an untracked flow"}
		}
	}
	if p.State == flow.New && opensICMPFlow(p) {
		return a.judgeByRules(p, Tracked, func() string { return "ICMP is always tracked" })
	}
	return a.judgeByRules(p, Stateless, func() string {
		return fmt.Sprintf("ICMP type %d belongs to no flow: each packet is judged by the rules", p.ICMPType)
	})
}

// judgeByRules lets the packet through as class if a rule of its direction
// allows it; why says then why that is its class.
func (a *attachment) judgeByRules(p *flow.Packet, class Class, why func() string) Decision {
	r := a.rules[p.Direction].allowing(p)
	if r == nil {
		return Decision{Reason: "no " + p.Direction.String() + " rule of the groups of " + a.iface.Address() + " allows it"}
	}
	return Decision{Allow: true, Class: class, Rule: r.Rule, Reason: why()}
}

// openReason names the two rules that make a flow untracked.
func openReason(here, back *judgedRule, p *flow.Packet) string {
	opening, whole := here, back
	if !whole.coversAllPorts() {
		opening, whole = back, here
	}
	everybody := p.Family().Any().String()
	return opening.Address() + " is open to " + everybody + ", and " + whole.Address() + " to " + everybody + " with all ports"
}

// whyTracked says what keeps a TCP or UDP flow that the packet opens from
// being untracked.
func (a *attachment) whyTracked(p *flow.Packet) string {
	if t := a.tracks(p.Peer()); t != nil {
		return fmt.Sprintf("%s is in always_track %q", p.Peer(), t.ID)
	}
	family, back := p.Family(), p.Direction.Opposite()
	protocol := p.Protocol.Name(family)
	d, ports := back, " with all ports "
	if a.anyRules[p.Direction].anyRule(p.Protocol, family, p.DestPort) == nil {
		d, ports = p.Direction, " "+strconv.Itoa(int(p.DestPort))+" "
	}
	return "no " + d.String() + " rule allows " + protocol + ports + d.Preposition() + " the literal " + family.Any().String()
}

// isICMPError reports whether the packet is an error that 2.5 speaks of.
// Source quench and redirects are none: they are advice that a host must not
// take unasked.
func isICMPError(p *flow.Packet) bool {
	if p.Family() == flow.IPv4 {
		return p.ICMPType == 3 || p.ICMPType == 11 || p.ICMPType == 12
	}
	return 1 <= p.ICMPType && p.ICMPType <= 4
}

// opensICMPFlow reports whether conntrack makes an entry for the type: echo,
// timestamp, information and address mask requests, in IPv6 echo and node
// information queries.
//
// Source: Linux net/netfilter/nf_conntrack_proto_icmp.c and
// nf_conntrack_proto_icmpv6.c, valid_new.
func opensICMPFlow(p *flow.Packet) bool {
	switch p.ICMPType {
	case 8, 13, 15, 17:
		return p.Family() == flow.IPv4
	case 128, 139:
		return p.Family() == flow.IPv6
	}
	return false
}

// quotesOpenFlow reports whether the error quotes a packet of the open space
// that went the other way.
func (a *attachment) quotesOpenFlow(p *flow.Packet) bool {
	if p.Quoted == nil || p.Quoted.Family() != p.Family() {
		return false
	}
	q := *p.Quoted
	q.Interface, q.Direction = p.Interface, p.Direction.Opposite()
	here, _ := a.open(&q)
	return here != nil
}
