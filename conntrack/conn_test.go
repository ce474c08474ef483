package conntrack

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// script is a socket whose answers are known beforehand: datagrams and errors.
type script struct {
	sent    [][]byte
	answers []any
}

func (s *script) send(b []byte) error {
	s.sent = append(s.sent, append([]byte(nil), b...))
	return nil
}

func (s *script) receive(b []byte, _ bool) (int, error) {
	if len(s.answers) == 0 {
		return 0, errNoAnswer
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	switch a := a.(type) {
	case error:
		return 0, a
	case []byte:
		return copy(b, a), nil
	}
	panic("a script holds errors and datagrams")
}

func (s *script) close() error { return nil }

// datagram joins messages.
func datagram(messages ...[]byte) []byte {
	var all []byte
	for _, m := range messages {
		all = append(all, m...)
	}
	return all
}

func answer(typ, flags int, sequence uint32, fill func(*nlmsg.Message)) []byte {
	var m nlmsg.Message
	m.Begin(typ, flags, sequence)
	// Answers are no requests.
	binary.NativeEndian.PutUint16(m.Buf[6:], uint16(flags))
	if fill != nil {
		fill(&m)
	}
	m.Finish()
	return m.Buf
}

func entryAnswer(flags int, s seed) []byte {
	return answer(messageNew, unix.NLM_F_MULTI|flags, 1, s.appendTo)
}

func done(code int32) []byte {
	return answer(unix.NLMSG_DONE, unix.NLM_F_MULTI, 1, func(m *nlmsg.Message) {
		m.Buf = binary.NativeEndian.AppendUint32(m.Buf, uint32(code))
	})
}

// refused answers message number sequence with an error, 0 being none.
func refused(errno unix.Errno, sequence uint32) []byte {
	return answer(unix.NLMSG_ERROR, 0, sequence, func(m *nlmsg.Message) {
		m.Buf = binary.NativeEndian.AppendUint32(m.Buf, uint32(-int32(errno)))
		m.Buf = append(m.Buf, make([]byte, nlmsg.HeaderSize)...)
	})
}

func TestReadingWhatTheKernelMaySay(t *testing.T) {
	a, b := tcpSeed("198.51.100.1:1", "192.0.2.10:80"), udpSeed("[2001:db8::1]:1", "[2001:db8::10]:53")
	cut := entryAnswer(0, a)
	cut = cut[:len(cut)-2]
	noTuple := answer(messageNew, 0, 1, func(m *nlmsg.Message) { m.Netfilter(unix.AF_INET, 0) })
	mixed := a
	mixed.original = b.original
	for _, tc := range []struct {
		name    string
		answers []any
		entries int
		err     error
	}{
		{"nothing", []any{done(0)}, 0, nil},
		{"two datagrams", []any{entryAnswer(0, a), entryAnswer(0, b), done(0)}, 2, nil},
		{"two entries and the end in one datagram", []any{datagram(entryAnswer(0, a), entryAnswer(0, b), done(0))}, 2, nil},
		{"answers to another question", []any{answer(messageNew, 0, 7, a.appendTo), datagram(entryAnswer(0, b), done(0))}, 1, nil},
		{"a no-op", []any{datagram(answer(unix.NLMSG_NOOP, 0, 1, nil), entryAnswer(0, a)), done(0)}, 1, nil},
		{"a torn table is read to its end", []any{entryAnswer(unix.NLM_F_DUMP_INTR, a), entryAnswer(0, b), done(0)}, 2, ErrTorn},
		{"a tear that the end tells", []any{entryAnswer(0, a), answer(unix.NLMSG_DONE, unix.NLM_F_DUMP_INTR, 1, nil)}, 1, ErrTorn},
		{"lost answers", []any{entryAnswer(0, a), unix.ENOBUFS, entryAnswer(0, b), done(0)}, 2, ErrTorn},
		{"an error in the place of an entry", []any{entryAnswer(0, a), refused(unix.ENOMEM, 1)}, 1, unix.ENOMEM},
		{"no right", []any{refused(unix.EPERM, 1)}, 0, unix.EPERM},
		{"an error at the end", []any{entryAnswer(0, a), done(-int32(unix.EIO))}, 1, unix.EIO},
		{"silence", []any{entryAnswer(0, a)}, 1, errNoAnswer},
		{"a datagram that ends early", []any{cut}, 0, nlmsg.ErrMalformed},
		{"a rest that is no message", []any{datagram(entryAnswer(0, a), []byte{1, 2})}, 1, nlmsg.ErrMalformed},
		{"an entry without tuples", []any{noTuple}, 0, nlmsg.ErrMalformed},
		{"an entry of two families", []any{entryAnswer(0, mixed)}, 0, nlmsg.ErrMalformed},
		{"an acknowledgement in the place of an entry", []any{refused(0, 1)}, 0, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := 0
			err := entries(context.Background(), newConn(&script{answers: tc.answers}), wholeTable, func(*Entry) error { n++; return nil })
			if n != tc.entries {
				t.Errorf("%d entries, want %d", n, tc.entries)
			}
			if tc.name == "an acknowledgement in the place of an entry" {
				if err == nil {
					t.Error("no error")
				}
			} else if !errors.Is(err, tc.err) {
				t.Errorf("%v, want %v", err, tc.err)
			}
		})
	}
}

func TestTheKernelsOwnWordsAreKept(t *testing.T) {
	explained := answer(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS|unix.NLM_F_CAPPED, 1, func(m *nlmsg.Message) {
		var errno int32 = -int32(unix.EINVAL)
		m.Buf = binary.NativeEndian.AppendUint32(m.Buf, uint32(errno))
		m.Buf = append(m.Buf, make([]byte, nlmsg.HeaderSize)...)
		m.Bytes(unix.NLMSGERR_ATTR_MSG, []byte("no such thing\x00"))
	})
	err := entries(context.Background(), newConn(&script{answers: []any{explained}}), wholeTable, func(*Entry) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "invalid argument (no such thing)") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range everyKind() {
		f.Add(answer(messageNew, 0, 1, s.appendTo)[nlmsg.HeaderSize:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Entry
		if err := e.parse(b); err != nil {
			return
		}
		_ = e.String()
		// Both ways to read a tuple agree.
		var fast, slow Tuple
		if !fast.parsePorts(e.original) {
			return
		}
		if err := slow.parseWalk(e.original); err != nil || fast != slow {
			t.Fatalf("%s by place, %s by walking: %v", &fast, &slow, err)
		}
	})
}
