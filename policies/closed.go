package policies

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"sgc/internal/flow"
)

// ClosedSpace is a box of UDP flows of one interface, family and opening
// direction: those between any of the local ports and any of the peers' ports.
type ClosedSpace struct {
	LocalPorts, PeerPorts flow.PortRange
	// Peers are sorted, disjoint and merged, never empty. Boxes may share them:
	// they are read-only.
	Peers []flow.Range
}

// Closing finds what a change of policy closes for UDP: what the old policy
// left open and the new one does not allow (2.4). One goroutine at a time may
// use it.
type Closing struct {
	old *Judge
	new *refusals
}

// NewClosing compares two policies.
func NewClosing(old, new *Judge) *Closing { return &Closing{old, newRefusals(new)} }

// Space returns the closed space of the flows that are opened in one direction
// on an interface: those that a rule of that direction had opened, to the local
// port if they came in, to the peer's if they went out. The boxes are disjoint.
func (c *Closing) Space(name string, opened flow.Direction, f flow.Family) []ClosedSpace {
	var out []ClosedSpace
	for _, box := range c.open(name, opened, f, flow.AllPorts) {
		out = append(out, c.new.withExempt(name, opened, box)...)
	}
	return mergeSpaces(out)
}

// open returns what the old policy left open of some local ports.
func (c *Closing) open(name string, opened flow.Direction, f flow.Family, local flow.PortRange) []ClosedSpace {
	a := c.old.attachment(name)
	if a == nil {
		return nil
	}
	ports := a.openPorts(opened, flow.UDP, f)
	if len(ports) == 0 {
		return nil
	}
	var tracked []flow.Range
	for _, t := range a.alwaysTrack {
		tracked = append(tracked, rangesOf(t.addresses.of(f))...)
	}
	peers := minusRanges([]flow.Range{flow.RangeOf(f.Any())}, flow.MergeRanges(tracked))
	if len(peers) == 0 {
		return nil
	}
	var out []ClosedSpace
	for _, x := range ports {
		box := ClosedSpace{LocalPorts: local, PeerPorts: x, Peers: peers}
		if opened == flow.Ingress {
			box.LocalPorts, box.PeerPorts = flow.PortRange{First: max(x.First, local.First), Last: min(x.Last, local.Last)}, flow.AllPorts
			if box.LocalPorts.First > box.LocalPorts.Last {
				continue
			}
		}
		out = append(out, box)
	}
	return out
}

// openPorts returns the destination ports of the flows that rules of direction
// opened make untracked, sorted and disjoint.
func (a *attachment) openPorts(opened flow.Direction, protocol flow.Protocol, f flow.Family) []flow.PortRange {
	if a.wholeRules[opened.Opposite()].anyRule(protocol, f, 0) == nil {
		return nil
	}
	var ports []flow.PortRange
	a.anyRules[opened].each(func(r *judgedRule) {
		switch {
		case !r.any[familyIndex(f)]:
		case r.AllProtocols:
			ports = append(ports, flow.AllPorts)
		case r.Protocol == protocol:
			ports = append(ports, r.Ports...)
		}
	})
	return mergePorts(ports)
}

// Opens reports whether the policy leaves any flow of the family open on an
// interface.
func (j *Judge) Opens(name string, f flow.Family) bool {
	a := j.attachment(name)
	return a != nil && a.opens(f)
}

func (a *attachment) opens(f flow.Family) bool {
	for _, opened := range flow.Directions {
		for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
			if len(a.openPorts(opened, protocol, f)) > 0 {
				return true
			}
		}
	}
	return false
}

// OpensAs reports whether both policies leave the same flows of the family open
// on an interface: what Open says of a packet, it says under both. It may be
// false where they do so in different words.
func (j *Judge) OpensAs(other *Judge, name string, f flow.Family) bool {
	a, b := j.attachment(name), other.attachment(name)
	switch {
	case a == nil || b == nil:
		return (a == nil || !a.opens(f)) && (b == nil || !b.opens(f))
	case !slices.EqualFunc(a.alwaysTrack, b.alwaysTrack, func(x, y trackedPeers) bool {
		return slices.Equal(x.addresses.of(f), y.addresses.of(f))
	}):
		return false
	}
	for _, opened := range flow.Directions {
		for _, protocol := range []flow.Protocol{flow.TCP, flow.UDP} {
			if !slices.Equal(a.openPorts(opened, protocol, f), b.openPorts(opened, protocol, f)) {
				return false
			}
		}
	}
	return true
}

// BoundPort is a UDP port of the host to which a socket without a peer is bound.
type BoundPort struct {
	// Interface is the name of an interface on which the port may be reached.
	Interface string
	Family    flow.Family
	Port      uint16
	// Ephemeral says that the kernel gives the port to clients.
	Ephemeral bool
}

// Holds returns what is to be held because the change closes it under the
// sockets of the host: their flows leave no trace of which peers they are with.
//
//   - A port that was open to everybody and is not for all now must not send to
//     those for whom it is closed: that would open the flow anew.
//   - A client's port that sent to ports which are closed now must not hear from
//     them. Where a rule of the new policy names the port, it is no client's.
func (c *Closing) Holds(bound []BoundPort) []Held {
	var out []Held
	seen := map[BoundPort]bool{}
	for _, b := range bound {
		key := b
		key.Ephemeral = false
		if seen[key] {
			continue
		}
		seen[key] = true
		out = c.hold(out, b, flow.Ingress)
		if b.Ephemeral && !c.new.names(b) {
			out = c.hold(out, b, flow.Egress)
		}
	}
	return out
}

func (c *Closing) hold(out []Held, b BoundPort, opened flow.Direction) []Held {
	for _, box := range c.open(b.Interface, opened, b.Family, onePort(b.Port)) {
		for _, rest := range c.new.of(b.Interface, opened, box) {
			for _, peers := range rest.Peers {
				out = append(out, Held{
					Interface: b.Interface, Opened: opened, LocalPort: b.Port,
					Peers: peers, PeerPorts: rest.PeerPorts,
					Comment: fmt.Sprintf("%s udp port %d was bound", directionWords[opened], b.Port),
				})
			}
		}
	}
	return out
}

// refusals finds what no rule of a policy allows to be opened with UDP.
type refusals struct {
	judge *Judge
	// ranges are the merged peers of an index, allowed those of several rules.
	ranges  map[indexFamily][]flow.Range
	allowed map[string][]flow.Range
}

type indexFamily struct {
	index  *addressIndex
	family flow.Family
}

func newRefusals(judge *Judge) *refusals {
	return &refusals{judge, map[indexFamily][]flow.Range{}, map[string][]flow.Range{}}
}

// names reports whether a rule that names fewer than all ports lets somebody
// open flows to the port.
func (x *refusals) names(b BoundPort) bool {
	a := x.judge.attachment(b.Interface)
	if a == nil {
		return false
	}
	for _, rules := range a.rules[flow.Ingress].candidates(flow.UDP, b.Port) {
		for _, r := range rules {
			if !r.coversAllPorts() && r.coversPort(b.Port) && r.hasPeers(b.Family) {
				return true
			}
		}
	}
	return false
}

// of returns what the rules do not allow of a box: disjoint boxes. Exempt
// traffic is not left out. An interface that no block names refuses nothing.
func (x *refusals) of(name string, opened flow.Direction, box ClosedSpace) []ClosedSpace {
	a := x.judge.attachment(name)
	if a == nil || len(box.Peers) == 0 {
		return nil
	}
	f := flow.FamilyOf(box.Peers[0].First)
	dest := box.PeerPorts
	if opened == flow.Ingress {
		dest = box.LocalPorts
	}
	var out []ClosedSpace
	for _, atom := range x.atoms(a, opened, f, dest) {
		peers := minusRanges(box.Peers, x.peers(atom.rules, f))
		if len(peers) == 0 {
			continue
		}
		piece := ClosedSpace{LocalPorts: box.LocalPorts, PeerPorts: atom.ports, Peers: peers}
		if opened == flow.Ingress {
			piece.LocalPorts, piece.PeerPorts = atom.ports, box.PeerPorts
		}
		out = append(out, piece)
	}
	return mergeSpaces(out)
}

// portAtom is a range of ports that the same rules cover.
type portAtom struct {
	ports flow.PortRange
	rules []*judgedRule
}

// atoms divides a range of destination ports among the rules of one direction
// that are for UDP and name peers of the family.
func (x *refusals) atoms(a *attachment, d flow.Direction, f flow.Family, within flow.PortRange) []portAtom {
	var rules []*judgedRule
	known := map[*judgedRule]bool{}
	begins := []int{int(within.First), int(within.Last) + 1}
	a.rules[d].each(func(r *judgedRule) {
		if known[r] || !r.AllProtocols && r.Protocol != flow.UDP || !r.hasPeers(f) {
			return
		}
		known[r] = true
		rules = append(rules, r)
		for _, p := range r.Ports {
			for _, at := range []int{int(p.First), int(p.Last) + 1} {
				if int(within.First) < at && at <= int(within.Last) {
					begins = append(begins, at)
				}
			}
		}
	})
	slices.SortFunc(rules, compareRules)
	slices.Sort(begins)
	begins = slices.Compact(begins)
	var out []portAtom
	for i := range begins[1:] {
		atom := portAtom{ports: flow.PortRange{First: uint16(begins[i]), Last: uint16(begins[i+1] - 1)}}
		for _, r := range rules {
			if r.coversPort(atom.ports.First) {
				atom.rules = append(atom.rules, r)
			}
		}
		out = append(out, atom)
	}
	return out
}

// peers returns the merged peers of the rules.
func (x *refusals) peers(rules []*judgedRule, f flow.Family) []flow.Range {
	key := f.String()
	var all []flow.Range
	for _, r := range rules {
		key += fmt.Sprintf(" %p", r)
	}
	if ranges, ok := x.allowed[key]; ok {
		return ranges
	}
	for _, r := range rules {
		for _, index := range r.peers {
			k := indexFamily{index, f}
			ranges, ok := x.ranges[k]
			if !ok {
				ranges = rangesOf(index.of(f))
				x.ranges[k] = ranges
			}
			all = append(all, ranges...)
		}
	}
	all = flow.MergeRanges(all)
	x.allowed[key] = all
	return all
}

// withExempt is of without what is never filtered (2.6).
func (x *refusals) withExempt(name string, opened flow.Direction, box ClosedSpace) []ClosedSpace {
	if len(box.Peers) == 0 {
		return nil
	}
	f := flow.FamilyOf(box.Peers[0].First)
	host := &x.judge.host
	exempt := rangesOf(host.exempted.of(f))
	for _, s := range linkLocalServices {
		if flow.FamilyOf(s.address) == f {
			exempt = append(exempt, flow.Range{First: s.address, Last: s.address})
		}
	}
	exempt = flow.MergeRanges(exempt)
	resolvers := rangesOf(host.resolvers.of(f))
	client, server := onePort(portDHCPClient), onePort(portDHCPServer)
	if f == flow.IPv6 {
		client, server = onePort(portDHCPv6Client), onePort(portDHCPv6Server)
	}
	var out []ClosedSpace
	for _, rest := range x.of(name, opened, box) {
		rest.Peers = minusRanges(rest.Peers, exempt)
		for _, local := range splitPorts(rest.LocalPorts, client) {
			for _, byDNS := range splitPorts(rest.PeerPorts, onePort(portDNS)) {
				for _, peer := range splitPorts(byDNS, server) {
					piece := ClosedSpace{local, peer, rest.Peers}
					if peer == onePort(portDNS) {
						piece.Peers = minusRanges(piece.Peers, resolvers)
					}
					if len(piece.Peers) > 0 && (local != client || peer != server) {
						out = append(out, piece)
					}
				}
			}
		}
	}
	return out
}

// splitPorts cuts a range before and after another one.
func splitPorts(r, at flow.PortRange) []flow.PortRange {
	var out []flow.PortRange
	for _, part := range [][2]int{
		{int(r.First), min(int(r.Last), int(at.First)-1)},
		{max(int(r.First), int(at.First)), min(int(r.Last), int(at.Last))},
		{max(int(r.First), int(at.Last)+1), int(r.Last)},
	} {
		if part[0] <= part[1] {
			out = append(out, flow.PortRange{First: uint16(part[0]), Last: uint16(part[1])})
		}
	}
	return out
}

// mergeSpaces joins boxes that touch in one of their ports and are equal else.
func mergeSpaces(boxes []ClosedSpace) []ClosedSpace {
	join := func(by, other func(*ClosedSpace) *flow.PortRange) {
		slices.SortFunc(boxes, func(a, b ClosedSpace) int {
			return cmp.Or(
				cmp.Compare(other(&a).First, other(&b).First), cmp.Compare(other(&a).Last, other(&b).Last),
				cmp.Compare(by(&a).First, by(&b).First),
			)
		})
		out := boxes[:0]
		for _, b := range boxes {
			if n := len(out); n > 0 {
				last := &out[n-1]
				if *other(last) == *other(&b) && int(by(last).Last)+1 == int(by(&b).First) && sameRanges(last.Peers, b.Peers) {
					by(last).Last = by(&b).Last
					continue
				}
			}
			out = append(out, b)
		}
		boxes = out
	}
	local := func(s *ClosedSpace) *flow.PortRange { return &s.LocalPorts }
	peer := func(s *ClosedSpace) *flow.PortRange { return &s.PeerPorts }
	join(peer, local)
	join(local, peer)
	return boxes
}

func sameRanges(a, b []flow.Range) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// rangesOf returns the addresses of prefixes in the fewest ranges.
func rangesOf(prefixes []netip.Prefix) []flow.Range {
	ranges := make([]flow.Range, len(prefixes))
	for i, p := range prefixes {
		ranges[i] = flow.RangeOf(p)
	}
	return flow.MergeRanges(ranges)
}

// minusRanges returns the addresses of one merged list that are not in another.
func minusRanges(from, what []flow.Range) []flow.Range {
	if len(what) == 0 {
		return from
	}
	var out []flow.Range
	n := 0
	for _, r := range from {
		for n < len(what) && what[n].Last.Less(r.First) {
			n++
		}
		rest, left := r, true
		for m := n; m < len(what) && !r.Last.Less(what[m].First); m++ {
			if rest.First.Less(what[m].First) {
				out = append(out, flow.Range{First: rest.First, Last: what[m].First.Prev()})
			}
			if !what[m].Last.Less(rest.Last) {
				left = false
				break
			}
			rest.First = what[m].Last.Next()
		}
		if left {
			out = append(out, rest)
		}
	}
	return out
}
