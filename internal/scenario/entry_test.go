package scenario

import (
	"net/netip"
	"testing"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// A ping's entry is its own: neither that of a ping the other way, be it of the same
// identifier, nor that of another message between the same hosts.
func TestEntryOfPings(t *testing.T) {
	client, server, router := netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("198.51.100.1")
	tuple := func(from, to netip.Addr, kind, code uint8, id uint16) lab.Tuple {
		return lab.Tuple{
			Protocol: flow.ICMP, Source: netip.AddrPortFrom(from, 0), Dest: netip.AddrPortFrom(to, 0),
			ICMPType: kind, ICMPCode: code, ICMPID: id,
		}
	}
	entry := func(from, to netip.Addr, kind uint8, id uint16) lab.Entry {
		return lab.Entry{Original: tuple(from, to, kind, 0, id), Reply: tuple(to, from, 0, 0, id)}
	}
	in := entry(client, server, 8, 7)
	masqueraded := lab.Entry{Original: tuple(client, server, 8, 0, 7), Reply: tuple(server, router, 0, 0, 7)}
	published := lab.Entry{Original: tuple(client, router, 8, 0, 7), Reply: tuple(server, client, 0, 0, 7)}
	coded := entry(client, server, 8, 0)
	coded.Original.ICMPCode = 1
	ping, message := &Flow{}, &Flow{Message: &ICMPMessage{Type: 8}}
	for _, tt := range []struct {
		name  string
		spec  *Flow
		entry lab.Entry
		want  bool
	}{
		{"its own", ping, in, true},
		{"the other way", ping, entry(server, client, 8, 7), false},
		{"another identifier", ping, entry(client, server, 8, 8), false},
		{"a timestamp request", ping, entry(client, server, 13, 7), false},
		{"with a translated source", ping, masqueraded, true},
		{"with a translated destination", ping, published, true},
		{"a message's own", message, entry(client, server, 8, 0), true},
		{"a message the other way", message, entry(server, client, 8, 0), false},
		{"a ping beside a message", message, in, false},
		{"a message of another code", message, coded, false},
		{"a message of another type", message, entry(client, server, 13, 0), false},
	} {
		spec := *tt.spec
		spec.Protocol, spec.Source, spec.Dest, spec.ReachesAddress = flow.ICMP, client, server, server
		p := &player{spec: &spec, recorder: newRecorder(Lane{})}
		if spec.IsPing() {
			p.id = 7
		}
		if got := p.entryIn([]lab.Entry{tt.entry}) != nil; got != tt.want {
			t.Errorf("%s: found is %t", tt.name, got)
		}
	}
}

// A datagram the other way is one of the same flow, as conntrack has it.
func TestEntryOfPortsGoesBothWays(t *testing.T) {
	_, p := paused(t, flow.UDP)
	there, here := netip.MustParseAddrPort("192.0.2.77:40001"), netip.MustParseAddrPort("192.0.2.10:22")
	e := lab.Entry{Original: lab.Tuple{Protocol: flow.UDP, Source: here, Dest: there}, Reply: lab.Tuple{Protocol: flow.UDP, Source: there, Dest: here}}
	if p.entryIn([]lab.Entry{e}) == nil {
		t.Error("an entry that the other side opened is not found")
	}
	e.Original.Source, e.Reply.Dest = there, there
	if p.entryIn([]lab.Entry{e}) != nil {
		t.Error("an entry of other ports is found")
	}
}
