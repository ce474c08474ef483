package compile

import (
	"fmt"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// addRaw adds the chains that a profile's packets walk before conntrack sees
// them: notrack for open flows. It returns the first chain's name, or "" if
// there is nothing to do.
func (c *compiler) addRaw(p *profile, d flow.Direction) string {
	return c.addDispatch(c.attached(p), fmt.Sprintf("%s.raw.%s", p.name, d), nil, func(f flow.Family, proto flow.Protocol) []ruleset.Rule {
		if !proto.HasPorts() {
			return nil
		}
		return c.notrackRules(p, d, f, proto)
	})
}

// addDispatch adds a chain that begins with some rules and then sends TCP, UDP
// and each family's ICMP to chains of the rules that are made for them. It
// returns the chain's name, or "" if no rules are made for any protocol.
func (c *compiler) addDispatch(comment, name string, begin []ruleset.Rule, rules func(flow.Family, flow.Protocol) []ruleset.Rule) string {
	m := &ruleset.Set{
		Name: name + ".protocols", Key: []ruleset.Type{ruleset.NFProto, ruleset.InetProto}, Map: true,
	}
	for _, f := range flow.Families {
		for _, proto := range []flow.Protocol{flow.ICMPOf(f), flow.TCP, flow.UDP} {
			r := rules(f, proto)
			if len(r) == 0 {
				continue
			}
			chain := name + "." + protoName(proto, f)
			c.addChain(&ruleset.Chain{Name: chain, Comment: comment, Rules: r})
			m.Elements = append(m.Elements, ruleset.Element{
				First:   ruleset.Concat(ruleset.NFProtoKey(f), ruleset.ProtoKey(proto)),
				Verdict: &ruleset.Verdict{Kind: ruleset.Goto, Chain: chain},
			})
		}
	}
	if len(m.Elements) == 0 {
		return ""
	}
	sortElements(m.Elements)
	c.addSet(m)
	c.addChain(&ruleset.Chain{Name: name, Comment: comment, Rules: append(begin, ruleset.Rule{
		Statements: []ruleset.Statement{ruleset.VerdictMap{Fields: []ruleset.Field{ruleset.NFProtocol, ruleset.L4Protocol}, Map: m.Name}},
		Comment:    "by protocol",
	})})
	return name
}
