package conntrack

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

func mustHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatAKernelSaidOfSockets(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("SKIP: these were captured on a little-endian machine")
	}
	for _, tc := range capturedSockets {
		var got Socket
		if err := got.parse(tc.protocol, mustHex(t, tc.hex)); err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v; want %+v", tc.name, got, err, tc.want)
		}
	}
}

// socketAnswer is a message about a socket of IPv4.
func socketAnswer(state uint8, local, remote string) []byte {
	return answer(messageSockets, unix.NLM_F_MULTI, 1, func(m *nlmsg.Message) {
		b := make([]byte, socketMessageSize)
		b[0], b[1] = unix.AF_INET, state
		for i, text := range []string{local, remote} {
			a := netip.MustParseAddrPort(text)
			binary.BigEndian.PutUint16(b[4+2*i:], a.Port())
			copy(b[8+16*i:], a.Addr().AsSlice())
		}
		m.Buf = append(m.Buf, b...)
	})
}

// numbered gives the answers to a question its number.
func numbered(sequence uint32, messages ...[]byte) []byte {
	all := datagram(messages...)
	for at := 0; at < len(all); at += nlmsg.Align(int(binary.NativeEndian.Uint32(all[at:]))) {
		nlmsg.SetSequence(all[at:], sequence)
	}
	return all
}

func TestReadingWhatTheKernelMaySayOfSockets(t *testing.T) {
	one := socketAnswer(kernelEstablished, "192.0.2.10:1", "192.0.2.20:2")
	family := socketAnswer(kernelEstablished, "192.0.2.10:1", "192.0.2.20:2")
	family[nlmsg.HeaderSize] = unix.AF_UNIX
	cut := answer(messageSockets, 0, 1, func(m *nlmsg.Message) { m.Buf = append(m.Buf, one[nlmsg.HeaderSize:len(one)-4]...) })
	end := func(sequence uint32) []byte { return numbered(sequence, done(0)) }
	rest := []any{end(2), end(3), end(4)}
	for _, tc := range []struct {
		name    string
		answers []any
		sockets int
		err     error
		text    string
	}{
		{"nothing", append([]any{end(1)}, rest...), 0, nil, ""},
		{"one in each list", []any{numbered(1, one, done(0)), numbered(2, one, done(0)), numbered(3, one, done(0)), numbered(4, one, done(0))}, 4, nil, ""},
		{"lost answers", append([]any{one, unix.ENOBUFS, one, end(1)}, rest...), 2, ErrTorn, "may be missing"},
		{"no list of TCP", []any{refused(unix.ENOENT, 1), numbered(2, done(-int32(unix.ENOENT))), numbered(3, one, done(0)), end(4)}, 1, ErrNoSockets, "CONFIG_INET_TCP_DIAG"},
		{"no list of UDP", []any{numbered(1, one, done(0)), end(2), refused(unix.ENOENT, 3), refused(unix.ENOENT, 4)}, 1, ErrNoSockets, "CONFIG_INET_UDP_DIAG"},
		{"no list at all", []any{refused(unix.ENOENT, 1), refused(unix.ENOENT, 2), refused(unix.ENOENT, 3), refused(unix.ENOENT, 4)}, 0, ErrNoSockets, "CONFIG_INET_DIAG"},
		{"another error", []any{one, refused(unix.ENOMEM, 1)}, 1, unix.ENOMEM, "read the host's sockets"},
		{"silence", []any{one}, 1, errNoAnswer, ""},
		{"a socket of another family", []any{family}, 0, nlmsg.ErrMalformed, ""},
		{"a socket in a state that was not asked for", []any{socketAnswer(kernelClose, "192.0.2.10:1", "0.0.0.0:0")}, 0, nlmsg.ErrMalformed, "state 7"},
		{"a socket in a state that nobody knows", []any{socketAnswer(99, "192.0.2.10:1", "0.0.0.0:0")}, 0, nlmsg.ErrMalformed, "state 99"},
		{"a message that ends early", []any{cut}, 0, nlmsg.ErrMalformed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := 0
			err := sockets(context.Background(), newConn(&script{answers: tc.answers}), allSockets, func(*Socket) error { n++; return nil })
			if n != tc.sockets {
				t.Errorf("%d sockets, want %d", n, tc.sockets)
			}
			if !errors.Is(err, tc.err) || err != nil && !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%v, want %v with %q", err, tc.err, tc.text)
			}
		})
	}
}

func TestAKernelWithoutSocketDiagnosis(t *testing.T) {
	dial := fmt.Errorf("open a netlink socket: %w", explain(unix.EPROTONOSUPPORT))
	err := socketsError(unix.IPPROTO_TCP, dial)
	if !errors.Is(err, ErrNoSockets) || errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "CONFIG_INET_DIAG") {
		t.Error(err)
	}
	both := sockets(context.Background(), newConn(&script{answers: []any{refused(unix.ENOENT, 1), refused(unix.ENOENT, 2), refused(unix.ENOENT, 3), refused(unix.ENOENT, 4)}}), allSockets, nil)
	for _, option := range []string{"CONFIG_INET_TCP_DIAG", "CONFIG_INET_UDP_DIAG"} {
		if both == nil || strings.Count(both.Error(), option) != 1 {
			t.Errorf("%v, want %s once", both, option)
		}
	}
}

// Nothing is kept of what was handed over.
func TestReadingManySocketsTakesNoMemory(t *testing.T) {
	var messages [][]byte
	for port := range 300 {
		messages = append(messages, socketAnswer(kernelEstablished, fmt.Sprintf("192.0.2.10:%d", port+1), "192.0.2.20:2"))
	}
	full := datagram(messages...)
	n := 0
	allocated := testing.AllocsPerRun(3, func() {
		var answers []any
		for range 333 {
			answers = append(answers, full)
		}
		answers = append(answers, numbered(1, done(0)), numbered(2, done(0)), numbered(3, done(0)), numbered(4, done(0)))
		n = 0
		if err := sockets(context.Background(), newConn(&script{answers: answers}), allSockets, func(*Socket) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
	})
	if n != 99_900 || allocated > 1000 {
		t.Errorf("%.0f allocations for %d sockets", allocated, n)
	}
}

func FuzzParseSocket(f *testing.F) {
	for _, s := range capturedSockets {
		f.Add(s.protocol, mustHex(f, s.hex))
	}
	f.Fuzz(func(t *testing.T, protocol uint8, b []byte) {
		var s Socket
		if err := s.parse(protocol, b); err != nil {
			return
		}
		_ = s.String()
		if s.Local.Addr().Is4In6() || s.Remote.Addr().Is4In6() || s.State == 0 {
			t.Fatalf("%+v", s)
		}
	})
}
