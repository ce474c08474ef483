package conntrack

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
	"sgc/internal/nlmsg"
)

// Entry is what the kernel keeps of one flow.
type Entry struct {
	// Original is the tuple of the packet that opened the flow, as it was
	// before any NAT. Reply is that of its answer, which is addressed to where
	// the first packet seemed to come from, after all NAT.
	Original, Reply Tuple
	Status          Status
	// Remaining is when the entry ends if no packet comes, in whole seconds,
	// rounded down. It is 0 for flows that hardware or a flowtable forwards,
	// which do not end by themselves.
	Remaining time.Duration
	Mark      uint32
	// ID tells entries apart that follow each other with the same tuples.
	ID   uint32
	Zone uint16
	// TCPState is TCPNone for all other protocols.
	TCPState TCPState
	// PickedUp says that a segment in the middle of a TCP connection began the
	// entry: whoever sent it counts as the opener there.
	PickedUp bool
	// family is the address family as netlink numbers it.
	family uint8
	// original holds the attributes of the original tuple as the kernel wrote
	// them, the only name by which it finds the entry in every case. Like the
	// entry, they are valid during the call that it is handed to.
	original []byte
}

// Tuple is one direction of a flow.
type Tuple struct {
	Source, Dest netip.Addr
	Protocol     flow.Protocol
	// SourcePort and DestPort are 0 for protocols without ports; of GRE, they
	// are the keys.
	SourcePort, DestPort uint16
	// ICMPType, ICMPCode and ICMPID are 0 for all but the family's ICMP.
	ICMPType, ICMPCode uint8
	ICMPID             uint16
}

// Family returns the IP version of the tuple.
func (t *Tuple) Family() flow.Family { return flow.FamilyOf(t.Source) }

func (t *Tuple) String() string {
	family := t.Family()
	name := t.Protocol.Name(family)
	switch {
	case t.Protocol.HasPorts():
		return fmt.Sprintf("%s %s → %s", name, netip.AddrPortFrom(t.Source, t.SourcePort), netip.AddrPortFrom(t.Dest, t.DestPort))
	case t.Protocol.IsICMP(family):
		return fmt.Sprintf("%s %s → %s type %d code %d id %d", name, t.Source, t.Dest, t.ICMPType, t.ICMPCode, t.ICMPID)
	}
	return fmt.Sprintf("%s %s → %s", name, t.Source, t.Dest)
}

func (e *Entry) String() string {
	return fmt.Sprintf("%s, reply %s (%s, %s)", &e.Original, &e.Reply, e.Status, e.Remaining)
}

// Status holds flags of an entry.
//
// Source: linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_status.
type Status uint32

// The flags that say something to somebody here.
const (
	SeenReply       Status = 1 << 1
	Assured         Status = 1 << 2
	Confirmed       Status = 1 << 3
	SourceNAT       Status = 1 << 4
	DestNAT         Status = 1 << 5
	Dying           Status = 1 << 9
	FixedTimeout    Status = 1 << 10
	Offload         Status = 1 << 14
	HardwareOffload Status = 1 << 15
)

var statusNames = []struct {
	flag Status
	name string
}{
	{SeenReply, "replied"}, {Assured, "assured"}, {SourceNAT, "source-nat"}, {DestNAT, "dest-nat"},
	{Dying, "dying"}, {FixedTimeout, "fixed-timeout"}, {Offload, "offload"}, {HardwareOffload, "hw-offload"},
}

// Has reports whether all of the flags are set.
func (s Status) Has(flags Status) bool { return s&flags == flags }

// Names returns the names of the flags in a fixed order. An entry that nobody
// has answered is "unreplied".
func (s Status) Names() []string {
	var names []string
	if !s.Has(SeenReply) {
		names = append(names, "unreplied")
	}
	for _, n := range statusNames {
		if s.Has(n.flag) {
			names = append(names, n.name)
		}
	}
	return names
}

func (s Status) String() string { return strings.Join(s.Names(), " ") }

// TCPState is the state of a TCP connection as the kernel follows it.
//
// Source: linux/netfilter/nf_conntrack_tcp.h, enum tcp_conntrack.
type TCPState uint8

// The states, in the kernel's order.
const (
	TCPNone TCPState = iota
	TCPSynSent
	TCPSynRecv
	TCPEstablished
	TCPFinWait
	TCPCloseWait
	TCPLastAck
	TCPTimeWait
	TCPClose
	TCPSynSent2
)

var tcpStateNames = [...]string{
	TCPNone: "none", TCPSynSent: "syn-sent", TCPSynRecv: "syn-recv", TCPEstablished: "established", TCPFinWait: "fin-wait",
	TCPCloseWait: "close-wait", TCPLastAck: "last-ack", TCPTimeWait: "time-wait", TCPClose: "close", TCPSynSent2: "syn-sent2",
}

func (s TCPState) String() string {
	if int(s) < len(tcpStateNames) {
		return tcpStateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Attributes of an entry.
//
// Source: linux/netfilter/nfnetlink_conntrack.h.
const (
	attrTupleOriginal = 1
	attrTupleReply    = 2
	attrStatus        = 3
	attrProtoInfo     = 4
	attrTimeout       = 7
	attrMark          = 8
	attrID            = 12
	attrZone          = 18

	attrTupleIP    = 1
	attrTupleProto = 2

	attrIPv4Source = 1
	attrIPv4Dest   = 2
	attrIPv6Source = 3
	attrIPv6Dest   = 4

	attrProtoNumber     = 1
	attrProtoSourcePort = 2
	attrProtoDestPort   = 3
	attrProtoICMPID     = 4
	attrProtoICMPType   = 5
	attrProtoICMPCode   = 6
	attrProtoICMPv6ID   = 7
	attrProtoICMPv6Type = 8
	attrProtoICMPv6Code = 9

	attrProtoInfoTCP = 1
	attrTCPState     = 1
)

// parse fills the entry from a message, whose bytes it goes on to refer to. An
// entry without tuples or with addresses of two families is malformed.
func (e *Entry) parse(payload []byte) error {
	if len(payload) < nlmsg.NetfilterSize {
		return nlmsg.ErrMalformed
	}
	*e = Entry{family: payload[0]}
	a := nlmsg.Walk(payload[nlmsg.NetfilterSize:])
	for a.Next() {
		switch a.Type {
		case attrTupleOriginal:
			e.original = a.Data
			if err := e.Original.parse(a.Data); err != nil {
				return err
			}
		case attrTupleReply:
			if err := e.Reply.parse(a.Data); err != nil {
				return err
			}
		case attrStatus:
			e.Status = Status(a.Uint32())
		case attrProtoInfo:
			if err := e.parseProtoInfo(a.Data); err != nil {
				return err
			}
		case attrTimeout:
			e.Remaining = time.Duration(a.Uint32()) * time.Second
		case attrMark:
			e.Mark = a.Uint32()
		case attrID:
			e.ID = a.Uint32()
		case attrZone:
			e.Zone = a.Uint16()
		}
	}
	if a.Err != nil {
		return a.Err
	}
	original, reply := &e.Original, &e.Reply
	bits := 32
	if e.family == unix.AF_INET6 {
		bits = 128
	}
	if original.Source.BitLen() != bits || original.Dest.BitLen() != bits || reply.Source.BitLen() != bits || reply.Dest.BitLen() != bits {
		return nlmsg.ErrMalformed
	}
	return nil
}

func (e *Entry) parseProtoInfo(b []byte) error {
	a := nlmsg.Walk(b)
	for a.Next() {
		if a.Type != attrProtoInfoTCP {
			continue
		}
		tcp := nlmsg.Walk(a.Data)
	attributes:
		for tcp.Next() {
			switch tcp.Type {
			case attrTCPState:
				e.TCPState = TCPState(tcp.Uint8())
			case attrTCPFlagsOriginal:
				if len(tcp.Data) > 0 {
					e.PickedUp = tcp.Data[0]&(tcpWindowScale|tcpBeLiberal) == tcpBeLiberal
				}
				break attributes // nothing else is wanted
			}
		}
		if tcp.Err != nil {
			return tcp.Err
		}
	}
	return a.Err
}

func (t *Tuple) parse(b []byte) error {
	if t.parsePorts(b) {
		return nil
	}
	return t.parseWalk(b)
}
