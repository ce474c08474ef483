package scenario

import (
	"encoding/binary"
)

// A message is what the payload of every packet begins with, by which the
// other side knows the flow whatever NAT made of its addresses: a magic word, the
// number of the flow in its run, the side that sent it, and its sequence number.
const (
	headerSize = 16
	magic      = 0x7367636c // "sgcl"
)

type message struct {
	flow uint32
	side Side
	seq  int
}

// marshal returns the message, padded to size bytes.
func (m message) marshal(size int) []byte {
	b := make([]byte, max(size, headerSize))
	binary.BigEndian.PutUint32(b, magic)
	binary.BigEndian.PutUint32(b[4:], m.flow)
	b[8] = byte(m.side)
	binary.BigEndian.PutUint32(b[12:], uint32(m.seq))
	return b
}

// parseMessage reads a message; false for the payload of somebody else.
func parseMessage(b []byte) (message, bool) {
	if len(b) < headerSize || binary.BigEndian.Uint32(b) != magic || b[8] > byte(Responder) {
		return message{}, false
	}
	return message{binary.BigEndian.Uint32(b[4:]), Side(b[8]), int(binary.BigEndian.Uint32(b[12:]))}, true
}
