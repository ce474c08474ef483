// Package compile turns a policy into the nftables table that enforces it.
//
// The passes stand in files of their own, in reading order:
//
//	select.go   which interfaces share chains, which rules matter where
//	merge.go    the key space (ports, ICMP types, protocols) cut into atoms
//	peers.go    the addresses of a set of rules, as prefixes or sets
//	shard.go    large address lists, cut into sets that the kernel handles well
//	space.go    atoms and addresses laid out as maps and leaf chains
//	filter.go   the chains that a packet walks to get there
//	noflow.go   what belongs to no flow; the window for routed flows
//	refused.go  UDP whose flow was cut
//	timeouts.go idle timeouts that are not the host's defaults
//	raw.go      those before conntrack: notrack
//	open.go     the open space: what notrack is for, and its ICMP errors
//	acl.go      network ACLs: first-match elimination
//	closing.go  what a change of policy closes; closing_rules.go cuts it
//	refuse.go   what happens to packets that are not let through
//	names.go    the names of all that
//
// A packet takes a constant number of look-ups, whatever the policy's size:
// interface, protocol, state, port, address. Lists of rules appear only where
// their length is bounded (maxInline, maxSets).
//
// # Where this departs from one set for every chain
//
// A leaf chain of at most maxInline prefixes holds them as plain rules and not
// as a set. The kernel keeps the sets of a table in a list that it walks for
// every look-up by name while it reads a transaction, so that loading n sets
// costs n²: 5,000 leaf chains took 1.9 s of kernel time with a set each and
// 0.16 s without (Linux 6.18). An edit of such a rule's CIDRs replaces a rule
// of one leaf chain, which is as small a delta as an element.
//
// A port that is open to anybody has a leaf chain too, with one rule that
// counts: the counters of every rule of the policy are there without asking.
//
// A list of more than maxSet ranges is several sets, one for each of the
// prefixes that divide the address space evenly enough, behind a map of those
// prefixes: a packet takes one look-up more, while a change touches one small set
// instead of a copy of all, and reading a million ranges back takes seconds and
// not a minute and a half.
//
// Rules that cover a whole key space (all ports, all types) do not take part
// in the cutting. They stand behind the map, and every leaf chain returns to
// them; else a policy of m such rules and n ports would hold m·n addresses.
//
// # What a commit cuts
//
// Where a flow that the old policy left open stays in conntrack, its packets
// are established ones, and the chains of the new policy let them through.
// Environment.Closing adds rules that do not, for as long as the entries are
// there: a jump at the head of prerouting and postrouting, and chains, sets and
// maps that are called _cut.…, which no group can be called. They ask the new
// rules whether the flow might be opened today, in the direction in which it was:
// a packet of conntrack's original direction is looked at as it is, one of the
// reply direction mirrored, its source port for the destination's and the far
// side still the peer. Only pairs of an old and a new block on which something
// closes have chains, only for the ports that close, and a port of which the new
// policy lets anybody open flows does not.
//
// Everything else of the table is what it is without them, so that a second
// transaction lifts them by taking away what is temporary. An address list is
// looked up in the set that the table has of it; one that only they need has a
// name of theirs. What drops is looked up in maps as what allows is: a packet that
// meets the lifting finds the elements of both gone, and goes on to the chains
// that stay.
//
// # Where this departs from verdict maps that end in goto
//
// The kernel reads the generation of the rules once for a packet, but looks
// elements up in whatever is there at that moment. A packet that is on its way
// while a policy changes may so be sent to a chain that is empty in its own
// generation. Leaf chains are therefore jumped to, and what follows the map
// refuses; the chains of an interface are jumped to from the base chain, where a
// rule behind the map drops what comes back. Network ACLs have base chains of
// their own, so that what they allow is accepted there and goes on to the next
// base chain, and what comes back from a leaf chain is refused as well.
package compile
