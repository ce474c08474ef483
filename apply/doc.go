// Package apply is the kernel's nf_tables: it reads the live table, compares it
// with the wanted one, and commits exactly the difference.
//
//	k, err := apply.Open("")                       // the namespace of the process
//	have, err := k.Snapshot(ctx, nil)              // table inet sgc at one generation
//	delta, err := apply.Diff(have, want)           // what differs, and the messages that mend it
//	err = k.Commit(ctx, delta)                     // all of it or nothing, or ErrChanged; see "Others"
//
// A snapshot keeps rules as the raw attributes of the kernel's dump, and Diff
// compares them in canonical form (canon.go) with the encoded wanted ones: what
// this package does not know is a difference, never overlooked. Sets are
// compared by their declaration and, but for dynamic and timed sets, element by
// element. Objects that hold timeouts are compared by the states that are wanted.
//
// # Timed elements
//
// Elements of timed sets are no part of a table: they come, and go before their
// time, by changes that somebody asks for (TimedChange), either together with what
// packets notice of a delta, or by themselves:
//
//	delta, err := apply.Diff(have, want, changes...)
//	generations, err := k.ChangeTimed(ctx, want, changes)
//
// The kernel takes elements out when their time is over, without a generation, and
// so at any moment between a snapshot and a commit. Nothing fails of that: what is
// removed may be gone (on kernels before 6.3, which refuse that, a refused
// transaction is sent again with what is left), and what is added may be there,
// and then keeps its time. For since Linux 6.12 adding what is there gives it the
// time that the message says: it is told the time to live that it has.
//
// Every transaction makes a generation, also one that finds all of its elements
// gone: Delta.After and Generations count on it. A snapshot always reads timed
// elements from the kernel, also one from memory.
//
// # One transaction, or up to three
//
// A delta has three parts (parts.go), each in the order of emitPart in emit.go:
//
//	prepare   new chains with their rules and new sets with their elements, and
//	          what an interrupted apply left of these: nothing uses them yet.
//	          And new timed ranges, see below
//	switch    base chains, rules and elements of what is in use, the chain that
//	          carries the policy's digest, and what cannot change in place and
//	          is made anew with all that refers to it
//	clean up  chains and sets that nothing uses any more
//
// What a part needs of another is done with it: a new chain that refers to
// something made anew is part of the switch, as is an old one that refers to
// what goes there. Most often all parts are one transaction. They are apart, each
// bound to the generation that the one before it left, where one transaction
// could judge a packet wrongly. For the kernel does not change rules and sets at
// the same moment:
//
//   - Rules, and the elements of hash sets, change in one moment, when the new
//     generation begins. A packet keeps to the rules of the generation in which
//     it entered the base chain.
//   - Interval sets are trees that are copied for the packets to look in. The
//     copies are replaced after that moment, one set after the other, in the
//     order in which the transaction first touched them: 0.1 ms later for a
//     thousand elements, 40 ms for fifty thousand (Linux 6.18). Until then a new
//     set is empty, and an old one has its old elements.
//
// So the parts are apart where
//
//   - packets that meet the new rules could find a new interval set empty: it can
//     be come to from a rule of a chain that is in use, or from an element of a
//     hash map, by way of new rules, new maps and jumps. A way that begins with a
//     new element of an interval map that is in use does not count: that element
//     is published after everything that was prepared, also in one transaction.
//     Where nothing is enforced yet, it takes more than smallApply elements: what
//     goes wrong before a first apply is over is a drop that takes microseconds;
//   - packets that meet the new rules could find the old element of an interval
//     map, and jump into a chain that is empty for them because it goes, while
//     the map now says something else of their key. A key that is in the map no
//     more is no reason: an empty chain that was jumped to returns to the rule
//     behind the map, as a key without an element does;
//   - timed ranges come, which say what the change closes for good. If they came
//     after the rules, a packet in between could open a flow that nothing ends any
//     more. They refuse only what would open a flow, so it does no harm that they
//     do it a moment early; if nothing comes of the change, they go again. A range
//     that takes the place of one that goes comes with the switch, as that one
//     goes: both are one copy of the set.
//
// If anything is apart, everything is, with a pause in which all packets end
// that began before: then those too that are on their way during the switch
// find whole chains, old or new.
//
// What remains: two interval sets in use that change in one transaction are
// replaced one after the other, and after the rules. A packet between these
// moments meets the new rules and old elements. That is one policy or the other
// for it unless an edit takes an address from one list and, in the same apply,
// gives the list to another rule, or takes a port from a rule whose addresses it
// changes as well. What is made anew by the switch (somebody changed its
// declaration by hand) is empty for as long as a new set is.
//
// If a transaction fails, what was prepared is taken out again (takeback.go); if
// the clean-up fails, the policy is enforced all the same. A process that is
// killed in between leaves one policy or the other in force, whole, and beside
// it objects that nothing uses: a later Diff uses or removes them.
//
// A rule that comes is inserted before the next rule that stays.
//
// # Others
//
// Container runtimes, kube-proxy or fail2ban change nf_tables several times a
// second, and any change makes a generation: a transaction that names the one of
// its snapshot would hardly ever be taken, and a long dump never be of one
// generation. So from its first snapshot on a Kernel listens to what the kernel
// tells of every transaction (watch.go): objects with the names of their tables,
// and then the number of the generation. A transaction that was refused is bound
// anew, and sent again at once, if table inet sgc did not change, and if the tables
// of others still need conntrack for the families for which they did (bind.go):
// nothing else in them decides what a policy compiles to. It is bound to
// generations alone of which the last message was received, so that nothing is
// overlooked, however the two race; if the kernel had to drop messages, a new
// snapshot is needed. A rule that comes is judged by what the kernel tells of it.
// When something goes from the only table that needed conntrack, that table is
// looked through again, ten times a second at most: in the meantime the wanted
// table is one that is right with conntrack and without.
//
// A snapshot is true for the generation that it names, since no message between
// its begin and that generation was about table inet sgc: what a transaction changes
// is seen before it is told of, so the snapshot waits for those that are under way. Dumps that others tear
// are whole as far as one table goes; in the lists of all tables' chains and
// objects those of the own one are counted.
//
// Listening has a price: the kernel allocates 4 kB for every element that a
// transaction adds. So nobody listens while the kernel works on a large one.
//
// The package also holds what is remembered between two commands, the state
// directory with its lock (Dir). It knows nothing of policies: a record holds
// one as bytes.
package apply
