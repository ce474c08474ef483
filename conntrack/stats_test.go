package conntrack

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/lab/labtest"
	"sgc/internal/nlmsg"
)

func TestExceeded(t *testing.T) {
	for _, tc := range []struct {
		name                             string
		drop, insertFailed, chainTooLong uint64
		want                             uint64
	}{
		{"nothing", 0, 0, 0, 0},
		{"a full table", 100, 0, 0, 100},
		{"lost races are drops and failed insertions", 100, 30, 0, 70},
		{"a chain that is too long is a failed insertion, and no drop", 100, 30, 30, 100},
		{"all at once", 100, 50, 20, 70},
		{"entries that died on the way are failed insertions alone", 5, 9, 0, 0},
		{"a reading between two counters", 5, 1, 2, 5},
	} {
		totals := Totals{Drop: tc.drop, InsertFailed: tc.insertFailed, ChainTooLong: tc.chainTooLong}
		if got := totals.Exceeded(); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestAvailable(t *testing.T) {
	for s, want := range map[Size]uint64{
		{10, 100}:  90,
		{100, 100}: 0,
		// The limit was lowered below what is there.
		{150, 100}: 0,
		// No limit.
		{150, 0}: math.MaxUint64,
	} {
		if got := s.Available(); got != want {
			t.Errorf("%+v: %d, want %d", s, got, want)
		}
	}
}

func TestMeterCountsOnThroughOverflows(t *testing.T) {
	var m Meter
	reading := func(drops ...uint32) Totals {
		var all []CPUCounters
		for cpu, d := range drops {
			all = append(all, CPUCounters{CPU: uint16(cpu), Drop: d, EarlyDrop: d / 2})
		}
		return m.Add(all)
	}
	for _, tc := range []struct {
		drops []uint32
		want  uint64
	}{
		{[]uint32{10, 20}, 30},
		{[]uint32{10, 25}, 35},
		{[]uint32{math.MaxUint32 - 5, 25}, math.MaxUint32 - 5 + 25},
		// The first CPU goes round, the second does not.
		{[]uint32{4, 26}, math.MaxUint32 + 1 + 4 + 26},
		// One is switched off, and comes back where it was.
		{[]uint32{5}, math.MaxUint32 + 1 + 5 + 26},
		{[]uint32{5, 27}, math.MaxUint32 + 1 + 5 + 27},
		{[]uint32{5, 27}, math.MaxUint32 + 1 + 5 + 27},
	} {
		if got := reading(tc.drops...); got.Drop != tc.want {
			t.Errorf("after %v: %d, want %d", tc.drops, got.Drop, tc.want)
		}
	}
}

// One reading is the sum of all CPUs, without a 32-bit limit.
func TestOneReadingIsASum(t *testing.T) {
	var m Meter
	got := m.Add([]CPUCounters{
		{CPU: 0, Found: 1, Invalid: 2, Insert: 3, InsertFailed: 4, Drop: math.MaxUint32, EarlyDrop: 6, Error: 7, SearchRestart: 8, ClashResolve: 9, ChainTooLong: 10},
		{CPU: 1, Found: 1, Invalid: 2, Insert: 3, InsertFailed: 4, Drop: math.MaxUint32, EarlyDrop: 6, Error: 7, SearchRestart: 8, ClashResolve: 9, ChainTooLong: 10},
	})
	want := Totals{Found: 2, Invalid: 4, Insert: 6, InsertFailed: 8, Drop: 2 * math.MaxUint32, EarlyDrop: 12, Error: 14, SearchRestart: 16, ClashResolve: 18, ChainTooLong: 20}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// conntrack -S is the witness.
func TestCountersOfTheKernel(t *testing.T) {
	labtest.Command(t, "conntrack")
	ns := hostNamespace(t)
	table := openTable(t, ns)
	// Some packets that count as something.
	if err := ns.Do(func() error {
		cmd := exec.Command("nft", "add table inet t; add chain inet t c { type filter hook output priority 0; ct state new,established accept; }")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	listen(t, ns, "tcp", ":22")
	connect(t, ns, "127.0.0.1:22")
	counters := func() []CPUCounters {
		t.Helper()
		got, err := table.Counters()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	// Until nothing counts while the witness looks.
	var got []CPUCounters
	var out []byte
	for before := counters(); !slices.Equal(got, before); before = counters() {
		got = before
		if err := ns.Do(func() (err error) { out, err = exec.Command("conntrack", "-S").CombinedOutput(); return err }); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if len(lines) != len(got) {
		t.Fatalf("%d CPUs, want those of\n%s", len(got), out)
	}
	for i, c := range got {
		for name, v := range map[string]uint32{
			"cpu": uint32(c.CPU), "found": c.Found, "invalid": c.Invalid, "insert": c.Insert, "insert_failed": c.InsertFailed,
			"drop": c.Drop, "early_drop": c.EarlyDrop, "error": c.Error, "search_restart": c.SearchRestart,
			"clash_resolve": c.ClashResolve, "chaintoolong": c.ChainTooLong,
		} {
			m := regexp.MustCompile(`\b` + name + `=(\d+)`).FindSubmatch(lines[i])
			if m == nil {
				t.Errorf("%s is not in %s", name, lines[i])
			} else if want, _ := strconv.Atoi(string(m[1])); v != uint32(want) {
				t.Errorf("CPU %d: %s is %d, want %d", c.CPU, name, v, want)
			}
		}
	}
}

// Each attribute has its own number, so that no counter is another's.
func TestCountersAreDecoded(t *testing.T) {
	payload := answer(messageGetCounters, 0, 1, func(m *nlmsg.Message) {
		m.Buf = append(m.Buf, unix.AF_UNSPEC, 0, 1, 2)
		for typ := uint16(1); typ <= 16; typ++ {
			m.Uint32(typ, uint32(typ)*100)
		}
	})[nlmsg.HeaderSize:]
	got, err := parseCounters(payload)
	want := CPUCounters{CPU: 258, Found: 200, Invalid: 400, Insert: 800, InsertFailed: 900, Drop: 1000, EarlyDrop: 1100, Error: 1200, SearchRestart: 1300, ClashResolve: 1400, ChainTooLong: 1500}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

func TestCountingFailures(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answers []any
		err     error
	}{
		{"no right", []any{refused(unix.EPERM, 1)}, unix.EPERM},
		{"no ctnetlink", []any{refused(unix.EINVAL, 1)}, unix.EINVAL},
		{"half an answer", []any{answer(messageGetStats, 0, 1, nil)}, nlmsg.ErrMalformed},
		{"silence", nil, errNoAnswer},
	} {
		if _, err := count(newConn(&script{answers: tc.answers})); !errors.Is(err, tc.err) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.err)
		}
	}
}
