package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

// read returns copies of all entries, sorted by their text.
func read(t testing.TB, table *Table) []Entry {
	t.Helper()
	var all []Entry
	if err := table.Entries(context.Background(), func(e *Entry) error {
		all = append(all, *e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i := range all {
		all[i].original = nil // it was valid during the call
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// natted is a connection whose reply is addressed as NAT made it.
func natted(from, to, replyFrom, replyTo string) seed {
	s := tcpSeed(from, to)
	s.reply = reversed(tcpSeed(replyTo, replyFrom).original)
	return s
}

func everyKind() []seed {
	marked := tcpSeed("198.51.100.1:1000", "192.0.2.10:80")
	marked.mark, marked.tcp = 0xdeadbeef, TCPTimeWait
	zoned := udpSeed("198.51.100.1:1000", "192.0.2.10:53")
	zoned.zone = 77
	unreplied := udpSeed("[2001:db8::1]:1000", "[2001:db8::10]:53")
	unreplied.status = Confirmed
	return []seed{
		marked, zoned, unreplied,
		tcpSeed("[2001:db8::1]:1000", "[2001:db8::10]:443"),
		pingSeed("198.51.100.1", "192.0.2.10", 7), pingSeed("2001:db8::1", "2001:db8::10", 8),
		otherSeed("198.51.100.1", "192.0.2.10", 99), otherSeed("2001:db8::1", "2001:db8::10", 50),
		natted("198.51.100.2:1000", "192.0.2.10:8080", "172.17.0.2:80", "198.51.100.2:1000"),
		natted("172.17.0.2:2000", "203.0.113.5:443", "203.0.113.5:443", "192.0.2.10:40000"),
	}
}

func TestEveryKindOfEntryIsRead(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	seeds := everyKind()
	begin := time.Now()
	createSeeds(t, table, seeds...)
	got := read(t, table)
	if len(got) != len(seeds) {
		t.Fatalf("%d entries, want %d: %v", len(got), len(seeds), got)
	}
	ids := map[uint32]bool{}
	for _, s := range seeds {
		i := slices.IndexFunc(got, func(e Entry) bool { return e.Original == s.original && e.Zone == s.zone })
		if i < 0 {
			t.Errorf("no entry %s zone %d", &s.original, s.zone)
			continue
		}
		e := got[i]
		if e.Reply != s.reply {
			t.Errorf("%s: reply %s, want %s", &e.Original, &e.Reply, &s.reply)
		}
		if want := s.status &^ Confirmed; e.Status&(SeenReply|Assured) != want || !e.Status.Has(Confirmed) {
			t.Errorf("%s: status %#x, want %#x", &e.Original, e.Status, s.status)
		}
		if most := time.Duration(s.seconds) * time.Second; !e.remains(most, begin) {
			t.Errorf("%s: remains %s of %s", &e.Original, e.Remaining, most)
		}
		if e.Mark != s.mark || e.TCPState != s.tcp {
			t.Errorf("%s: mark %#x, state %s; want %#x, %s", &e.Original, e.Mark, e.TCPState, s.mark, s.tcp)
		}
		if e.ID == 0 || ids[e.ID] {
			t.Errorf("%s: id %d again", &e.Original, e.ID)
		}
		ids[e.ID] = true
	}
}

// Most entries must be read the fast way, or the package is slow.
func TestTheKernelsLayoutIsKnown(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	createSeeds(t, table, everyKind()...)
	fast := 0
	if err := table.Entries(context.Background(), func(e *Entry) error {
		var byPlace, byWalking Tuple
		if !byPlace.parsePorts(e.original) {
			if e.Original.Protocol.HasPorts() {
				t.Errorf("%s is laid out in another way", &e.Original)
			}
			return nil
		}
		fast++
		if err := byWalking.parseWalk(e.original); err != nil || byPlace != byWalking {
			t.Errorf("%s by place, %s by walking: %v", &byPlace, &byWalking, err)
		}
		return nil
	}); err != nil || fast != 6 {
		t.Errorf("%d entries read the fast way: %v", fast, err)
	}
}

// The lab reads conntrack with another library.
func TestAnotherReaderSeesTheSame(t *testing.T) {
	ns := labtest.Namespace(t, "host")
	table := openTable(t, ns)
	createSeeds(t, table, everyKind()...)
	entries, err := labtest.Witness(t, ns).Entries()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, e := range entries {
		want = append(want, fmt.Sprintf("%s / %s, %t", e.Original, e.Reply, e.SeenReply))
	}
	witnessed := func(x Tuple) lab.Tuple {
		return lab.Tuple{
			Protocol: x.Protocol, Source: netip.AddrPortFrom(x.Source, x.SourcePort), Dest: netip.AddrPortFrom(x.Dest, x.DestPort),
			ICMPType: x.ICMPType, ICMPCode: x.ICMPCode, ICMPID: x.ICMPID,
		}
	}
	var got []string
	for _, e := range read(t, table) {
		got = append(got, fmt.Sprintf("%s / %s, %t", witnessed(e.Original), witnessed(e.Reply), e.Status.Has(SeenReply)))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNamespacesStayApart(t *testing.T) {
	a, b := openTable(t, labtest.Namespace(t, "a")), openTable(t, labtest.Namespace(t, "b"))
	createSeeds(t, a, tcpSeed("198.51.100.1:1000", "192.0.2.10:80"))
	if got := read(t, b); len(got) != 0 {
		t.Errorf("the other namespace has %v", got)
	}
	for table, want := range map[*Table]uint64{a: 1, b: 0} {
		if s, err := table.Size(); err != nil || s.Entries != want || s.Max == 0 || s.Available() != s.Max-want {
			t.Errorf("size %+v, %v; want %d entries", s, err, want)
		}
	}
}

func TestReadingEndsWhereTheCallerWants(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	create(t, table, 3000, clients)
	enough := errors.New("enough")
	n := 0
	err := table.Entries(context.Background(), func(*Entry) error {
		if n++; n == 10 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 10 {
		t.Errorf("%v after %d entries", err, n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n = 0
	err = table.Entries(ctx, func(*Entry) error { n++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || n > 256 {
		t.Errorf("%v after %d entries", err, n)
	}
}

func TestOpenWithoutANamespace(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Open(int(f.Fd())); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a file that is no namespace: %v", err)
	}
	if _, err := Open(1 << 20); !errors.Is(err, unix.EBADF) {
		t.Errorf("no file: %v", err)
	}
}

func TestStringsOfEntries(t *testing.T) {
	s := tcpSeed("198.51.100.1:1000", "192.0.2.10:80")
	e := Entry{Original: s.original, Reply: s.reply, Status: SeenReply | Assured | SourceNAT, Remaining: time.Minute}
	if got, want := e.String(), "tcp 198.51.100.1:1000 → 192.0.2.10:80, reply tcp 192.0.2.10:80 → 198.51.100.1:1000 (replied assured source-nat, 1m0s)"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	ping, other := pingSeed("2001:db8::1", "2001:db8::10", 8).original, otherSeed("192.0.2.1", "192.0.2.2", 47).original
	for tuple, want := range map[*Tuple]string{
		&ping:  "icmpv6 2001:db8::1 → 2001:db8::10 type 128 code 0 id 8",
		&other: "gre 192.0.2.1 → 192.0.2.2",
	} {
		if got := tuple.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for s, want := range map[fmt.Stringer]string{Status(0): "unreplied", TCPEstablished: "established", TCPState(99): "state 99", ClassOpen: "open", Class(9): "class 9"} {
		if s.String() != want {
			t.Errorf("%s, want %s", s, want)
		}
	}
}
