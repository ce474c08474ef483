package policies

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sgc/internal/flow"
)

// refusals finds what no rule of a policy allows to be opened with UDP. A
// thousand ports may be asked about, of rules with a hundred thousand peers: it
// remembers what it has found.
type refusals struct {
	judge *Judge
	// lock guards the rest.
	lock sync.Mutex
	// ranges are the merged peers of an index, allowed those of several rules.
	ranges  map[indexFamily][]flow.Range
	allowed map[string][]flow.Range
	atoms   map[atomsKey][]portAtom
	rests   map[restKey][]flow.Range
	fewer   map[fewerKey][]flow.Range
	// stored is how many ranges allowed, rests and fewer hold.
	stored int
}

type indexFamily struct {
	index  *addressIndex
	family flow.Family
}

type atomsKey struct {
	on     *attachment
	opened flow.Direction
	family flow.Family
}

// restKey is a range without the peers of an atom, which have one place.
type restKey struct {
	from flow.Range
	what *flow.Range
}

// portAtom is a range of ports that the same rules cover, with their peers.
type portAtom struct {
	ports   flow.PortRange
	indexes []*addressIndex
	// id names the indexes and the family.
	id string
}

// fewerKey is a list of ranges, which has one place, made of n at most.
type fewerKey struct {
	from *flow.Range
	n    int
}

func newRefusals(judge *Judge) *refusals {
	return &refusals{
		judge: judge, ranges: map[indexFamily][]flow.Range{}, allowed: map[string][]flow.Range{},
		atoms: map[atomsKey][]portAtom{}, rests: map[restKey][]flow.Range{}, fewer: map[fewerKey][]flow.Range{},
	}
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

// each calls visit with what the rules do not allow of a box: disjoint boxes, in
// the order of their ports. Exempt traffic is not left out. An interface that no
// block names refuses nothing.
func (x *refusals) each(name string, opened flow.Direction, box ClosedSpace, visit func(ClosedSpace)) {
	a := x.judge.attachment(name)
	if a == nil || len(box.Peers) == 0 {
		return
	}
	f := flow.FamilyOf(box.Peers[0].First)
	dest := box.PeerPorts
	if opened == flow.Ingress {
		dest = box.LocalPorts
	}
	x.lock.Lock()
	defer x.lock.Unlock()
	atoms := x.atomsOf(atomsKey{a, opened, f})
	n, _ := slices.BinarySearchFunc(atoms, dest.First, func(atom portAtom, first uint16) int { return cmp.Compare(atom.ports.Last, first) })
	for _, atom := range atoms[n:] {
		ports := flow.PortRange{First: max(atom.ports.First, dest.First), Last: min(atom.ports.Last, dest.Last)}
		if ports.First > ports.Last {
			break
		}
		piece := ClosedSpace{LocalPorts: box.LocalPorts, PeerPorts: ports, Peers: x.rest(box.Peers, x.peers(&atom, f))}
		if opened == flow.Ingress {
			piece.LocalPorts, piece.PeerPorts = ports, box.PeerPorts
		}
		if len(piece.Peers) > 0 {
			visit(piece)
		}
	}
}

// few returns about n ranges at most of what each tells, as boxes that may hold
// some more.
func (x *refusals) few(name string, opened flow.Direction, box ClosedSpace, n int) []ClosedSpace {
	var out []ClosedSpace
	x.each(name, opened, box, func(piece ClosedSpace) {
		// Not all of them are kept: there may be thousands of long lists.
		if len(piece.Peers) > n {
			key := fewerKey{&piece.Peers[0], n}
			fewer, known := x.fewer[key]
			if !known {
				fewer = fewerRanges(piece.Peers, n)
				x.makeRoom(n)
				x.fewer[key] = fewer
			}
			piece.Peers = fewer
		}
		out = append(out, piece)
	})
	return fewerSpaces(mergeSpaces(out), n)
}

// rest is minusRanges, remembered where it is asked of one range.
func (x *refusals) rest(from, what []flow.Range) []flow.Range {
	if len(from) != 1 || len(what) == 0 {
		return minusRanges(from, what)
	}
	key := restKey{from[0], &what[0]}
	rest, known := x.rests[key]
	if !known {
		rest = minusRanges(from, what)
		x.makeRoom(len(rest))
		x.rests[key] = rest
	}
	return rest
}

// makeRoom forgets what was remembered before there is too much of it.
func (x *refusals) makeRoom(ranges int) {
	if x.stored += ranges + 1; x.stored > maxRemembered {
		clear(x.allowed)
		clear(x.rests)
		clear(x.fewer)
		x.stored = ranges
	}
}

// maxRemembered is how many ranges refusals remember beside the lists
// themselves; that takes some 25 megabytes.
const maxRemembered = 1 << 19

// atomsOf divides all destination ports among the rules of one direction that
// are for UDP and name peers of the family. The atoms are in order; those that no
// rule covers have no peers.
func (x *refusals) atomsOf(key atomsKey) []portAtom {
	if atoms, known := x.atoms[key]; known {
		return atoms
	}
	var rules []*judgedRule
	known := map[*judgedRule]bool{}
	begins := []int{0, 1 << 16}
	key.on.rules[key.opened].each(func(r *judgedRule) {
		if known[r] || !r.AllProtocols && r.Protocol != flow.UDP || !r.hasPeers(key.family) {
			return
		}
		known[r] = true
		rules = append(rules, r)
		for _, p := range r.Ports {
			begins = append(begins, int(p.First), int(p.Last)+1)
		}
	})
	slices.SortFunc(rules, compareRules)
	slices.Sort(begins)
	begins = slices.Compact(begins)
	var atoms []portAtom
	for i, end := range begins[1:] {
		atom := portAtom{ports: flow.PortRange{First: uint16(begins[i]), Last: uint16(end - 1)}}
		for _, r := range rules {
			if r.coversPort(atom.ports.First) {
				atom.indexes = append(atom.indexes, r.peers...)
			}
		}
		atom.id = key.family.String() + namesOf(atom.indexes)
		atoms = append(atoms, atom)
	}
	x.atoms[key] = atoms
	return atoms
}

// namesOf is one text for the same indexes in any order.
func namesOf(indexes []*addressIndex) string {
	names := make([]string, len(indexes))
	for i, index := range indexes {
		names[i] = fmt.Sprintf(" %p", index)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), "")
}

// peers returns the merged peers of an atom.
func (x *refusals) peers(atom *portAtom, f flow.Family) []flow.Range {
	switch len(atom.indexes) {
	case 0:
		return nil
	case 1:
		return x.peersOf(indexFamily{atom.indexes[0], f})
	}
	all, known := x.allowed[atom.id]
	if !known {
		for _, index := range atom.indexes {
			all = append(all, x.peersOf(indexFamily{index, f})...)
		}
		all = flow.MergeRanges(all)
		x.makeRoom(len(all))
		x.allowed[atom.id] = all
	}
	return all
}

func (x *refusals) peersOf(key indexFamily) []flow.Range {
	ranges, known := x.ranges[key]
	if !known {
		ranges = rangesOf(key.index.of(key.family))
		x.ranges[key] = ranges
	}
	return ranges
}

// withoutExempt returns what is left of a box without what is never filtered
// (2.6).
func (j *Judge) withoutExempt(box ClosedSpace) []ClosedSpace {
	f := flow.FamilyOf(box.Peers[0].First)
	exempt := rangesOf(j.host.exempted.of(f))
	for _, s := range linkLocalServices {
		if flow.FamilyOf(s.address) == f {
			exempt = append(exempt, flow.Range{First: s.address, Last: s.address})
		}
	}
	box.Peers = minusRanges(box.Peers, flow.MergeRanges(exempt))
	resolvers := rangesOf(j.host.resolvers.of(f))
	client, server := onePort(portDHCPClient), onePort(portDHCPServer)
	if f == flow.IPv6 {
		client, server = onePort(portDHCPv6Client), onePort(portDHCPv6Server)
	}
	var out []ClosedSpace
	for _, local := range splitPorts(box.LocalPorts, client) {
		for _, byDNS := range splitPorts(box.PeerPorts, onePort(portDNS)) {
			for _, peer := range splitPorts(byDNS, server) {
				piece := ClosedSpace{local, peer, box.Peers}
				if peer == onePort(portDNS) {
					piece.Peers = minusRanges(piece.Peers, resolvers)
				}
				if len(piece.Peers) > 0 && (local != client || peer != server) {
					out = append(out, piece)
				}
			}
		}
	}
	return out
}
