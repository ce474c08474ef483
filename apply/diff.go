package apply

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

// Diff returns what has to change for the snapshot to become the wanted table;
// want nil means that the table is to go. The wanted table's names are unique,
// and its rules and maps refer to its own sets and chains only.
//
// Dynamic sets are compared without their contents. What cannot change in
// place (the hook of a chain, the key of a set, any comment) is made anew in
// the same transaction, with everything that refers to it; a dynamic set then
// loses its contents.
//
// Timed changes are made together with what packets notice of the rest. Sets
// that are timed are compared without their contents, but for elements that
// somebody made to stay for ever, which go; one that is made anew keeps its
// elements, if it had the same keys, with what the snapshot found left of them.
func Diff(have *Snapshot, want *ruleset.Table, timed ...TimedChange) (*Delta, error) {
	return diff(have, want, false, timed)
}

// diff is Diff; with apart, parts are transactions of their own wherever they
// can be.
func diff(have *Snapshot, want *ruleset.Table, apart bool, timed []TimedChange) (*Delta, error) {
	d := &Delta{generation: have.Generation, needs: have.needs, free: want == nil}
	p := planner{delta: d, have: have.Table, want: want, split: apart}
	if p.have != nil && p.have.Flags&tableOwned != 0 && p.have.Owner != 0 {
		return nil, fmt.Errorf("table inet %s belongs to another process (netlink port %d), which alone may change it", tableName, p.have.Owner)
	}
	if want == nil {
		if len(timed) > 0 {
			return nil, fmt.Errorf("timed elements of set %s: there is to be no table", timed[0].Set)
		}
		if p.have != nil {
			p.dropTable()
		}
		p.end()
		return d, nil
	}
	if want.Name != tableName {
		return nil, fmt.Errorf("the table is called %q, and only %q can be committed", want.Name, tableName)
	}
	if err := check(want); err != nil {
		return nil, err
	}
	var err error
	if p.timed, err = bySet(want, timed); err != nil {
		return nil, err
	}
	if err := p.plan(); err != nil {
		return nil, err
	}
	return d, nil
}

// Flags of tables.
const (
	tableDormant = 1
	tableOwned   = 2
)

// A planner works one delta out. In each part of it deletions come before
// additions, and each in the order in which the kernel lets go of things and
// takes them up:
//
//	rules, elements, sets, objects, chains; table, objects, chains, sets, elements, rules
//
// A set, a chain or an object cannot be deleted while a rule or an element refers
// to it.
type planner struct {
	delta *Delta
	have  *Table
	want  *ruleset.Table
	// was is the kernel's table; have is an empty one if it is made anew.
	was *Table
	// part is the one whose messages are being written, batch the transaction
	// that they go to, nil before the first message. The parts share one unless
	// split is set.
	part  part
	batch *batch
	split bool
	// touched says which parts have messages, room is how many bytes the part
	// at hand may need.
	touched [len(parts)]bool
	room    int
	// used is what packets can come to in the kernel's table.
	used map[node]bool
	// fresh names what is deleted and added again in this transaction.
	freshSets, freshChains, freshObjects map[string]bool

	objects []objectPlan
	chains  []chainPlan
	sets    []setPlan
	// timed holds the changes of timed sets that were asked for.
	timed map[*ruleset.Set][]TimedChange
}

// chainPlan says what happens to one chain name.
type chainPlan struct {
	have *Chain         // nil: it is new
	want *ruleset.Chain // nil: it goes
	// fresh chains are deleted and added; for a base chain whose policy alone
	// differs, policy is set instead.
	fresh, policy bool
	part          part
	rules         *rulePlan
}

// setPlan says what happens to one set name.
type setPlan struct {
	have     *Set
	want     *ruleset.Set
	fresh    bool
	part     part
	elements *elementChanges
	// timed is nil for sets that are none of timed elements.
	timed *timedChanges
}

func (p *planner) plan() error {
	p.was = p.have
	if p.was == nil {
		p.was = &Table{}
	}
	recreate := p.have != nil && (p.have.Comment != p.want.Comment || p.have.Flags != 0)
	switch {
	case p.have == nil:
		p.change(Add, TableKind, p.want.Name, p.want.Comment, text(p.want.Name), nil)
	case recreate:
		have := p.have
		p.dropTableMessage()
		p.change(Update, TableKind, p.want.Name, p.want.Comment, tableText(0, p.want.Comment), tableText(have.Flags, have.Comment))
	}
	if p.have == nil || recreate {
		p.have = &Table{Name: p.want.Name}
		p.addTable()
	}
	p.pairObjects()
	p.pairChains()
	p.pairSets()
	if err := p.planRules(); err != nil {
		return err
	}
	if err := p.planElements(); err != nil {
		return err
	}
	p.assign(recreate)
	p.report()
	p.emit()
	return nil
}

// pairChains finds for every chain its counterpart.
func (p *planner) pairChains() {
	p.freshChains = map[string]bool{}
	wanted := map[string]bool{}
	have := make(map[string]*Chain, len(p.have.Chains))
	for _, c := range p.have.Chains {
		have[c.Name] = c
	}
	for _, want := range p.want.Chains {
		wanted[want.Name] = true
		plan := chainPlan{have: have[want.Name], want: want}
		if plan.have != nil {
			plan.fresh = !sameChain(plan.have, want)
			plan.policy = want.Hook != nil && plan.have.Base != nil && plan.have.Base.Policy != policyAccept
			p.freshChains[want.Name] = plan.fresh
		}
		p.chains = append(p.chains, plan)
	}
	for _, c := range p.have.Chains {
		if !wanted[c.Name] {
			p.chains = append(p.chains, chainPlan{have: c})
		}
	}
	// The kernel lists chains in the order in which they came: base chains first
	// is how they are read, and how the text of a ruleset has them.
	slices.SortFunc(p.chains, func(a, b chainPlan) int {
		if a.base() != b.base() {
			if a.base() {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.name(), b.name())
	})
}

// base reports whether the chain is, or will be, a base chain.
func (c chainPlan) base() bool {
	if c.want != nil {
		return c.want.Hook != nil
	}
	return c.have.Base != nil
}

func (c chainPlan) name() string {
	if c.want != nil {
		return c.want.Name
	}
	return c.have.Name
}

const policyAccept = 1

// sameChain reports whether the chains differ in nothing but the policy and
// the rules.
func sameChain(have *Chain, want *ruleset.Chain) bool {
	const base = 1 // NFT_CHAIN_BASE, which the kernel sets by itself
	if have.Comment != want.Comment || have.flags&^base != 0 {
		return false
	}
	if have.Base == nil || want.Hook == nil {
		return have.Base == nil && want.Hook == nil
	}
	return have.Base.Type == filterType && have.Base.devices == "" &&
		have.Base.Hook == uint32(want.Hook.Point) && have.Base.Priority == want.Hook.Priority
}

// pairSets finds for every set its counterpart.
func (p *planner) pairSets() {
	p.freshSets = map[string]bool{}
	wanted := map[string]bool{}
	have := make(map[string]*Set, len(p.have.Sets))
	for _, s := range p.have.Sets {
		have[s.Name] = s
	}
	for _, want := range p.want.Sets {
		wanted[want.Name] = true
		plan := setPlan{have: have[want.Name], want: want}
		if plan.have != nil {
			plan.fresh = !sameSet(plan.have, want)
			p.freshSets[want.Name] = plan.fresh
		}
		p.sets = append(p.sets, plan)
	}
	for _, s := range p.have.Sets {
		if !wanted[s.Name] {
			p.sets = append(p.sets, setPlan{have: s})
		}
	}
	slices.SortFunc(p.sets, func(a, b setPlan) int { return cmp.Compare(a.name(), b.name()) })
}

func (s setPlan) name() string {
	if s.want != nil {
		return s.want.Name
	}
	return s.have.Name
}

// sameSet reports whether the sets differ in nothing but the elements.
func sameSet(have *Set, want *ruleset.Set) bool {
	// nft sets the flag of concatenations for all of them; it counts in sets of
	// ranges alone, where it chooses another kind of set.
	flags := have.flags
	if !want.Interval {
		flags &^= setFlagConcat
	} else if len(want.Key) > 1 && !slices.Equal(have.lengths, fieldLengths(want)) {
		return false
	}
	if flags != setFlags(want) || have.keyLen != uint32(want.KeySize()) ||
		have.keyType != want.KeyType() || have.timeout != want.Timeout || have.size != want.Size {
		return false
	}
	if (have.dataType == verdictType) != want.Map || have.dataType != 0 && !want.Map {
		return false
	}
	if have.policy != 0 || have.gc != 0 || have.stateful || have.elements.torn || have.Comment != want.Comment {
		return false
	}
	// nft may keep more with a set than sgc asks for.
	stored := userDataFields(have.userData)
	for kind, value := range userDataFields(want.UserData()) {
		if stored[kind] != value {
			return false
		}
	}
	return true
}

// setFlags returns the kernel's flags of a wanted set.
func setFlags(s *ruleset.Set) uint32 {
	var flags uint32
	if s.Map {
		flags |= unix.NFT_SET_MAP
	}
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.Dynamic {
		flags |= unix.NFT_SET_EVAL
	}
	if s.Timeout != 0 || s.Timed {
		flags |= unix.NFT_SET_TIMEOUT
	}
	if s.Interval && len(s.Key) > 1 {
		flags |= setFlagConcat
	}
	return flags
}

// fieldLengths returns the lengths of the fields of a set's key, in bytes.
func fieldLengths(s *ruleset.Set) []uint32 {
	lengths := make([]uint32, len(s.Key))
	for i, t := range s.Key {
		lengths[i] = uint32(t.Size())
	}
	return lengths
}
