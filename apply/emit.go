package apply

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/ruleset"
)

// filterType is the type of sgc's base chains.
const filterType = "filter"

// maxElements is how many bytes of elements go into one message: the length of
// the attribute that holds them has 16 bits.
const maxElements = 60_000

// Flags of messages that add something that is not there.
const create = unix.NLM_F_CREATE | unix.NLM_F_EXCL

// beginSize is the length of the message that begins a transaction.
const beginSize = headerSize + nfgenmsgSize + attributeSize + 4

// open begins the transaction. It and the message that ends it have the
// sequence numbers before the first and after the last operation's.
func (d *Delta) open() {
	d.batch.batchMark(unix.NFNL_MSG_BATCH_BEGIN, 0)
	d.batch.u32(unix.NFNL_BATCH_GENID, d.generation)
	d.batch.finish()
}

// close ends the transaction, or drops it if it does nothing. The last
// operation asks for an acknowledgement: kernels before 6.10 never acknowledge
// the message at the end.
func (d *Delta) close() {
	if d.Empty() {
		d.batch = message{}
		return
	}
	last := d.operations[len(d.operations)-1]
	setFlag(d.batch.buf[last.start:], unix.NLM_F_ACK)
	d.batch.batchMark(unix.NFNL_MSG_BATCH_END, uint32(len(d.operations)+1))
	d.batch.finish()
}

// reserve makes room in the batch for the elements that are to be added, the
// bulk of a first apply.
func (p *planner) reserve() {
	n := 0
	for _, s := range p.sets {
		if s.elements == nil {
			continue
		}
		each := elementSize(s.want, verdict{})
		n += each * (len(s.elements.added) + len(s.elements.removed))
	}
	p.delta.batch.buf = slices.Grow(p.delta.batch.buf, n+n/64)
}

// emit writes the messages in an order in which the kernel takes them.
func (p *planner) emit() {
	p.reserve()
	for _, c := range p.chains {
		p.deleteRules(c)
	}
	for _, s := range p.sets {
		if s.elements != nil && s.elements.have != nil {
			p.deleteElements(s.elements)
		}
	}
	for _, s := range p.sets {
		if s.want == nil || s.fresh {
			p.begin(unix.NFT_MSG_DELSET, 0, operation{action: Remove, kind: SetKind, name: s.have.Name, comment: s.have.Comment})
			p.message().str(unix.NFTA_SET_TABLE, tableName)
			p.message().str(unix.NFTA_SET_NAME, s.have.Name)
			p.message().finish()
		}
	}
	for _, o := range p.have.Others {
		p.deleteOther(o)
	}
	for _, c := range p.chains {
		if c.want == nil || c.fresh {
			p.begin(unix.NFT_MSG_DELCHAIN, 0, operation{action: Remove, kind: ChainKind, name: c.have.Name, comment: c.have.Comment})
			p.message().str(unix.NFTA_CHAIN_TABLE, tableName)
			p.message().str(unix.NFTA_CHAIN_NAME, c.have.Name)
			p.message().finish()
		}
	}
	for _, c := range p.chains {
		switch {
		case c.want != nil && (c.have == nil || c.fresh):
			p.addChain(c.want)
		case c.policy:
			p.setPolicy(c.want)
		}
	}
	for _, s := range p.sets {
		if s.want != nil && (s.have == nil || s.fresh) {
			p.addSet(s.want)
		}
	}
	for _, s := range p.sets {
		if s.elements != nil {
			p.addElements(s.elements)
		}
	}
	for _, c := range p.chains {
		if c.want != nil {
			p.addRules(c)
		}
	}
}

func (p *planner) message() *message { return &p.delta.batch }

// begin starts the message of an operation. Its sequence number is that of the
// operation, counted from 1, so that an error can be traced to it.
func (p *planner) begin(typ, flags int, o operation) {
	d := p.delta
	o.start = len(d.batch.buf)
	d.operations = append(d.operations, o)
	d.batch.begin(typ, unix.NLM_F_REQUEST|flags, unix.NFPROTO_INET, uint32(len(d.operations)))
}

// dropTable plans for no table at all.
func (p *planner) dropTable() {
	p.dropTableMessage()
	p.change(Remove, TableKind, p.have.Name, p.have.Comment, tableText(p.have.Flags, p.have.Comment), nil)
}

// dropTableMessage deletes the table with everything in it.
func (p *planner) dropTableMessage() {
	p.begin(unix.NFT_MSG_DELTABLE, 0, operation{action: Remove, kind: TableKind, name: p.have.Name, comment: p.have.Comment})
	p.message().str(unix.NFTA_TABLE_NAME, p.have.Name)
	p.message().finish()
}

func (p *planner) addTable() {
	p.begin(unix.NFT_MSG_NEWTABLE, create, operation{action: Add, kind: TableKind, name: p.want.Name, comment: p.want.Comment})
	m := p.message()
	m.str(unix.NFTA_TABLE_NAME, p.want.Name)
	m.u32(unix.NFTA_TABLE_FLAGS, 0)
	if p.want.Comment != "" {
		m.bytes(tableUserData, ruleset.CommentData(p.want.Comment))
	}
	m.finish()
}

// deleteRules deletes the rules of a chain that go; all of them in one message
// if the chain goes too.
func (p *planner) deleteRules(c chainPlan) {
	if c.have == nil || len(c.have.Rules) == 0 {
		return
	}
	if c.want == nil || c.fresh {
		p.begin(unix.NFT_MSG_DELRULE, 0, operation{action: Remove, kind: RuleKind, name: c.have.Name, comment: "all rules"})
		p.message().str(unix.NFTA_RULE_TABLE, tableName)
		p.message().str(unix.NFTA_RULE_CHAIN, c.have.Name)
		p.message().finish()
		return
	}
	for _, i := range c.rules.gone {
		r := c.have.Rules[i]
		p.begin(unix.NFT_MSG_DELRULE, 0, operation{action: Remove, kind: RuleKind, name: c.have.Name, number: i + 1, comment: r.Comment})
		p.message().str(unix.NFTA_RULE_TABLE, tableName)
		p.message().str(unix.NFTA_RULE_CHAIN, c.have.Name)
		p.message().u64(unix.NFTA_RULE_HANDLE, r.Handle)
		p.message().finish()
	}
}

func (p *planner) deleteOther(o Other) {
	typ := unix.NFT_MSG_DELOBJ
	if o.kind == flowtable {
		typ = unix.NFT_MSG_DELFLOWTABLE
	}
	p.begin(typ, 0, operation{action: Remove, kind: ObjectKind, name: o.Name})
	// The attributes of objects and flowtables have the same numbers.
	p.message().str(objectTable, tableName)
	p.message().str(otherName, o.Name)
	if o.kind != flowtable {
		p.message().u32(objectType, o.kind)
	}
	p.message().finish()
}

func (p *planner) addChain(c *ruleset.Chain) {
	p.begin(unix.NFT_MSG_NEWCHAIN, create, operation{action: Add, kind: ChainKind, name: c.Name, comment: c.Comment})
	m := p.message()
	m.str(unix.NFTA_CHAIN_TABLE, tableName)
	m.str(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Hook != nil {
		hook := m.nest(unix.NFTA_CHAIN_HOOK)
		m.u32(unix.NFTA_HOOK_HOOKNUM, uint32(c.Hook.Point))
		m.u32(unix.NFTA_HOOK_PRIORITY, uint32(c.Hook.Priority))
		m.end(hook)
		m.u32(unix.NFTA_CHAIN_POLICY, policyAccept)
		m.str(unix.NFTA_CHAIN_TYPE, filterType)
	}
	if c.Comment != "" {
		m.bytes(chainUserData, ruleset.CommentData(c.Comment))
	}
	m.finish()
}

// setPolicy makes a base chain that stays accept what it does not decide.
func (p *planner) setPolicy(c *ruleset.Chain) {
	p.begin(unix.NFT_MSG_NEWCHAIN, 0, operation{action: Update, kind: ChainKind, name: c.Name, comment: c.Comment})
	m := p.message()
	m.str(unix.NFTA_CHAIN_TABLE, tableName)
	m.str(unix.NFTA_CHAIN_NAME, c.Name)
	m.u32(unix.NFTA_CHAIN_POLICY, policyAccept)
	m.finish()
}

func (p *planner) addSet(s *ruleset.Set) {
	p.begin(unix.NFT_MSG_NEWSET, create, operation{action: Add, kind: SetKind, name: s.Name, comment: s.Comment})
	m := p.message()
	m.str(unix.NFTA_SET_TABLE, tableName)
	m.str(unix.NFTA_SET_NAME, s.Name)
	m.u32(unix.NFTA_SET_FLAGS, setFlags(s))
	m.u32(unix.NFTA_SET_KEY_TYPE, s.KeyType())
	m.u32(unix.NFTA_SET_KEY_LEN, uint32(s.KeySize()))
	// Sets that are used by name need no id of their own, but the kernel wants
	// the attribute.
	m.u32(unix.NFTA_SET_ID, uint32(len(p.delta.operations)))
	if s.Map {
		m.u32(unix.NFTA_SET_DATA_TYPE, verdictType)
	}
	if s.Timeout != 0 {
		m.u64(unix.NFTA_SET_TIMEOUT, uint64(s.Timeout/time.Millisecond))
	}
	if s.Size != 0 {
		desc := m.nest(unix.NFTA_SET_DESC)
		m.u32(unix.NFTA_SET_DESC_SIZE, s.Size)
		m.end(desc)
	}
	if data := s.UserData(); len(data) > 0 {
		m.bytes(unix.NFTA_SET_USERDATA, data)
	}
	m.finish()
}

// addRules inserts the rules that come. Several before the same anchor come to
// stand in the order of the messages.
func (p *planner) addRules(c chainPlan) {
	for _, r := range c.rules.come {
		want := c.want.Rules[r.index]
		flags := unix.NLM_F_CREATE
		if r.anchor == 0 {
			flags |= unix.NLM_F_APPEND
		}
		p.begin(unix.NFT_MSG_NEWRULE, flags, operation{action: Add, kind: RuleKind, name: c.want.Name, number: r.index + 1, comment: want.Comment})
		m := p.message()
		m.str(unix.NFTA_RULE_TABLE, tableName)
		m.str(unix.NFTA_RULE_CHAIN, c.want.Name)
		if r.anchor != 0 {
			m.u64(unix.NFTA_RULE_POSITION, r.anchor)
		}
		m.bytes(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, r.expressions)
		if want.Comment != "" {
			m.bytes(unix.NFTA_RULE_USERDATA, ruleset.CommentData(want.Comment))
		}
		m.finish()
	}
}
