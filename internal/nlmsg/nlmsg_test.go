package nlmsg_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// Types of the attributes in the tests.
const (
	aByte = iota + 1
	aShort
	aWord
	aNative
	aLong
	aBytes
	aRaw
	aName
	aNest
)

// everyKind is a message with an attribute of every kind, behind another one.
func everyKind() []byte {
	var m nlmsg.Message
	m.Begin(7, 0, 1)
	m.Finish()
	m.Begin(unix.NFNL_SUBSYS_CTNETLINK<<8|3, unix.NLM_F_DUMP, 70_000)
	m.Netfilter(unix.AF_INET6, 0x0102)
	m.Uint8(aByte, 0xfe)
	m.Uint16(aShort, 0xfedc)
	m.Uint32(aWord, 0xfedcba98)
	m.Bytes(aNative, binary.NativeEndian.AppendUint32(nil, 0xfedcba98))
	m.Uint64(aLong, 0xfedcba9876543210)
	nest := m.Nest(aNest)
	m.Bytes(aBytes, []byte{1, 2, 3, 4, 5})
	inner := m.Nest(aNest)
	m.RawString(aRaw, "key")
	m.End(inner)
	m.End(nest)
	m.CString(aName, "eth0")
	m.Finish()
	return m.Buf
}

// list writes attributes as text, one a line.
func list(b []byte) (string, error) {
	var text string
	a := nlmsg.Walk(b)
	for a.Next() {
		switch a.Type {
		case aByte:
			text += fmt.Sprintf("byte %x\n", a.Uint8())
		case aShort:
			text += fmt.Sprintf("short %x\n", a.Uint16())
		case aWord:
			text += fmt.Sprintf("word %x\n", a.Uint32())
		case aNative:
			text += fmt.Sprintf("native %x\n", a.NativeUint32())
		case aLong:
			text += fmt.Sprintf("long %x\n", a.Uint64())
		case aNest:
			inner, err := list(a.Data)
			if err != nil {
				return text, err
			}
			text += "{\n" + inner + "}\n"
		case aName:
			text += fmt.Sprintf("name %s\n", a.CString())
		default:
			text += fmt.Sprintf("bytes %x\n", a.Data)
		}
	}
	return text, a.Err
}

func TestAMessageIsReadBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	var replies []nlmsg.Reply
	if err := nlmsg.Split(everyKind(), func(r nlmsg.Reply) error { replies = append(replies, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(replies) != 2 {
		t.Fatalf("%d messages, want 2", len(replies))
	}
	if d := cmp.Diff(nlmsg.Reply{Type: 7, Flags: unix.NLM_F_REQUEST, Sequence: 1, Payload: []byte{}}, replies[0]); d != "" {
		t.Errorf("first message (-want +got):\n%s", d)
	}
	r := replies[1]
	if r.Type != 0x103 || r.Flags != unix.NLM_F_DUMP|unix.NLM_F_REQUEST || r.Sequence != 70_000 {
		t.Errorf("header %+v", r)
	}
	if got, want := r.Payload[:nlmsg.NetfilterSize], []byte{unix.AF_INET6, unix.NFNETLINK_V0, 1, 2}; !bytes.Equal(got, want) {
		t.Errorf("header of netfilter %x, want %x", got, want)
	}
	got, err := list(r.Payload[nlmsg.NetfilterSize:])
	want := `byte fe
short fedc
word fedcba98
native fedcba98
long fedcba9876543210
{
bytes 0102030405
{
bytes 6b6579
}
}
name eth0
`
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("attributes (-want +got):\n%s%v", d, err)
	}
}

// The bytes themselves, as the kernel's headers define them.
func TestTheFormIsTheKernels(t *testing.T) {
	t.Parallel()
	native16 := func(n uint16) []byte { return binary.NativeEndian.AppendUint16(nil, n) }
	native32 := func(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
	var m nlmsg.Message
	m.Begin(0x0a06, unix.NLM_F_ACK, 9)
	m.Netfilter(unix.AF_INET, 0)
	nest := m.Nest(1)
	m.Uint16(2, 0x0102)
	m.CString(3, "sgc")
	m.End(nest)
	m.Finish()
	want := bytes.Join([][]byte{
		native32(40), native16(0x0a06), native16(unix.NLM_F_REQUEST | unix.NLM_F_ACK), native32(9), native32(0),
		{unix.AF_INET, 0, 0, 0},
		native16(20), native16(1 | unix.NLA_F_NESTED),
		native16(6), native16(2), {1, 2, 0, 0},
		native16(8), native16(3), []byte("sgc\x00"),
	}, nil)
	if !bytes.Equal(m.Buf, want) {
		t.Errorf("got  %x\nwant %x", m.Buf, want)
	}
}

func TestFinishedMessagesAreChangedInPlace(t *testing.T) {
	t.Parallel()
	b := everyKind()
	first := nlmsg.First(b)
	if len(first) != nlmsg.HeaderSize {
		t.Fatalf("the first message has %d bytes", len(first))
	}
	nlmsg.SetType(first, 0x0a0c)
	nlmsg.SetSequence(first, 41)
	nlmsg.AddFlags(first, unix.NLM_F_ACK)
	var got nlmsg.Reply
	stop := errors.New("enough")
	if err := nlmsg.Split(b, func(r nlmsg.Reply) error { got = r; return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want the error of the function", err)
	}
	want := nlmsg.Reply{Type: 0x0a0c, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK, Sequence: 41, Payload: []byte{}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestWhatIsMalformedIsAnError(t *testing.T) {
	t.Parallel()
	whole := everyKind()
	count := func(b []byte) (n int, err error) {
		err = nlmsg.Split(b, func(nlmsg.Reply) error { n++; return nil })
		return n, err
	}
	long := bytes.Clone(whole)
	binary.NativeEndian.PutUint32(long[nlmsg.HeaderSize:], uint32(len(whole)))
	short := bytes.Clone(whole)
	binary.NativeEndian.PutUint32(short, nlmsg.HeaderSize-1)
	for name, tt := range map[string]struct {
		datagram []byte
		messages int
		err      error
	}{
		"nothing":                          {nil, 0, nil},
		"two messages":                     {whole, 2, nil},
		"the last one without its padding": {append(bytes.Clone(whole[:nlmsg.HeaderSize]), 17, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9), 2, nil},
		"a message cut off":                {whole[:len(whole)-1], 1, nlmsg.ErrMalformed},
		"a rest that is no header":         {append(bytes.Clone(whole), 1, 2), 2, nlmsg.ErrMalformed},
		"longer than the datagram":         {long, 1, nlmsg.ErrMalformed},
		"shorter than its header":          {short, 0, nlmsg.ErrMalformed},
	} {
		if n, err := count(tt.datagram); n != tt.messages || !errors.Is(err, tt.err) {
			t.Errorf("%s: %d messages and %v, want %d and %v", name, n, err, tt.messages, tt.err)
		}
	}

	attribute := func(length, typ uint16, data ...byte) []byte {
		b := binary.NativeEndian.AppendUint16(nil, length)
		return append(binary.NativeEndian.AppendUint16(b, typ), data...)
	}
	for name, b := range map[string][]byte{
		"half a header":                  {4, 0},
		"shorter than its header":        attribute(3, aBytes),
		"of length 0":                    attribute(0, aBytes, 0, 0, 0, 0),
		"longer than the message":        attribute(9, aBytes, 1, 2, 3, 4),
		"followed by a rest":             attribute(8, aBytes, 1, 2, 3, 4, 5),
		"a byte of two":                  attribute(6, aByte, 1, 2),
		"a byte of none":                 attribute(4, aByte),
		"a short number of one byte":     attribute(5, aShort, 1),
		"a short number of four bytes":   attribute(8, aShort, 1, 2, 3, 4),
		"a number of three bytes":        attribute(7, aWord, 1, 2, 3),
		"a number of eight bytes":        attribute(12, aWord, 1, 2, 3, 4, 5, 6, 7, 8),
		"a native number of two bytes":   attribute(6, aNative, 1, 2),
		"a long number of four bytes":    attribute(8, aLong, 1, 2, 3, 4),
		"a nest with an attribute of 2":  attribute(8, aNest, 2, 0, 1, 0),
		"a number, then a malformed one": append(attribute(8, aWord, 1, 2, 3, 4), attribute(2, aBytes)...),
	} {
		if text, err := list(b); !errors.Is(err, nlmsg.ErrMalformed) {
			t.Errorf("an attribute %s: %q and %v, want ErrMalformed", name, text, err)
		}
	}
}

func TestTheLastAttributeMayLackItsPadding(t *testing.T) {
	t.Parallel()
	var m nlmsg.Message
	m.Bytes(aBytes, []byte{1, 2, 3})
	got, err := list(m.Buf[:len(m.Buf)-1])
	if got != "bytes 010203\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestTypesAreReadWithoutTheirFlags(t *testing.T) {
	t.Parallel()
	var m nlmsg.Message
	m.Uint32(aWord|unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER, 1)
	if got, err := list(m.Buf); got != "word 1\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAStringEndsWithItsNUL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "", "\x00": "", "eth0\x00": "eth0", "eth0\x00\x00junk": "eth0", "no end": "no end"} {
		if got := nlmsg.CutNUL([]byte(in)); string(got) != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

// Reading a table of a million entries may not make garbage, and writing into
// a buffer that is large enough neither.
func TestReadingAndWritingAllocateNothing(t *testing.T) {
	b := everyKind()
	buf := make([]byte, 0, 1024)
	sum := uint32(0)
	if n := testing.AllocsPerRun(100, func() {
		err := nlmsg.Split(b, func(r nlmsg.Reply) error {
			a := nlmsg.Walk(r.Payload[min(nlmsg.NetfilterSize, len(r.Payload)):])
			for a.Next() {
				if a.Type == aWord {
					sum += a.Uint32()
				}
			}
			return a.Err
		})
		m := nlmsg.Message{Buf: buf}
		m.Begin(1, 0, 1)
		m.Netfilter(unix.AF_INET, 0)
		m.End(m.Nest(aNest))
		m.Uint8(aByte, 1)
		m.Uint32(aWord, sum)
		m.CString(aName, "eth0")
		m.Finish()
		if err != nil || len(m.Buf) == 0 {
			t.Error(len(m.Buf), err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
