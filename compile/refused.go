package compile

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// UDP has no SYN: nothing tells the next packet of a flow that was cut from one
// that opens a flow. So the tuples of cut flows, and what host ports that were
// open to everybody could send there, are refused for a while, by elements of
// sets that end by themselves (2.4).

// refusedSet returns the name of the set of what is refused in one direction: of
// exact flows, or of ranges of peers and their ports.
//
// No name of a set that a policy brings ends so: those of rules end with the
// family, those of maps with the protocol and what the keys are.
func refusedSet(d flow.Direction, f flow.Family, exact bool) string {
	name := fmt.Sprintf("refused.%s.%s", d, familySuffix(f))
	if exact {
		return name
	}
	return name + ".ports"
}

// refusedTypes returns the types of a set's key.
//
// Exact flows are found by hashing, in whatever order. Ranges are looked for field
// by field, so that the one that tells most comes first.
func refusedTypes(f flow.Family, exact bool) []ruleset.Type {
	if exact {
		return []ruleset.Type{ruleset.IfName, addressType(f), addressType(f), ruleset.InetService, ruleset.InetService}
	}
	return []ruleset.Type{addressType(f), ruleset.InetService, ruleset.InetService, ruleset.IfName}
}

// addRefusedSets adds the sets of one family. They are empty here.
func (c *compiler) addRefusedSets(f flow.Family) {
	for _, d := range flow.Directions {
		c.addSet(&ruleset.Set{
			Name: refusedSet(d, f, true), Comment: "UDP flows that were cut: local address, peer, local port, peer port",
			Key: refusedTypes(f, true), Timed: true,
		})
		c.addSet(&ruleset.Set{
			Name: refusedSet(d, f, false), Comment: "UDP between host ports and closed space: peers, local port, peer ports",
			Key: refusedTypes(f, false), Timed: true, Interval: true,
		})
	}
}

// refusedRules refuse UDP whose flow was cut, where it would open a flow anew.
// What the policy calls open, conntrack may have new packets of as well; such a
// flow is in none of the sets.
func (c *compiler) refusedRules(d flow.Direction, f flow.Family) []ruleset.Rule {
	return []ruleset.Rule{{
		Statements: []ruleset.Statement{
			ruleset.MatchState{State: ruleset.CtNew},
			ruleset.Verdict{Kind: ruleset.Jump, Chain: c.addRefusedChain(d, f)},
		},
		Comment: "UDP whose flow was cut",
	}}
}

// addRefusedChain adds the chain that looks new UDP up, and returns its name.
func (c *compiler) addRefusedChain(d flow.Direction, f flow.Family) string {
	name := fmt.Sprintf("refused.%s.cut%d", d, f)
	local := ruleset.Dest(f)
	beside := ruleset.Statement(ruleset.MatchEndsHere{})
	if d == flow.Egress {
		// What a published container sends after the cut is a flow of its own, and
		// leaves from an address of the host: its own address is what tells.
		local = ruleset.OriginalSource(f)
		beside = ruleset.MatchForwarded{Negate: true}
	}
	peer, localPort, peerPort := ruleset.Peer(f, d), ruleset.LocalPort(d), ruleset.PeerPort(d)
	c.addChain(&ruleset.Chain{Name: name, Comment: "UDP that would bring back a flow that was cut", Rules: []ruleset.Rule{
		{
			Statements: []ruleset.Statement{
				ruleset.Lookup{Fields: []ruleset.Field{ruleset.InterfaceName(d), local, peer, localPort, peerPort}, Set: refusedSet(d, f, true)},
				c.refused(d, byGroups),
			},
			Comment: "a flow that was cut",
		},
		{
			Statements: []ruleset.Statement{
				ruleset.Lookup{Fields: []ruleset.Field{peer, localPort, peerPort, ruleset.InterfaceName(d)}, Set: refusedSet(d, f, false)},
				beside,
				c.refused(d, byGroups),
			},
			Comment: "closed space of a host port",
		},
	}})
	return name
}

// RefusedElement returns the set and the element that refuse UDP for a time. h is
// one exact flow if its Local is valid and peer and port are one each; else Local
// does not count. The comment is cut to what the kernel keeps.
func RefusedElement(h policies.Held, timeout, expires time.Duration) (set string, e ruleset.TimedElement) {
	d, f := h.Opened.Opposite(), flow.FamilyOf(h.Peers.First)
	exact := h.Exact() && h.Peers.First == h.Peers.Last && h.PeerPorts.First == h.PeerPorts.Last
	key := func(peer netip.Addr, peerPort uint16) string {
		name, port := ruleset.IfNameKey(h.Interface), ruleset.PortKey(h.LocalPort)
		if exact {
			return ruleset.Concat(name, ruleset.AddrKey(h.Local), ruleset.AddrKey(peer), port, ruleset.PortKey(peerPort))
		}
		return ruleset.Concat(ruleset.AddrKey(peer), port, ruleset.PortKey(peerPort), name)
	}
	return refusedSet(d, f, exact), ruleset.TimedElement{
		First: key(h.Peers.First, h.PeerPorts.First), Last: key(h.Peers.Last, h.PeerPorts.Last),
		Timeout: timeout, Expires: expires, Comment: shortComment(h.Comment),
	}
}

// shortComment returns the beginning of a text that the kernel can keep as an
// element's comment, of whole characters.
func shortComment(text string) string {
	if len(text) > maxComment {
		text = strings.ToValidUTF8(text[:maxComment], "")
	}
	return text
}

// RefusedFrom is the opposite of RefusedElement: what an element of a set refuses.
// It reports false for other sets, and for elements that this package does not
// make.
func RefusedFrom(set string, e ruleset.TimedElement) (policies.Held, bool) {
	for _, d := range flow.Directions {
		for _, f := range flow.Families {
			for _, exact := range []bool{true, false} {
				if set == refusedSet(d, f, exact) {
					return held(d, f, exact, e)
				}
			}
		}
	}
	return policies.Held{}, false
}

func held(d flow.Direction, f flow.Family, exact bool, e ruleset.TimedElement) (policies.Held, bool) {
	s := &ruleset.Set{Key: refusedTypes(f, exact), Interval: !exact}
	if len(e.First) != s.KeySize() || len(e.Last) != s.KeySize() {
		return policies.Held{}, false
	}
	h := policies.Held{Opened: d.Opposite(), Comment: e.Comment}
	first, last := s.Fields(e.First), s.Fields(e.Last)
	peer, localPort, peerPort, name := 0, 1, 2, 3
	if exact {
		peer, localPort, peerPort, name = 2, 3, 4, 0
		if e.First != e.Last {
			return policies.Held{}, false
		}
		h.Local = addressOf(first[1])
	}
	if first[localPort] != last[localPort] || first[name] != last[name] {
		return policies.Held{}, false
	}
	h.Interface = strings.TrimRight(first[name], "\x00")
	h.LocalPort = portOf(first[localPort])
	h.Peers = flow.Range{First: addressOf(first[peer]), Last: addressOf(last[peer])}
	h.PeerPorts = flow.PortRange{First: portOf(first[peerPort]), Last: portOf(last[peerPort])}
	return h, true
}

// addressOf is the opposite of ruleset.AddrKey; the key has the length of an
// address.
func addressOf(key string) netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(key))
	return a
}

// portOf is the opposite of ruleset.PortKey.
func portOf(key string) uint16 { return uint16(key[0])<<8 | uint16(key[1]) }
