package scenario

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"sgc/internal/flow"
	"sgc/policies"
)

// The smallest MTU that IPv6 works with, and the largest of a veth.
const (
	leastMTU = 1280
	mostMTU  = 65535
)

func (l *loader) network(s *Scenario, b *hclsyntax.Block) {
	r := l.open(b)
	if s.network(r.label) != nil {
		l.errorAt(r.labelAt, "Second network of this name", "There is a network %q already.", r.label)
		return
	}
	n := &Network{Name: r.label, at: r.labelAt}
	n.MTU, _ = r.number("mtu", leastMTU, mostMTU)
	s.Networks = append(s.Networks, n)
}

// Names of hosts stand in expressions, those of interfaces in the kernel.
var (
	hostName      = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)
	interfaceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$`)
)

// The network and interface of a host that names none.
const (
	defaultNetwork   = "lan"
	defaultInterface = "eth0"
)

func (l *loader) host(s *Scenario, b *hclsyntax.Block) {
	r := l.open(b)
	switch {
	case r.label == "":
	case !hostName.MatchString(r.label):
		l.errorAt(r.labelAt, "Invalid name", "The name of a host holds letters, digits, _ and -, and begins with a letter, so that expressions can say host.NAME.")
	case s.Host(r.label) != nil:
		l.errorAt(r.labelAt, "Second host of this name", "There is a host %q already, at line %d.", r.label, s.Host(r.label).at.Start.Line)
		return
	}
	h := &Host{Name: r.label, at: r.labelAt}
	h.Managed, _ = r.bool("managed")
	h.Forward, _ = r.bool("forward")
	if addresses := r.texts("addresses"); r.has("addresses") {
		if len(r.blocks("interface")) > 0 {
			l.errorAt(r.place("addresses"), "Addresses twice", "A host has its addresses here or in its interface blocks; put them all into the blocks.")
		}
		l.attach(s, h, &Interface{Name: defaultInterface, Network: defaultNetwork}, addresses)
	}
	for _, ib := range r.blocks("interface") {
		ir := l.open(ib)
		if !interfaceName.MatchString(ir.label) || ir.label == "lo" {
			l.errorAt(ir.labelAt, "Invalid interface name", "The name of an interface has 1 to 15 letters, digits, dots, _ and -, and is not lo.")
			continue
		}
		i := &Interface{Name: ir.label, Network: defaultNetwork}
		if n, ok := ir.string("network"); ok {
			i.Network = n
		}
		if slices.ContainsFunc(h.Interfaces, func(o *Interface) bool { return o.Name == i.Name }) {
			l.errorAt(ir.labelAt, "Second interface of this name", "The host has an interface %q already.", i.Name)
			continue
		}
		ir.required("addresses", `Give the interface addresses: addresses = ["192.0.2.10/24", "2001:db8::10/64"].`)
		l.attach(s, h, i, ir.texts("addresses"))
	}
	if len(h.Interfaces) == 0 && !r.has("addresses") && len(r.blocks("interface")) == 0 {
		l.errorAt(r.header, "Host without addresses", `Give it addresses = ["192.0.2.10/24", "2001:db8::10/64"], or interface blocks with addresses.`)
	}
	for _, name := range r.texts("masquerade") {
		if l.ownInterface(h, name.text, name.at) {
			h.Masquerade = append(h.Masquerade, name.text)
		}
	}
	for _, pb := range r.blocks("publish") {
		l.publish(h, pb)
	}
	for _, rb := range r.blocks("route") {
		l.route(h, rb)
	}
	if !h.Forward && (r.has("masquerade") || len(r.blocks("publish")) > 0) {
		l.errorAt(r.header, "No router", "Addresses are translated for packets that the host forwards: add forward = true.")
	}
	s.Hosts = append(s.Hosts, h)
}

// attach adds an interface with its addresses, and its network if no block
// described it.
func (l *loader) attach(s *Scenario, h *Host, i *Interface, addresses []placed) {
	for _, a := range addresses {
		p, err := netip.ParsePrefix(a.text)
		// Those of IPv4 are the addresses of the cloud's services; those of IPv6
		// mean nothing without an interface.
		linkLocal := p.Addr().Is6() && p.Addr().IsLinkLocalUnicast()
		switch {
		case err != nil:
			l.errorAt(a.at, "Invalid address", `An address stands with the length of its network, such as "192.0.2.10/24" or "2001:db8::10/64", not %q.`, a.text)
			continue
		case p.Addr().Is4In6() || p.Addr().IsMulticast() || p.Addr().IsLoopback() || p.Addr().IsUnspecified() || linkLocal:
			l.errorAt(a.at, "Invalid address", "%s is no address that a host can have here.", p.Addr())
			continue
		case p.Bits() == 0:
			l.errorAt(a.at, "Invalid address", "The network of %s is the whole of %s: the number behind the slash is its length, such as %s/%d.", p, flow.FamilyOf(p.Addr()), p.Addr(), map[bool]int{true: 24, false: 64}[p.Addr().Is4()])
			continue
		case isOfNetwork(p):
			l.errorAt(a.at, "Invalid address", "%s is the address of the network %s itself, or its broadcast address: no host can have it.", p.Addr(), p.Masked())
			continue
		case h.Has(p.Addr()) || slices.ContainsFunc(i.Addresses, func(o netip.Prefix) bool { return o.Addr() == p.Addr() }):
			l.errorAt(a.at, "Address twice", "The host has %s already.", p.Addr())
			continue
		}
		for _, other := range s.Hosts {
			if other.Has(p.Addr()) {
				l.errorAt(a.at, "Address twice", "%s is the address of host %q.", p.Addr(), other.Name)
			}
		}
		l.sameLength(s, h, i, p, a.at)
		i.Addresses = append(i.Addresses, p)
	}
	h.Interfaces = append(h.Interfaces, i)
	if s.network(i.Network) == nil {
		s.Networks = append(s.Networks, &Network{Name: i.Network})
	}
}

// isOfNetwork reports whether an address is that of its network, or reaches all
// of it. The two addresses of a wire are both of hosts, and so is one that stands
// for itself.
//
// Source: RFC 919, 922 and 3021; RFC 4291, section 2.6.1, and RFC 6164.
func isOfNetwork(p netip.Prefix) bool {
	if p.Bits() >= p.Addr().BitLen()-1 {
		return false
	}
	if p.Addr() == p.Masked().Addr() {
		return true
	}
	last := p.Addr().Next()
	return p.Addr().Is4() && (!last.IsValid() || !p.Contains(last))
}

// sameLength reports an address whose network is another one's on the same link,
// but for its length: some of them would not find each other. An address that
// stands for itself is beside any network.
func (l *loader) sameLength(s *Scenario, h *Host, i *Interface, p netip.Prefix, at hcl.Range) {
	if p.IsSingleIP() {
		return
	}
	for _, o := range append(slices.Clone(s.Hosts), h) {
		for _, other := range o.Interfaces {
			if other.Network != i.Network {
				continue
			}
			for _, q := range other.Addresses {
				if q.Overlaps(p) && q.Bits() != p.Bits() && !q.IsSingleIP() {
					l.errorAt(at, "Networks of two lengths", "%s is on the network %q with %s of host %q, and the one says that it is %s, the other %s.", p, i.Network, q, o.Name, p.Masked(), q.Masked())
					return
				}
			}
		}
	}
}

func (l *loader) ownInterface(h *Host, name string, at hcl.Range) bool {
	var names []string
	for _, i := range h.Interfaces {
		if i.Name == name {
			return true
		}
		names = append(names, i.Name)
	}
	l.errorAt(at, "Unknown interface", "The host %q has no interface %q.%s", h.Name, name, orList(policies.Suggest(name, names), names))
	return false
}

// orList is the suggestion, or else what there is.
func orList(suggestion string, names []string) string {
	if suggestion != "" || len(names) == 0 {
		return suggestion
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = fmt.Sprintf("%q", n)
	}
	return " There are: " + strings.Join(quoted, ", ") + "."
}

func (l *loader) publish(h *Host, b *hclsyntax.Block) {
	r := l.open(b)
	r.required("interface", "Say on which interface the packets come in.")
	r.required("port", "Say which port is published.")
	r.required("to", `Say where its packets go: to = "172.17.0.2:80".`)
	p := Publish{Protocol: flow.TCP}
	name, ok := r.string("interface")
	if ok && l.ownInterface(h, name, r.place("interface")) {
		p.Interface = name
	}
	if r.choice("protocol", "tcp", "udp") == "udp" {
		p.Protocol = flow.UDP
	}
	port, _ := r.number("port", 1, 65535)
	p.Port = uint16(port)
	if to, ok := r.string("to"); ok {
		var err error
		if p.To, err = netip.ParseAddrPort(to); err != nil {
			l.errorAt(r.place("to"), "Invalid address", `to is an address with a port, such as "172.17.0.2:80" or "[2001:db8::2]:80", not %q.`, to)
		}
	}
	h.Publish = append(h.Publish, p)
}

func (l *loader) route(h *Host, b *hclsyntax.Block) {
	r := l.open(b)
	r.required("to", `Say where the route leads: to = "198.51.100.0/24".`)
	r.required("via", `Say which router it leads over: via = "192.0.2.1".`)
	to, okTo := r.string("to")
	via, okVia := r.string("via")
	if !okTo || !okVia {
		return
	}
	dest, err := netip.ParsePrefix(to)
	if err != nil {
		l.errorAt(r.place("to"), "Invalid network", `to is a network, such as "198.51.100.0/24", not %q.`, to)
		return
	}
	hop, err := netip.ParseAddr(via)
	if err != nil || hop.Is4() != dest.Addr().Is4() {
		l.errorAt(r.place("via"), "Invalid address", "via is the address of a router, of the family of %s, not %q.", dest, via)
		return
	}
	h.Routes = append(h.Routes, Route{dest.Masked(), hop, r.place("via")})
}

// checkHosts reports what concerns several hosts.
func (l *loader) checkHosts(s *Scenario, file hcl.Range) {
	var managed *Host
	links := &Topology{s: s}
	for _, h := range s.Hosts {
		for _, r := range h.Routes {
			if links.link(h, r.Via) == nil {
				l.errorAt(r.at, "Unknown router", "No other host on the networks of %q has the address %s.", h.Name, r.Via)
			}
		}
		switch {
		case !h.Managed:
		case managed != nil:
			l.errorAt(h.at, "Second managed host", "One host is managed, and that is %q.", managed.Name)
		default:
			managed = h
		}
	}
	switch {
	case managed != nil || l.diags.HasErrors():
	case len(s.Hosts) == 0:
		l.errorAt(file, "No hosts", "A scenario begins with its hosts, one of which is managed: host \"server\" { managed = true … }.")
	default:
		l.errorAt(file, "No managed host", "Policies are applied to one of the hosts: add managed = true to it.")
	}
	var networks []string
	used := map[string]int{}
	for _, h := range s.Hosts {
		for _, i := range h.Interfaces {
			if used[i.Network]++; used[i.Network] == 1 {
				networks = append(networks, i.Network)
			}
		}
	}
	for _, n := range s.Networks {
		if used[n.Name] == 0 && !l.diags.HasErrors() {
			l.errorAt(n.at, "Network without interfaces", "No interface is on the network %q.%s", n.Name, orList(policies.Suggest(n.Name, networks), networks))
		}
	}
	for _, name := range networks {
		if used[name] == 1 && !l.diags.HasErrors() {
			l.errorAt(file, "Network with one interface", "Only one interface is on the network %q; a second one is needed for packets to go anywhere.%s", name, policies.Suggest(name, slices.DeleteFunc(slices.Clone(networks), func(n string) bool { return n == name })))
		}
	}
}
