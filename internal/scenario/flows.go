package scenario

import (
	"net/netip"
	"strings"
	"time"

	"sgc/internal/flow"
	"sgc/policies"
)

// What a flow is where its block is silent.
const (
	defaultInterval = time.Second
	leastInterval   = time.Millisecond
	mostInterval    = time.Hour
	defaultSize     = 56
	// leastSize is what the lab needs to know its packets by.
	leastSize = headerSize
	mostSize  = 60000
)

// flow reads the attributes of a start or check block.
func (t *steps) flow(r *reader) *Flow {
	f := &Flow{Name: r.label, Interval: defaultInterval, Size: defaultSize, At: r.header}
	before := len(t.diags)
	r.required("protocol", `Say what the flow is: protocol = "icmp" (a ping), "tcp", "udp" or another.`)
	r.required("from", "Say which host opens the flow.")
	r.required("to", "Say which host it goes to.")
	f.From, f.To = t.hostNamed(r, "from"), t.hostNamed(r, "to")
	f.Reaches = f.To
	if r.has("reaches") {
		f.Reaches = t.hostNamed(r, "reaches")
	}
	family := t.protocol(r, f)
	if t.topology == nil || len(t.diags) > before || f.From == "" || f.To == "" || f.Reaches == "" {
		return f // reported, be it by who found the name of an attribute misspelt
	}
	t.addresses(r, f, family)
	t.ports(r, f)
	t.message(r, f)
	if d, ok := r.duration("interval", leastInterval, mostInterval); ok {
		f.Interval = d
	}
	if n, ok := r.number("count", 1, 1_000_000); ok {
		f.Count = n
	}
	if n, ok := r.number("size", leastSize, mostSize); ok {
		f.Size = n
	}
	f.Sends = [2]bool{true, true}
	icmp := f.Dest.IsValid() && f.Protocol.IsICMP(flow.FamilyOf(f.Dest))
	if sends := r.choice("sends", "both", "from", "to"); sends != "" {
		f.Sends = [2]bool{sends != "to", sends != "from"}
		switch {
		case icmp && f.Message != nil:
			t.errorAt(r.place("sends"), "One side sends", "ICMP messages are sent by the flow's opener, and nobody answers; remove this line.")
		case icmp:
			t.errorAt(r.place("sends"), "One side sends", "A ping is sent by its opener and answered by the other side's kernel; remove this line.")
		}
	}
	if icmp {
		f.Sends = [2]bool{true, false}
	}
	if f.Protocol == flow.TCP && f.Count == 1 && f.Sends[Responder] && f.Sends[Opener] {
		t.errorAt(r.place("count"), "Too few packets", `The first packet of TCP is the attempt to connect, and the other side sends when a message has told it what for: write count = 2, or sends = "from".`)
	}
	t.crosses(r, f)
	return f
}

// crosses reports a flow that has nothing to do with the managed host: nothing
// that is expected of it would say anything about a policy.
func (t *steps) crosses(r *reader, f *Flow) {
	from, managed := t.s.Host(f.From), t.s.Managed()
	if !f.Source.IsValid() || !f.Dest.IsValid() || managed == nil {
		return // reported
	}
	switch {
	case f.From == f.Reaches && f.From == managed.Name:
		return // which nothing filters, as may be shown
	case f.From == f.Reaches:
		t.errorAt(r.place("to"), "Flow within a host", "It goes from %q to %q, and policies are applied to %q.", f.From, f.Reaches, managed.Name)
		return
	}
	packet := flow.Packet{Protocol: f.Protocol, Source: f.Source, Dest: f.Dest, SourcePort: f.SourcePort, DestPort: f.Port}
	crossings, end, arrived := t.topology.path(from, packet)
	if end != nil && len(crossings) == 0 {
		crossings, _, _ = t.topology.path(end, arrived.Reply())
	}
	if end != nil && len(crossings) == 0 {
		t.errorAt(r.header, "Flow past the managed host", "Its packets go from %q to %q without crossing an interface of %q, which is the host that policies are applied to.", f.From, end.Name, managed.Name)
	}
}

// hostNamed reads the name of a host.
func (t *steps) hostNamed(r *reader, attribute string) string {
	name, ok := r.string(attribute)
	if !ok {
		return ""
	}
	if t.s.Host(name) != nil {
		return name
	}
	var names []string
	for _, h := range t.s.Hosts {
		names = append(names, h.Name)
	}
	if names != nil {
		t.errorAt(r.place(attribute), "Unknown host", "There is no host %q.%s", name, orList(policies.Suggest(name, names), names))
	}
	return ""
}

// protocol reads protocol and family. The family is 0 where the hosts decide.
func (t *steps) protocol(r *reader, f *Flow) flow.Family {
	var family flow.Family
	switch r.choice("family", "ipv4", "ipv6") {
	case "ipv4":
		family = flow.IPv4
	case "ipv6":
		family = flow.IPv6
	}
	name, ok := r.string("protocol")
	if !ok {
		return family
	}
	var err error
	switch strings.ToLower(name) {
	case "ping", "icmp":
		f.Protocol = flow.ICMP
	default:
		if f.Protocol, err = flow.ParseProtocol(strings.ToLower(name)); err != nil {
			t.errorAt(r.place("protocol"), "Unknown protocol", "There is no protocol %q.%s", name,
				policies.Suggest(name, append([]string{"icmp", "tcp", "udp", "icmpv6"}, flow.ProtocolNames()...)))
			return family
		}
	}
	switch {
	case f.Protocol == flow.ICMPv6 && family == flow.IPv4:
		t.errorAt(r.place("family"), "Two families", `icmpv6 is a protocol of IPv6; write protocol = "icmp".`)
	case f.Protocol == flow.ICMPv6:
		return flow.IPv6
	}
	return family
}

// addresses finds out between which addresses the flow runs.
func (t *steps) addresses(r *reader, f *Flow, family flow.Family) {
	from, to, reaches := t.s.Host(f.From), t.s.Host(f.To), t.s.Host(f.Reaches)
	f.Source = t.address(r, "source", from)
	f.Dest = t.address(r, "destination", to)
	for _, a := range []netip.Addr{f.Source, f.Dest} {
		switch {
		case !a.IsValid():
		case family == 0:
			family = flow.FamilyOf(a)
		case flow.FamilyOf(a) != family:
			t.errorAt(r.header, "Two families", "The flow is one of %s, and %s is not.", family, a)
			return
		}
	}
	has := func(h *Host, family flow.Family) bool { _, ok := h.Address(family); return ok }
	if family == 0 {
		family = flow.IPv4
		if !has(from, family) || !has(to, family) {
			family = flow.IPv6
		}
	}
	if f.Protocol == flow.ICMP {
		f.Protocol = flow.ICMPOf(family)
	}
	for _, h := range []*Host{from, to} {
		if !has(h, family) {
			t.errorAt(r.header, "No address", "The host %q has no address of %s.", h.Name, family)
			return
		}
	}
	if !f.Dest.IsValid() {
		f.Dest = t.nearAddress(from, to, family)
	}
	first, ok := t.topology.next(from, f.Dest)
	if !ok {
		t.errorAt(r.header, "No way there", "No route leads from %q to %s, the address of %q. A host in between needs forward = true.", from.Name, f.Dest, to.Name)
		return
	}
	if !f.Source.IsValid() {
		var ok bool
		if f.Source, ok = addressOf(first.iface, family); !ok {
			t.errorAt(r.header, "No address", "The interface %q of %q, by which the flow leaves, has no address of %s.", first.iface.Name, from.Name, family)
			return
		}
	}
	f.ReachesAddress = f.Dest
	if f.Reaches != f.To {
		if f.ReachesAddress, ok = reaches.Address(family); !ok {
			t.errorAt(r.place("reaches"), "No address", "The host %q has no address of %s.", f.Reaches, family)
		}
	}
}

// address reads an address of a host; it is invalid where the file names none.
func (t *steps) address(r *reader, attribute string, h *Host) netip.Addr {
	text, ok := r.string(attribute)
	if !ok {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		t.errorAt(r.place(attribute), "Invalid address", "%s is an address, such as host.%s.ipv4 or \"192.0.2.10\", not %q.", attribute, h.Name, text)
	case !h.Has(a):
		t.errorAt(r.place(attribute), "Unknown address", "The host %q has no address %s.", h.Name, a)
	default:
		return a
	}
	return netip.Addr{}
}

// nearAddress returns the address of a host on a network that both are on, or
// else its first.
func (t *steps) nearAddress(from, to *Host, family flow.Family) netip.Addr {
	for _, i := range from.Interfaces {
		for _, o := range to.Interfaces {
			if a, ok := addressOf(o, family); ok && o.Network == i.Network {
				return a
			}
		}
	}
	a, _ := to.Address(family)
	return a
}

// ports reads ports and the identifier of pings.
func (t *steps) ports(r *reader, f *Flow) {
	port, _ := r.number("port", 1, 65535)
	source, _ := r.number("source_port", 1, 65535)
	reaches, _ := r.number("reaches_port", 1, 65535)
	f.Port, f.SourcePort, f.ReachesPort = uint16(port), uint16(source), uint16(reaches)
	if f.ReachesPort == 0 {
		f.ReachesPort = f.Port
	}
	if f.Protocol.HasPorts() {
		r.required("port", "A flow of TCP or UDP goes to a port: port = 22.")
	} else {
		for _, name := range []string{"port", "source_port", "reaches_port"} {
			if r.has(name) {
				t.errorAt(r.place(name), "No ports", "A flow of protocol %s has no ports; remove this line.", f.Protocol)
			}
		}
	}
	if !r.has("id") {
		return
	}
	if !f.Protocol.IsICMP(flow.FamilyOf(f.Dest)) {
		t.errorAt(r.place("id"), "No identifier", "Only a ping has an identifier; remove this line.")
		return
	}
	if s, ok := r.value("id"); ok && s.Type().FriendlyName() == "string" && s.AsString() == "new" {
		return
	}
	id, _ := r.number("id", 1, 65535)
	f.ID = uint16(id)
}
