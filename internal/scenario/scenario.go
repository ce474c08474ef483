package scenario

import (
	"net/netip"
	"time"

	"github.com/hashicorp/hcl/v2"

	"sgc/internal/flow"
	"sgc/policies"
)

// Extension ends the names of scenario files.
const Extension = policies.ScenarioExtension

// Scenario is what a file says, resolved and checked.
type Scenario struct {
	// File is the name that it was loaded by.
	File  string
	Title string
	// Speed is the one that the file asks for, 1 where it does not.
	Speed    int
	Hosts    []*Host
	Networks []*Network
	Policies []*Policy
	Steps    []*Step
	// Texts are the files that positions refer to, by name.
	Texts map[string]*hcl.File
}

// Host is a machine of the scenario.
type Host struct {
	Name string
	// Managed is set for the one host that policies are applied to.
	Managed bool
	// Forward makes it a router.
	Forward    bool
	Interfaces []*Interface
	// Masquerade are the interfaces by which routed packets leave with the
	// host's own address.
	Masquerade []string
	Publish    []Publish
	// Routes are those of the file; what a network needs to be reached is
	// found out by Routes of the topology.
	Routes []Route
	at     hcl.Range
}

// Interface joins a host to a network.
type Interface struct {
	Name      string
	Network   string
	Addresses []netip.Prefix
}

// Network is a link that all interfaces on it share.
type Network struct {
	Name string
	// MTU is 0 for the kernel's default.
	MTU int
	at  hcl.Range
}

// Publish is a destination NAT: what comes to the port is sent on.
type Publish struct {
	Interface string
	Protocol  flow.Protocol
	Port      uint16
	To        netip.AddrPort
}

// Route is a line of a host's routing table.
type Route struct {
	Dest netip.Prefix
	Via  netip.Addr
	at   hcl.Range
}

// Policy is one that steps apply.
type Policy struct {
	Name string
	// Loaded holds the policy, and the texts that its positions refer to.
	Loaded *policies.Loaded
	// Path is the file that it stands in.
	Path string
}

// Step is a part of a scenario: what is done, in order, and what is expected of
// it at its end.
type Step struct {
	Name        string
	Description string
	Actions     []Action
	Expects     []*Expectation
	Counters    []*Counter
	Allowances  []*Allowance
	At          hcl.Range
}

// Action is something that a step does: Apply, Destroy, Begin, Stop, Wait, Check,
// Fill or Drain.
type Action interface{ action() }

// Apply makes a policy that of the managed host.
type Apply struct {
	Policy *Policy
	// Flush is that of sgc apply; "" is the default.
	Flush string
	// Hold keeps all flows from sending until it is done.
	Hold bool
	At   hcl.Range
}

// Destroy removes what sgc enforces.
type Destroy struct {
	Hold bool
	At   hcl.Range
}

// Begin starts a flow.
type Begin struct{ Flow *Flow }

// Stop ends a flow.
type Stop struct {
	Flow string
	At   hcl.Range
}

// Wait lets time pass, or waits until a flow is so far.
type Wait struct {
	// For is the time as the scenario says it, before the speed divides it;
	// Real keeps it from being divided.
	For  time.Duration
	Real bool
	// Flow is the name of the flow to wait for, "" for none; Sent and Passed
	// are the opener's packets, counted from where Over says, as of Expectation.
	Flow         string
	Sent, Passed int
	Over         string
	At           hcl.Range
}

// Check opens a new flow, looks what becomes of it, and ends it.
type Check struct {
	Flow    *Flow
	Traffic Traffic
	// Tracked is nil where it does not matter.
	Tracked *bool
	At      hcl.Range
}

func (*Apply) action()   {}
func (*Destroy) action() {}
func (*Begin) action()   {}
func (*Stop) action()    {}
func (*Wait) action()    {}
func (*Check) action()   {}

// Flow says what a flow is made of.
type Flow struct {
	Name     string
	Protocol flow.Protocol
	// From opens it, To is the host that it is addressed to, and Reaches the
	// one that gets it: To, unless a router in between sends it on.
	From, To, Reaches string
	// Source and Dest are the addresses that the opener uses, ReachesAddress
	// that of the host that gets it.
	Source, Dest, ReachesAddress netip.Addr
	// Port is the destination's, ReachesPort that on the host that gets it.
	// SourcePort 0 lets the run choose.
	Port, ReachesPort, SourcePort uint16
	// ID is the identifier of a ping; 0 lets the run choose a new one.
	ID uint16
	// Message makes a flow of ICMP one of messages of that kind, which nobody
	// answers, instead of a ping; nil for all others.
	Message *ICMPMessage
	// Interval is the time from one packet of a side to its next, before the
	// speed divides it.
	Interval time.Duration
	// Count ends the flow's sending after so many packets of a side; 0 is no
	// end.
	Count int
	// Size is the number of bytes of a packet's payload.
	Size int
	// Sends says which sides send. Of a ping it is the opener; of others, the
	// opener always sends the first packet.
	Sends [2]bool
	At    hcl.Range
}

// IsPing reports whether the flow is one of echo requests.
func (f *Flow) IsPing() bool { return f.Message == nil && f.Protocol.IsICMP(flow.FamilyOf(f.Dest)) }

// Traffic is what becomes of a flow's packets.
type Traffic uint8

// The kinds of traffic that may be expected.
const (
	// Any is no expectation.
	Any Traffic = iota
	// Allowed: packets were sent, and all but those that may be lost passed.
	Allowed
	// Refused: packets were sent, and none passed.
	Refused
	// Survives: the flow had passed before, and all but what may be lost passes
	// on, through the change as well.
	Survives
	// Cut: the flow had passed before, its sides go on sending, and nothing
	// passes.
	Cut
)

var trafficNames = [...]string{Any: "any", Allowed: "allowed", Refused: "refused", Survives: "survives", Cut: "cut"}

func (t Traffic) String() string { return trafficNames[t] }

// Expectation is what a step expects of a flow.
type Expectation struct {
	Flow    string
	Traffic Traffic
	// Lost is how many packets may be lost, LostPercent how many of a hundred.
	Lost, LostPercent int
	// Over is where the window begins: overStep, overFlow, or the name of a
	// step.
	Over string
	// Tracked is nil where it does not matter, and so are the others.
	Tracked *bool
	// Timeout is the entry's, before the speed divides it; 0 is any.
	Timeout time.Duration
	// Within is how long a packet may take that passes, in real time: TCP sends
	// again what was lost. 0 is any time.
	Within time.Duration
	// The exact numbers of the opener's packets; nil is any.
	Sent, Passed, FirstPassed *int
	At                        hcl.Range
}

// Windows that are not named by a step.
const (
	overStep = "step"
	overFlow = "flow"
)

// Counter is what a step expects the kernel to have counted for a rule.
type Counter struct {
	// Rule is a policy address.
	Rule string
	// Packets is the exact number, nil for any; AtLeast the least.
	Packets *int
	AtLeast int
	At      hcl.Range
}

// Host returns the host of that name, or nil.
func (s *Scenario) Host(name string) *Host {
	for _, h := range s.Hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Managed returns the host that policies are applied to.
func (s *Scenario) Managed() *Host {
	for _, h := range s.Hosts {
		if h.Managed {
			return h
		}
	}
	return nil
}

func (s *Scenario) policy(name string) *Policy {
	for _, p := range s.Policies {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func (s *Scenario) network(name string) *Network {
	for _, n := range s.Networks {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Address returns the first address of the family that the host has.
func (h *Host) Address(f flow.Family) (netip.Addr, bool) {
	for _, i := range h.Interfaces {
		for _, p := range i.Addresses {
			if flow.FamilyOf(p.Addr()) == f {
				return p.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}

// Has reports whether the address is one of the host's.
func (h *Host) Has(a netip.Addr) bool {
	for _, i := range h.Interfaces {
		for _, p := range i.Addresses {
			if p.Addr() == a {
				return true
			}
		}
	}
	return false
}
