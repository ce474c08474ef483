package conntrack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/lab/labtest"
	"sgc/policies"
)

// memoryVariable makes TestMemoryHelper judge the table of a namespace, whose
// path it holds, and memoryCount is how many entries are there.
const memoryVariable, memoryCount = "SGC_CONNTRACK_MEMORY", "SGC_CONNTRACK_MEMORY_COUNT"

// TestMemoryHelper is the process that TestAMillionEntriesNeedNoGigabyte
// watches.
func TestMemoryHelper(t *testing.T) {
	path := os.Getenv(memoryVariable)
	if path == "" {
		t.Skip("SKIP: a helper of another test")
	}
	want, err := strconv.Atoi(os.Getenv(memoryCount))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	if err := judgeAll(table, load(t, webPolicy), want); err != nil {
		t.Fatal(err)
	}
	// What flush does, without the entries going away.
	routes, err := table.Routes()
	if err != nil {
		t.Fatal(err)
	}
	defer routes.Close()
	p := load(t, webPolicy)
	limits := NewLimits(p, policies.NewJudge(p))
	r, err := table.Shorten(context.Background(), NewJudge(policies.NewJudge(p), routes), limits)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%d entries shortened\n%s%d\n", r.Done, peakLabel, ownPeak(t))
}

// peakLabel stands before the number of bytes in what TestMemoryHelper prints.
const peakLabel = "peak of memory: "

// ownPeak returns the most memory, in bytes, that this process has had since it
// became this program. What wait4 tells of a child goes back to the moment
// before, when its memory was its parent's.
//
// Source: Linux fs/exec.c, exec_mmap.
func ownPeak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nVmHWM:")
	var kilobytes int
	if _, err := fmt.Sscanf(rest, "%d kB", &kilobytes); err != nil {
		t.Fatalf("no peak of memory in\n%s", status)
	}
	return kilobytes << 10
}

// peakMemory returns the most memory, in bytes, that a process of its own has
// while it judges and changes n entries.
func peakMemory(t *testing.T, n int) int {
	t.Helper()
	ns := hostNamespace(t)
	create(t, openTable(t, ns), n, func(i int) seed {
		s := clients(i)
		s.seconds = 500000
		return s
	})
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run", "^TestMemoryHelper$")
	cmd.Env = append(os.Environ(), memoryVariable+"="+ns.Path(), memoryCount+"="+strconv.Itoa(n))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, rest, _ := strings.Cut(string(out), peakLabel)
	var peak int
	if _, err := fmt.Sscan(rest, &peak); err != nil {
		t.Fatalf("no peak of memory in\n%s", out)
	}
	return peak
}

// A million entries take 64 MB at most, as far as the slope between a few and as
// many as the kernel lets a test make can tell.
func TestAMillionEntriesNeedNoGigabyte(t *testing.T) {
	const few, most = 1_000, 64 << 20
	size, err := openTable(t, labtest.Namespace(t, "limit")).Size()
	if err != nil {
		t.Fatal(err)
	}
	// Each entry is two messages to the kernel, which waits before every one until
	// nobody in any namespace reads a table: more would tell little more.
	many := min(100_000, int(size.Max)*9/10)
	few1, many1 := peakMemory(t, few), peakMemory(t, many)
	million := many1 + max(0, many1-few1)*1_000_000/many
	t.Logf("peak: %.1f MB at %d entries, %.1f MB at %d; by the slope %.1f MB at a million",
		float64(few1)/1e6, few, float64(many1)/1e6, many, float64(million)/1e6)
	if million > most {
		t.Errorf("a million entries would take %d bytes, more than %d", million, most)
	}
}
