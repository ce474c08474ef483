package compile

import (
	"fmt"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
)

// addRaw adds the chains that a profile's packets walk before conntrack sees
// them: the ACL on ingress, and notrack for open flows in both directions. It
// returns the first chain's name, or "" if there is nothing to do.
func (c *compiler) addRaw(p *profile, d flow.Direction) string {
	withACL := d == flow.Ingress && p.acl != nil
	name := fmt.Sprintf("%s.raw.%s", p.name, d)
	protocols := &ruleset.Set{
		Name: name + ".protocols", Key: []ruleset.Type{ruleset.NFProto, ruleset.InetProto}, Map: true,
	}
	for _, f := range flow.Families {
		for _, proto := range []flow.Protocol{flow.ICMPOf(f), flow.TCP, flow.UDP} {
			var rules []ruleset.Rule
			if withACL {
				rules = append(c.exemptRules(d, f, proto), jumpACL(p.acl, d, protoName(proto, f)))
			}
			if proto.HasPorts() {
				rules = append(rules, c.notrackRules(p, d, f, proto)...)
			}
			if len(rules) == 0 {
				continue
			}
			chain := name + "." + protoName(proto, f)
			c.addChain(&ruleset.Chain{Name: chain, Comment: c.attached(p), Rules: rules})
			protocols.Elements = append(protocols.Elements, ruleset.Element{
				First:   ruleset.Concat(ruleset.NFProtoKey(f), ruleset.ProtoKey(proto)),
				Verdict: &ruleset.Verdict{Kind: ruleset.Goto, Chain: chain},
			})
		}
	}
	if len(protocols.Elements) == 0 {
		return ""
	}
	sortElements(protocols.Elements)
	c.addSet(protocols)
	var rules []ruleset.Rule
	if withACL {
		rules = exemptPeers(d)
	}
	rules = append(rules, ruleset.Rule{
		Statements: []ruleset.Statement{ruleset.VerdictMap{Fields: []ruleset.Field{ruleset.NFProtocol, ruleset.L4Protocol}, Map: protocols.Name}},
		Comment:    "by protocol",
	})
	if withACL {
		for _, f := range flow.Families {
			rules = append(rules, ruleset.Rule{
				Statements: []ruleset.Statement{
					ruleset.Match{Field: ruleset.NFProtocol, Value: ruleset.NFProtoKey(f)},
					ruleset.Verdict{Kind: ruleset.Goto, Chain: aclChain(p.acl, d, fmt.Sprintf("other%d", f))},
				},
				Comment: comment([]string{p.acl.Address()}),
			})
		}
	}
	c.addChain(&ruleset.Chain{Name: name, Comment: c.attached(p), Rules: rules})
	return name
}
