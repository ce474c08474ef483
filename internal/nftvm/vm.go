package nftvm

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// conntrackPriority is where conntrack itself stands on prerouting and output.
//
// Source: Linux include/uapi/linux/netfilter_ipv4.h, NF_IP_PRI_CONNTRACK.
const conntrackPriority = -200

// VM is a checked table. It is read-only: any number of goroutines may run
// packets over it.
type VM struct {
	// bases are the base chains of each hook, by priority.
	bases map[ruleset.HookPoint][]*chain
}

type chain struct {
	name  string
	hook  *ruleset.Hook
	rules []rule
}

type rule struct {
	program []instruction
	// source is kept for traces.
	source ruleset.Rule
}

// Result is what became of a packet.
type Result struct {
	Accept bool
	// Notrack is set if conntrack has been told to leave the packet alone.
	Notrack bool
	// Updated are the elements that were added to dynamic sets or refreshed, in
	// order, also if the packet was dropped afterwards.
	Updated []Updated
	// Timeout names the ct timeout object that the flow got which the packet
	// opens: the last one that a rule gave it. It is empty if there was none.
	Timeout string
	// Logged are the prefixes that the packet was logged with. It is alone on
	// the wire, within every limit.
	Logged []string
	// Trace holds a line for every rule that ran, if Trace was asked for one.
	Trace []string
}

// Updated is an element of a dynamic set that was added or refreshed.
type Updated struct {
	Set     string
	Key     string // raw bytes, as in ruleset.Element
	Timeout time.Duration
}

// Run walks the base chains that the packet meets, in the kernel's order:
// prerouting on ingress; output, unless it is forwarded, and postrouting on
// egress. It fails for a packet that cannot be, such as one with addresses of
// two families.
func (vm *VM) Run(p *flow.Packet) (Result, error) { return vm.run(p, false) }

// Trace is Run, and says which rules ran.
func (vm *VM) Trace(p *flow.Packet) (Result, error) { return vm.run(p, true) }

func (vm *VM) run(p *flow.Packet, trace bool) (Result, error) {
	headers, err := newHeaders(p)
	if err != nil {
		return Result{}, err
	}
	m := machine{packet: p, headers: headers, tracing: trace}
	for _, hook := range hooksOf(p) {
		// A forwarded packet met conntrack where it came in.
		m.tracked = m.tracked || hook == ruleset.Postrouting
		for _, base := range vm.bases[hook] {
			m.tracked = m.tracked || base.hook.Priority > conntrackPriority
			if !m.walk(base) {
				return m.result, nil
			}
		}
	}
	m.result.Accept = true
	return m.result, nil
}

// hooksOf returns the hooks that the packet passes at its interface.
func hooksOf(p *flow.Packet) []ruleset.HookPoint {
	switch {
	case p.Direction == flow.Ingress:
		return []ruleset.HookPoint{ruleset.Prerouting}
	case p.Forwarded:
		return []ruleset.HookPoint{ruleset.Postrouting}
	default:
		return []ruleset.HookPoint{ruleset.Output, ruleset.Postrouting}
	}
}

// machine is the state of one packet on its way.
type machine struct {
	packet  *flow.Packet
	headers headers
	// tracked says that the packet has passed conntrack.
	tracked bool
	// registers are the kernel's; a rule's verdict is not among them.
	registers [registerBytes]byte
	verdict   *verdict
	result    Result
	tracing   bool
}

// verdict is a ruleset.Verdict with its chain found.
type verdict struct {
	kind  ruleset.VerdictKind
	chain *chain
}

// place is where to go on after a chain that was jumped to.
type place struct {
	chain *chain
	next  int
}

// walk runs a base chain and all it leads to. It reports whether the packet
// goes on; the policy of a base chain is accept.
func (m *machine) walk(base *chain) bool {
	var stack []place
	at := place{base, 0}
	for {
		if at.next == len(at.chain.rules) {
			if len(stack) == 0 {
				return true
			}
			at, stack = stack[len(stack)-1], stack[:len(stack)-1]
			continue
		}
		v := m.execute(at)
		at.next++
		if v == nil {
			continue
		}
		switch v.kind {
		case ruleset.Accept:
			return true
		case ruleset.Drop:
			return false
		case ruleset.Jump:
			stack = append(stack, at)
			at = place{v.chain, 0}
		case ruleset.Goto:
			at = place{v.chain, 0}
		case ruleset.Return:
			at.next = len(at.chain.rules)
		default:
			panic(fmt.Sprintf("nftvm: New let verdict %d pass", v.kind))
		}
	}
}

// execute runs one rule and returns its verdict, nil if it has none.
func (m *machine) execute(at place) *verdict {
	r := &at.chain.rules[at.next]
	m.verdict = nil
	matched := true
	for _, i := range r.program {
		if matched = i.run(m); !matched || m.verdict != nil {
			break
		}
	}
	if !matched {
		m.verdict = nil
	}
	if m.tracing {
		m.result.Trace = append(m.result.Trace, traceLine(at, r, matched, m.verdict))
	}
	return m.verdict
}

func traceLine(at place, r *rule, matched bool, v *verdict) string {
	outcome := "no match"
	switch {
	case v != nil:
		outcome = v.String()
	case matched:
		outcome = "continue"
	}
	return fmt.Sprintf("%s #%d: %s → %s", at.chain.name, at.next+1, r.source.Text(), outcome)
}

func (v *verdict) String() string {
	switch v.kind {
	case ruleset.Accept:
		return "accept"
	case ruleset.Drop:
		return "drop"
	case ruleset.Jump:
		return "jump " + v.chain.name
	case ruleset.Goto:
		return "goto " + v.chain.name
	case ruleset.Return:
		return "return"
	}
	return fmt.Sprintf("verdict %d", v.kind)
}

// sortBases puts the base chains of each hook in the kernel's order.
func (vm *VM) sortBases() {
	for _, chains := range vm.bases {
		slices.SortStableFunc(chains, func(a, b *chain) int { return cmp.Compare(a.hook.Priority, b.hook.Priority) })
	}
}
