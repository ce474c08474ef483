package scenario

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"sgc/internal/lab"
	"sgc/policies"
)

// MaxSpeed is where the kernel's whole seconds end: a day is a minute and a
// half.
const MaxSpeed = 1000

// scaled divides a timeout by the speed, rounded up to what the kernel counts:
// whole seconds. 0, which stands for no timeout of one's own, stays.
func scaled(d time.Duration, speed int) time.Duration {
	if d <= 0 {
		return d
	}
	d = (d + time.Duration(speed) - 1) / time.Duration(speed)
	return wholeSeconds(d)
}

// wholeSeconds rounds up.
func wholeSeconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

// leastTold is the shortest timeout of an entry that can be told from others: what
// is left of it is counted in whole seconds, and two more may have passed.
const leastTold = 5 * time.Second

// CheckSpeed reports the expectations of timeouts that would say nothing at a
// speed.
func (s *Scenario) CheckSpeed(speed int) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, step := range s.Steps {
		for _, e := range step.Expects {
			here := scaled(e.Timeout, speed)
			if e.Timeout == 0 || speed <= 1 || here >= leastTold {
				continue
			}
			at := e.At
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagError, Summary: "Timeout too short at this speed", Subject: &at,
				Detail: fmt.Sprintf("At speed %d the timeout of %s is %s. What is left of it is known in whole seconds, give or take two, so that it could not be told from another one below %s. Play it at speed %d at most, or leave the timeout out.",
					speed, brief(e.Timeout), brief(here), brief(leastTold), max(1, int(e.Timeout/leastTold))),
			})
		}
	}
	return diags
}

// timeout is what the kernel has for a timeout of the scenario.
func (r *Run) timeout(d time.Duration) time.Duration { return scaled(d, r.speed) }

// scalePolicy returns the policy with its idle timeouts divided by the speed. An
// interface that leaves them to the language gets the language's, divided.
func scalePolicy(p *policies.Policy, speed int) *policies.Policy {
	if speed <= 1 {
		return p
	}
	out := *p
	out.Interfaces = slices.Clone(p.Interfaces)
	for n, i := range p.Interfaces {
		block, t := *i, i.EffectiveTimeouts()
		block.Timeouts = &policies.Timeouts{
			TCPEstablished: scaled(t.TCPEstablished, speed), UDP: scaled(t.UDP, speed), UDPStream: scaled(t.UDPStream, speed),
		}
		block.AlwaysTrack = slices.Clone(i.AlwaysTrack)
		for m, a := range i.AlwaysTrack {
			peers := *a
			peers.TCPEstablished, peers.UDPStream = scaled(a.TCPEstablished, speed), scaled(a.UDPStream, speed)
			block.AlwaysTrack[m] = &peers
		}
		out.Interfaces[n] = &block
	}
	if c := p.Host.Conntrack; c != nil {
		conntrack := *c
		conntrack.ICMPTimeout, conntrack.GenericTimeout = scaled(c.ICMPTimeout, speed), scaled(c.GenericTimeout, speed)
		out.Host.Conntrack = &conntrack
	}
	return &out
}

// scalePolicyOf is scalePolicy for what a load returned. Its warnings are left
// out: a scenario may do what is not wise.
func scalePolicyOf(l *policies.Loaded, speed int) *policies.Loaded {
	return &policies.Loaded{Policy: scalePolicy(l.Policy, speed), Files: l.Files}
}

// timeouts are what the speed made of the idle timeouts that the managed host
// has under the scenario's first policy, which sets some of the kernel's.
func (r *Run) timeouts() []lab.Timeout {
	out := slices.Clone(r.scaled)
	i := slices.IndexFunc(r.scenario.Policies, func(p *Policy) bool { return len(p.Loaded.Policy.Interfaces) > 0 })
	if i < 0 {
		return out
	}
	t := r.scenario.Policies[i].Loaded.Policy.HostTimeouts()
	set := map[string]time.Duration{"tcp_established": t.TCPEstablished, "udp": t.UDP, "udp_stream": t.UDPStream}
	if c := r.scenario.Policies[i].Loaded.Policy.Host.Conntrack; c != nil {
		set["icmp"], set["icmpv6"], set["generic"] = c.ICMPTimeout, c.ICMPTimeout, c.GenericTimeout
	}
	for n := range out {
		if d := set[out[n].Name]; d > 0 {
			out[n].Was, out[n].Is = int(d/time.Second), int(r.timeout(d)/time.Second)
		}
	}
	return out
}
