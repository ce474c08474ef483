package apply

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

// Known is what somebody remembers of the kernel: the table that was
// committed, and the identity of nf_tables right after that.
type Known struct {
	Identity string
	Table    *ruleset.Table
}

// bootID is where the kernel names the current boot.
const bootID = "/proc/sys/kernel/random/boot_id"

// Identity names what nf_tables holds in the namespace at a generation: the
// same identity is the same contents, also for another process, since every
// change makes a new generation and a namespace is never numbered twice
// between two boots. (What packets put into dynamic sets is no part of it.) It
// is empty on kernels before 5.14, which do not number namespaces.
func (k *Kernel) Identity(generation uint32) (string, error) {
	c, err := k.dial()
	if err != nil {
		return "", err
	}
	id, err := c.identity(generation)
	return id, errors.Join(err, c.close())
}

func (c *conn) identity(generation uint32) (string, error) {
	boot, err := os.ReadFile(bootID)
	if err != nil {
		return "", fmt.Errorf("read the id of this boot: %w", err)
	}
	var cookie uint64
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return "", err
	}
	if cerr := raw.Control(func(fd uintptr) {
		cookie, err = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	}); cerr != nil {
		return "", cerr
	}
	if errors.Is(err, unix.ENOPROTOOPT) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the number of the network namespace: %w", err)
	}
	return fmt.Sprintf("%s/%d/%d", strings.TrimSpace(string(boot)), cookie, generation), nil
}

// generationOf returns the generation that an identity is about.
func generationOf(identity string) (uint32, bool) {
	text := identity[strings.LastIndexByte(identity, '/')+1:]
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil
}

// After returns the generation that Commit left, after it has done all. Before
// that it is the one that it will leave if nobody else changes anything: that of
// the last transaction, or the delta's own if there is nothing to do.
func (d *Delta) After() uint32 {
	if d.committed != 0 {
		return d.committed
	}
	return d.generationAfter(len(d.batches))
}

// generationAfter returns the generation after so many transactions.
func (d *Delta) generationAfter(transactions int) uint32 {
	generation := d.generation
	for range transactions {
		generation = after(generation)
	}
	return generation
}

// after returns the generation that a transaction makes of one.
func after(generation uint32) uint32 {
	if generation++; generation == 0 {
		return 1 // the kernel leaves 0 out
	}
	return generation
}

// knownElements returns the elements that a set of the kernel has if the known
// table is what it holds; ok is false if that does not tell.
func knownElements(known *ruleset.Table, s *Set) (e elements, ok bool) {
	if known == nil {
		return e, false
	}
	for _, want := range known.Sets {
		if want.Name == s.Name && sameSet(s, want) {
			return compactElements(want)
		}
	}
	return e, false
}

// compactElements returns the elements of a wanted set in the form of those
// that are read from the kernel.
func compactElements(s *ruleset.Set) (e elements, ok bool) {
	e = elements{keyLen: s.KeySize(), interval: s.Interval, catchAll: -1}
	e.keys = make([]byte, 0, len(s.Elements)*e.stride())
	index := map[ruleset.Verdict]uint32{}
	for i := range s.Elements {
		x := &s.Elements[i]
		e.keys = append(e.keys, x.First...)
		if s.Interval {
			e.keys = append(e.keys, x.Last...)
		}
		if x.Verdict == nil {
			continue
		}
		n, seen := index[*x.Verdict]
		if !seen {
			v, err := verdictOf(x.Verdict)
			if err != nil {
				return e, false
			}
			n = uint32(len(e.table))
			e.table = append(e.table, v)
			index[*x.Verdict] = n
		}
		e.verdicts = append(e.verdicts, n)
	}
	return e, true
}
