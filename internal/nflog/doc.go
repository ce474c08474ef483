// Package nflog reads the packets that "log group" statements of sgc's table
// copy: those that a policy refuses and that log_denied asks to be told of.
//
// A Conn holds one or more nflog groups of a network namespace, for which it is
// then the only reader, and yields a Copy for each packet, as the kernel tells
// it. A Packet is what a copy means: which interface refused it, in which
// direction, by whom, and what stands in its headers. The package decides
// nothing and prints nothing.
package nflog
