package nflog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Numbers of the nflog interface.
//
// Source: linux/netfilter/nfnetlink_log.h.
const (
	messagePacket = unix.NFNL_SUBSYS_ULOG << 8
	messageConfig = messagePacket | 1

	configCommand, configMode, configTimeout, configThreshold, configFlags = 1, 2, 4, 5, 6

	commandBind, commandUnbind = 1, 2
	copyPacket                 = 2
	flagSequence               = 1

	attrTimestamp, attrIn, attrOut          = 3, 4, 5
	attrPayload, attrPrefix, attrSequenceNo = 9, 10, 12
)

// headerSize is that of struct nfgenmsg: family, version, group (big endian).
const headerSize = 4

// Copy is one packet as the kernel tells it.
type Copy struct {
	Group uint16
	// Prefix is that of the statement that logged the packet.
	Prefix string
	// Payload is the packet from its network header on, cut off after the
	// bytes that the Conn asked for.
	Payload []byte
	// In and Out are the indexes of the interfaces by which the packet came in
	// and is to go out, 0 where that is not known at the statement's hook.
	In, Out uint32
	// Time is when the kernel saw the packet come in. For packets on their way
	// out the kernel does not say: it is the zero value then.
	Time time.Time
	// Missed is how many packets of the group the kernel could not tell of
	// between the one before and this one.
	Missed uint32
}

// numbered is a copy with its number in the kernel's count of its group, which
// begins with 0.
type numbered struct {
	Copy
	number   uint32
	isNumber bool
}

var errShort = errors.New("shorter than its header")

// decodeCopy reads the body of a packet message.
func decodeCopy(b []byte) (numbered, error) {
	if len(b) < headerSize {
		return numbered{}, errShort
	}
	c := numbered{Copy: Copy{Group: binary.BigEndian.Uint16(b[2:])}}
	attrs, err := netlink.NewAttributeDecoder(b[headerSize:])
	if err != nil {
		return numbered{}, err
	}
	attrs.ByteOrder = binary.BigEndian
	for attrs.Next() {
		switch attrs.Type() {
		case attrTimestamp:
			attrs.Do(func(b []byte) error {
				if len(b) != 16 {
					return fmt.Errorf("a time of %d bytes", len(b))
				}
				seconds, micros := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
				if seconds>>63 != 0 || micros >= 1_000_000 {
					return fmt.Errorf("a time of %d seconds and %d microseconds", seconds, micros)
				}
				c.Time = time.Unix(int64(seconds), int64(micros)*1000)
				return nil
			})
		case attrIn:
			c.In = attrs.Uint32()
		case attrOut:
			c.Out = attrs.Uint32()
		case attrPrefix:
			c.Prefix = attrs.String()
		case attrPayload:
			c.Payload = attrs.Bytes()
		case attrSequenceNo:
			c.number, c.isNumber = attrs.Uint32(), true
		}
	}
	if err := attrs.Err(); err != nil {
		return numbered{}, err
	}
	return c, nil
}

// configMessage makes a request about a group.
func configMessage(group uint16, attrs ...netlink.Attribute) (netlink.Message, error) {
	b, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return netlink.Message{}, err
	}
	return netlink.Message{
		Header: netlink.Header{Type: messageConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{unix.AF_UNSPEC, 0, byte(group >> 8), byte(group)}, b...),
	}, nil
}

// Batches of packets, which keep a flood readable. A packet waits for others
// for batchDelay at most, which the kernel counts in hundredths of a second.
const (
	batchSize  = 32
	batchDelay = 10
)

// bindMessage asks for the packets of a group.
func bindMessage(group uint16, c Config) (netlink.Message, error) {
	mode := binary.BigEndian.AppendUint32(nil, uint32(c.Bytes))
	threshold := uint32(batchSize)
	if c.AtOnce {
		threshold = 1
	}
	return configMessage(group,
		netlink.Attribute{Type: configCommand, Data: []byte{commandBind}},
		netlink.Attribute{Type: configMode, Data: append(mode, copyPacket, 0)},
		netlink.Attribute{Type: configTimeout, Data: binary.BigEndian.AppendUint32(nil, batchDelay)},
		netlink.Attribute{Type: configThreshold, Data: binary.BigEndian.AppendUint32(nil, threshold)},
		netlink.Attribute{Type: configFlags, Data: binary.BigEndian.AppendUint16(nil, flagSequence)},
	)
}

// unbindMessage gives a group back. The kernel first sends what it holds of it.
//
// Source: Linux net/netfilter/nfnetlink_log.c, __instance_destroy.
func unbindMessage(group uint16) (netlink.Message, error) {
	return configMessage(group, netlink.Attribute{Type: configCommand, Data: []byte{commandUnbind}})
}
