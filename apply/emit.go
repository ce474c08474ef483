package apply

import (
	"slices"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
	"sgc/internal/ruleset"
)

// filterType is the type of sgc's base chains.
const filterType = "filter"

// maxElements is how many bytes of elements go into one message: the length of
// the attribute that holds them has 16 bits.
const maxElements = 60_000

// Flags of messages that add something that is not there.
const create = unix.NLM_F_CREATE | unix.NLM_F_EXCL

// markSize is the length of the message that ends a transaction.
const markSize = nlmsg.HeaderSize + nlmsg.NetfilterSize

// beginSize is the length of the message that begins a transaction.
const beginSize = nlmsg.HeaderSize + nlmsg.NetfilterSize + nlmsg.AttributeSize + 4

// open begins a transaction that starts from a generation. The message that
// begins it and the one that ends it have the sequence numbers before the first
// and after the last operation's.
func (b *batch) open(generation uint32) {
	b.mark(unix.NFNL_MSG_BATCH_BEGIN, 0)
	b.message.Uint32(unix.NFNL_BATCH_GENID, generation)
	b.message.Finish()
}

// openUnbound begins a transaction that is made whatever the generation is.
func (b *batch) openUnbound() {
	b.mark(unix.NFNL_MSG_BATCH_BEGIN, 0)
	b.message.Finish()
}

// mark starts the message that begins or ends the transaction.
func (b *batch) mark(typ int, sequence uint32) {
	b.message.Begin(typ, 0, sequence)
	b.message.Netfilter(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
}

// close ends a transaction of at least one operation, which makes a generation
// whatever the kernel finds. The last one asks for an
// acknowledgement: kernels before 6.10 never acknowledge the message at the
// end.
func (b *batch) close() {
	if !slices.ContainsFunc(b.operations, func(o operation) bool { return !o.idle }) {
		b.touch()
	}
	last := b.operations[len(b.operations)-1]
	nlmsg.AddFlags(b.message.Buf[last.start:], unix.NLM_F_ACK)
	b.mark(unix.NFNL_MSG_BATCH_END, uint32(len(b.operations)+1))
	b.message.Finish()
}

// begin starts the message of an operation. Its sequence number is that of the
// operation, counted from 1, so that an error can be traced to it.
func (b *batch) begin(typ, flags int, o operation) *nlmsg.Message {
	o.start = len(b.message.Buf)
	b.operations = append(b.operations, o)
	begin(&b.message, typ, flags, unix.NFPROTO_INET, uint32(len(b.operations)))
	return &b.message
}

// begin starts the message of an operation in the transaction at hand.
func (p *planner) begin(typ, flags int, o operation) *nlmsg.Message {
	if p.batch == nil {
		p.batch = &batch{}
		p.batch.message.Buf = make([]byte, 0, p.room)
		p.batch.open(p.delta.After())
		p.delta.batches = append(p.delta.batches, p.batch)
	}
	p.batch.part = p.part
	p.touched[p.part] = true
	return p.batch.begin(typ, flags, o)
}

// end ends the transaction at hand, if there is one.
func (p *planner) end() {
	if p.batch != nil {
		p.batch.close()
		p.batch = nil
	}
}

// emit writes the messages of all parts.
func (p *planner) emit() {
	for _, part := range parts {
		p.part = part
		p.emitPart()
		if p.split {
			p.end()
		}
	}
	p.end()
	p.delta.leftovers = p.touched == [len(parts)]bool{cleaning: true}
}

// reserve makes room for the elements of sets, the bulk of a first apply.
func (p *planner) reserve(sets []setPlan) {
	p.room = 4096
	for _, s := range sets {
		if s.elements != nil {
			each := elementSize(s.want, verdict{})
			p.room += each * (len(s.elements.added) + len(s.elements.removed))
		}
	}
	if p.part != cleaning {
		for _, s := range p.sets {
			if s.timed != nil && len(s.timed.added) > 0 {
				p.room += timedSize(s.want, &s.timed.added[0].TimedElement) * len(s.timed.added)
			}
		}
	}
	p.room += p.room / 64
	if p.batch != nil {
		p.batch.message.Buf = slices.Grow(p.batch.message.Buf, p.room)
	}
}

// emitPart writes the messages of one part in an order in which the kernel
// takes them.
func (p *planner) emitPart() {
	var chains []chainPlan
	var sets []setPlan
	for _, c := range p.chains {
		if c.part == p.part {
			chains = append(chains, c)
		}
	}
	for _, s := range p.sets {
		if s.part == p.part {
			sets = append(sets, s)
		}
	}
	p.reserve(sets)
	for _, c := range chains {
		p.deleteRules(c)
	}
	for _, s := range sets {
		if s.elements != nil && s.elements.have != nil {
			p.deleteElements(s.elements)
		}
	}
	if p.part == switching {
		for _, s := range p.sets {
			if s.timed != nil {
				p.removeTimed(s.timed)
			}
		}
	}
	for _, s := range sets {
		if s.have != nil && (s.want == nil || s.fresh) {
			p.deleteSet(s.have.Name, s.have.Comment)
		}
	}
	for _, o := range p.objects {
		if o.part == p.part && o.have != nil && (o.want == nil || o.fresh) {
			p.deleteOther(*o.have)
		}
	}
	for _, c := range chains {
		if c.have != nil && (c.want == nil || c.fresh) {
			p.deleteChain(c.have.Name, c.have.Comment)
		}
	}
	for _, o := range p.objects {
		if o.part == p.part && o.want != nil && (o.have == nil || o.fresh) {
			p.addTimeout(o.want)
		}
	}
	for _, c := range chains {
		switch {
		case c.want != nil && (c.have == nil || c.fresh):
			p.addChain(c.want)
		case c.policy:
			p.setPolicy(c.want)
		}
	}
	for _, s := range sets {
		if s.want != nil && (s.have == nil || s.fresh) {
			p.addSet(s.want)
		}
	}
	for _, s := range sets {
		if s.elements != nil {
			p.addElements(s.elements)
		}
	}
	switch p.part {
	case preparing:
		p.addTimedAhead()
	case switching:
		for _, s := range p.sets {
			if s.timed != nil {
				p.addTimed(s.timed, false)
			}
		}
	case cleaning:
	}
	for _, c := range chains {
		if c.want != nil {
			p.addRules(c)
		}
	}
}

// dropTable plans for no table at all.
func (p *planner) dropTable() {
	p.dropTableMessage()
	p.change(Remove, TableKind, p.have.Name, p.have.Comment, tableText(p.have.Flags, p.have.Comment), nil)
}

// dropTableMessage deletes the table with everything in it.
func (p *planner) dropTableMessage() {
	m := p.begin(unix.NFT_MSG_DELTABLE, 0, operation{action: Remove, kind: TableKind, name: p.have.Name, comment: p.have.Comment})
	m.CString(unix.NFTA_TABLE_NAME, p.have.Name)
	m.Finish()
}

func (p *planner) addTable() {
	m := p.begin(unix.NFT_MSG_NEWTABLE, create, operation{action: Add, kind: TableKind, name: p.want.Name, comment: p.want.Comment})
	m.CString(unix.NFTA_TABLE_NAME, p.want.Name)
	m.Uint32(unix.NFTA_TABLE_FLAGS, 0)
	if p.want.Comment != "" {
		m.Bytes(tableUserData, ruleset.CommentData(p.want.Comment))
	}
	m.Finish()
}

// deleteRules deletes the rules of a chain that go; all of them in one message
// if the chain goes too.
func (p *planner) deleteRules(c chainPlan) {
	if c.have == nil || len(c.have.Rules) == 0 {
		return
	}
	if c.want == nil || c.fresh {
		p.flushChain(c.have.Name)
		return
	}
	for _, i := range c.rules.gone {
		r := c.have.Rules[i]
		m := p.begin(unix.NFT_MSG_DELRULE, 0, operation{action: Remove, kind: RuleKind, name: c.have.Name, number: i + 1, comment: r.Comment})
		m.CString(unix.NFTA_RULE_TABLE, tableName)
		m.CString(unix.NFTA_RULE_CHAIN, c.have.Name)
		m.Uint64(unix.NFTA_RULE_HANDLE, r.Handle)
		m.Finish()
	}
}

// flushChain deletes all rules of a chain.
func (p *planner) flushChain(name string) {
	m := p.begin(unix.NFT_MSG_DELRULE, 0, operation{action: Remove, kind: RuleKind, name: name, comment: "all rules"})
	m.CString(unix.NFTA_RULE_TABLE, tableName)
	m.CString(unix.NFTA_RULE_CHAIN, name)
	m.Finish()
}

func (p *planner) deleteChain(name, comment string) {
	m := p.begin(unix.NFT_MSG_DELCHAIN, 0, operation{action: Remove, kind: ChainKind, name: name, comment: comment})
	m.CString(unix.NFTA_CHAIN_TABLE, tableName)
	m.CString(unix.NFTA_CHAIN_NAME, name)
	m.Finish()
}

func (p *planner) deleteOther(o Other) {
	typ := unix.NFT_MSG_DELOBJ
	if o.kind == flowtable {
		typ = unix.NFT_MSG_DELFLOWTABLE
	}
	m := p.begin(typ, 0, operation{action: Remove, kind: ObjectKind, name: o.Name})
	// The attributes of objects and flowtables have the same numbers.
	m.CString(objectTable, tableName)
	m.CString(otherName, o.Name)
	if o.kind != flowtable {
		m.Uint32(objectType, o.kind)
	}
	m.Finish()
}

func (p *planner) addChain(c *ruleset.Chain) {
	m := p.begin(unix.NFT_MSG_NEWCHAIN, create, operation{action: Add, kind: ChainKind, name: c.Name, comment: c.Comment})
	m.CString(unix.NFTA_CHAIN_TABLE, tableName)
	m.CString(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Hook != nil {
		hook := m.Nest(unix.NFTA_CHAIN_HOOK)
		m.Uint32(unix.NFTA_HOOK_HOOKNUM, uint32(c.Hook.Point))
		m.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(c.Hook.Priority))
		m.End(hook)
		m.Uint32(unix.NFTA_CHAIN_POLICY, policyAccept)
		m.CString(unix.NFTA_CHAIN_TYPE, filterType)
	}
	if c.Comment != "" {
		m.Bytes(chainUserData, ruleset.CommentData(c.Comment))
	}
	m.Finish()
}

// setPolicy makes a base chain that stays accept what it does not decide.
func (p *planner) setPolicy(c *ruleset.Chain) {
	m := p.begin(unix.NFT_MSG_NEWCHAIN, 0, operation{action: Update, kind: ChainKind, name: c.Name, comment: c.Comment})
	m.CString(unix.NFTA_CHAIN_TABLE, tableName)
	m.CString(unix.NFTA_CHAIN_NAME, c.Name)
	m.Uint32(unix.NFTA_CHAIN_POLICY, policyAccept)
	m.Finish()
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
		m := p.begin(unix.NFT_MSG_NEWRULE, flags, operation{action: Add, kind: RuleKind, name: c.want.Name, number: r.index + 1, comment: want.Comment})
		m.CString(unix.NFTA_RULE_TABLE, tableName)
		m.CString(unix.NFTA_RULE_CHAIN, c.want.Name)
		if r.anchor != 0 {
			m.Uint64(unix.NFTA_RULE_POSITION, r.anchor)
		}
		m.Bytes(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, r.expressions)
		if want.Comment != "" {
			m.Bytes(unix.NFTA_RULE_USERDATA, ruleset.CommentData(want.Comment))
		}
		m.Finish()
	}
}
