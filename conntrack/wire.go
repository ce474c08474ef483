package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Sizes of the fixed parts of netlink messages, in bytes. Everything is padded
// to four bytes.
const (
	headerSize    = unix.SizeofNlMsghdr // of a message
	nfgenmsgSize  = 4                   // family, version, resource id
	attributeSize = unix.SizeofNlAttr   // the header of an attribute
)

// attributeType is the type of an attribute without the two flag bits.
const attributeType = 0x3fff

func align4(n int) int { return (n + 3) &^ 3 }

// A message is assembled at the end of buf; the zero value is ready to use.
// Attributes are appended in the order of the calls.
type message struct {
	buf []byte
	// start is where the message that is being assembled begins in buf.
	start int
}

// begin starts a message; typ holds the subsystem too.
func (m *message) begin(typ, flags int, sequence uint32) {
	m.start = len(m.buf)
	m.buf = binary.NativeEndian.AppendUint32(m.buf, 0)
	m.buf = binary.NativeEndian.AppendUint16(m.buf, uint16(typ))
	m.buf = binary.NativeEndian.AppendUint16(m.buf, uint16(flags|unix.NLM_F_REQUEST))
	m.buf = binary.NativeEndian.AppendUint32(m.buf, sequence)
	m.buf = binary.NativeEndian.AppendUint32(m.buf, 0)
}

// family appends the header that all messages of netfilter have.
func (m *message) family(family uint8) {
	m.buf = append(m.buf, family, unix.NFNETLINK_V0, 0, 0)
}

// finish fills in the length of the message.
func (m *message) finish() {
	binary.NativeEndian.PutUint32(m.buf[m.start:], uint32(len(m.buf)-m.start))
}

func (m *message) attribute(typ uint16, length int) {
	m.buf = binary.NativeEndian.AppendUint16(m.buf, uint16(attributeSize+length))
	m.buf = binary.NativeEndian.AppendUint16(m.buf, typ)
}

func (m *message) bytes(typ uint16, b []byte) {
	m.attribute(typ, len(b))
	m.buf = append(m.buf, b...)
	for len(m.buf)%4 != 0 {
		m.buf = append(m.buf, 0)
	}
}

func (m *message) u8(typ uint16, v uint8) { m.bytes(typ, []byte{v}) }

func (m *message) u16(typ uint16, v uint16) {
	m.attribute(typ, 2)
	m.buf = binary.BigEndian.AppendUint16(m.buf, v)
	m.buf = append(m.buf, 0, 0)
}

func (m *message) u32(typ uint16, v uint32) {
	m.attribute(typ, 4)
	m.buf = binary.BigEndian.AppendUint32(m.buf, v)
}

// nest starts an attribute that holds attributes, and returns what end needs.
func (m *message) nest(typ uint16) int {
	at := len(m.buf)
	m.attribute(typ|unix.NLA_F_NESTED, 0)
	return at
}

func (m *message) end(at int) {
	binary.NativeEndian.PutUint16(m.buf[at:], uint16(len(m.buf)-at))
}

// attributes walks over the attributes in a slice without copying any:
//
//	for a := walk(b); a.next(); {
//		switch a.typ { … a.data … }
//	}
//
// A malformed rest ends the walk and leaves err set.
type attributes struct {
	rest []byte
	typ  uint16
	data []byte
	err  error
}

var errMalformed = errors.New("malformed netlink message")

func walk(b []byte) attributes { return attributes{rest: b} }

func (a *attributes) next() bool {
	if len(a.rest) < attributeSize {
		if len(a.rest) != 0 {
			a.err = errMalformed
		}
		return false
	}
	length := int(binary.NativeEndian.Uint16(a.rest))
	if length < attributeSize || length > len(a.rest) {
		a.err = errMalformed
		return false
	}
	a.typ = binary.NativeEndian.Uint16(a.rest[2:]) & attributeType
	a.data = a.rest[attributeSize:length]
	a.rest = a.rest[min(align4(length), len(a.rest)):]
	return true
}

func (a *attributes) u8() uint8 {
	if len(a.data) < 1 {
		a.err = errMalformed
		return 0
	}
	return a.data[0]
}

func (a *attributes) u16() uint16 {
	if len(a.data) < 2 {
		a.err = errMalformed
		return 0
	}
	return binary.BigEndian.Uint16(a.data)
}

func (a *attributes) u32() uint32 {
	if len(a.data) < 4 {
		a.err = errMalformed
		return 0
	}
	return binary.BigEndian.Uint32(a.data)
}

// native is a number in the host's order, as rtnetlink writes them.
func (a *attributes) native() uint32 {
	if len(a.data) < 4 {
		a.err = errMalformed
		return 0
	}
	return binary.NativeEndian.Uint32(a.data)
}

// A reply is one message from the kernel. Its payload is only valid until the
// next receive.
type reply struct {
	typ      uint16
	flags    uint16
	sequence uint32
	payload  []byte
}

// splitReplies calls f for every message of a datagram.
func splitReplies(b []byte, f func(reply) error) error {
	for len(b) >= headerSize {
		length := int(binary.NativeEndian.Uint32(b))
		if length < headerSize || length > len(b) {
			return errMalformed
		}
		r := reply{
			typ:      binary.NativeEndian.Uint16(b[4:]),
			flags:    binary.NativeEndian.Uint16(b[6:]),
			sequence: binary.NativeEndian.Uint32(b[8:]),
			payload:  b[headerSize:length],
		}
		if err := f(r); err != nil {
			return err
		}
		b = b[min(align4(length), len(b)):]
	}
	if len(b) != 0 {
		return errMalformed
	}
	return nil
}

// A kernelError is what the kernel says about one message.
type kernelError struct {
	errno unix.Errno
	// message is the kernel's own explanation, often empty.
	message string
}

func (e *kernelError) Error() string {
	if e.message != "" {
		return fmt.Sprintf("%s (%s)", e.errno, e.message)
	}
	return e.errno.Error()
}

func (e *kernelError) Unwrap() error { return e.errno }

// extendedMessage is an attribute of an extended acknowledgement
// (linux/netlink.h, NLMSGERR_ATTR_MSG).
const extendedMessage = 1

// decodeError reads a message of type NLMSG_ERROR: nil is an acknowledgement.
func decodeError(r reply) (*kernelError, error) {
	if len(r.payload) < 4+headerSize {
		return nil, errMalformed
	}
	code := int32(binary.NativeEndian.Uint32(r.payload))
	if code == 0 {
		return nil, nil
	}
	e := &kernelError{errno: unix.Errno(-code)}
	if r.flags&unix.NLM_F_ACK_TLVS == 0 {
		return e, nil
	}
	// The request's header follows the code; its body only if it is not capped.
	at := 4 + headerSize
	if r.flags&unix.NLM_F_CAPPED == 0 {
		at = 4 + align4(int(binary.NativeEndian.Uint32(r.payload[4:])))
	}
	if at > len(r.payload) {
		return e, nil
	}
	for a := walk(r.payload[at:]); a.next(); {
		if a.typ == extendedMessage {
			e.message = string(cutNUL(a.data))
		}
	}
	return e, nil
}

// doneError reads the result at the end of a dump.
func doneError(r reply) error {
	if len(r.payload) < 4 {
		return nil
	}
	if code := int32(binary.NativeEndian.Uint32(r.payload)); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}

func cutNUL(b []byte) []byte {
	for i, c := range b {
		if c == 0 {
			return b[:i]
		}
	}
	return b
}
