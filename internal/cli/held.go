package cli

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"sgc/apply"
	"sgc/compile"
	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// heldElement is what an element of one of the table's timed sets refuses.
type heldElement struct {
	set  string
	held policies.Held
}

// heldIn yields what the kernel's table refuses for a while because its flow was
// cut.
func heldIn(t *apply.Table) iter.Seq2[heldElement, ruleset.TimedElement] {
	return func(yield func(heldElement, ruleset.TimedElement) bool) {
		if t == nil {
			return
		}
		for _, s := range t.Sets {
			for _, e := range s.Timed {
				if h, ok := compile.RefusedFrom(s.Name, e); ok && !yield(heldElement{s.Name, h}, e) {
					return
				}
			}
		}
	}
}

// heldView is UDP traffic that is refused until time has passed, so that a flow
// that was cut does not come back.
type heldView struct {
	Interface string `json:"interface"`
	// Opened is the direction in which the flow had been opened; what goes the
	// other way is refused.
	Opened string `json:"opened"`
	// Flow is the packet that had opened a single flow; "" where a port of the
	// host is held towards all that is closed to it.
	Flow      string `json:"flow,omitempty"`
	LocalPort uint16 `json:"local_port"`
	// Peers are prefixes, or ranges of addresses; PeerPorts one port or a range.
	Peers     string `json:"peers"`
	PeerPorts string `json:"peer_ports"`
	// Expires is when it ends by itself, in seconds, rounded up.
	Expires int `json:"expires_seconds"`
	// Released says, in a plan, that the apply lets it go, PartlyReleased that it
	// lets go some of the peers or of their ports.
	Released       bool `json:"released,omitempty"`
	PartlyReleased bool `json:"partly_released,omitempty"`
}

// viewHeld lists what is held, what lasts longest first. The policy that is to
// be, nil if there is none, lets go what it allows again.
func viewHeld(t *apply.Table, next *policies.Policy) []heldView {
	out := []heldView{}
	var judge *policies.Judge
	for h, e := range heldIn(t) {
		v := newHeldView(&h.held, e.Expires)
		if next != nil {
			if judge == nil {
				judge = policies.NewJudge(next)
			}
			rest, same := stillHeld(&h.held, judge)
			v.Released = len(rest) == 0
			v.PartlyReleased = !same && !v.Released
		}
		out = append(out, v)
	}
	slices.SortStableFunc(out, func(a, b heldView) int {
		return cmp.Or(cmp.Compare(b.Expires, a.Expires), cmp.Compare(a.Flow, b.Flow), cmp.Compare(a.LocalPort, b.LocalPort))
	})
	return out
}

func newHeldView(h *policies.Held, expires time.Duration) heldView {
	v := heldView{
		Interface: h.Interface, Opened: h.Opened.String(), LocalPort: h.LocalPort,
		Peers: rangeText(h.Peers), PeerPorts: h.PeerPorts.String(),
		Expires: seconds(expires),
	}
	if h.Exact() {
		v.Flow = h.Comment
	}
	return v
}

// seconds rounds up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

func rangeText(r flow.Range) string {
	if p := r.Prefixes(); len(p) == 1 {
		if p[0].IsSingleIP() {
			return p[0].Addr().String()
		}
		return p[0].String()
	}
	return r.First.String() + "-" + r.Last.String()
}

func (v heldView) String() string {
	text := fmt.Sprintf("%s  for another %ds", v.what(), v.Expires)
	switch {
	case v.Released:
		text += ", let go by this apply"
	case v.PartlyReleased:
		text += ", partly let go by this apply"
	}
	return text
}

// what says what is refused, without the time.
func (v heldView) what() string {
	if v.Flow != "" {
		return fmt.Sprintf("%s: %s", v.Interface, clean(v.Flow))
	}
	way := "to"
	if v.Opened == flow.Egress.String() {
		way = "from"
	}
	ports := ""
	if v.PeerPorts != "0-65535" {
		ports = " port " + v.PeerPorts
	}
	return fmt.Sprintf("%s: udp of the host's port %d %s %s%s", v.Interface, v.LocalPort, way, v.Peers, ports)
}

// heldShown is how many of them text lists.
const heldShown = 10

// writeHeld lists what is held; most often nothing is.
func writeHeld(b *strings.Builder, paint paint, held []heldView, verbose bool) {
	if len(held) == 0 {
		return
	}
	fmt.Fprintf(b, "%s\n", paint.bold("refused for a while, since its flow was cut"))
	held = heldLines(held)
	shown := held
	if !verbose && len(shown) > heldShown {
		shown = shown[:heldShown]
	}
	for _, h := range shown {
		fmt.Fprintf(b, "  %s\n", h)
	}
	if more := len(held) - len(shown); more > 0 {
		fmt.Fprintf(b, "  %s\n", paint.dim(fmt.Sprintf("… and %s more, all until they time out", thousands(more))))
	}
}
