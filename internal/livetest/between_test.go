package livetest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"sgc/internal/flow"
)

// counter returns a function that tells how many entries the host has. The file
// is that of the namespace in which it was opened.
func (s *stand) counter() (tracked func() string) {
	s.t.Helper()
	var file *os.File
	if err := s.host.Do(func() (err error) {
		file, err = os.Open("/proc/sys/net/netfilter/nf_conntrack_count")
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { file.Close() })
	return func() string {
		number := make([]byte, 20)
		n, err := file.ReadAt(number, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			s.t.Fatal(err)
		}
		return string(number[:n])
	}
}

// temporary reports whether the kernel's table has chains that are to be there
// only while flows are being cut, and whether rules lead packets to them.
func (s *stand) temporary() (there, used bool) {
	s.t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(s.host.FD()))
	if err != nil {
		s.t.Fatal(err)
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		s.t.Fatal(err)
	}
	isTemporary := func(chain string) bool { return strings.HasPrefix(chain, "_cut.") }
	for _, c := range chains {
		switch {
		case c.Table.Name != "sgc":
		case isTemporary(c.Name):
			there = true
		case c.Hooknum != nil:
			rules, err := conn.GetRules(c.Table, c)
			if err != nil {
				s.t.Fatal(err)
			}
			for _, r := range rules {
				used = used || slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
					v, ok := e.(*expr.Verdict)
					return ok && isTemporary(v.Chain)
				})
			}
		}
	}
	return there, used
}

// lifted expects that nothing temporary is in the kernel's table.
func (s *stand) lifted(when string) {
	s.t.Helper()
	if there, used := s.temporary(); there || used {
		s.t.Errorf("%s: the rules that cut are still there (%t) and used (%t)", when, there, used)
	}
}

// A flow that is opened after the host's sockets got their entries, and before
// the commit, goes on as the older ones do.
func TestOpenedBeforeTheCommit(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			next, tracked, generation := narrowed(d, friends...), s.counter(), s.generation()
			hits := 0
			for round := range s.rounds(func() bool { return hits > 0 }) {
				when := fmt.Sprintf("round %d", round)
				s.apply(open(d))
				early := s.open(kinds(call{direction: d, connected: true})...)
				entries, old := tracked(), generation()
				c := s.stopWhen(func() bool { return tracked() != entries }, "apply", "--auto-approve", s.write(next))
				var late []*talk
				if c.stopped && generation() == old {
					hits++
					late = s.open(kinds(call{direction: d, connected: true})...)
				}
				s.mark(append(early, late...)...)
				if code := c.finish(); code != 0 {
					t.Fatalf("%s: apply ends with %d", when, code)
				}
				s.smoothly(when, append(early, late...)...)
				// Of UDP that has no entry at the commit, whoever sends next is
				// the opener.
				s.haveEntries(when, append(early, only(late, isTCP)...)...)
				s.hangUp(append(early, late...)...)
			}
			t.Logf("%d applies were stopped between the entries and the commit", hits)
		})
	}
}

// The rules that cut until the entries are gone are lifted by the apply that
// brought them, and if it is killed, by the next one, also where that changes
// nothing more.
func TestWhatCutsIsLifted(t *testing.T) {
	t.Parallel()
	everywhere(t, func(s *stand, d flow.Direction) {
		s.apply(open(d))
		talks := s.open(kinds(call{direction: d})...)
		s.apply(closed(d))
		s.areCut("after the apply", talks...)
		s.lifted("after the apply")
		if s.place.untracks() {
			return // the commit alone cuts
		}
		s.hangUp(talks...)
		hits, generation := 0, s.generation()
		for round := range s.rounds(func() bool { return hits > 0 }) {
			when := fmt.Sprintf("round %d", round)
			s.apply(open(d))
			talks = s.open(kinds(call{direction: d})...)
			old := generation()
			cuts := func() bool {
				if generation() == old {
					return false
				}
				_, used := s.temporary()
				return used
			}
			c := s.stopWhen(cuts, "apply", "--auto-approve", s.write(closed(d)))
			// It was still at something when it was told to stop.
			hit := c.stopped && cuts()
			c.kill()
			if hit {
				hits++
				s.areCut(when+", killed", talks...)
				// Nobody is there to be asked: nothing is applied but what the
				// killed one was at.
				if r := s.sgc("apply", s.write(closed(d).with(both(d, "third", "7003", anyone)))); r.code == 0 {
					s.t.Errorf("%s: the apply was not refused: %s%s", when, r.out, r.err)
				}
				s.lifted(when + ", after the next apply")
				s.areCut(when+", after the next apply", talks...)
				s.haveNone(when+", after the next apply", talks...)
			}
			s.hangUp(talks...)
		}
		s.t.Logf("%d applies were killed before they lifted it", hits)
	})
}

// What stays held when a part of it is allowed again is held no longer than it
// would have been.
func TestWhatIsHeldInPartIsNotProlonged(t *testing.T) {
	t.Parallel()
	for _, d := range flow.Directions {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			s := newStand(t, plain)
			s.apply(open(d))
			cut := s.open(append(s.serviceCalls(d), fromStrangers(kinds(call{direction: d}))...)...)
			s.apply(closed(d))
			s.areCut("cut", cut...)
			before := s.held()
			time.Sleep(1500 * time.Millisecond)
			// The friend's parts of what ports are held for are let go.
			s.reopen(narrowed(d, friends...), cut...)
			after := s.held()
			parts := 0
			for name, e := range after {
				if _, there := before[name]; !there {
					parts++
				}
				if rest := e.Timeout - time.Second; e.Expires > rest {
					t.Errorf("%s ends after %s, and %s are left, want at most %s", name, e.Timeout, e.Expires, rest)
				}
			}
			if parts == 0 {
				t.Errorf("of what is held, nothing was let go in part: %v, then %v", sortedKeys(before), sortedKeys(after))
			}
		})
	}
}
