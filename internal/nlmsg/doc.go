// Package nlmsg writes and reads netlink messages as bytes, without a socket
// and without copies: those of netfilter, and the few of rtnetlink and
// sock_diag that stand beside them. A Message is assembled attribute by
// attribute; Split walks over the messages of a datagram and Walk over the
// attributes of one. What is malformed ends in ErrMalformed and never panics.
//
//	var m nlmsg.Message
//	m.Begin(unix.NFNL_SUBSYS_CTNETLINK<<8|messageGet, unix.NLM_F_DUMP, 1)
//	m.Netfilter(unix.AF_INET, 0)
//	m.Uint32(attrMark, 7)
//	m.Finish()
//
// All is padded to four bytes. Lengths, types, flags and sequence numbers are in
// the host's byte order, the values of netfilter's attributes in the network's.
//
// Source: Linux include/net/netlink.h and Documentation/userspace-api/netlink/intro.rst.
package nlmsg
