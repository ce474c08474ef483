package nlmsg

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Sizes of the fixed parts of messages, in bytes.
const (
	HeaderSize    = unix.SizeofNlMsghdr // of a message
	NetfilterSize = 4                   // struct nfgenmsg: family, version, resource id
	AttributeSize = unix.SizeofNlAttr   // the header of an attribute
)

// Align rounds a length up to the next multiple of four bytes, where the next
// message or attribute begins.
func Align(n int) int { return (n + 3) &^ 3 }

// A Message is assembled at the end of Buf, behind the messages that stand
// there; the zero value is ready to use. Attributes are appended in the order
// of the calls. The length of an attribute has 16 bits: the caller keeps those
// that may be long below that.
type Message struct {
	Buf []byte
	// start is where the message that is being assembled begins in Buf.
	start int
}

// Begin starts a request. The type holds the subsystem in its upper byte, where
// there is one.
func (m *Message) Begin(typ, flags int, sequence uint32) {
	m.start = len(m.Buf)
	m.Buf = binary.NativeEndian.AppendUint32(m.Buf, 0)
	m.Buf = binary.NativeEndian.AppendUint16(m.Buf, uint16(typ))
	m.Buf = binary.NativeEndian.AppendUint16(m.Buf, uint16(flags|unix.NLM_F_REQUEST))
	m.Buf = binary.NativeEndian.AppendUint32(m.Buf, sequence)
	m.Buf = binary.NativeEndian.AppendUint32(m.Buf, 0)
}

// Netfilter appends the header that all messages of netfilter have. The
// resource is the subsystem in the messages around a transaction, else 0.
func (m *Message) Netfilter(family uint8, resource uint16) {
	m.Buf = append(m.Buf, family, unix.NFNETLINK_V0)
	m.Buf = binary.BigEndian.AppendUint16(m.Buf, resource)
}

// Finish fills in the length of the message.
func (m *Message) Finish() {
	binary.NativeEndian.PutUint32(m.Buf[m.start:], uint32(len(m.Buf)-m.start))
}

func (m *Message) attribute(typ uint16, length int) {
	m.Buf = binary.NativeEndian.AppendUint16(m.Buf, uint16(AttributeSize+length))
	m.Buf = binary.NativeEndian.AppendUint16(m.Buf, typ)
}

func (m *Message) pad() {
	for len(m.Buf)%4 != 0 {
		m.Buf = append(m.Buf, 0)
	}
}

// Bytes appends an attribute whose value is b as it is.
func (m *Message) Bytes(typ uint16, b []byte) {
	m.attribute(typ, len(b))
	m.Buf = append(m.Buf, b...)
	m.pad()
}

// RawString appends the bytes of s, as Bytes does.
func (m *Message) RawString(typ uint16, s string) {
	m.attribute(typ, len(s))
	m.Buf = append(m.Buf, s...)
	m.pad()
}

// CString appends s with the NUL that the kernel's names end with.
func (m *Message) CString(typ uint16, s string) {
	m.attribute(typ, len(s)+1)
	m.Buf = append(m.Buf, s...)
	m.Buf = append(m.Buf, 0)
	m.pad()
}

// Uint8 appends a byte.
func (m *Message) Uint8(typ uint16, v uint8) {
	m.attribute(typ, 1)
	m.Buf = append(m.Buf, v, 0, 0, 0)
}

// Uint16 appends a number of 16 bits in network order.
func (m *Message) Uint16(typ uint16, v uint16) {
	m.attribute(typ, 2)
	m.Buf = binary.BigEndian.AppendUint16(m.Buf, v)
	m.Buf = append(m.Buf, 0, 0)
}

// Uint32 appends a number of 32 bits in network order.
func (m *Message) Uint32(typ uint16, v uint32) {
	m.attribute(typ, 4)
	m.Buf = binary.BigEndian.AppendUint32(m.Buf, v)
}

// Uint64 appends a number of 64 bits in network order.
func (m *Message) Uint64(typ uint16, v uint64) {
	m.attribute(typ, 8)
	m.Buf = binary.BigEndian.AppendUint64(m.Buf, v)
}

// Nest starts an attribute that holds attributes, and returns what End needs.
func (m *Message) Nest(typ uint16) int {
	at := len(m.Buf)
	m.attribute(typ|unix.NLA_F_NESTED, 0)
	return at
}

// End fills in the length of the attribute that Nest started.
func (m *Message) End(at int) {
	binary.NativeEndian.PutUint16(m.Buf[at:], uint16(len(m.Buf)-at))
}

// First returns the finished message that b begins with, without what follows.
func First(b []byte) []byte { return b[:binary.NativeEndian.Uint32(b)] }

// AddFlags adds flags to the message that b begins with.
func AddFlags(b []byte, flags uint16) {
	binary.NativeEndian.PutUint16(b[6:], binary.NativeEndian.Uint16(b[6:])|flags)
}

// SetType changes the type of the message that b begins with.
func SetType(b []byte, typ int) { binary.NativeEndian.PutUint16(b[4:], uint16(typ)) }

// SetSequence changes the sequence number of the message that b begins with.
func SetSequence(b []byte, sequence uint32) { binary.NativeEndian.PutUint32(b[8:], sequence) }
