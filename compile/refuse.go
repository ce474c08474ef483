package compile

import (
	"fmt"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// refuser is who refuses a packet, for the log.
type refuser string

const (
	byACL    refuser = "acl"
	byGroups refuser = "groups"
)

// refused returns what happens to a packet that is not let through: it is
// dropped, and where any interface logs such packets, logged before.
func (c *compiler) refused(d flow.Direction, by refuser) ruleset.Verdict {
	for _, i := range c.policy.Interfaces {
		if i.Log != nil {
			return ruleset.Verdict{Kind: ruleset.Goto, Chain: refusedChain(d, by)}
		}
	}
	return drop
}

func refusedChain(d flow.Direction, by refuser) string { return fmt.Sprintf("refused.%s.%s", d, by) }

// addRefusals adds the chains that log refused packets of one direction, if
// any interface asks for it. The chains that refuse serve many interfaces, so
// that the interface is looked up again here, off the path of what passes.
func (c *compiler) addRefusals(d flow.Direction) {
	for _, by := range []refuser{byACL, byGroups} {
		if c.refused(d, by) == drop {
			return
		}
		name := refusedChain(d, by)
		rules := c.byInterface(name, d, func(i *policies.Interface) ruleset.Verdict {
			if i.Log == nil {
				return drop
			}
			return ruleset.Verdict{Kind: ruleset.Jump, Chain: c.addLog(i, d, by)}
		})
		rules = append(rules, ruleset.Rule{Statements: []ruleset.Statement{drop}, Comment: "refused"})
		c.addChain(&ruleset.Chain{Name: name, Comment: "log_denied", Rules: rules})
	}
}

// addLog adds the chain that logs an interface's refused packets, and drops
// them. The limit bounds the log alone.
func (c *compiler) addLog(i *policies.Interface, d flow.Direction, by refuser) string {
	name := fmt.Sprintf("%s.%s", refusedChain(d, by), identifier(i.Name))
	log := ruleset.Log{Prefix: LogPrefix(i.Name, d, string(by))}
	if i.Log.Group != nil {
		group := uint16(*i.Log.Group)
		log.Group = &group
	}
	c.addChain(&ruleset.Chain{Name: name, Comment: i.Address(), Rules: []ruleset.Rule{
		{
			Statements: []ruleset.Statement{ruleset.Limit{Rate: uint64(i.Log.Rate), Unit: i.Log.Unit, Burst: uint32(i.Log.Burst)}, log},
			Comment:    i.Address() + ".log_denied",
		},
		{Statements: []ruleset.Statement{drop}, Comment: "refused"},
	}})
	return name
}

// LogPrefix is what the log of a refused packet begins with: the interface
// block's name, the direction, and "acl" or "groups" for who refused it.
func LogPrefix(interfaceName string, d flow.Direction, by string) string {
	return fmt.Sprintf("sgc %s %s %s: ", interfaceName, d, by)
}
