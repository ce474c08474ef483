package nlmsg_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// refusal is a message of type NLMSG_ERROR about a request: the code, the
// request as the kernel quotes it, and an explanation.
func refusal(code int32, flags uint16, request []byte, explain func(*nlmsg.Message)) nlmsg.Reply {
	m := nlmsg.Message{Buf: binary.NativeEndian.AppendUint32(nil, uint32(code))}
	m.Buf = append(m.Buf, request...)
	if explain != nil {
		explain(&m)
	}
	return nlmsg.Reply{Type: unix.NLMSG_ERROR, Flags: flags, Payload: m.Buf}
}

func TestTheKernelsRefusalIsRead(t *testing.T) {
	t.Parallel()
	whole := nlmsg.First(everyKind()[nlmsg.HeaderSize:])
	header := whole[:nlmsg.HeaderSize]
	words := func(m *nlmsg.Message) {
		m.CString(unix.NLMSGERR_ATTR_MSG, "no such thing")
		m.Bytes(unix.NLMSGERR_ATTR_OFFS, binary.NativeEndian.AppendUint32(nil, 20))
		m.Bytes(unix.NLMSGERR_ATTR_COOKIE, []byte{1})
	}
	einval := -int32(unix.EINVAL)
	endless := append([]byte{0xff, 0xff, 0xff, 0xff}, header[4:]...)
	explained := &nlmsg.Error{Errno: unix.EINVAL, Message: "no such thing", Offset: 20}
	bare := &nlmsg.Error{Errno: unix.EINVAL}
	for name, tt := range map[string]struct {
		reply nlmsg.Reply
		want  *nlmsg.Error
		err   error
	}{
		"an acknowledgement":                    {refusal(0, 0, header, nil), nil, nil},
		"an acknowledgement with words":         {refusal(0, unix.NLM_F_CAPPED|unix.NLM_F_ACK_TLVS, header, words), nil, nil},
		"a number alone":                        {refusal(einval, 0, whole, nil), bare, nil},
		"words behind the request's header":     {refusal(einval, unix.NLM_F_CAPPED|unix.NLM_F_ACK_TLVS, header, words), explained, nil},
		"words behind the whole request":        {refusal(einval, unix.NLM_F_ACK_TLVS, whole, words), explained, nil},
		"words without their flag":              {refusal(einval, unix.NLM_F_CAPPED, header, words), bare, nil},
		"a request longer than the message":     {refusal(einval, unix.NLM_F_ACK_TLVS, header, words), bare, nil},
		"a request longer than any message":     {refusal(einval, unix.NLM_F_ACK_TLVS, endless, words), bare, nil},
		"an offset of two bytes":                {refusal(einval, unix.NLM_F_CAPPED|unix.NLM_F_ACK_TLVS, header, func(m *nlmsg.Message) { m.Uint16(unix.NLMSGERR_ATTR_OFFS, 5) }), bare, nil},
		"words that are no attributes":          {refusal(einval, unix.NLM_F_CAPPED|unix.NLM_F_ACK_TLVS, append(header[:len(header):len(header)], 1, 2, 3), nil), bare, nil},
		"nothing":                               {nlmsg.Reply{}, nil, nlmsg.ErrMalformed},
		"a number without the request it means": {refusal(einval, 0, header[:12], nil), nil, nlmsg.ErrMalformed},
	} {
		got, err := nlmsg.DecodeError(tt.reply)
		if d := cmp.Diff(tt.want, got); d != "" || !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v (-want +got):\n%s", name, err, tt.err, d)
		}
	}
}

func TestARefusalIsAnError(t *testing.T) {
	t.Parallel()
	err := error(&nlmsg.Error{Errno: unix.ENOENT, Message: "no such set", Offset: 20})
	if got := err.Error(); got != "no such file or directory (no such set)" {
		t.Errorf("%q", got)
	}
	if got := (&nlmsg.Error{Errno: unix.ENOENT}).Error(); got != "no such file or directory" {
		t.Errorf("%q", got)
	}
	if !errors.Is(err, unix.ENOENT) {
		t.Error("the number is lost")
	}
}

func TestInsteadOfAnObjectThereIsAlwaysAnError(t *testing.T) {
	t.Parallel()
	header := make([]byte, nlmsg.HeaderSize)
	if err := nlmsg.InsteadOfObject(refusal(-int32(unix.EPERM), 0, header, nil)); !errors.Is(err, unix.EPERM) {
		t.Errorf("a refusal: %v", err)
	}
	if err := nlmsg.InsteadOfObject(refusal(0, 0, header, nil)); err == nil {
		t.Error("an acknowledgement: no error")
	}
	if err := nlmsg.InsteadOfObject(nlmsg.Reply{}); !errors.Is(err, nlmsg.ErrMalformed) {
		t.Errorf("nothing: %v", err)
	}
}

func TestTheEndOfADumpMayTellOfAnError(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		payload []byte
		want    error
	}{
		"nothing":  {nil, nil},
		"zero":     {make([]byte, 4), nil},
		"a length": {binary.NativeEndian.AppendUint32(nil, 20), nil},
		"an error": {binary.NativeEndian.AppendUint32(nil, ^uint32(unix.EIO)+1), unix.EIO},
	} {
		if err := nlmsg.DecodeDone(nlmsg.Reply{Type: unix.NLMSG_DONE, Payload: tt.payload}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// FuzzRead feeds bytes to everything that reads: it may fail, but not panic.
// What it reads comes out the same when it is written and read again.
func FuzzRead(f *testing.F) {
	f.Add(everyKind())
	for _, flags := range []uint16{0, unix.NLM_F_ACK_TLVS, unix.NLM_F_ACK_TLVS | unix.NLM_F_CAPPED} {
		r := refusal(-int32(unix.EINVAL), flags, make([]byte, nlmsg.HeaderSize), func(m *nlmsg.Message) { m.CString(unix.NLMSGERR_ATTR_MSG, "why") })
		m := nlmsg.Message{}
		m.Begin(unix.NLMSG_ERROR, int(flags), 1)
		m.Buf = append(m.Buf, r.Payload...)
		m.Finish()
		f.Add(m.Buf)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := list(b); err != nil && !errors.Is(err, nlmsg.ErrMalformed) {
			t.Errorf("attributes: %v", err)
		}
		var again nlmsg.Message
		var replies []nlmsg.Reply
		err := nlmsg.Split(b, func(r nlmsg.Reply) error {
			if e, err := nlmsg.DecodeError(r); e != nil && (err != nil || e.Error() == "") {
				t.Errorf("%+v, %v", e, err)
			}
			if nlmsg.InsteadOfObject(r) == nil {
				t.Error("no error instead of an object")
			}
			_ = nlmsg.DecodeDone(r)
			rewrite(t, r.Payload)
			r.Flags |= unix.NLM_F_REQUEST
			replies = append(replies, r)
			again.Begin(int(r.Type), int(r.Flags), r.Sequence)
			again.Buf = append(again.Buf, r.Payload...)
			again.Finish()
			for len(again.Buf)%4 != 0 {
				again.Buf = append(again.Buf, 0)
			}
			return nil
		})
		if err != nil && !errors.Is(err, nlmsg.ErrMalformed) {
			t.Errorf("messages: %v", err)
		}
		err = nlmsg.Split(again.Buf, func(r nlmsg.Reply) error {
			if d := cmp.Diff(replies[0], r); d != "" {
				t.Errorf("a message written again (-want +got):\n%s", d)
			}
			replies = replies[1:]
			return nil
		})
		if err != nil || len(replies) != 0 {
			t.Errorf("messages written again: %v, %d are missing", err, len(replies))
		}
	})
}

// rewrite writes attributes again, and reads them.
func rewrite(t *testing.T, b []byte) {
	t.Helper()
	var again nlmsg.Message
	first := nlmsg.Walk(b)
	for first.Next() {
		again.Bytes(first.Type, first.Data)
	}
	first, second := nlmsg.Walk(b), nlmsg.Walk(again.Buf)
	for first.Next() {
		if !second.Next() || first.Type != second.Type || string(first.Data) != string(second.Data) {
			t.Fatalf("attribute %d %x comes back as %d %x", first.Type, first.Data, second.Type, second.Data)
		}
	}
	if second.Next() || second.Err != nil {
		t.Fatalf("a rest: %v", second.Err)
	}
}
