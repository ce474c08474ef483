package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/nlmsg"
)

// messageSockets asks for sockets of a family and protocol.
//
// Source: linux/sock_diag.h, SOCK_DIAG_BY_FAMILY.
const messageSockets = 20

// attrIPv6Only is in the answers about IPv6 sockets that wait for peers: 1 if
// they serve IPv6 alone. It needs no bit in the request's idiag_ext, nor would
// there be one: the field has bits for the first eight attributes.
//
// Source: linux/inet_diag.h, INET_DIAG_SKV6ONLY; Linux net/ipv4/inet_diag.c,
// inet_diag_msg_attrs_fill.
const attrIPv6Only = 11

// socketMessageSize is the size of struct inet_diag_msg, which stands before
// the attributes:
//
//	0  family, state, timer, retransmissions   u8 each
//	4  local port, remote port                 be16 each
//	8  local address, 24 remote address        16 bytes each
//	40 interface                               u32, as all that follow
//	44 cookie                                  8 bytes
//	52 expiry, 56 receive queue, 60 send queue, 64 user, 68 inode
//
// Source: linux/inet_diag.h.
const socketMessageSize = 72

// States of sockets as the kernel numbers them, for UDP too.
//
// Source: linux/tcp_states.h.
const (
	kernelEstablished = iota + 1
	kernelSynSent
	kernelSynRecv
	kernelFinWait1
	kernelFinWait2
	kernelTimeWait
	kernelClose
	kernelCloseWait
	kernelLastAck
	kernelListen
	kernelClosing
)

// socketStates are the states of a protocol's sockets, by the kernel's numbers.
var tcpSocketStates = [...]SocketState{
	kernelEstablished: Established, kernelSynSent: SynSent, kernelSynRecv: SynReceived, kernelFinWait1: FinWait1,
	kernelFinWait2: FinWait2, kernelTimeWait: TimeWait, kernelCloseWait: CloseWait, kernelLastAck: LastAck,
	kernelListen: Listening, kernelClosing: Closing,
}

var udpSocketStates = [...]SocketState{kernelEstablished: Connected, kernelClose: Unconnected}

// socketQuery asks for the sockets of a family and protocol that are in one of
// the states, a bit each. Half-open connections, which the kernel keeps in a
// form and state of their own, come with those that are kernelSynRecv.
type socketQuery struct {
	family, protocol uint8
	states           uint32
}

const (
	tcpStates = 1<<kernelEstablished | 1<<kernelSynSent | 1<<kernelSynRecv | 1<<kernelFinWait1 | 1<<kernelFinWait2 |
		1<<kernelTimeWait | 1<<kernelCloseWait | 1<<kernelLastAck | 1<<kernelListen | 1<<kernelClosing
	udpStates = 1<<kernelEstablished | 1<<kernelClose
)

// allSockets asks for all sockets, waitingSockets for those without a peer.
var (
	allSockets     = socketQueries(tcpStates, udpStates)
	waitingSockets = socketQueries(1<<kernelListen, 1<<kernelClose)
)

// socketQueries asks once for each family: the kernel wants one named.
func socketQueries(tcp, udp uint32) []socketQuery {
	return []socketQuery{
		{unix.AF_INET, unix.IPPROTO_TCP, tcp}, {unix.AF_INET6, unix.IPPROTO_TCP, tcp},
		{unix.AF_INET, unix.IPPROTO_UDP, udp}, {unix.AF_INET6, unix.IPPROTO_UDP, udp},
	}
}

// appendTo appends a struct inet_diag_req_v2.
func (q socketQuery) appendTo(m *nlmsg.Message) {
	m.Buf = append(m.Buf, q.family, q.protocol, 0, 0)
	m.Buf = binary.NativeEndian.AppendUint32(m.Buf, q.states)
	// The socket that is asked for: any.
	m.Buf = append(m.Buf, make([]byte, 48)...)
}

// parse fills the socket from an answer.
func (s *Socket) parse(protocol uint8, b []byte) error {
	if len(b) < socketMessageSize {
		return nlmsg.ErrMalformed
	}
	local, remote, err := socketAddresses(b)
	if err != nil {
		return err
	}
	*s = Socket{
		Protocol: flow.Protocol(protocol), Local: local, Remote: remote,
		Interface: binary.NativeEndian.Uint32(b[40:]), Inode: binary.NativeEndian.Uint32(b[68:]),
	}
	states := tcpSocketStates[:]
	if protocol == unix.IPPROTO_UDP {
		states = udpSocketStates[:]
	} else {
		s.Unacknowledged = binary.NativeEndian.Uint32(b[60:])
	}
	if int(b[1]) < len(states) {
		s.State = states[b[1]]
	}
	if s.State == 0 {
		return fmt.Errorf("%w: a socket of state %d", nlmsg.ErrMalformed, b[1])
	}
	a := nlmsg.Walk(b[socketMessageSize:])
	for a.Next() {
		if a.Type == attrIPv6Only {
			s.DualStack = a.Uint8() == 0 && local.Addr() == netip.IPv6Unspecified()
		}
	}
	return a.Err
}

func socketAddresses(b []byte) (local, remote netip.AddrPort, err error) {
	var at func([]byte) netip.Addr
	switch b[0] {
	case unix.AF_INET:
		at = func(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b)) }
	case unix.AF_INET6:
		at = func(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b)).Unmap() }
	default:
		return local, remote, fmt.Errorf("%w: a socket of family %d", nlmsg.ErrMalformed, b[0])
	}
	local = netip.AddrPortFrom(at(b[8:24]), binary.BigEndian.Uint16(b[4:]))
	peer := at(b[24:40])
	if local.Addr().Is4() && peer == netip.IPv6Unspecified() {
		peer = netip.IPv4Unspecified() // an IPv6 socket bound to a mapped address
	}
	return local, netip.AddrPortFrom(peer, binary.BigEndian.Uint16(b[6:])), nil
}

// socketsError tells a kernel that has no list of a protocol's sockets, or of
// none at all, from all other failures.
func socketsError(protocol uint8, err error) error {
	what := "TCP: CONFIG_INET_DIAG, CONFIG_INET_TCP_DIAG; modules inet_diag, tcp_diag"
	if protocol == unix.IPPROTO_UDP {
		what = "UDP: CONFIG_INET_DIAG, CONFIG_INET_UDP_DIAG; modules inet_diag, udp_diag"
	}
	// Netlink without socket diagnosis, its family or its protocol.
	for _, errno := range []error{unix.EPROTONOSUPPORT, unix.ENOENT} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w of %s: %w", ErrNoSockets, what, errno)
		}
	}
	return explain(err)
}
