package conntrack

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	ct "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
	"sgc/internal/nlmsg"
)

// witnessed are the entries of a namespace as another library reads them.
func witnessed(t testing.TB, ns *lab.Namespace) []ct.Flow {
	t.Helper()
	c, err := ct.Dial(&netlink.Config{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	flows, err := c.Dump(nil)
	if err := errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	return flows
}

func TestCreatedEntriesAreWhatWasAskedFor(t *testing.T) {
	ns := labtest.Namespace(t, "host")
	table := openTable(t, ns)
	begin := time.Now()
	var want []Entry
	b := openBatch(t, table)
	for _, s := range everyKind() {
		want = append(want, *s.entry())
		if err := b.Create(s.entry()); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(); err != nil || b.Result() != (Result{Done: len(want)}) {
		t.Fatalf("%+v, %v", b.Result(), err)
	}
	for _, e := range read(t, table) {
		i := slices.IndexFunc(want, func(w Entry) bool { return w.Original == e.Original && w.Zone == e.Zone })
		if i < 0 {
			t.Errorf("nobody asked for %s", &e)
			continue
		}
		w := want[i]
		if !e.remains(w.Remaining, begin) {
			t.Errorf("%s: remains %s, want %s", &e, e.Remaining, w.Remaining)
		}
		e.Remaining, e.ID, e.family = w.Remaining, 0, 0
		if e.Original != w.Original || e.Reply != w.Reply || e.Status != w.Status || e.TCPState != w.TCPState || e.Mark != w.Mark || e.Zone != w.Zone {
			t.Errorf("%+v, want %+v", e, w)
		}
	}
	for _, f := range witnessed(t, ns) {
		if f.TupleOrig.Proto.Protocol != unix.IPPROTO_TCP {
			continue
		}
		// The library reads the flags and their mask, which the kernel leaves 0,
		// as one number.
		tcp := f.ProtoInfo.TCP
		if tcp == nil || tcp.OriginalFlags != 0x0b00 || tcp.ReplyFlags != 0x0b00 || tcp.OriginalWindowScale != 14 || tcp.ReplyWindowScale != 14 {
			t.Errorf("%v: %+v, want scaled windows, selective acknowledgements and liberal judgement", f.TupleOrig, tcp)
		}
	}
}

func TestAnEntryThatExistsIsCountedAndLeftAlone(t *testing.T) {
	table := openTable(t, labtest.Namespace(t, "host"))
	first := udpSeed("198.51.100.1:1000", "192.0.2.10:53")
	translated := natted("198.51.100.2:1000", "192.0.2.10:80", "192.0.2.10:8080", "198.51.100.2:1000")
	createSeeds(t, table, first, translated)
	before := read(t, table)
	again := first
	again.mark, again.seconds = 7, 2*udpSeconds
	mirrored := first
	mirrored.original, mirrored.reply = first.reply, first.original
	local := tcpSeed("198.51.100.2:1000", "192.0.2.10:8080") // as the socket behind the NAT sees it
	b := openBatch(t, table)
	for _, s := range []seed{again, mirrored, local, udpSeed("198.51.100.3:1000", "192.0.2.10:53")} {
		if err := b.Create(s.entry()); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(); err != nil || b.Result() != (Result{Done: 1, Exists: 3}) {
		t.Errorf("%+v, %v", b.Result(), err)
	}
	after := read(t, table)
	for _, e := range before {
		if !slices.ContainsFunc(after, func(a Entry) bool {
			return a.ID == e.ID && a.Original == e.Original && a.Mark == 0 && a.Remaining <= e.Remaining
		}) {
			t.Errorf("%s is not what it was: %v", &e, after)
		}
	}
	if len(after) != 3 {
		t.Errorf("%d entries, want 3", len(after))
	}
}

// largestTable is the largest limit that a test fills a table to.
const largestTable = 1 << 19

func TestAFullTableIsCounted(t *testing.T) {
	ns := labtest.Namespace(t, "host")
	table := openTable(t, ns)
	settings, err := table.Settings()
	if err != nil {
		t.Fatal(err)
	}
	limit := int(settings[MaxEntries])
	if limit == 0 || limit > largestTable || testing.Short() {
		t.Skipf("SKIP: a table of %d entries takes long to fill", limit)
	}
	const more = 300
	b := openBatch(t, table)
	for i := range limit + more {
		if err := b.Create(clients(i).entry()); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	if r := b.Result(); r.Done+r.Full != limit+more || r.Full < more-1 || r.Full > more+1 {
		t.Errorf("%+v; want %d made, and %d for which there is no room", r, limit, more)
	}
}

func TestEntriesThatNobodyCanMake(t *testing.T) {
	b := &Batch{conn: newConn(&script{})}
	good := tcpSeed("198.51.100.1:1", "192.0.2.10:80")
	for name, change := range map[string]func(*Entry){
		"without addresses":         func(e *Entry) { e.Original = Tuple{} },
		"without a reply":           func(e *Entry) { e.Reply = Tuple{} },
		"of two families":           func(e *Entry) { e.Reply = tcpSeed("[2001:db8::1]:1", "[2001:db8::2]:2").original },
		"of two families in one":    func(e *Entry) { e.Original.Dest = netip.MustParseAddr("2001:db8::1") },
		"without a timeout":         func(e *Entry) { e.Remaining = 0 },
		"with a timeout of decades": func(e *Entry) { e.Remaining = maxTimeout + time.Second },
	} {
		e := good.entry()
		change(e)
		if err := b.Create(e); err == nil {
			t.Errorf("an entry %s is asked for", name)
		}
	}
	if len(b.m.Buf) != 0 || b.count != 0 {
		t.Error("something of them is left in the batch")
	}
}

func TestWhatTheKernelSaysToEntriesThatAreMade(t *testing.T) {
	entry := tcpSeed("198.51.100.1:1", "192.0.2.10:80").entry()
	var read Entry
	if err := read.parse(answer(messageNew, 0, 1, tcpSeed("198.51.100.1:1", "192.0.2.10:80").appendTo)[nlmsg.HeaderSize:]); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		delete  bool
		answers []any
		want    Result
		err     error
	}{
		{"they were there", false, []any{refused(unix.EEXIST, 1), refused(unix.EEXIST, 2)}, Result{Exists: 2}, nil},
		{"no room", false, []any{refused(unix.ENOMEM, 1), refused(0, 2)}, Result{Done: 1, Full: 1}, nil},
		{"something else", false, []any{refused(unix.EINVAL, 1), refused(unix.EEXIST, 2)}, Result{Exists: 1}, unix.EINVAL},
		{"what deletions never meet is an error of theirs", true, []any{refused(unix.ENOMEM, 1), refused(0, 2)}, Result{Done: 1}, unix.ENOMEM},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := &Batch{conn: newConn(&script{answers: tc.answers})}
			for range 2 {
				f := b.Create
				e := entry
				if tc.delete {
					f, e = b.Delete, &read
				}
				if err := f(e); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Flush(); !errors.Is(err, tc.err) || tc.err == nil && err != nil {
				t.Errorf("%v, want %v", err, tc.err)
			}
			if b.Result() != tc.want {
				t.Errorf("%+v, want %+v", b.Result(), tc.want)
			}
		})
	}
}
