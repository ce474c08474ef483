package nflog

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/flow"
)

// Packet is a packet that sgc's table refused.
type Packet struct {
	// Packet holds the interface that refused it and the direction, and what
	// the headers say; State and Forwarded are not known.
	flow.Packet
	// Block is the name of the interface block that governs the interface: the
	// same name, or a wildcard.
	Block string
	// By is who refused it.
	By Refuser
	// In and Out are the names of the interfaces by which it came in and is to
	// go out, "" where that is not known, or the interface is gone.
	In, Out string
	Group   uint16
	// Time is when the kernel saw the packet come in, or when a packet on its
	// way out was read, up to a tenth of a second later.
	Time time.Time
	// Length is the packet's on the wire in bytes, from its network header on.
	// For packets larger than the network header can tell (those that the
	// kernel is to cut up later) it is what was copied.
	Length int
	// Transport says that the ports and TCP flags, or the ICMP type and code,
	// are known. They stand in the first fragment of a packet alone.
	Transport bool
	// Fragment says that the packet is a fragment, and not the first one.
	Fragment bool
}

// Refuser is who refuses a packet.
type Refuser string

// A packet is refused by the network ACL or by the security groups of its
// interface.
const (
	ByACL    Refuser = "acl"
	ByGroups Refuser = "groups"
)

var (
	// ErrForeign says that a packet was logged by a rule that is not sgc's.
	ErrForeign = errors.New("the packet was logged by a rule of another program")
	// ErrMalformed says that a packet has no sound IP header. A raw socket of
	// the host may send such.
	ErrMalformed = errors.New("the packet is malformed")
)

// Packet reads what a copy means. It fails with ErrForeign if the copy's
// prefix is not one of sgc's, and with ErrMalformed, wrapped, if the packet is
// none.
func (l *Conn) Packet(c Copy) (Packet, error) {
	p, err := c.packet()
	if err != nil {
		return Packet{}, err
	}
	if p.In, err = l.interfaceName(c.In); err != nil {
		return Packet{}, err
	}
	if p.Out, err = l.interfaceName(c.Out); err != nil {
		return Packet{}, err
	}
	p.Interface = p.In
	if p.Direction == flow.Egress {
		p.Interface = p.Out
	}
	if p.Interface == "" {
		p.Interface = p.Block
	}
	if p.Time.IsZero() {
		p.Time = time.Now()
	}
	return p, nil
}

// packet reads all but the names of the interfaces.
func (c *Copy) packet() (Packet, error) {
	block, d, by, ok := parsePrefix(c.Prefix)
	if !ok {
		return Packet{}, ErrForeign
	}
	p, err := parse(c.Payload)
	if err != nil {
		return Packet{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	p.Block, p.Direction, p.By = block, d, by
	p.Group, p.Time = c.Group, c.Time
	return p, nil
}

// parsePrefix reads "sgc eth0 ingress groups: ", which the compiler writes.
// Names of interfaces hold no white space.
func parsePrefix(s string) (block string, d flow.Direction, by Refuser, ok bool) {
	s, isOwn := strings.CutPrefix(s, "sgc ")
	s, isWhole := strings.CutSuffix(s, ": ")
	words := strings.Split(s, " ")
	if !isOwn || !isWhole || len(words) != 3 || words[0] == "" {
		return "", 0, "", false
	}
	for _, d := range flow.Directions {
		if by := Refuser(words[2]); words[1] == d.String() && (by == ByACL || by == ByGroups) {
			return words[0], d, by, true
		}
	}
	return "", 0, "", false
}

// interfaceName returns the present name of an interface, "" for index 0 and
// for an interface that is gone.
func (l *Conn) interfaceName(index uint32) (string, error) {
	if index == 0 {
		return "", nil
	}
	// Any socket of the namespace answers.
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return "", err
	}
	request, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	request.SetUint32(index)
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.IoctlIfreq(int(fd), unix.SIOCGIFNAME, request) }); err != nil {
		return "", err
	}
	if errors.Is(failed, unix.ENODEV) {
		return "", nil
	}
	if failed != nil {
		return "", fmt.Errorf("read the name of interface %d: %w", index, failed)
	}
	return request.Name(), nil
}
