package apply

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

// timed reports whether the elements of a set have a time to live each, and are
// read with it.
func (s *Set) timed() bool {
	const ranges = unix.NFT_SET_INTERVAL | setFlagConcat
	return s.flags&(unix.NFT_SET_TIMEOUT|unix.NFT_SET_EVAL) == unix.NFT_SET_TIMEOUT && s.flags&ranges != unix.NFT_SET_INTERVAL
}

// timedReader collects the elements of one timed set from dump messages.
type timedReader struct {
	keyLen   int
	interval bool
	list     []ruleset.TimedElement
	catchAll bool
}

func newTimedReader(s *Set) *timedReader {
	return &timedReader{
		keyLen: int(s.keyLen), interval: s.flags&unix.NFT_SET_INTERVAL != 0,
		list: make([]ruleset.TimedElement, 0, s.count),
	}
}

func (r *timedReader) element(b []byte) error {
	var e ruleset.TimedElement
	var flags uint32
	a := walk(b)
	for a.next() {
		switch a.typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.First = decodeValue(a.data)
		case elementKeyEnd:
			e.Last = decodeValue(a.data)
		case unix.NFTA_SET_ELEM_FLAGS:
			flags = a.u32()
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.Timeout = milliseconds(a.u64())
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.Expires = milliseconds(a.u64())
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = decodeUserData(a.data)[0]
		}
	}
	switch {
	case a.err != nil:
		return a.err
	case flags&elementCatchAll != 0:
		r.catchAll = true
		return nil
	case !r.interval || e.Last == "":
		e.Last = e.First
	}
	if len(e.First) != r.keyLen || len(e.Last) != r.keyLen {
		return errors.New("an element's key has the wrong length")
	}
	r.list = append(r.list, e)
	return nil
}

// milliseconds returns a duration, at most the longest that there is.
func milliseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(maxElementTimeout/time.Millisecond))) * time.Millisecond
}

// decodeValue returns the raw bytes of a nested nft_data.
func decodeValue(b []byte) string {
	for a := walk(b); a.next(); {
		if a.typ == unix.NFTA_DATA_VALUE {
			return string(a.data)
		}
	}
	return ""
}

// elements returns what was read, sorted. A hash table that grows while it is
// dumped gives some of its elements twice.
func (r *timedReader) elements() []ruleset.TimedElement {
	slices.SortFunc(r.list, func(a, b ruleset.TimedElement) int {
		return cmp.Or(strings.Compare(a.First, b.First), strings.Compare(a.Last, b.Last))
	})
	return slices.CompactFunc(r.list, func(a, b ruleset.TimedElement) bool { return a.First == b.First && a.Last == b.Last })
}
