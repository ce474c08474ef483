package nlmsg

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A Reply is one message from the kernel.
type Reply struct {
	Type     uint16
	Flags    uint16
	Sequence uint32
	// Payload is what stands behind the header, a part of the datagram.
	Payload []byte
}

// Split calls f for every message of a datagram until f fails. It returns the
// error of f, or ErrMalformed, after the messages before, where the datagram is
// cut off.
func Split(datagram []byte, f func(Reply) error) error {
	b := datagram
	for len(b) >= HeaderSize {
		length := int(binary.NativeEndian.Uint32(b))
		if length < HeaderSize || length > len(b) {
			return ErrMalformed
		}
		r := Reply{
			Type:     binary.NativeEndian.Uint16(b[4:]),
			Flags:    binary.NativeEndian.Uint16(b[6:]),
			Sequence: binary.NativeEndian.Uint32(b[8:]),
			Payload:  b[HeaderSize:length],
		}
		if err := f(r); err != nil {
			return err
		}
		b = b[min(Align(length), len(b)):]
	}
	if len(b) != 0 {
		return ErrMalformed
	}
	return nil
}

// An Error is what the kernel says about one message.
type Error struct {
	Errno unix.Errno
	// Message is the kernel's own explanation, often empty.
	Message string
	// Offset is where in the message the offending attribute begins, in bytes
	// counted from the message's header on; 0 where the kernel does not say.
	Offset uint32
}

func (e *Error) Error() string {
	if e.Message != "" {
		return fmt.Sprintf("%s (%s)", e.Errno, e.Message)
	}
	return e.Errno.Error()
}

// Unwrap returns the kernel's number.
func (e *Error) Unwrap() error { return e.Errno }

// DecodeError reads a message of type NLMSG_ERROR: nil is an acknowledgement.
// It fails with ErrMalformed if the message is too short for its type. An
// explanation that cannot be read is left out: the number counts.
func DecodeError(r Reply) (*Error, error) {
	if len(r.Payload) < 4+HeaderSize {
		return nil, ErrMalformed
	}
	code := int32(binary.NativeEndian.Uint32(r.Payload))
	if code == 0 {
		return nil, nil
	}
	e := &Error{Errno: unix.Errno(-code)}
	if r.Flags&unix.NLM_F_ACK_TLVS == 0 {
		return e, nil
	}
	// The request's header follows the code; its body only if it is not capped.
	request := HeaderSize
	if r.Flags&unix.NLM_F_CAPPED == 0 {
		request = int(min(binary.NativeEndian.Uint32(r.Payload[4:]), uint32(len(r.Payload))))
	}
	a := Walk(r.Payload[min(4+Align(request), len(r.Payload)):])
	for a.Next() {
		switch a.Type {
		case unix.NLMSGERR_ATTR_MSG:
			e.Message = a.CString()
		case unix.NLMSGERR_ATTR_OFFS:
			e.Offset = a.NativeUint32()
		}
	}
	return e, nil
}

// DecodeDone reads the result at the end of a dump, a message of type
// NLMSG_DONE: nil if all was dumped.
func DecodeDone(r Reply) error {
	if len(r.Payload) < 4 {
		return nil
	}
	if code := int32(binary.NativeEndian.Uint32(r.Payload)); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}

// InsteadOfObject reads a message of type NLMSG_ERROR in the place of an object
// that was asked for. It always fails: with an *Error, or because an
// acknowledgement is no object.
func InsteadOfObject(r Reply) error {
	e, err := DecodeError(r)
	switch {
	case err != nil:
		return err
	case e == nil:
		return errors.New("an acknowledgement instead of an object")
	}
	return e
}
