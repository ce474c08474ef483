package scenario

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sgc/internal/flow"
	"sgc/policies"
)

// Stretch is an idle timeout that outlasts silences of a scenario at a speed, which
// it would not outlast if the kernel counted more than whole seconds.
type Stretch struct {
	// Name is the kernel's, such as udp_stream.
	Name string
	// Timeout is the scenario's, Here what the speed makes of it, and Lasts how
	// long that is in the scenario's time.
	Timeout, Here, Lasts time.Duration
}

func (s Stretch) String() string {
	return fmt.Sprintf("%s %s is %s, as long as %s of the scenario", s.Name, brief(s.Timeout), brief(s.Here), brief(s.Lasts))
}

// stretch returns what a speed makes of an idle timeout.
func stretch(name string, timeout time.Duration, speed int) Stretch {
	here := scaled(timeout, speed)
	return Stretch{name, timeout, here, here * time.Duration(speed)}
}

// Stretches returns the idle timeouts of the scenario's flows that are so much longer
// than a speed says that it may matter, each once.
func (s *Scenario) Stretches(speed int) []Stretch {
	var out []Stretch
	for _, p := range s.Policies {
		if p.Loaded.Policy == nil {
			continue
		}
		for _, f := range s.flows() {
			name, idle := idleTimeout(p.Loaded.Policy, s.Managed(), f)
			if got := stretch(name, idle, speed); s.matters(got) && !slices.Contains(out, got) {
				out = append(out, got)
			}
		}
	}
	return out
}

// matters reports whether the scenario has a silence that outlasts the timeout, and
// not what it lasts at the speed: the interval of a flow, or waits that follow each
// other. Waits for a flow last as long as they must, and real ones are not divided:
// neither is one of these.
func (s *Scenario) matters(t Stretch) bool {
	if t.Timeout <= 0 || t.Lasts <= t.Timeout {
		return false
	}
	between := func(silence time.Duration) bool { return silence > t.Timeout && silence <= t.Lasts }
	for _, f := range s.flows() {
		if between(f.Interval) {
			return true
		}
	}
	var waits []time.Duration
	for _, step := range s.Steps {
		for _, a := range step.Actions {
			if w, ok := a.(*Wait); ok && w.Flow == "" && !w.Real {
				waits = append(waits, w.For)
			}
		}
	}
	for i := range waits {
		silence := time.Duration(0)
		for _, w := range waits[i:] {
			if silence += w; between(silence) {
				return true
			}
			if silence > t.Lasts {
				break
			}
		}
	}
	return false
}

// SpeedWarning says in a line which idle timeouts are so much longer than a speed says
// that it may matter, and at which speed none is; "" for none.
func (s *Scenario) SpeedWarning(speed int) string {
	stretches := s.Stretches(speed)
	if len(stretches) == 0 {
		return ""
	}
	parts := make([]string, len(stretches))
	for i, t := range stretches {
		parts[i] = t.String()
	}
	return fmt.Sprintf("at speed %d an idle timeout outlasts a wait that should outlast it, since the kernel counts whole seconds: %s; try --speed %d",
		speed, strings.Join(parts, ", "), fitting(speed, func(n int) bool { return len(s.Stretches(n)) == 0 }))
}

// fitting returns the highest speed below one that fits, or else 1.
func fitting(below int, fits func(int) bool) int {
	for n := below - 1; n > 1; n-- {
		if fits(n) {
			return n
		}
	}
	return 1
}

// rounded says that the flow's idle timeout is longer than the speed says, where that
// may be why an expectation was not met; "" where it is not.
func (j *judgement) rounded() string {
	r := j.run
	got := stretch(j.idleName, j.idle, r.speed)
	if !r.scenario.matters(got) {
		return ""
	}
	speed := fitting(r.speed, func(n int) bool { return !r.scenario.matters(stretch(j.idleName, j.idle, n)) })
	return fmt.Sprintf("the kernel counts timeouts in whole seconds: the idle timeout %s; try --speed %d", got, speed)
}

// idleTimeout returns the shortest that an entry of the flow has under a policy,
// before the speed divides it, with its name; 0 is none that the speed divides.
func idleTimeout(policy *policies.Policy, managed *Host, f *Flow) (name string, shortest time.Duration) {
	family := flow.FamilyOf(f.Dest)
	switch {
	case f.IsPing():
		if c := policy.Host.Conntrack; c != nil && c.ICMPTimeout > 0 {
			return flow.ICMPOf(family).Name(family), c.ICMPTimeout
		}
		return flow.ICMPOf(family).Name(family), kernelICMPTimeout
	case f.Protocol != flow.TCP && f.Protocol != flow.UDP:
		return "", 0
	}
	for _, i := range managed.Interfaces {
		block := policy.Interface(i.Name)
		if block == nil {
			continue
		}
		t := block.EffectiveTimeouts()
		idle := t.TCPEstablished
		name = "tcp_established"
		switch {
		case f.Protocol == flow.UDP && f.isAnswered():
			name, idle = "udp_stream", t.UDPStream
		case f.Protocol == flow.UDP:
			name, idle = "udp", t.UDP
		}
		if shortest == 0 || idle < shortest {
			shortest = idle
		}
	}
	return name, shortest
}

// kernelICMPTimeout is what Linux has where no policy says it.
//
// Source: Linux net/netfilter/nf_conntrack_proto_icmp.c.
const kernelICMPTimeout = 30 * time.Second
