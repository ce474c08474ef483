package ruleset

import (
	"bufio"
	"fmt"
	"strings"
	"time"

	"sgc/internal/flow"
)

// objectTimeout is the kernel's number of objects that hold timeouts.
//
// Source: linux/netfilter/nf_tables.h, NFT_OBJECT_CT_TIMEOUT.
const objectTimeout = 7

// Timeout is an object that holds idle timeouts for flows of a family and
// protocol. It cannot change in place, so that its values belong into its name.
// (nft 1.0.6 leaves values out of its listings that are defaults of its own; where
// all of them are, it cannot load the listing again.)
type Timeout struct {
	Name     string
	Family   flow.Family
	Protocol flow.Protocol
	// States are sorted by number. Those that are left out have the value that
	// the host's default had when the object was made.
	States []StateTimeout
}

// StateTimeout is the idle timeout of flows in one state, in whole seconds.
type StateTimeout struct {
	State   TimeoutState
	Timeout time.Duration
}

// TimeoutState is a state of a flow, with the kernel's number among those of its
// protocol.
type TimeoutState struct {
	number uint8
	name   string
}

// The states for which policies have timeouts.
var (
	TCPEstablished = TimeoutState{2, "established"}
	UDPUnreplied   = TimeoutState{0, "unreplied"}
	UDPReplied     = TimeoutState{1, "replied"}
)

// Attribute returns the number of the netlink attribute of the state.
func (s TimeoutState) Attribute() uint16 { return uint16(s.number) + 1 }

func (s TimeoutState) String() string { return s.name }

// policy is the list of timeouts in one line, as nft writes it.
func (t *Timeout) policy() string {
	parts := make([]string, len(t.States))
	for i, s := range t.States {
		parts[i] = fmt.Sprintf("%s : %d", s.State, s.Timeout/time.Second)
	}
	return strings.Join(parts, ", ")
}

func (t *Timeout) l3proto() string {
	if t.Family == flow.IPv4 {
		return "ip"
	}
	return "ip6"
}

func (t *Timeout) writeText(b *bufio.Writer) {
	fmt.Fprintf(b, "\tct timeout %s {\n\t\tprotocol %s\n\t\tl3proto %s\n\t\tpolicy = { %s }\n\t}\n",
		t.Name, t.Protocol.Name(t.Family), t.l3proto(), t.policy())
}

// String returns the object in one line.
func (t *Timeout) String() string {
	return fmt.Sprintf("ct timeout %s: %s %s { %s }", t.Name, t.Protocol.Name(t.Family), t.l3proto(), t.policy())
}
