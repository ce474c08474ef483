package compile

import (
	"strings"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// otherFlowsSet is the name of the dynamic set of the live flows of protocols
// that sgc tracks by itself (2.2).
func otherFlowsSet(f flow.Family) string { return "flows." + familySuffix(f) }

// otherFlowTypes are the types of its keys.
func otherFlowTypes(f flow.Family) []ruleset.Type {
	return []ruleset.Type{ruleset.IfName, ruleset.InetProto, addressType(f)}
}

func otherFlowsIn(f flow.Family) *ruleset.Set {
	return &ruleset.Set{
		Name: otherFlowsSet(f), Comment: "live flows of other protocols",
		Key:     otherFlowTypes(f),
		Dynamic: true, Timeout: otherTimeout, Size: otherFlows,
	}
}

// OtherFlows returns the dynamic sets in which live flows of other protocols are
// remembered. The table of every policy that governs an interface has them: they
// are the same in all.
func OtherFlows() []*ruleset.Set {
	var sets []*ruleset.Set
	for _, f := range flow.Families {
		sets = append(sets, otherFlowsIn(f))
	}
	return sets
}

// OtherFlow returns the flow that a key of one of these sets stands for. It
// reports false for other sets, and for keys of another length.
func OtherFlow(set, key string) (policies.OtherFlow, bool) {
	for _, f := range flow.Families {
		if set != otherFlowsSet(f) {
			continue
		}
		s := ruleset.Set{Key: otherFlowTypes(f)}
		if len(key) != s.KeySize() {
			break
		}
		fields := s.Fields(key)
		return policies.OtherFlow{
			Interface: strings.TrimRight(fields[0], "\x00"), Protocol: flow.Protocol(fields[1][0]), Peer: addressOf(fields[2]),
		}, true
	}
	return policies.OtherFlow{}, false
}
