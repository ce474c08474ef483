// Package nftvm runs the rules of a ruleset over a packet in memory, without a
// kernel and without root.
//
// It executes the kernel expressions that a table is committed with, not the
// statements that they are made from, over the bytes of real headers: a wrong
// offset, mask or register shows. A table is checked once, by New, which
// refuses everything that it does not know; running it is then simple.
//
// What the kernel knows beside the packet is modelled on Linux 6.18:
//
//   - conntrack runs between the chains of priority below −200 and those above
//     it. A packet that a chain has marked notrack is untracked; else its state
//     is the packet's State.
//   - For protocols that sgc tracks itself (flow.State), the dynamic sets hold
//     the packet's interface, protocol and peer if its State is Established,
//     and nothing else. The kernel's own trackers have an opinion about such
//     packets too, which must not matter: the machine says the opposite of
//     what is true.
//   - Timed sets hold the elements that New is given with the table. Timeouts
//     that a flow gets are told, and change nothing.
//   - The route of a packet (fib) is told by Forwarded and the destination.
package nftvm
