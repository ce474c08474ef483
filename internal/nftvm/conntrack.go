package nftvm

import (
	"encoding/binary"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// loadState loads the bit of the conntrack state.
type loadState struct{ into span }

func (i loadState) run(m *machine) bool {
	i.into.store(m, binary.NativeEndian.AppendUint32(nil, uint32(m.state())))
	return true
}

// loadDirection loads whether the packet is a reply. The rule ends for a packet
// that conntrack has no flow of.
//
// Source: Linux net/netfilter/nft_ct.c, nft_ct_get_eval.
type loadDirection struct{ into span }

func (i loadDirection) run(m *machine) bool {
	if !m.hasFlow() {
		return false
	}
	direction := byte(0)
	if m.packet.IsReply && m.packet.State != flow.New {
		direction = 1
	}
	i.into.store(m, []byte{direction})
	return true
}

// loadOriginalSource loads the source of the packet that opened the flow. The
// rule ends for a packet that conntrack has no flow of, and for one of the other
// family.
type loadOriginalSource struct{ into span }

func (i loadOriginalSource) run(m *machine) bool {
	source := m.packet.Source
	if m.packet.State != flow.New {
		source = m.packet.OriginalSource()
	}
	if !m.hasFlow() || source.BitLen() != 8*i.into.length {
		return false
	}
	i.into.store(m, source.AsSlice())
	return true
}

// setTimeout gives a flow that is being opened its timeouts; no verdict depends
// on it.
//
// Source: Linux net/netfilter/nft_ct.c, nft_ct_timeout_obj_eval, which leaves
// packets of confirmed flows and those of other families and protocols alone.
type setTimeout struct{ object *ruleset.Timeout }

func (i setTimeout) run(m *machine) bool {
	p := m.packet
	if m.state() == ruleset.CtNew && p.Family() == i.object.Family && p.Protocol == i.object.Protocol {
		m.result.Timeout = i.object.Name
	}
	return true
}

// notrack marks the packet before conntrack sees it. Later it does nothing.
//
// Source: Linux net/netfilter/nft_ct.c, nft_notrack_eval.
type notrack struct{}

func (notrack) run(m *machine) bool {
	if !m.tracked {
		m.result.Notrack = true
	}
	return true
}

// state returns what conntrack says of the packet.
//
// Source: Linux net/netfilter/nft_ct.c, nft_ct_get_eval.
func (m *machine) state() ruleset.CtState {
	p := m.packet
	switch {
	case m.result.Notrack:
		return ruleset.CtUntracked
	case !m.tracked:
		return ruleset.CtInvalid
	case p.Protocol.IsOther(p.Family()):
		// Whatever the kernel's tracker says must not matter: see the package's
		// documentation.
		if p.State == flow.Established {
			return ruleset.CtInvalid
		}
		return ruleset.CtEstablished
	}
	switch p.State {
	case flow.Established:
		return ruleset.CtEstablished
	case flow.Related:
		return ruleset.CtRelated
	case flow.Invalid:
		return ruleset.CtInvalid
	}
	if neverTracked(p) {
		return ruleset.CtUntracked
	}
	return ruleset.CtNew
}

// hasFlow reports whether conntrack has made or found a flow for the packet. Of
// the protocols that sgc tracks itself it says nothing: no rule should ask.
func (m *machine) hasFlow() bool {
	switch m.state() {
	case ruleset.CtNew, ruleset.CtEstablished, ruleset.CtRelated:
		return !m.packet.Protocol.IsOther(m.packet.Family())
	default:
		return false
	}
}

// neverTracked reports whether conntrack leaves the packet alone by itself:
// multicast listener, router and neighbour messages.
//
// Source: Linux net/netfilter/nf_conntrack_proto_icmpv6.c, noct_valid_new.
func neverTracked(p *flow.Packet) bool {
	return p.Protocol == flow.ICMPv6 && p.Family() == flow.IPv6 &&
		(130 <= p.ICMPType && p.ICMPType <= 136 || p.ICMPType == 143)
}
