package kerneltest

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// refusedFor is how long elements stay that a test has taken away long before.
const refusedFor = 10 * time.Minute

// timedBench is a bench whose policy lets everything through, with a kernel to
// change timed elements in.
type timedBench struct {
	*bench
	kernel *apply.Kernel
	table  *ruleset.Table
}

func newTimedBench(t *testing.T) *timedBench {
	t.Helper()
	text := everybodyTracked + `
interface "eth0" { security_groups = ["all"] }
interface "eth1" { security_groups = ["all"] }
`
	b := &timedBench{bench: newBench(t, text, "eth0", "eth1")}
	b.kernel, b.table = openKernel(t, b.Host), compile.Compile(load(t, text), compile.Environment{})
	return b
}

func (b *timedBench) change(t *testing.T, remove bool, set string, elements ...ruleset.TimedElement) {
	t.Helper()
	var changes []apply.TimedChange
	for _, e := range elements {
		changes = append(changes, apply.TimedChange{Set: set, Remove: remove, Element: e})
	}
	if _, err := b.kernel.ChangeTimed(context.Background(), b.table, changes); err != nil {
		t.Fatal(err)
	}
}

// passes asks the kernel alone: what is refused for a while is not the policy's.
func (b *timedBench) passes(t *testing.T, about string, p flow.Packet, want bool) {
	t.Helper()
	o, err := b.ask.AskOne(p)
	if err != nil {
		t.Fatal(err)
	}
	if !o.Arrived || o.Passed != want {
		t.Errorf("%s: %s: %s, want passed %t", about, &p, o, want)
	}
}

// What the refused sets hold does not pass for as long as it is there; all else
// does, also of known flows, other interfaces, ports and peers.
func TestRefusedUDP(t *testing.T) {
	t.Parallel()
	b := newTimedBench(t)
	for _, f := range flow.Families {
		peer := worldOf[f]
		near := netip.PrefixFrom(peer, peer.BitLen()-8).Masked()
		beside, far := near.Addr().Next(), officeOf[f]
		for _, refused := range flow.Directions {
			single := policies.Held{
				Interface: "eth0", Opened: refused.Opposite(), Local: hostOf[f], LocalPort: 5353,
				Peers: flow.Range{First: peer, Last: peer}, PeerPorts: flow.PortRange{First: 4000, Last: 4000}, Comment: "a flow",
			}
			space := policies.Held{
				Interface: "eth0", Opened: refused.Opposite(), LocalPort: 5454,
				Peers: flow.RangeOf(near), PeerPorts: flow.PortRange{First: 1024, Last: 65535}, Comment: "a space",
			}
			to := func(from netip.Addr, fromPort, port uint16, change ...func(*flow.Packet)) flow.Packet {
				p := packet("eth0", flow.Ingress, flow.UDP, from.String(), append([]func(*flow.Packet){ports(fromPort, port)}, change...)...)
				if refused == flow.Egress {
					return p.Reply()
				}
				return p
			}
			established := func(p *flow.Packet) { p.State = flow.Established }
			rows := []struct {
				about   string
				packet  flow.Packet
				refused bool
			}{
				{"the flow", to(peer, 4000, 5353), true},
				{"a packet that conntrack knows", to(peer, 4000, 5353, established), false},
				{"another port of the peer", to(peer, 4001, 5353), false},
				{"another port of the host", to(peer, 4000, 5354), false},
				{"another peer", to(beside, 4000, 5353), false},
				{"another interface", to(peer, 4000, 5353, func(p *flow.Packet) { p.Interface = "eth1" }), false},
				{"TCP", to(peer, 4000, 5353, func(p *flow.Packet) { p.Protocol, p.TCPFlags = flow.TCP, flow.SYN }), false},
				{"the space, its first port", to(peer, 1024, 5454), true},
				{"its last port", to(beside, 65535, 5454), true},
				{"a port before it", to(peer, 1023, 5454), false},
				{"a peer outside of it", to(far, 4000, 5454), false},
				{"another port of the host", to(peer, 4000, 5455), false},
				{"the space on another interface", to(peer, 4000, 5454, func(p *flow.Packet) { p.Interface = "eth1" }), false},
			}
			forwarded := to(peer, 4000, 5454, func(p *flow.Packet) { p.Forwarded, p.Dest = true, beyond[f] })
			for _, h := range []policies.Held{single, space} {
				set, e := compile.RefusedElement(h, refusedFor, 0)
				b.change(t, false, set, e)
			}
			for _, row := range rows {
				b.passes(t, refused.String()+", "+row.about, row.packet, !row.refused)
				back := row.packet.Reply()
				back.State = flow.New
				b.passes(t, refused.String()+", the other way of "+row.about, back, true)
				if err := b.ask.Witness().Flush(); err != nil {
					t.Fatal(err)
				}
			}
			b.passes(t, refused.String()+", the space, routed", forwarded, true)
			b.readsBack(t, single, space)
			for _, h := range []policies.Held{single, space} {
				set, e := compile.RefusedElement(h, refusedFor, 0)
				b.change(t, true, set, e)
			}
			for _, row := range rows {
				b.passes(t, refused.String()+", afterwards, "+row.about, row.packet, true)
				if err := b.ask.Witness().Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// readsBack expects that the kernel's sets hold just this.
func (b *timedBench) readsBack(t *testing.T, want ...policies.Held) {
	t.Helper()
	got := map[policies.Held]bool{}
	for _, s := range snapshot(t, b.kernel).Table.Sets {
		for _, e := range s.Timed {
			h, ok := compile.RefusedFrom(s.Name, e)
			if !ok {
				t.Errorf("set %s: %x is no element of ours", s.Name, e.First)
			}
			if e.Timeout != refusedFor || e.Expires <= 0 || e.Expires > refusedFor {
				t.Errorf("set %s: %s of %s are left", s.Name, e.Expires, e.Timeout)
			}
			got[h] = true
		}
	}
	for _, h := range want {
		if !got[h] {
			t.Errorf("the kernel does not hold %+v", h)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the kernel holds %d, want %d", len(got), len(want))
	}
}

// While the window is open, routed TCP without an entry is judged by the rules;
// what begins or ends on the host is not.
func TestAdoptionWindow(t *testing.T) {
	t.Parallel()
	b := newTimedBench(t)
	type row struct {
		about  string
		packet flow.Packet
		routed bool
	}
	var rows []row
	for _, f := range flow.Families {
		for _, d := range flow.Directions {
			for _, forwarded := range []bool{false, true} {
				p := packet("eth0", d, flow.TCP, worldOf[f].String(), ports(40000, 443))
				p.TCPFlags, p.Forwarded = flow.ACK, forwarded
				if forwarded && d == flow.Ingress {
					p.Dest = beyond[f]
				} else if forwarded {
					p.Source = beyond[f]
				}
				rows = append(rows, row{f.String() + " " + d.String(), p, forwarded})
			}
		}
	}
	set, elements := compile.Adoption()
	for _, isOpen := range []bool{false, true, false} {
		about := "closed, "
		if isOpen {
			about = "open, "
			b.change(t, false, set, elements...)
		}
		for _, r := range rows {
			b.passes(t, about+r.about, r.packet, isOpen && r.routed)
			syn := r.packet
			syn.TCPFlags = flow.SYN
			b.passes(t, about+"a SYN, "+r.about, syn, true)
		}
		if isOpen {
			b.change(t, true, set, elements...)
		}
	}
}
