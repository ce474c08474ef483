package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// Witness reads, makes and deletes the conntrack entries of a namespace.
type Witness struct {
	conn *conntrack.Conn
	name string
}

// OpenWitness opens a ctnetlink connection in the namespace.
func (n *Namespace) OpenWitness() (*Witness, error) {
	conn, err := conntrack.Dial(&netlink.Config{NetNS: n.fd})
	if err != nil {
		return nil, fmt.Errorf("open conntrack in %s: %w", n.name, err)
	}
	return &Witness{conn: conn, name: n.name}, nil
}

// Close closes the connection.
func (w *Witness) Close() error { return w.conn.Close() }

// Tuple is one direction of a conntrack entry.
type Tuple struct {
	Protocol     flow.Protocol
	Source, Dest netip.AddrPort
	// ICMPType, ICMPCode and ICMPID count for ICMP and ICMPv6 alone.
	ICMPType, ICMPCode uint8
	ICMPID             uint16
}

func (t Tuple) String() string {
	if t.Protocol == flow.ICMP || t.Protocol == flow.ICMPv6 {
		return fmt.Sprintf("%s %s → %s type %d code %d id %d", t.Protocol, t.Source.Addr(), t.Dest.Addr(), t.ICMPType, t.ICMPCode, t.ICMPID)
	}
	return fmt.Sprintf("%s %s → %s", t.Protocol, t.Source, t.Dest)
}

// Entry is a conntrack entry: the tuples of both directions.
type Entry struct {
	Original, Reply Tuple
	// Seconds is what is left of the timeout.
	Seconds   uint32
	SeenReply bool
}

func (e Entry) String() string {
	replied := "unreplied"
	if e.SeenReply {
		replied = "replied"
	}
	return fmt.Sprintf("%s, reply %s (%s, %d s)", e.Original, e.Reply, replied, e.Seconds)
}

// Entries lists the entries of the namespace, sorted by their text.
func (w *Witness) Entries() ([]Entry, error) {
	flows, err := w.conn.Dump(nil)
	if err != nil {
		return nil, fmt.Errorf("list the conntrack entries of %s: %w", w.name, err)
	}
	entries := make([]Entry, 0, len(flows))
	for _, f := range flows {
		entries = append(entries, Entry{
			Original: tupleOf(f.TupleOrig), Reply: tupleOf(f.TupleReply),
			Seconds: f.Timeout, SeenReply: f.Status.SeenReply(),
		})
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Original.String(), b.Original.String()) })
	return entries, nil
}

func tupleOf(t conntrack.Tuple) Tuple {
	return Tuple{
		Protocol: flow.Protocol(t.Proto.Protocol),
		Source:   netip.AddrPortFrom(t.IP.SourceAddress, t.Proto.SourcePort),
		Dest:     netip.AddrPortFrom(t.IP.DestinationAddress, t.Proto.DestinationPort),
		ICMPType: t.Proto.ICMPType, ICMPCode: t.Proto.ICMPCode, ICMPID: t.Proto.ICMPID,
	}
}

// Tracks reports whether an entry has the packet's addresses, protocol and
// ports, in either direction. Entries of ICMP are told by address alone.
func Tracks(entries []Entry, p *flow.Packet) bool {
	source, dest := netip.AddrPortFrom(p.Source, p.SourcePort), netip.AddrPortFrom(p.Dest, p.DestPort)
	return slices.ContainsFunc(entries, func(e Entry) bool {
		for _, t := range [2]Tuple{e.Original, e.Reply} {
			if t.Protocol != p.Protocol {
				continue
			}
			if !p.Protocol.HasPorts() {
				t.Source, t.Dest = netip.AddrPortFrom(t.Source.Addr(), p.SourcePort), netip.AddrPortFrom(t.Dest.Addr(), p.DestPort)
			}
			if t.Source == source && t.Dest == dest || t.Source == dest && t.Dest == source {
				return true
			}
		}
		return false
	})
}

// Flush deletes every entry of the namespace.
func (w *Witness) Flush() error {
	if err := w.conn.Flush(); err != nil {
		return fmt.Errorf("flush the conntrack entries of %s: %w", w.name, err)
	}
	return nil
}

// ErrNoEntry says that conntrack keeps no entry for such a packet.
var ErrNoEntry = errors.New("conntrack has no entries for it")

// The kernel's numbers for entries that are made by hand.
const (
	// createdSeconds is the timeout of an entry that a test needs.
	createdSeconds = 300
	// tcpEstablished is the state of a connection past its handshake.
	tcpEstablished = 3
	// tcpLiberal are the flags "window scale" and "be liberal", which make
	// conntrack take segments of any sequence number.
	tcpLiberal = 0x1 | 0x8
)

// Create makes an entry that the opener p began and that was answered: TCP
// established and taking any sequence number. Id is the identifier of an ICMP
// query. It returns ErrNoEntry for ICMP types that begin nothing, and does
// nothing where the flow has an entry already.
func (w *Witness) Create(p *flow.Packet, id uint16) error {
	status := conntrack.StatusConfirmed | conntrack.StatusSeenReply | conntrack.StatusAssured
	f := conntrack.NewFlow(uint8(p.Protocol), status, p.Source, p.Dest, p.SourcePort, p.DestPort, createdSeconds, 0)
	switch {
	case p.Protocol == flow.TCP:
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{
			State:               tcpEstablished,
			OriginalWindowScale: 7, ReplyWindowScale: 7,
			OriginalFlags: tcpLiberal | tcpLiberal<<8, ReplyFlags: tcpLiberal | tcpLiberal<<8,
		}
	case p.Protocol.IsICMP(p.Family()):
		answer, ok := answerOf(p.Family(), p.ICMPType)
		if !ok {
			return fmt.Errorf("create an entry for %s: %w", p, ErrNoEntry)
		}
		for _, t := range []*conntrack.Tuple{&f.TupleOrig, &f.TupleReply} {
			t.Proto.ICMPv4, t.Proto.ICMPv6 = p.Family() == flow.IPv4, p.Family() == flow.IPv6
			t.Proto.ICMPID, t.Proto.ICMPCode = id, p.ICMPCode
		}
		f.TupleOrig.Proto.ICMPType, f.TupleReply.Proto.ICMPType = p.ICMPType, answer
	}
	if err := w.conn.Create(f); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("create an entry for %s in %s: %w", p, w.name, err)
	}
	return nil
}

// answerOf returns the ICMP type that answers a query for which conntrack makes
// an entry.
//
// Source: Linux net/netfilter/nf_conntrack_proto_icmp.c and
// nf_conntrack_proto_icmpv6.c, invmap and valid_new.
func answerOf(f flow.Family, query uint8) (answer uint8, ok bool) {
	if f == flow.IPv6 {
		return 129, query == 128
	}
	switch query {
	case 8:
		return 0, true
	case 13, 15, 17:
		return query + 1, true
	}
	return 0, false
}
