package conntrack

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// Attributes of the global statistics and of the counters of a CPU.
//
// Source: linux/netfilter/nfnetlink_conntrack.h, enum ctattr_stats_global and
// enum ctattr_stats_cpu.
const (
	attrGlobalEntries = 1
	attrGlobalMax     = 2

	attrFound         = 2
	attrInvalid       = 4
	attrInsert        = 8
	attrInsertFailed  = 9
	attrDrop          = 10
	attrEarlyDrop     = 11
	attrError         = 12
	attrSearchRestart = 13
	attrClashResolve  = 14
	attrChainTooLong  = 15
)

// Size is how full the table is.
type Size struct {
	// Entries are those of the namespace.
	Entries uint64
	// Max is the limit, which every namespace of the host has for itself; 0 is
	// no limit.
	Max uint64
}

// Available returns how many entries there is room for, the
// conntrack_allowance_available of 2.7. It is not limited where Max is 0: the
// answer is then the largest number that there is.
func (s Size) Available() uint64 {
	switch {
	case s.Max == 0:
		return math.MaxUint64
	case s.Entries >= s.Max:
		return 0
	}
	return s.Max - s.Entries
}

// Size reads how full the table is.
func (t *Table) Size() (Size, error) {
	s, err := t.count()
	if err != nil || s.Max != 0 {
		return s, err
	}
	// Kernels before 4.18 do not tell the limit.
	s.Max, err = t.maxSysctl()
	return s, err
}

func (t *Table) count() (Size, error) {
	c, err := t.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return Size{}, err
	}
	s, err := count(c)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		// An unknown subsystem is an invalid message type.
		err = fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if err != nil {
		err = fmt.Errorf("count the conntrack entries: %w", explain(err))
	}
	return s, errors.Join(err, c.close())
}

func count(c *conn) (Size, error) {
	payload, err := c.get(messageGetStats, func(m *nlmsg.Message) { m.Netfilter(unix.AF_UNSPEC, 0) })
	if err != nil {
		return Size{}, err
	}
	if len(payload) < nlmsg.NetfilterSize {
		return Size{}, nlmsg.ErrMalformed
	}
	var s Size
	a := nlmsg.Walk(payload[nlmsg.NetfilterSize:])
	for a.Next() {
		switch a.Type {
		case attrGlobalEntries:
			s.Entries = uint64(a.Uint32())
		case attrGlobalMax:
			s.Max = uint64(a.Uint32())
		}
	}
	return s, a.Err
}

func (t *Table) maxSysctl() (uint64, error) {
	text, err := t.readSysctl(sysctlMax)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", sysctlMax, err)
	}
	return n, nil
}

// CPUCounters are what one CPU counted since the namespace was made. The kernel
// keeps 32 bits of each.
type CPUCounters struct {
	CPU                                                   uint16
	Found, Invalid, Insert, InsertFailed, Drop, EarlyDrop uint32
	Error, SearchRestart, ClashResolve, ChainTooLong      uint32
}

// Counters reads the counters of every CPU.
func (t *Table) Counters() ([]CPUCounters, error) {
	c, err := t.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	// What a CPU counts cannot tear.
	var all []CPUCounters
	_, err = c.dump(messageGetCounters, func(m *nlmsg.Message) { m.Netfilter(unix.AF_UNSPEC, 0) }, func(payload []byte) error {
		one, err := parseCounters(payload)
		all = append(all, one)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the conntrack counters: %w", explain(err)), c.close())
	}
	return all, c.close()
}

func parseCounters(payload []byte) (CPUCounters, error) {
	var c CPUCounters
	if len(payload) < nlmsg.NetfilterSize {
		return c, nlmsg.ErrMalformed
	}
	c.CPU = uint16(payload[2])<<8 | uint16(payload[3])
	a := nlmsg.Walk(payload[nlmsg.NetfilterSize:])
	for a.Next() {
		if field := c.field(a.Type); field != nil {
			*field = a.Uint32()
		}
	}
	return c, a.Err
}

func (c *CPUCounters) field(typ uint16) *uint32 {
	switch typ {
	case attrFound:
		return &c.Found
	case attrInvalid:
		return &c.Invalid
	case attrInsert:
		return &c.Insert
	case attrInsertFailed:
		return &c.InsertFailed
	case attrDrop:
		return &c.Drop
	case attrEarlyDrop:
		return &c.EarlyDrop
	case attrError:
		return &c.Error
	case attrSearchRestart:
		return &c.SearchRestart
	case attrClashResolve:
		return &c.ClashResolve
	case attrChainTooLong:
		return &c.ChainTooLong
	}
	return nil
}

// Totals are the counters of all CPUs together.
type Totals struct {
	Found, Invalid, Insert, InsertFailed, Drop, EarlyDrop uint64
	Error, SearchRestart, ClashResolve, ChainTooLong      uint64
}

// Exceeded returns how many packets were dropped because the table was full,
// the conntrack_allowance_exceeded of 2.7. The kernel counts them as drops,
// together with packets whose entry lost a race with another; the latter are
// failed insertions too, as are those into a chain that is too long, which are
// no drops. A failed insertion of an entry that died on the way is neither, so
// that the result may be too small by these, which are rare.
//
// Source: Linux net/netfilter/nf_conntrack_core.c, nf_conntrack_in,
// __nf_conntrack_confirm and nf_ct_resolve_clash.
func (t *Totals) Exceeded() uint64 {
	var lost uint64
	if t.InsertFailed > t.ChainTooLong {
		lost = t.InsertFailed - t.ChainTooLong
	}
	if t.Drop < lost {
		return 0
	}
	return t.Drop - lost
}

// Meter adds up counters over many readings, through the overflows of the
// kernel's 32 bits, as long as no counter goes all the way round between two
// of them. The zero value has read nothing: its first reading counts from the
// beginning of the namespace, without what overflowed before. A Meter belongs
// to one namespace.
type Meter struct {
	last   map[uint16]CPUCounters
	totals Totals
}

// Add takes a reading and returns the totals so far. A CPU that is missing in
// one reading goes on in the next where it was.
func (m *Meter) Add(reading []CPUCounters) Totals {
	if m.last == nil {
		m.last = map[uint16]CPUCounters{}
	}
	t := &m.totals
	for _, now := range reading {
		was := m.last[now.CPU]
		// Differences of 32 bits are right across an overflow.
		for _, c := range []struct {
			total    *uint64
			now, was uint32
		}{
			{&t.Found, now.Found, was.Found},
			{&t.Invalid, now.Invalid, was.Invalid},
			{&t.Insert, now.Insert, was.Insert},
			{&t.InsertFailed, now.InsertFailed, was.InsertFailed},
			{&t.Drop, now.Drop, was.Drop},
			{&t.EarlyDrop, now.EarlyDrop, was.EarlyDrop},
			{&t.Error, now.Error, was.Error},
			{&t.SearchRestart, now.SearchRestart, was.SearchRestart},
			{&t.ClashResolve, now.ClashResolve, was.ClashResolve},
			{&t.ChainTooLong, now.ChainTooLong, was.ChainTooLong},
		} {
			*c.total += uint64(c.now - c.was)
		}
		m.last[now.CPU] = now
	}
	return m.totals
}
