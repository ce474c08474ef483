package nflog

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
)

// message makes a packet message of a group, as the kernel does.
func message(t testing.TB, group uint16, attrs ...netlink.Attribute) []byte {
	t.Helper()
	b, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{2, 0, byte(group >> 8), byte(group)}, b...)
}

func word(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func stamp(seconds, micros uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, seconds), micros)
}

func TestDecodeCopy(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		message []byte
		want    numbered
	}{
		"all that counts": {
			message(t, 300,
				netlink.Attribute{Type: 1, Data: []byte{8, 0, 0, 0}},
				netlink.Attribute{Type: attrPrefix, Data: []byte("sgc eth0 ingress acl: \x00")},
				netlink.Attribute{Type: attrIn, Data: word(2)}, netlink.Attribute{Type: attrOut, Data: word(70000)},
				netlink.Attribute{Type: attrTimestamp, Data: stamp(1_700_000_000, 250_000)},
				netlink.Attribute{Type: attrSequenceNo, Data: word(9)},
				netlink.Attribute{Type: attrPayload, Data: []byte{0x45, 0}},
			),
			numbered{Copy: Copy{
				Group: 300, Prefix: "sgc eth0 ingress acl: ", In: 2, Out: 70000,
				Payload: []byte{0x45, 0}, Time: time.Unix(1_700_000_000, 250_000_000),
			}, number: 9, isNumber: true},
		},
		"nothing at all": {message(t, 0), numbered{}},
		"what a later kernel adds": {
			message(t, 1, netlink.Attribute{Type: 99, Data: []byte{1}}, netlink.Attribute{Type: attrIn, Data: word(2)}),
			numbered{Copy: Copy{Group: 1, In: 2}},
		},
	} {
		got, err := decodeCopy(tt.message)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(numbered{})); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestDecodeCopyRefusesWhatIsTorn(t *testing.T) {
	t.Parallel()
	whole := message(t, 1, netlink.Attribute{Type: attrPayload, Data: make([]byte, 40)})
	for name, b := range map[string][]byte{
		"nothing":                  nil,
		"half a header":            {2, 0, 0},
		"an attribute cut off":     whole[:20],
		"an interface of 2 bytes":  message(t, 1, netlink.Attribute{Type: attrIn, Data: []byte{0, 1}}),
		"a time of 8 bytes":        message(t, 1, netlink.Attribute{Type: attrTimestamp, Data: make([]byte, 8)}),
		"a time before 1970":       message(t, 1, netlink.Attribute{Type: attrTimestamp, Data: stamp(1<<63, 0)}),
		"a second of 2,000,000 µs": message(t, 1, netlink.Attribute{Type: attrTimestamp, Data: stamp(1, 2_000_000)}),
	} {
		if c, err := decodeCopy(b); err == nil {
			t.Errorf("%s is %+v", name, c)
		}
	}
}

// Each group has a count of its own, which wraps.
func TestMissedPacketsAreCountedByGroup(t *testing.T) {
	t.Parallel()
	l := &Conn{next: map[uint16]uint32{1: 0, 2: 1<<32 - 1}}
	var messages []netlink.Message
	for _, n := range []struct {
		group  uint16
		number uint32
	}{{1, 0}, {2, 1<<32 - 1}, {1, 1}, {1, 5}, {2, 0}, {2, 2}, {1, 6}} {
		messages = append(messages, netlink.Message{
			Header: netlink.Header{Type: messagePacket},
			Data:   message(t, n.group, netlink.Attribute{Type: attrSequenceNo, Data: word(n.number)}),
		})
	}
	// The end of a batch is no packet.
	messages = append(messages, netlink.Message{Header: netlink.Header{Type: netlink.Done}, Data: []byte{0, 0, 0, 1}})
	copies, err := l.decode(messages)
	if err != nil {
		t.Fatal(err)
	}
	var got []uint32
	for _, c := range copies {
		got = append(got, c.Missed)
	}
	if d := cmp.Diff([]uint32{0, 0, 0, 3, 0, 1, 0}, got); d != "" {
		t.Errorf("missed (-want +got):\n%s", d)
	}
}

func FuzzCopy(f *testing.F) {
	f.Add(message(f, 5,
		netlink.Attribute{Type: attrPrefix, Data: []byte("sgc eth0 ingress groups: \x00")},
		netlink.Attribute{Type: attrIn, Data: word(2)},
		netlink.Attribute{Type: attrTimestamp, Data: stamp(1_700_000_000, 0)},
		netlink.Attribute{Type: attrPayload, Data: append([]byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6}, make([]byte, 10)...)},
	))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCopy(b)
		if err != nil {
			return
		}
		p, err := c.packet()
		if err != nil {
			return
		}
		if p.Block == "" || p.By != ByACL && p.By != ByGroups {
			t.Fatalf("refused on %q by %q", p.Block, p.By)
		}
		if p.String() == "" || p.Group != c.Group {
			t.Fatalf("%+v", p)
		}
	})
}
