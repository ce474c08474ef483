package compile

import (
	"slices"
	"strings"

	"sgc/internal/flow"
	"sgc/internal/ruleset"
	"sgc/policies"
)

// TableName is the name of the one table that sgc owns, of the inet family.
const TableName = "sgc"

// digestChain is an empty chain that no rule leads to. Its comment is the
// digest of the policy, so that the table says which policy it enforces. A
// table's own comment cannot change in place; a chain like this one can be
// replaced in the transaction that changes the rules.
const digestChain = "sgc.policy"

// Environment is what the compiler must know of the host it compiles for. The
// zero value is a host on which no other table needs conntrack.
type Environment struct {
	// Conntrack says, for each family in which another table does NAT or judges
	// by conntrack, why. Open flows of the family then stay in conntrack.
	Conntrack map[flow.Family]string
	// Closing is the policy that this one replaces, nil in peace. With it, the
	// table also refuses packets of flows that conntrack knows, that the old
	// policy left open, and that the new one would not let be opened (2.4), by
	// rules, chains and sets that change nothing else of the table
	// (IsTemporary). They are for as long as the entries of those flows are
	// there.
	Closing *policies.Policy
}

// Compile returns the table that enforces the policy. It is a pure function:
// equal policies give equal tables. The policy must be valid, as Load returns
// it. It panics on a reference to a group or list that is not there.
func Compile(p *policies.Policy, env Environment) *ruleset.Table {
	table, _ := CompileWithNotes(p, env)
	return table
}

// CompileWithNotes is Compile, and says what is remarkable about the result:
// ACL entries that never decide, and ACLs too tangled for a constant number of
// look-ups. Notes are in the order of the policy's ACLs.
func CompileWithNotes(p *policies.Policy, env Environment) (*ruleset.Table, []Note) {
	c := newCompiler(p, env)
	c.addChain(&ruleset.Chain{Name: digestChain, Comment: p.Digest()})
	if len(p.Interfaces) > 0 {
		c.addHostSets()
		c.addInterfaces()
		c.addClosing()
	}
	return c.table(), c.notes
}

// Notes returns what CompileWithNotes says of the policy, and compiles its ACLs
// alone for it.
func Notes(p *policies.Policy) []Note {
	c := newCompiler(p, Environment{})
	for _, d := range flow.Directions {
		c.addACLs(d)
	}
	return c.notes
}

func newCompiler(p *policies.Policy, env Environment) *compiler {
	c := &compiler{
		policy: p, env: env,
		groups: map[string]*policies.Group{}, lists: map[string]*policies.PrefixList{}, acls: map[string]*policies.ACL{},
		sets: map[string]*ruleset.Set{}, chains: map[string]*ruleset.Chain{}, timeouts: map[string]*ruleset.Timeout{},
		hostTimeouts: p.HostTimeouts(),
		inlineOf:     map[ruleFamily][]flow.Range{}, peerSets: map[string]*peerSet{},
	}
	for _, i := range p.Interfaces {
		if t := i.EffectiveTimeouts(); !slices.Contains(c.interfaceTimeouts, t) {
			c.interfaceTimeouts = append(c.interfaceTimeouts, t)
		}
	}
	for _, g := range p.Groups {
		c.groups[g.Name] = g
	}
	for _, l := range p.Lists {
		c.lists[l.Name] = l
	}
	for _, a := range p.ACLs {
		c.acls[a.Name] = a
	}
	return c
}

var (
	accept = ruleset.Verdict{Kind: ruleset.Accept}
	drop   = ruleset.Verdict{Kind: ruleset.Drop}
)

// compiler holds the table while it grows, and what several passes need.
type compiler struct {
	policy *policies.Policy
	env    Environment
	groups map[string]*policies.Group
	lists  map[string]*policies.PrefixList
	acls   map[string]*policies.ACL
	sets   map[string]*ruleset.Set
	chains map[string]*ruleset.Chain
	// timeouts are the objects of flows that do not have hostTimeouts, the
	// host's defaults.
	timeouts     map[string]*ruleset.Timeout
	hostTimeouts policies.Timeouts
	// interfaceTimeouts are those that any interface has.
	interfaceTimeouts []policies.Timeouts
	// inlineOf and peerSets keep what is merged once and used in many chains.
	inlineOf map[ruleFamily][]flow.Range
	peerSets map[string]*peerSet
	// notes are what people should know of how the policy compiles.
	notes []Note
}

type ruleFamily struct {
	rule   *policies.Rule
	family flow.Family
}

// addChain and addSet keep the first of equal names: chains that several
// profiles share are made the same each time.
func (c *compiler) addChain(chain *ruleset.Chain) {
	if c.chains[chain.Name] == nil {
		c.chains[chain.Name] = chain
	}
}

func (c *compiler) addSet(s *ruleset.Set) {
	if c.sets[s.Name] == nil {
		c.sets[s.Name] = s
	}
}

// addInterfaces adds the base chains and, behind them, the chains of every
// profile.
func (c *compiler) addInterfaces() {
	profiles, of := c.selectProfiles()
	for _, d := range flow.Directions {
		c.addRefusals(d)
		c.addACLs(d)
		filter, raw := map[*profile]ruleset.Verdict{}, map[*profile]ruleset.Verdict{}
		needRaw := false
		for _, p := range profiles {
			filter[p] = ruleset.Verdict{Kind: ruleset.Jump, Chain: c.addFilter(p, d)}
			raw[p] = accept
			if chain := c.addRaw(p, d); chain != "" {
				raw[p] = ruleset.Verdict{Kind: ruleset.Goto, Chain: chain}
				needRaw = true
			}
		}
		c.addBase(filterBase(d), "interfaces."+d.String(), d, func(i *policies.Interface) ruleset.Verdict { return filter[of[i]] })
		if needRaw {
			base := rawBase(d)
			base.Rules = c.byInterface("interfaces.raw."+d.String(), d, func(i *policies.Interface) ruleset.Verdict { return raw[of[i]] })
			c.addChain(base)
		}
	}
}

// filterBase returns the base chain that judges: just after conntrack and
// before destination NAT, just after source NAT.
func filterBase(d flow.Direction) *ruleset.Chain {
	if d == flow.Ingress {
		return &ruleset.Chain{Name: "prerouting", Hook: &ruleset.Hook{Point: ruleset.Prerouting, Priority: -150}}
	}
	return &ruleset.Chain{Name: "postrouting", Hook: &ruleset.Hook{Point: ruleset.Postrouting, Priority: 150}}
}

// rawBase returns the base chain that stands before conntrack.
func rawBase(d flow.Direction) *ruleset.Chain {
	if d == flow.Ingress {
		return &ruleset.Chain{Name: "raw.prerouting", Hook: &ruleset.Hook{Point: ruleset.Prerouting, Priority: -300}}
	}
	return &ruleset.Chain{Name: "raw.output", Hook: &ruleset.Hook{Point: ruleset.Output, Priority: -300}}
}

// addBase adds a base chain in which the packets of every interface get the
// verdict for it, a jump to the chain that decides or accept. Packets of
// interfaces that no block names pass.
//
// A packet that the map sends to a chain does not come back, save in the middle
// of a change: if it walks the rules of the old generation and finds an element
// of the new one, that chain is empty. It must not pass for that.
func (c *compiler) addBase(base *ruleset.Chain, mapName string, d flow.Direction, verdict func(*policies.Interface) ruleset.Verdict) {
	byName := c.byInterface(mapName, d, verdict)
	base.Rules = append(base.Rules, byName[0])
	managed := &ruleset.Set{Name: "interfaces", Comment: "managed interfaces", Key: []ruleset.Type{ruleset.IfName}}
	for _, i := range c.policy.Interfaces {
		if !strings.HasSuffix(i.Name, "*") {
			managed.Elements = append(managed.Elements, ruleset.Element{First: ruleset.IfNameKey(i.Name)})
		}
	}
	if len(managed.Elements) > 0 {
		sortElements(managed.Elements)
		c.addSet(managed)
		base.Rules = append(base.Rules, ruleset.Rule{
			Statements: []ruleset.Statement{lookup(managed.Name, ruleset.InterfaceName(d)), drop},
			Comment:    "in the middle of a change",
		})
	}
	base.Rules = append(base.Rules, byName[1:]...)
	c.addChain(base)
}

// byInterface returns nft rules that give packets the verdict of the block
// that governs their interface: exact names by a map, then wildcards, the
// longest first.
func (c *compiler) byInterface(mapName string, d flow.Direction, verdict func(*policies.Interface) ruleset.Verdict) []ruleset.Rule {
	return c.byBlocks(mapName, d, c.policy.Interfaces, verdict)
}

// byBlocks is byInterface for any blocks: only their names count.
func (c *compiler) byBlocks(mapName string, d flow.Direction, blocks []*policies.Interface, verdict func(*policies.Interface) ruleset.Verdict) []ruleset.Rule {
	loopback := ruleset.Element{First: ruleset.IfNameKey(policies.Loopback), Verdict: &ruleset.Verdict{Kind: ruleset.Accept}}
	return c.byName(mapName, ruleset.InterfaceName(d), blocks, verdict, loopback)
}

// byName is byBlocks for any field that names an interface, with more elements
// in the map.
func (c *compiler) byName(mapName string, field ruleset.Field, blocks []*policies.Interface, verdict func(*policies.Interface) ruleset.Verdict, more ...ruleset.Element) []ruleset.Rule {
	names := &ruleset.Set{Name: mapName, Key: []ruleset.Type{ruleset.IfName}, Map: true, Elements: more}
	var wildcards []*policies.Interface
	for _, i := range blocks {
		if strings.HasSuffix(i.Name, "*") {
			wildcards = append(wildcards, i)
			continue
		}
		v := verdict(i)
		names.Elements = append(names.Elements, ruleset.Element{First: ruleset.IfNameKey(i.Name), Verdict: &v})
	}
	var rules []ruleset.Rule
	if len(names.Elements) > 0 {
		sortElements(names.Elements)
		c.addSet(names)
		rules = append(rules, ruleset.Rule{
			Statements: []ruleset.Statement{ruleset.VerdictMap{Fields: []ruleset.Field{field}, Map: names.Name}},
			Comment:    "by interface",
		})
	}
	slices.SortFunc(wildcards, func(a, b *policies.Interface) int {
		if len(a.Name) != len(b.Name) {
			return len(b.Name) - len(a.Name)
		}
		return compareNames(a.Name, b.Name)
	})
	for _, i := range wildcards {
		r := ruleset.Rule{Statements: []ruleset.Statement{verdict(i)}, Comment: i.Address()}
		if prefix := strings.TrimSuffix(i.Name, "*"); prefix != "" {
			r.Statements = []ruleset.Statement{ruleset.Match{Field: field, Value: prefix}, verdict(i)}
		}
		rules = append(rules, r)
	}
	return rules
}

// table returns what was added, base chains first, all sorted by name.
func (c *compiler) table() *ruleset.Table {
	t := &ruleset.Table{Name: TableName}
	for _, s := range c.sets {
		t.Sets = append(t.Sets, s)
	}
	for _, chain := range c.chains {
		t.Chains = append(t.Chains, chain)
	}
	for _, o := range c.timeouts {
		t.Timeouts = append(t.Timeouts, o)
	}
	slices.SortFunc(t.Timeouts, func(a, b *ruleset.Timeout) int { return compareNames(a.Name, b.Name) })
	slices.SortFunc(t.Sets, func(a, b *ruleset.Set) int { return compareNames(a.Name, b.Name) })
	slices.SortFunc(t.Chains, func(a, b *ruleset.Chain) int {
		if (a.Hook != nil) != (b.Hook != nil) {
			if a.Hook != nil {
				return -1
			}
			return 1
		}
		return compareNames(a.Name, b.Name)
	})
	return t
}

func sortElements(elements []ruleset.Element) {
	slices.SortFunc(elements, func(a, b ruleset.Element) int { return compareNames(a.First, b.First) })
}

func compareNames(a, b string) int { return strings.Compare(a, b) }
