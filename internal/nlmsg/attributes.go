package nlmsg

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// ErrMalformed says that bytes are no messages, or that a message is not what
// its type says.
var ErrMalformed = errors.New("malformed netlink message")

// typeMask takes the two flag bits away from an attribute's type.
const typeMask = 0x3fff

// Attributes walks over the attributes in a slice without copying any:
//
//	a := nlmsg.Walk(b)
//	for a.Next() {
//		switch a.Type { … a.Data … }
//	}
//	return a.Err
//
// A malformed rest ends the walk and leaves Err set, and so does a number of
// another length than its method reads: the kernel writes numbers at exactly
// their length, so that another one is another attribute than was thought.
type Attributes struct {
	// Type and Data are those of the present attribute. The type has no flags;
	// the data is a part of the slice.
	Type uint16
	Data []byte
	// Err is nil or ErrMalformed.
	Err  error
	rest []byte
}

// Walk begins before the first attribute.
func Walk(b []byte) Attributes { return Attributes{rest: b} }

// Next goes on to the next attribute, if there is one.
func (a *Attributes) Next() bool {
	if len(a.rest) < AttributeSize {
		if len(a.rest) != 0 {
			a.Err = ErrMalformed
		}
		return false
	}
	length := int(binary.NativeEndian.Uint16(a.rest))
	if length < AttributeSize || length > len(a.rest) {
		a.Err = ErrMalformed
		return false
	}
	a.Type = binary.NativeEndian.Uint16(a.rest[2:]) & typeMask
	a.Data = a.rest[AttributeSize:length]
	a.rest = a.rest[min(Align(length), len(a.rest)):]
	return true
}

// Uint8 is the value as a byte.
func (a *Attributes) Uint8() uint8 {
	if len(a.Data) != 1 {
		a.Err = ErrMalformed
		return 0
	}
	return a.Data[0]
}

// Uint16 is the value as a number of 16 bits in network order.
func (a *Attributes) Uint16() uint16 {
	if len(a.Data) != 2 {
		a.Err = ErrMalformed
		return 0
	}
	return binary.BigEndian.Uint16(a.Data)
}

// Uint32 is the value as a number of 32 bits in network order.
func (a *Attributes) Uint32() uint32 {
	if len(a.Data) != 4 {
		a.Err = ErrMalformed
		return 0
	}
	return binary.BigEndian.Uint32(a.Data)
}

// NativeUint32 is the value as a number of 32 bits in the host's order, as
// rtnetlink writes them.
func (a *Attributes) NativeUint32() uint32 {
	if len(a.Data) != 4 {
		a.Err = ErrMalformed
		return 0
	}
	return binary.NativeEndian.Uint32(a.Data)
}

// Uint64 is the value as a number of 64 bits in network order.
func (a *Attributes) Uint64() uint64 {
	if len(a.Data) != 8 {
		a.Err = ErrMalformed
		return 0
	}
	return binary.BigEndian.Uint64(a.Data)
}

// CString is a copy of the value up to its NUL.
func (a *Attributes) CString() string { return string(CutNUL(a.Data)) }

// CutNUL returns what stands before the first NUL, or all of b.
func CutNUL(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}
