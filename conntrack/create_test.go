package conntrack

import (
	"net/netip"
	"testing"
	"time"

	"sgc/internal/flow"
	"sgc/internal/nlmsg"
)

// Seconds that entries last, however slow the machine is on which a test reads them
// again. What differs in kind differs here.
const (
	tcpSeconds   = 3600
	udpSeconds   = 3700
	pingSeconds  = 3800
	otherSeconds = 3900
)

// seed is an entry that a test makes.
type seed struct {
	original, reply Tuple
	status          Status
	seconds         uint32
	tcp             TCPState
	mark            uint32
	zone            uint16
}

func reversed(t Tuple) Tuple { return t.Reversed() }

// tcpSeed is a connection that goes from one place to another without NAT.
func tcpSeed(from, to string) seed {
	source, dest := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	original := Tuple{Source: source.Addr(), Dest: dest.Addr(), Protocol: flow.TCP, SourcePort: source.Port(), DestPort: dest.Port()}
	return seed{original: original, reply: reversed(original), status: SeenReply | Assured | Confirmed, seconds: tcpSeconds, tcp: TCPEstablished}
}

func udpSeed(from, to string) seed {
	s := tcpSeed(from, to)
	s.original.Protocol, s.reply.Protocol, s.tcp, s.seconds = flow.UDP, flow.UDP, TCPNone, udpSeconds
	return s
}

func pingSeed(from, to string, id uint16) seed {
	original := Tuple{Source: netip.MustParseAddr(from), Dest: netip.MustParseAddr(to), ICMPType: 8, ICMPID: id, Protocol: flow.ICMP}
	answer := uint8(0)
	if original.Family() == flow.IPv6 {
		original.Protocol, original.ICMPType, answer = flow.ICMPv6, 128, 129
	}
	reply := reversed(original)
	reply.ICMPType = answer
	return seed{original: original, reply: reply, status: SeenReply | Confirmed, seconds: pingSeconds}
}

func otherSeed(from, to string, protocol flow.Protocol) seed {
	original := Tuple{Source: netip.MustParseAddr(from), Dest: netip.MustParseAddr(to), Protocol: protocol}
	return seed{original: original, reply: reversed(original), status: Confirmed, seconds: otherSeconds}
}

// entry is what is asked of the kernel.
func (s seed) entry() *Entry {
	return &Entry{
		Original: s.original, Reply: s.reply, Status: s.status, Remaining: time.Duration(s.seconds) * time.Second,
		TCPState: s.tcp, Mark: s.mark, Zone: s.zone,
	}
}

// appendTo writes what the kernel says of the entry.
func (s seed) appendTo(m *nlmsg.Message) { s.entry().append(m, s.seconds) }

// remains reports whether the entry is as old as one that was given so long a time
// since a moment. The kernel tells whole seconds.
func (e *Entry) remains(given time.Duration, since time.Time) bool {
	return e.Remaining <= given && e.Remaining >= given-time.Since(since)-2*time.Second
}

// create makes n entries; it calls next for each.
func create(t testing.TB, table *Table, n int, next func(i int) seed) {
	t.Helper()
	b, err := table.Batch()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for i := range n {
		if err := b.Create(next(i).entry()); err != nil {
			t.Fatalf("make entry %d: %v", i, err)
		}
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	if r := b.Result(); r.Done != n {
		t.Fatalf("made %d of %d entries: %+v", r.Done, n, r)
	}
}

func createSeeds(t testing.TB, table *Table, seeds ...seed) {
	t.Helper()
	create(t, table, len(seeds), func(i int) seed { return seeds[i] })
}

// clients returns the connections of many clients to one server's port.
func clients(i int) seed {
	s := tcpSeed("198.51.100.0:1024", "192.0.2.10:443")
	a := s.original.Source.As4()
	a[1], a[2], a[3] = byte(i>>16), byte(i>>8), byte(i)
	s.original.Source = netip.AddrFrom4(a)
	s.original.SourcePort = uint16(1024 + i%60000)
	s.reply = reversed(s.original)
	return s
}
