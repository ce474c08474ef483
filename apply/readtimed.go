package apply

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
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
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case unix.NFTA_SET_ELEM_KEY:
			e.First = decodeValue(a.Data)
		case elementKeyEnd:
			e.Last = decodeValue(a.Data)
		case unix.NFTA_SET_ELEM_FLAGS:
			flags = a.Uint32()
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.Timeout = milliseconds(a.Uint64())
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.Expires = milliseconds(a.Uint64())
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = decodeUserData(a.Data)[0]
		}
	}
	switch {
	case a.Err != nil:
		return a.Err
	case flags&elementCatchAll != 0:
		r.catchAll = true
		return nil
	case e.Timeout != 0 && e.Expires == 0:
		return nil // it ends at this moment
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
	for a := nlmsg.Walk(b); a.Next(); {
		if a.Type == unix.NFTA_DATA_VALUE {
			return string(a.Data)
		}
	}
	return ""
}

// readTimed reads the elements of a timed set into it.
func (c *conn) readTimed(ctx context.Context, table string, s *Set, report func(int)) error {
	found := map[span]seen{}
	return c.whole(ctx, table, s, report, func() (func([]byte) error, func() bool) {
		list, before, begin := newTimedReader(s), len(found), time.Now()
		return list.element, func() bool {
			for _, e := range list.list {
				found[span{e.First, e.Last}] = seen{e, begin}
			}
			s.Timed, s.timedCatchAll = collect(found, begin), list.catchAll
			// What the set counts may have ended, so that it does if nothing new is
			// found.
			complete := len(list.list) >= int(s.count) || len(found) == before
			return complete && len(list.list) == len(s.Timed)
		}
	})
}

// seen is an element that was found by a dump that began at a time.
type seen struct {
	element ruleset.TimedElement
	at      time.Time
}

// collect returns what was found by dumps up to the one that began now, sorted.
func collect(found map[span]seen, now time.Time) []ruleset.TimedElement {
	list := make([]ruleset.TimedElement, 0, len(found))
	for _, f := range found {
		e := f.element
		if e.Timeout != 0 {
			if e.Expires -= now.Sub(f.at).Truncate(time.Millisecond); e.Expires <= 0 {
				continue
			}
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b ruleset.TimedElement) int {
		return cmp.Or(strings.Compare(a.First, b.First), strings.Compare(a.Last, b.Last))
	})
	return list
}
