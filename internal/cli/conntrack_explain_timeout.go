package cli

import (
	"fmt"
	"time"

	"sgc/conntrack"
	"sgc/internal/flow"
	"sgc/policies"
)

// timeoutSource says which idle timeout a flow gets with its next packet, and
// where that comes from.
type timeoutSource struct {
	// inForce is the policy that is enforced, nil if none is; index and limits
	// are of it.
	inForce *policies.Policy
	index   *policies.Judge
	limits  *conntrack.Limits
	// host are the host's defaults, as far as they are known.
	host conntrack.Settings
}

// nextTimeout is the JSON form.
type nextTimeout struct {
	// Seconds is null where the state of the flow has a timeout that no policy
	// sets.
	Seconds *int `json:"seconds"`
	// From is where it comes from: an interface block, an always_track block, or
	// "host".
	From string `json:"from"`
	// Unless is the host's default in seconds where the flow may have that
	// instead: the kernel does not say which. It is null where it is certain.
	Unless *int `json:"unless_adopted_seconds,omitempty"`
}

const fromHost = "host"

// newTimeoutSource takes the policy that is enforced, nil if none is known to be.
func newTimeoutSource(inForce *policies.Policy, settings *settingsSight) *timeoutSource {
	t := &timeoutSource{inForce: inForce}
	if settings != nil {
		t.host = settings.have
	}
	if inForce != nil {
		t.index = policies.NewJudge(inForce)
		t.limits = conntrack.NewLimits(inForce, t.index)
	}
	return t
}

// explain returns the timeout, nil if no packet prolongs the flow, and a sentence.
func (t *timeoutSource) explain(e *conntrack.Entry, j *conntrack.Judged) (*nextTimeout, string) {
	left := fmt.Sprintf("%s are left unless a packet comes", exactTime(e.Remaining))
	if e.Remaining == time.Second {
		left = "1s is left unless a packet comes"
	}
	switch {
	case !endsAlone(e):
		return nil, "Hardware or a flowtable forwards it: it does not end by itself."
	case e.Status.Has(conntrack.FixedTimeout):
		return nil, fmt.Sprintf("%s are left, whether packets come or not: its timeout is fixed.", exactTime(e.Remaining))
	}
	setting, named := settingOf(e)
	if !named {
		return &nextTimeout{From: fromHost}, fmt.Sprintf("%s; each packet sets it to the kernel's timeout for the state of the flow (%s now).", left, stateName(e))
	}
	own, from := t.own(e, j, setting)
	value, known := t.host[setting]
	host := time.Duration(value) * time.Second
	switch {
	case own == 0 && !known:
		return &nextTimeout{From: fromHost}, fmt.Sprintf("%s; each packet sets it to the host's default.", left)
	case own == 0 || known && own == host:
		return &nextTimeout{Seconds: secondsOf(host), From: fromHost}, fmt.Sprintf("%s; each packet sets it to %s again, the host's default.", left, exactTime(host))
	case known && e.Remaining > own && host > own:
		// What is bound to the object never has so much.
		return &nextTimeout{Seconds: secondsOf(host), From: fromHost}, fmt.Sprintf(
			"%s; each packet sets it to %s again, the host's default: it was adopted, or is older than the %s of %s.", left, exactTime(host), exactTime(own), from)
	}
	view := &nextTimeout{Seconds: secondsOf(own), From: from}
	text := fmt.Sprintf("%s; each packet sets it to %s again, by %s", left, exactTime(own), from)
	if known {
		view.Unless = secondsOf(host)
		text += fmt.Sprintf(" (to %s, the host's default, if it was adopted or is older than that)", exactTime(host))
	}
	return view, text + "."
}

// own returns the timeout that the policy in force gives to the flow other than
// by the host's defaults, and the block that says so; 0 if it gives none.
func (t *timeoutSource) own(e *conntrack.Entry, j *conntrack.Judged, setting conntrack.Setting) (time.Duration, string) {
	if t.inForce == nil {
		return 0, ""
	}
	own := t.limits.Of(e, j)
	for i := range j.Legs {
		leg := conntrack.Judged{Legs: j.Legs[i : i+1]}
		if own == 0 || t.limits.Of(e, &leg) != own {
			continue
		}
		if from := t.object(&leg.Legs[0].Packet, setting); from != "" {
			return own, from
		}
	}
	return 0, ""
}

// object names the block that gives flows like p timeouts which are not the
// host's defaults, or is "".
func (t *timeoutSource) object(p *flow.Packet, setting conntrack.Setting) string {
	if setting == conntrack.TimeoutICMP || setting == conntrack.TimeoutICMPv6 {
		return ""
	}
	block := t.index.Interface(p.Interface)
	differs := func(a, b policies.Timeouts) bool {
		if p.Protocol == flow.TCP {
			return a.TCPEstablished != b.TCPEstablished
		}
		return a.UDP != b.UDP || a.UDPStream != b.UDPStream
	}
	timeouts := block.EffectiveTimeouts()
	if track := t.index.AlwaysTrack(p); track != nil && differs(track.EffectiveTimeouts(block), timeouts) {
		return fmt.Sprintf("always_track %q of %s", track.ID, block.Address())
	}
	if differs(timeouts, t.inForce.HostTimeouts()) {
		return block.Address()
	}
	return ""
}

// settingOf returns the setting that holds the timeout of an entry in its state;
// false for states that no policy names.
func settingOf(e *conntrack.Entry) (conntrack.Setting, bool) {
	switch p := e.Original.Protocol; {
	case p == flow.TCP:
		return conntrack.TimeoutTCPEstablished, e.TCPState == conntrack.TCPEstablished
	case p == flow.UDP && e.Status.Has(conntrack.Assured):
		return conntrack.TimeoutUDPStream, true
	case p == flow.UDP:
		return conntrack.TimeoutUDP, true
	case p == flow.ICMP:
		return conntrack.TimeoutICMP, true
	case p == flow.ICMPv6:
		return conntrack.TimeoutICMPv6, true
	}
	return 0, false
}

func stateName(e *conntrack.Entry) string {
	if e.TCPState != conntrack.TCPNone {
		return e.TCPState.String()
	}
	return e.Original.Protocol.Name(e.Original.Family())
}

func secondsOf(d time.Duration) *int {
	n := int(d / time.Second)
	return &n
}

// exactTime writes a time to the second while that can be read at a glance:
// 212s, then 59m58s, 4d23h.
func exactTime(d time.Duration) string {
	if d < 10*time.Minute {
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return shortTime(d)
}
