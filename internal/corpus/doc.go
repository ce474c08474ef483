// Package corpus makes random policies, and packets at the borders of what a
// policy says, for tests that hold the judges of a packet against each other:
// policies.Judge, the compiled rules in memory, and the kernel.
//
// Everything is decided by the random source that the caller gives: the same
// source makes the same policies and packets. The policies are valid and
// canonical, as policies.Load returns them, but have no positions.
package corpus
