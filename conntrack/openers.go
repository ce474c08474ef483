package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"sgc/internal/flow"
)

// Openers tells who opened the flows of the host's sockets, which the kernel
// does not keep: it looks at who waits for peers today, and at the port numbers.
// It is of the moment in which it was made.
type Openers struct {
	// waiting are the listening TCP and the unconnected UDP sockets.
	waiting map[waitingPort][]Socket
	// ephemeral are the ports that the kernel gives to sockets which ask for
	// none.
	ephemeral flow.PortRange
	// rules are those of a policy that tell more; nil if nobody asked.
	rules opening
}

type waitingPort struct {
	protocol flow.Protocol
	port     uint16
}

// sysctlPortRange is the setting of the ephemeral ports, of both families.
const sysctlPortRange = "net.ipv4.ip_local_port_range"

// Openers reads who waits for peers in the namespace, and the range of its
// ephemeral ports. It fails as Sockets does; with ErrNoSockets the openers are
// there, too, and go by the ports where they know of nobody who waits.
func (t *Table) Openers(ctx context.Context) (*Openers, error) {
	text, err := t.readSysctl(sysctlPortRange)
	if err != nil {
		return nil, err
	}
	ephemeral, err := parsePortRange(text)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		o := &Openers{waiting: map[waitingPort][]Socket{}, ephemeral: ephemeral}
		err := t.dumpSockets(ctx, waitingSockets, func(s *Socket) error {
			o.add(s)
			return nil
		})
		switch {
		case err == nil, errors.Is(err, ErrNoSockets):
			return o, err
		case !errors.Is(err, ErrTorn) || attempt == attempts:
			return nil, err
		}
	}
}

func parsePortRange(text string) (flow.PortRange, error) {
	var r flow.PortRange
	if n, err := fmt.Sscan(text, &r.First, &r.Last); err != nil || n != 2 || r.First > r.Last {
		return r, fmt.Errorf("read %s: %q is no range of ports", sysctlPortRange, text)
	}
	return r, nil
}

func (o *Openers) add(s *Socket) {
	at := waitingPort{s.Protocol, s.Local.Port()}
	o.waiting[at] = append(o.waiting[at], *s)
}

// Opened returns the direction in which the flow of a connected socket was
// opened, as far as it can be told:
//
//   - What TCP knows for certain comes first: the host opened what it has sent
//     a SYN for, and did not open what it has answered.
//   - A socket that waits for peers at the flow's own address and port has let
//     the flow in: a listener, or an unconnected UDP socket whose server makes
//     a connected one for each peer.
//   - Otherwise, the side with the ephemeral port is the one that connected.
//   - Where a client may have either port, the rules of a policy tell, if some
//     of one direction alone name the port: see Change.byRules. (A server of
//     passive FTP, for one, has such ports, and closes its listeners.)
//   - If both ports are ephemeral, the host connected: it is the host's
//     listener that is missing, and not the peer's, of which nothing is known.
//   - If neither is, the host connected too, for the same reason, from a port of
//     its choice (NFS and other clients of privileged ports: 512 and above;
//     NTP and IKE, 123 and 500 on both sides). Only where the host's port is
//     below 512 and the peer's is 1024 or above has the listener gone since
//     then: nobody connects from there, and other systems' and NAT's ephemeral
//     ports begin at 1024.
//
// The last four can err, such as for a flow that outlives its listener on an
// ephemeral port which no rule names.
func (o *Openers) Opened(s *Socket) flow.Direction {
	switch s.State {
	case SynSent:
		return flow.Egress
	case SynReceived:
		return flow.Ingress
	}
	if o.waitsFor(s) {
		return flow.Ingress
	}
	if opened, ok := o.byRules(s); ok {
		return opened
	}
	return o.byPorts(s.Local.Port(), s.Remote.Port())
}

// waitsFor reports whether a socket waits for peers where a connected one is.
func (o *Openers) waitsFor(s *Socket) bool {
	waiting := o.waiting[waitingPort{s.Protocol, s.Local.Port()}]
	for i := range waiting {
		if waiting[i].covers(s) {
			return true
		}
	}
	return false
}

const (
	// firstReserved is the first of the ports that clients with privileges bind
	// (bindresvport), firstUser the first that needs none.
	firstReserved = 512
	firstUser     = 1024
)

func (o *Openers) byPorts(local, remote uint16) flow.Direction {
	switch here, there := o.ephemeral.Contains(local), o.ephemeral.Contains(remote); {
	case here:
		return flow.Egress
	case there, local < firstReserved && remote >= firstUser:
		return flow.Ingress
	}
	return flow.Egress
}

// covers reports whether a socket that waits for peers takes those of a
// connected socket with its own port.
func (s *Socket) covers(connected *Socket) bool {
	if s.Interface != 0 && s.Interface != connected.Interface {
		return false
	}
	at := connected.Local.Addr()
	switch s.Local.Addr() {
	case at:
		return true
	case netip.IPv4Unspecified():
		return at.Is4()
	case netip.IPv6Unspecified():
		return at.Is6() || s.DualStack
	}
	return false
}
