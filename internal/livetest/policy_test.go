package livetest

import (
	"fmt"
	"net/netip"
	"strings"

	"sgc/internal/flow"
)

// The ports of the services. Those of the first are what the policies are
// about: its second port is that of UDP servers with a connected socket. The
// others are there to be left alone.
const (
	service          = 7001
	connectedService = 7011
	otherService     = 7002
	thirdService     = 7003
	// unnamed is the port of a service that no rule names.
	unnamed = 9000
)

// policy is a policy for eth0.
type policy struct {
	// rules are those of the group "a".
	rules []string
	// groups are further ones, by name; they are attached if attached says so.
	groups map[string][]string
	// attached are the names of eth0's groups; nil is "a" alone.
	attached []string
	// acl holds the blocks of eth0's network ACL, "" is none.
	acl string
	// iface is the name of the block that governs eth0; "" is eth0.
	iface string
	// attributes stand in the block of eth0.
	attributes string
	// blocks are further ones of the file.
	blocks string
}

// text is the policy as a file. In a place where flows are to stay in conntrack
// by the policy's own word it says so.
func (p policy) text(at place) string {
	var b strings.Builder
	group := func(name string, rules []string) {
		fmt.Fprintf(&b, "security_group %q {\n%s}\n", name, strings.Join(rules, ""))
	}
	attached := p.attached
	if attached == nil {
		attached = []string{"a"}
	}
	if p.rules != nil {
		group("a", p.rules)
	}
	for _, name := range sortedKeys(p.groups) {
		group(name, p.groups[name])
	}
	if p.acl != "" {
		fmt.Fprintf(&b, "network_acl \"edge\" {\n%s}\n", p.acl)
	}
	iface := p.iface
	if iface == "" {
		iface = "eth0"
	}
	fmt.Fprintf(&b, "interface %q {\n  security_groups = [%s]\n", iface, quoted(attached))
	if p.acl != "" {
		b.WriteString("  network_acl = network_acl.edge\n")
	}
	if at == notrackOff {
		b.WriteString("  notrack = \"off\"\n")
	}
	b.WriteString(p.attributes)
	fmt.Fprintf(&b, "}\n%s", p.blocks)
	return b.String()
}

// with returns the policy with further rules of the group "a".
func (p policy) with(rules ...string) policy {
	p.rules = append(append([]string{}, p.rules...), rules...)
	return p
}

// anyone stands for the literal any-addresses of both families.
var anyone = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}

// rule is one rule for a protocol name and ports ("" are all, with "-1"); of
// the peers each is its own /32 or /128, and the unspecified address is the
// literal any-address.
func rule(d flow.Direction, name, protocol, ports string, peers []netip.Addr) string {
	var v4, v6 []string
	for _, a := range peers {
		p := netip.PrefixFrom(a, a.BitLen())
		if a.IsUnspecified() {
			p = netip.PrefixFrom(a, 0)
		}
		if a.Is4() {
			v4 = append(v4, p.String())
		} else {
			v6 = append(v6, p.String())
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  %s %q {\n    protocol = %q\n", d, name, protocol)
	if ports != "" {
		fmt.Fprintf(&b, "    ports = [%s]\n", ports)
	}
	if len(v4) > 0 {
		fmt.Fprintf(&b, "    cidr_blocks = [%s]\n", quoted(v4))
	}
	if len(v6) > 0 {
		fmt.Fprintf(&b, "    ipv6_cidr_blocks = [%s]\n", quoted(v6))
	}
	b.WriteString("  }\n")
	return b.String()
}

// both is a rule for TCP and one for UDP.
func both(d flow.Direction, name, ports string, peers []netip.Addr) string {
	return rule(d, name+"_tcp", "tcp", ports, peers) + rule(d, name+"_udp", "udp", ports, peers)
}

// all allows everything in a direction.
func all(d flow.Direction) string { return rule(d, "all_"+d.String(), "-1", "", anyone) }

// serviceRule allows the service to the peers, and otherRule the other one to
// everybody.
func serviceRule(d flow.Direction, peers []netip.Addr) string {
	return both(d, "service", fmt.Sprintf("%d, %d", service, connectedService), peers)
}

func otherRule(d flow.Direction) string { return both(d, "other", fmt.Sprint(otherService), anyone) }

// The policies that most tests change between. Flows are opened in the
// direction d.

// open lets everybody use the service: its flows are untracked.
func open(d flow.Direction) policy {
	return policy{rules: []string{serviceRule(d, anyone), otherRule(d), all(d.Opposite())}}
}

// closed allows the service no more; everything may go the other way.
func closed(d flow.Direction) policy {
	return policy{rules: []string{otherRule(d), all(d.Opposite())}}
}

// narrowed lets only some use the service: its flows are tracked.
func narrowed(d flow.Direction, peers ...netip.Addr) policy {
	return policy{rules: []string{serviceRule(d, peers), otherRule(d), all(d.Opposite())}}
}

// oneWay lets everybody use the service, and nothing the other way: all flows
// are tracked.
func oneWay(d flow.Direction) policy {
	return policy{rules: []string{serviceRule(d, anyone), otherRule(d)}}
}

func quoted(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return `"` + strings.Join(list, `", "`) + `"`
}
