package policies

import "time"

// EffectiveTimeouts returns the idle timeouts of the interface: those of its
// block, else the language's.
func (i *Interface) EffectiveTimeouts() Timeouts {
	if i.Timeouts == nil {
		return DefaultTimeouts
	}
	return *i.Timeouts
}

// EffectiveTimeouts returns the idle timeouts of the block's peers: what the block
// leaves out is the interface's.
func (a *AlwaysTrack) EffectiveTimeouts(i *Interface) Timeouts {
	t := i.EffectiveTimeouts()
	if a.TCPEstablished > 0 {
		t.TCPEstablished = a.TCPEstablished
	}
	if a.UDPStream > 0 {
		t.UDPStream = a.UDPStream
	}
	return t
}

// HostTimeouts returns the host's default idle timeouts for TCP and UDP (2.7): of
// each, the interface blocks' where all of them agree, else the language's. It is
// the zero value for a policy without interface blocks, which leaves the host's
// alone.
func (p *Policy) HostTimeouts() Timeouts {
	if len(p.Interfaces) == 0 {
		return Timeouts{}
	}
	agreed := p.Interfaces[0].EffectiveTimeouts()
	for _, i := range p.Interfaces[1:] {
		t := i.EffectiveTimeouts()
		unless(&agreed.TCPEstablished, t.TCPEstablished, DefaultTimeouts.TCPEstablished)
		unless(&agreed.UDP, t.UDP, DefaultTimeouts.UDP)
		unless(&agreed.UDPStream, t.UDPStream, DefaultTimeouts.UDPStream)
	}
	return agreed
}

// unless sets agreed to otherwise, unless the two agree.
func unless(agreed *time.Duration, with, otherwise time.Duration) {
	if *agreed != with {
		*agreed = otherwise
	}
}
