package conntrack

import (
	"net/netip"
	"testing"

	"sgc/internal/flow"
	"sgc/policies"
)

// namedPorts is a rule for ports of TCP, or UDP, and everybody.
func namedPorts(d flow.Direction, protocol flow.Protocol, ports ...flow.PortRange) *policies.Rule {
	id := d.String() + protocol.Name(flow.IPv4)
	for _, r := range ports {
		id += r.String()
	}
	return &policies.Rule{ID: id, Direction: d, Protocol: protocol, Ports: ports, Prefixes: []netip.Prefix{flow.IPv4.Any(), flow.IPv6.Any()}}
}

func everything(d flow.Direction) *policies.Rule {
	return &policies.Rule{ID: d.String() + "all", Direction: d, AllProtocols: true, Prefixes: []netip.Prefix{flow.IPv4.Any(), flow.IPv6.Any()}}
}

func ports(first, last uint16) flow.PortRange { return flow.PortRange{First: first, Last: last} }

// Where nobody waits any more and the ports leave it open who connected, the rules
// that name them tell.
func TestRulesTellWhoOpenedAFlow(t *testing.T) {
	s := newStand(t)
	tcp := func(d flow.Direction, list ...flow.PortRange) *policies.Rule { return namedPorts(d, flow.TCP, list...) }
	in, out := everything(flow.Ingress), everything(flow.Egress)
	ftp := tcp(flow.Ingress, ports(50000, 50100))
	elsewhere := tcp(flow.Ingress, ports(50000, 50100))
	elsewhere.Prefixes = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	for _, tc := range []struct {
		name          string
		rules         []*policies.Rule
		protocol      flow.Protocol
		local, remote uint16
		want          flow.Direction
	}{
		{"passive FTP", []*policies.Rule{ftp, out}, flow.TCP, 50001, 40000, flow.Ingress},
		{"a server that drains", []*policies.Rule{tcp(flow.Ingress, ports(50051, 50051)), out}, flow.TCP, 50051, 40000, flow.Ingress},
		{"one port of many ranges", []*policies.Rule{tcp(flow.Ingress, ports(22, 22), ports(50051, 50051)), out}, flow.TCP, 50051, 40000, flow.Ingress},
		{"RTP", []*policies.Rule{namedPorts(flow.Ingress, flow.UDP, ports(50000, 50100)), out}, flow.UDP, 50001, 40000, flow.Ingress},
		{"the upper half of the ephemeral ports", []*policies.Rule{tcp(flow.Ingress, ports(49152, 65535)), out}, flow.TCP, 50001, 40000, flow.Ingress},
		{"a client from below the ephemeral ports", []*policies.Rule{ftp, out}, flow.TCP, 50001, 1500, flow.Ingress},
		{"the host connects to a well-known port", []*policies.Rule{ftp, out}, flow.TCP, 50001, 443, flow.Egress},
		{"the host connects to a port of a user's, from one of many that a rule names", []*policies.Rule{tcp(flow.Ingress, ports(49152, 65535)), out}, flow.TCP, 50001, 5432, flow.Egress},
		{"the host connects to a port that a rule names", []*policies.Rule{ftp, tcp(flow.Egress, ports(5432, 5432)), out}, flow.TCP, 50001, 5432, flow.Egress},
		{"the rule is about other ports", []*policies.Rule{ftp, out}, flow.TCP, 50101, 40000, flow.Egress},
		{"the rule is about another protocol", []*policies.Rule{ftp, out}, flow.UDP, 50001, 40000, flow.Egress},
		{"the rule is about other peers", []*policies.Rule{elsewhere, out}, flow.TCP, 50001, 40000, flow.Egress},
		{"the rules name the ports of both sides", []*policies.Rule{ftp, tcp(flow.Egress, ports(40000, 40000))}, flow.TCP, 50001, 40000, flow.Egress},
		{"the rule of the peer's port alone", []*policies.Rule{in, tcp(flow.Egress, ports(50051, 50051))}, flow.TCP, 40000, 50051, flow.Egress},
		{"everything may come in", []*policies.Rule{in, out}, flow.TCP, 50001, 40000, flow.Egress},
		{"all ports may come in", []*policies.Rule{tcp(flow.Ingress, flow.AllPorts), out}, flow.TCP, 50001, 40000, flow.Egress},
		{"all ports but a few", []*policies.Rule{tcp(flow.Ingress, ports(1024, 65535)), out}, flow.TCP, 50001, 40000, flow.Egress},
		{"all ephemeral ports", []*policies.Rule{tcp(flow.Ingress, ports(32768, 60999)), out}, flow.TCP, 50001, 40000, flow.Egress},
		{"all ephemeral ports in two ranges", []*policies.Rule{tcp(flow.Ingress, ports(1024, 49999), ports(50000, 65535)), out}, flow.TCP, 50001, 40000, flow.Egress},
		{"neither is ephemeral: a server whose listener has gone, and a client from below", []*policies.Rule{tcp(flow.Ingress, ports(8080, 8080)), out}, flow.TCP, 8080, 20000, flow.Ingress},
		{"neither is ephemeral, and no rule is about them", []*policies.Rule{in, out}, flow.TCP, 8080, 20000, flow.Egress},
		{"an NFS client, and a rule for what is not its port", []*policies.Rule{tcp(flow.Ingress, ports(22, 22)), out}, flow.TCP, 850, 2049, flow.Egress},
		{"the same well-known port on both sides", []*policies.Rule{tcp(flow.Ingress, ports(179, 179)), out}, flow.TCP, 179, 179, flow.Egress},
	} {
		t.Run(tc.name, func(t *testing.T) {
			policy := only(tc.rules...)
			lacking := only(everything(flow.Egress))
			for _, f := range flow.Families {
				host, _, peer := ends(f)
				socket := &Socket{Protocol: tc.protocol, State: Established, Local: netip.AddrPortFrom(host, tc.local), Remote: netip.AddrPortFrom(peer, tc.remote)}
				if tc.protocol == flow.UDP {
					socket.State = Connected
				}
				// The rules in force tell, and those to be where none are in force.
				ungoverned := only()
				ungoverned.Interfaces[0].Name = "eth9"
				for name, o := range map[string]ChangeOptions{
					"in force":           {Old: &Enforced{Policy: policy}, New: &Enforced{Policy: lacking}},
					"to be":              {New: &Enforced{Policy: policy}},
					"newly for the link": {Old: &Enforced{Policy: ungoverned}, New: &Enforced{Policy: policy}},
				} {
					o.Routes, o.Openers = s.routes, s.openers
					var out Changed
					if err := NewChange(o).Socket(socket, &out); err != nil {
						t.Fatal(err)
					}
					if out.Opened != tc.want {
						t.Errorf("%s, rules %s: %s, want %s", f, name, out.Opened, tc.want)
					}
				}
			}
		})
	}
}

// A listener and a handshake are certain, whatever the rules name.
func TestRulesDoNotOverruleWhatIsKnown(t *testing.T) {
	s := newStand(t)
	host, _, peer := ends(flow.IPv4)
	socket := func(state SocketState, local, remote uint16) *Socket {
		return &Socket{Protocol: flow.TCP, State: state, Local: netip.AddrPortFrom(host, local), Remote: netip.AddrPortFrom(peer, remote)}
	}
	p := only(namedPorts(flow.Ingress, flow.TCP, ports(50000, 50100)), namedPorts(flow.Egress, flow.TCP, ports(40000, 40100)))
	c := NewChange(ChangeOptions{Old: &Enforced{Policy: p}, New: &Enforced{Policy: p}, Routes: s.routes, Openers: s.openers})
	waiting := waitingSocket(flow.TCP, Listening, "0.0.0.0:45000")
	c.openers.add(&waiting)
	for name, tc := range map[string]struct {
		socket *Socket
		want   flow.Direction
	}{
		"the host has sent a SYN":     {socket(SynSent, 50001, 50000), flow.Egress},
		"the host has answered a SYN": {socket(SynReceived, 45001, 40000), flow.Ingress},
		"somebody waits":              {socket(Established, 45000, 40000), flow.Ingress},
	} {
		var out Changed
		if err := c.Socket(tc.socket, &out); err != nil || out.Opened != tc.want {
			t.Errorf("%s: %s, %v; want %s", name, out.Opened, err, tc.want)
		}
	}
}

// The same rules tell of an entry that a segment in the middle has begun.
func TestRulesTellOfEntriesOfTheWrongDirection(t *testing.T) {
	s := newStand(t)
	host, _, peer := ends(flow.IPv4)
	entry := func(from flow.Direction, local, remote uint16) *Entry {
		e := &Entry{Status: SeenReply | Assured | Confirmed, TCPState: TCPEstablished, PickedUp: true}
		e.Original = Tuple{Protocol: flow.TCP, Source: host, SourcePort: local, Dest: peer, DestPort: remote}
		if from == flow.Ingress {
			e.Original = e.Original.Reversed()
		}
		e.Reply = e.Original.Reversed()
		return e
	}
	ftp := only(namedPorts(flow.Ingress, flow.TCP, ports(50000, 50100)), everything(flow.Egress))
	client := only(everything(flow.Ingress), namedPorts(flow.Egress, flow.TCP, ports(50051, 50051)))
	for _, tc := range []struct {
		name  string
		rules *policies.Policy
		entry *Entry
		want  flow.Direction
	}{
		{"the server's segment", ftp, entry(flow.Egress, 50001, 40000), flow.Ingress},
		{"its client's segment", ftp, entry(flow.Ingress, 50001, 40000), flow.Ingress},
		{"the server's segment, to a client from below", ftp, entry(flow.Egress, 50001, 1500), flow.Ingress},
		{"the segment of such a client", ftp, entry(flow.Ingress, 50001, 1500), flow.Ingress},
		{"a service's segment to the host", client, entry(flow.Ingress, 40000, 50051), flow.Egress},
		{"the host's segment to it", client, entry(flow.Egress, 40000, 50051), flow.Egress},
		{"a segment of which no rule tells", ftp, entry(flow.Egress, 45000, 40000), flow.Egress},
		{"a well-known service's segment to the host", ftp, entry(flow.Ingress, 50001, 443), flow.Egress},
	} {
		c := NewChange(ChangeOptions{Old: &Enforced{Policy: tc.rules}, New: &Enforced{Policy: only(everything(flow.Egress))}, Routes: s.routes, Openers: s.openers})
		var out Changed
		if err := c.Entry(tc.entry, &out); err != nil || out.Opened != tc.want {
			t.Errorf("%s: %s, %v; want %s", tc.name, out.Opened, err, tc.want)
		}
	}
}
