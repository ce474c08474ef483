package policies

import (
	"fmt"
	"net/netip"
	"time"

	"sgc/internal/flow"
)

// Policy is what a directory of policy files says, resolved: no variable,
// reference or expression is left in it, every CIDR is canonical, and every
// list is sorted, so that two loads of the same text are deeply equal. It is
// read-only once loaded, marshals to JSON and back without loss, and knows
// neither HCL nor the kernel.
type Policy struct {
	// Groups, Lists, ACLs and Interfaces are sorted by name.
	Groups     []*Group      `json:"groups,omitempty"`
	Lists      []*PrefixList `json:"prefix_lists,omitempty"`
	ACLs       []*ACL        `json:"network_acls,omitempty"`
	Interfaces []*Interface  `json:"interfaces,omitempty"`
	Host       Host          `json:"host"`
	// Tests stand in the order of the files.
	Tests []*Test `json:"tests,omitempty"`
	// Files are the policy files and prefix list files that were read, sorted.
	Files []string `json:"files,omitempty"`
}

// Pos is where something stands in the policy files. Lines and columns count
// from 1, columns in characters.
type Pos struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Group is a security group.
type Group struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Members are the addresses that a reference to the group stands for,
	// canonical and sorted; a single address is a prefix of full length.
	Members []netip.Prefix `json:"members,omitempty"`
	// Rules are sorted by direction, then ID.
	Rules []*Rule `json:"rules,omitempty"`
	Pos   Pos     `json:"pos"`
}

// Address returns the group's address in plans, security_group.web.
func (g *Group) Address() string { return "security_group." + g.Name }

// Rule is one ingress or egress block of a group. It allows; nothing denies.
type Rule struct {
	// Group is the name of the group that holds the rule.
	Group     string         `json:"group"`
	Direction flow.Direction `json:"direction"`
	// ID names the rule among those of its group and direction: the label of
	// its block, or a name made from its protocol and ports, never from its
	// sources, so that an edit of those keeps the ID.
	ID          string `json:"id"`
	Description string `json:"description,omitempty"`
	// AllProtocols is protocol "-1"; Protocol is 0 then.
	AllProtocols bool          `json:"all_protocols,omitempty"`
	Protocol     flow.Protocol `json:"protocol,omitempty"`
	// Ports are sorted, disjoint and merged. They are set for TCP and UDP
	// alone: on ingress and on egress, they are the destination's ports.
	Ports []flow.PortRange `json:"ports,omitempty"`
	// ICMPType and ICMPCode count for ICMP and ICMPv6 alone; -1 is any, and an
	// ICMPType of -1 comes with an ICMPCode of -1.
	ICMPType int `json:"icmp_type,omitempty"`
	ICMPCode int `json:"icmp_code,omitempty"`
	// Prefixes are the inline CIDRs of both families, canonical and sorted,
	// without duplicates. The rule matches a peer in any of Prefixes, Lists
	// and Groups.
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	// Lists are the names of prefix lists, sorted.
	Lists []string `json:"prefix_lists,omitempty"`
	// Groups are the names of the groups whose members are peers, sorted;
	// "self" is the group's own name here.
	Groups []string `json:"groups,omitempty"`
	Pos    Pos      `json:"pos"`
}

// Address returns the rule's address in plans, security_group.web.ingress.ssh.
func (r *Rule) Address() string {
	return "security_group." + r.Group + "." + r.Direction.String() + "." + r.ID
}

// PrefixList is a named list of prefixes of both families.
type PrefixList struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Entries are canonical and sorted, without duplicates. They may overlap.
	Entries []netip.Prefix `json:"entries,omitempty"`
	Pos     Pos            `json:"pos"`
}

// Address returns the list's address in plans, prefix_list.partners.
func (l *PrefixList) Address() string { return "prefix_list." + l.Name }

// ACL is a network ACL: ordered, stateless entries. No match is a deny.
type ACL struct {
	Name string `json:"name"`
	// Entries are sorted by direction, then Number.
	Entries []*ACLEntry `json:"entries,omitempty"`
	Pos     Pos         `json:"pos"`
}

// Address returns the ACL's address in plans, network_acl.edge.
func (a *ACL) Address() string { return "network_acl." + a.Name }

// ACLEntry is one ingress or egress block of an ACL.
type ACLEntry struct {
	ACL       string         `json:"acl"`
	Direction flow.Direction `json:"direction"`
	// Number is the rule_no, 1 to 32766, unique in its direction.
	Number       int           `json:"rule_no"`
	Allow        bool          `json:"allow"`
	AllProtocols bool          `json:"all_protocols,omitempty"`
	Protocol     flow.Protocol `json:"protocol,omitempty"`
	// Ports are the destination's, for TCP and UDP alone.
	Ports flow.PortRange `json:"ports"`
	// ICMPType and ICMPCode count for ICMP and ICMPv6 alone; -1 is any.
	ICMPType int `json:"icmp_type,omitempty"`
	ICMPCode int `json:"icmp_code,omitempty"`
	// Prefix is the peer. Its family is the only one that the entry decides for.
	Prefix netip.Prefix `json:"prefix"`
	Pos    Pos          `json:"pos"`
}

// Address returns the entry's address in plans, network_acl.edge.ingress.100.
func (e *ACLEntry) Address() string {
	return fmt.Sprintf("network_acl.%s.%s.%d", e.ACL, e.Direction, e.Number)
}

// Interface attaches groups and an ACL to an interface, or to all interfaces
// whose names begin alike.
type Interface struct {
	// Name is the kernel's name; a "*" at its end matches any rest. An exact
	// name is chosen before wildcards, and the longest wildcard before others.
	Name string `json:"name"`
	// Groups are the names of the attached groups, sorted.
	Groups []string `json:"security_groups,omitempty"`
	// ACL is the name of the network ACL; "" is none, which allows all.
	ACL string `json:"network_acl,omitempty"`
	// NotrackOff keeps open flows in conntrack (notrack = "off").
	NotrackOff bool `json:"notrack_off,omitempty"`
	// AlwaysTrack are sorted by ID.
	AlwaysTrack []*AlwaysTrack `json:"always_track,omitempty"`
	// Timeouts are the interface's own; nil where there is no
	// connection_tracking block.
	Timeouts *Timeouts `json:"connection_tracking,omitempty"`
	// Log is nil where refused packets are not logged.
	Log *LogDenied `json:"log_denied,omitempty"`
	Pos Pos        `json:"pos"`
}

// Address returns the interface's address in plans, interface.eth0.
func (i *Interface) Address() string { return "interface." + i.Name }

// AlwaysTrack names peers whose flows are tracked whatever the rules say.
type AlwaysTrack struct {
	ID string `json:"id"`
	// Prefixes are canonical and sorted, of both families.
	Prefixes []netip.Prefix `json:"prefixes"`
	// The zero value is the interface's own timeout.
	TCPEstablished time.Duration `json:"tcp_established_timeout,omitempty"`
	UDPStream      time.Duration `json:"udp_stream_timeout,omitempty"`
	Pos            Pos           `json:"pos"`
}

// Timeouts are the idle timeouts of an interface. All are set: what the block
// leaves out has the default of the language.
type Timeouts struct {
	TCPEstablished time.Duration `json:"tcp_established_timeout"`
	UDP            time.Duration `json:"udp_timeout"`
	UDPStream      time.Duration `json:"udp_stream_timeout"`
}

// DefaultTimeouts are those of an interface without a connection_tracking
// block.
var DefaultTimeouts = Timeouts{TCPEstablished: 432000 * time.Second, UDP: 30 * time.Second, UDPStream: 180 * time.Second}

// LogDenied says how refused packets are logged.
type LogDenied struct {
	// Rate is the number of packets per Unit that are logged; Unit is a
	// second, minute, hour or day.
	Rate  int           `json:"rate"`
	Unit  time.Duration `json:"unit"`
	Burst int           `json:"burst"`
	// Group is the nflog group; nil is the kernel log.
	Group *int `json:"group,omitempty"`
	Pos   Pos  `json:"pos"`
}

// Host is what the host block says, with the defaults of the language where it
// is silent or absent.
type Host struct {
	// DNSResolvers and Exempt are canonical and sorted.
	DNSResolvers []netip.Prefix `json:"dns_resolvers,omitempty"`
	Exempt       []netip.Prefix `json:"exempt,omitempty"`
	// ICMPErrorsByRules is icmp_errors = "rules": errors pass only where a
	// rule lets them.
	ICMPErrorsByRules bool `json:"icmp_errors_by_rules,omitempty"`
	// Conntrack is nil where the host block has no conntrack block.
	Conntrack *HostConntrack `json:"conntrack,omitempty"`
	Pos       Pos            `json:"pos"`
}

// HostConntrack holds the host's conntrack settings. Zero values are settings
// that the policy leaves alone.
type HostConntrack struct {
	Max            int           `json:"max,omitempty"`
	ICMPTimeout    time.Duration `json:"icmp_timeout,omitempty"`
	GenericTimeout time.Duration `json:"generic_timeout,omitempty"`
	Pos            Pos           `json:"pos"`
}

// Test is a test block: one packet and what is expected of it.
type Test struct {
	Name   string      `json:"name"`
	Packet flow.Packet `json:"packet"`
	Allow  bool        `json:"allow"`
	// Tracked is nil where the test does not care.
	Tracked *bool `json:"tracked,omitempty"`
	Pos     Pos   `json:"pos"`
}

// Group returns the group of that name, or nil.
func (p *Policy) Group(name string) *Group {
	for _, g := range p.Groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// List returns the prefix list of that name, or nil.
func (p *Policy) List(name string) *PrefixList {
	for _, l := range p.Lists {
		if l.Name == name {
			return l
		}
	}
	return nil
}

// ACL returns the network ACL of that name, or nil.
func (p *Policy) ACL(name string) *ACL {
	for _, a := range p.ACLs {
		if a.Name == name {
			return a
		}
	}
	return nil
}

// Interface returns the block that governs the interface of that name: the
// exact one, else the longest wildcard that matches, else nil. The loopback
// interface is governed by none.
func (p *Policy) Interface(name string) *Interface {
	if name == Loopback {
		return nil
	}
	var best *Interface
	for _, i := range p.Interfaces {
		if i.Name == name {
			return i
		}
		if i.Matches(name) && (best == nil || len(best.Name) < len(i.Name)) {
			best = i
		}
	}
	return best
}

// Loopback is the interface that no policy governs (2.6).
const Loopback = "lo"

// Matches reports whether the block's name is name or a wildcard for it.
func (i *Interface) Matches(name string) bool {
	n := len(i.Name) - 1
	if n >= 0 && i.Name[n] == '*' {
		return len(name) >= n && name[:n] == i.Name[:n]
	}
	return i.Name == name
}
