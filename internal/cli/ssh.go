package cli

import (
	"net/netip"
	"strconv"
	"strings"

	"sgc/conntrack"
	"sgc/internal/flow"
)

// sshVariable is where an SSH server says over which connection a command runs:
// address and port of the client, then of the server.
const sshVariable = "SSH_CONNECTION"

// sshConnection is the connection that the command runs over; the zero value is
// none.
type sshConnection struct{ client, server netip.AddrPort }

// sshOf reads the connection from the environment.
func sshOf(environ []string) sshConnection {
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		words := strings.Fields(value)
		if name != sshVariable || len(words) != 4 {
			continue
		}
		client, ok := sshEnd(words[0], words[1])
		server, also := sshEnd(words[2], words[3])
		if ok && also {
			return sshConnection{client, server}
		}
	}
	return sshConnection{}
}

func sshEnd(address, port string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(a.Unmap().WithZone(""), uint16(n)), err == nil
}

// is reports whether the flow that p opened is the connection.
func (c sshConnection) is(p *flow.Packet) bool {
	return p.Protocol == flow.TCP && c.client.IsValid() &&
		netip.AddrPortFrom(p.Source, p.SourcePort) == c.client && netip.AddrPortFrom(p.Dest, p.DestPort) == c.server
}

// needs reports whether the connection is that of an entry without which it ends:
// it is tracked, and no later segment of it is a SYN.
func (c sshConnection) needs(j *conntrack.Judged) bool {
	for i := range j.Legs {
		l := &j.Legs[i]
		// An entry that began in the middle may be written the other way round.
		if l.Class() == conntrack.ClassTracked && (c.is(&l.Packet) || c.is(reply(&l.Packet))) {
			return true
		}
	}
	return false
}
