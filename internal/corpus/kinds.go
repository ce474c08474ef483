package corpus

import (
	"fmt"
	"strings"

	"sgc/internal/flow"
	"sgc/policies"
)

// Kinds names what a managed packet and its verdict are an instance of. A
// comparison that met few packets of some kind says little about it; Every
// lists the kinds.
func Kinds(i *policies.Interface, p *flow.Packet, d policies.Decision) []string {
	kinds := []string{kindOf(p.Protocol, p.Family(), p.Direction, d.Allow)}
	if strings.HasSuffix(i.Name, "*") {
		kinds = append(kinds, "by a wildcard")
	}
	if len(i.Groups) > 1 {
		kinds = append(kinds, "of several groups")
	}
	if i.ACL != "" && d.Class != policies.Exempt {
		switch {
		case d.ACLEntry == nil:
			kinds = append(kinds, "of no entry of an ACL")
		case d.ACLEntry.Allow:
			kinds = append(kinds, "allowed by an ACL")
		default:
			kinds = append(kinds, "denied by an ACL")
		}
		if !d.Allow && p.State == flow.Established {
			kinds = append(kinds, "of a flow that an ACL denies")
		}
	}
	if p.Protocol == flow.TCP && p.State == flow.New && p.TCPFlags&(flow.FIN|flow.SYN|flow.RST|flow.ACK) != flow.SYN {
		switch d.Class {
		case policies.None:
			kinds = append(kinds, withoutSYN(p.Family(), p.Direction, "refused"))
		case policies.Untracked:
			kinds = append(kinds, withoutSYN(p.Family(), p.Direction, "of an untracked flow"))
		}
	}
	if d.Class == policies.Related {
		kinds = append(kinds, fmt.Sprintf("%s error of a %s flow", p.Family(), p.State))
	}
	return kinds
}

// Every returns all kinds.
func Every() []string {
	kinds := []string{"by a wildcard", "of several groups", "of no entry of an ACL", "allowed by an ACL", "denied by an ACL", "of a flow that an ACL denies"}
	for _, f := range flow.Families {
		for _, d := range flow.Directions {
			kinds = append(kinds, withoutSYN(f, d, "refused"), withoutSYN(f, d, "of an untracked flow"))
		}
		for _, s := range []flow.State{flow.Related, flow.Invalid} {
			kinds = append(kinds, fmt.Sprintf("%s error of a %s flow", f, s))
		}
		for _, p := range []flow.Protocol{flow.TCP, flow.UDP, flow.ICMPOf(f), 47} {
			for _, d := range flow.Directions {
				kinds = append(kinds, kindOf(p, f, d, true), kindOf(p, f, d, false))
			}
		}
	}
	return kinds
}

func withoutSYN(f flow.Family, d flow.Direction, what string) string {
	return fmt.Sprintf("%s %s TCP without SYN %s", f, d, what)
}

func kindOf(p flow.Protocol, f flow.Family, d flow.Direction, allow bool) string {
	name, verdict := "another protocol", "refused"
	if !p.IsOther(f) {
		name = p.String()
	}
	if allow {
		verdict = "allowed"
	}
	return fmt.Sprintf("%s %s %s %s", f, d, name, verdict)
}
