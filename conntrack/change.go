package conntrack

import (
	"slices"

	"sgc/internal/flow"
	"sgc/policies"
)

// Enforced is a policy with what its rules in the kernel depend on beside it.
type Enforced struct {
	Policy *policies.Policy
	// Conntrack says, for each family in which another table needs conntrack,
	// why. The kernel keeps open flows of the family in conntrack then.
	Conntrack map[flow.Family]string
}

// ChangeOptions say between which policies, and how.
type ChangeOptions struct {
	// Old is what was enforced; nil at the first apply, which cuts nothing.
	Old *Enforced
	New *Enforced
	// Past holds the rules that groups had before Old.
	Past  *policies.Past
	Flush FlushMode
	// Lost says that Old's rules are not in the kernel any more, since somebody
	// flushed them: nothing kept flows in conntrack, or out of it, on their behalf.
	Lost bool
	// Routes tells which interface a flow crosses, Openers which side opened it.
	// Both stay the caller's. Other needs neither.
	Routes  *Routes
	Openers *Openers
}

// Change says what a change of policy does to live flows. One goroutine at a
// time may use it.
type Change struct {
	routes   *Routes
	openers  *Openers
	old, new *side
	// same says that both policies mean the same.
	same  bool
	lost  bool
	flush FlushMode
	past  *policies.PastJudge
	// managed are the names of the links that both policies govern, sorted.
	managed []string
	// governed are those of the links that the new policy governs, the first
	// places for those that it names.
	governed []string
	// narrowed are links whose open flows are others under the new policy.
	narrowed []string
	// links is what is known of the links that flows crossed.
	links map[string]*changedLink
	last  *changedLink
}

// side is one of the two policies.
type side struct {
	judge     *policies.Judge
	conntrack map[flow.Family]string
}

func newSide(e *Enforced) *side { return &side{policies.NewJudge(e.Policy), e.Conntrack} }

// NewChange indexes both policies.
func NewChange(o ChangeOptions) *Change {
	c := &Change{
		routes: o.Routes, new: newSide(o.New), flush: o.Flush, lost: o.Lost,
		links: map[string]*changedLink{},
	}
	c.openers = o.Openers.heeding(c.byRules)
	if o.Routes != nil {
		o.Routes.Heed(c.openers)
	}
	if o.Old == nil {
		return c
	}
	if c.same = o.Old.Policy == o.New.Policy || o.Old.Policy.Digest() == o.New.Policy.Digest(); c.same {
		c.old = &side{c.new.judge, o.Old.Conntrack}
	} else {
		c.old = newSide(o.Old)
	}
	c.past = policies.NewPastJudge(o.Past, c.old.judge, o.New.Policy)
	if o.Routes == nil {
		return c
	}
	c.governed, c.narrowed = c.governedLinks(o.Routes.names), c.narrowedLinks(o.Routes)
	for _, name := range o.Routes.names {
		if c.old.judge.Interface(name) != nil && c.new.judge.Interface(name) != nil {
			c.managed = append(c.managed, name)
		}
	}
	slices.Sort(c.managed)
	return c
}

// ChangedLeg is where a flow crosses an interface that the new policy governs.
type ChangedLeg struct {
	// Packet is the one that opened the flow, as the wire saw it there.
	Packet flow.Packet
	Fate   Fate
	Reason Reason
	// New is the new policy's word on the packet, and Old that of the old one,
	// with the rule that had allowed it. Old is the zero Standing where there was
	// no old policy, and where the leg stays as it was. Denied in them is that of
	// the packet's direction; see DeniedBack for the other one.
	Old, New policies.Standing
	// wasOpen says that the old policy called the flow open, keptOut that its
	// rules kept it out of conntrack, keepsOut that the new ones do.
	wasOpen, keptOut, keepsOut bool
}

// Changed is what becomes of one flow.
type Changed struct {
	Fate   Fate
	Reason Reason
	// Legs are those of Judged, under the new policy.
	Legs []ChangedLeg
	// KeptOut says that the old rules kept the flow out of conntrack: an entry of
	// it is a leftover that no packet has refreshed.
	KeptOut bool
	// Delete says that the entry is to be deleted after the commit: that of a
	// flow that is cut, or that the new rules keep out of conntrack. Left behind,
	// the latter would stall the flow when tracking returns, since the entry's
	// window is old.
	Delete bool
	// Seed says, of a socket, that an entry is to be made for its flow: from the
	// commit on the kernel tracks it, and did not before, or perhaps did not.
	Seed bool
	// Unsure says, of a socket, that its flow may have an entry or not.
	Unsure bool
	// Opened is the direction in which the flow was opened.
	Opened flow.Direction
	// Held is what is to be refused so that a UDP flow that is cut does not begin
	// anew: for each leg that is cut, on its interface and on all others on which
	// the new policy does not let the flow open.
	Held []policies.Held
	room [2]ChangedLeg
}

// Leg returns the leg whose fate is the flow's, or nil.
func (out *Changed) Leg() *ChangedLeg {
	for i := range out.Legs {
		if out.Legs[i].Fate == out.Fate {
			return &out.Legs[i]
		}
	}
	return nil
}

// Entry says what becomes of the flow of an entry; the result is valid until the
// next call with the same out. It fails only if the kernel cannot be asked for a
// route.
func (c *Change) Entry(e *Entry, out *Changed) error {
	out.reset()
	packets := [2]*flow.Packet{&out.room[0].Packet, &out.room[1].Packet}
	n, err := c.routes.crossings(e, packets, c)
	if err != nil {
		return err
	}
	for i := range n {
		c.judge(&out.room[i])
	}
	c.sum(out, n)
	if out.Fate == Cut && e.Original.Protocol == flow.UDP {
		out.holdEntry(c, e)
	}
	return nil
}

func (out *Changed) reset() {
	out.Fate, out.Reason, out.Legs = Elsewhere, NoReason, out.room[:0]
	out.KeptOut, out.Delete, out.Seed, out.Unsure, out.Opened = false, false, false, false, flow.Ingress
	out.Held = out.Held[:0]
}

// sum takes the first n legs of the room together.
func (c *Change) sum(out *Changed, n int) {
	for i := range n {
		l := &out.room[i]
		if l.Fate == Elsewhere {
			continue
		}
		m := len(out.Legs)
		if m < i {
			out.room[m] = *l
			l = &out.room[m]
		}
		out.Legs = out.room[:m+1]
		if m == 0 {
			out.Opened = l.Packet.Direction
		}
		if l.Fate > out.Fate {
			out.Fate, out.Reason = l.Fate, l.Reason
		}
		out.KeptOut = out.KeptOut || l.keptOut
		out.Delete = out.Delete || l.Fate == Cut || l.keepsOut
	}
}

// judge finds the fate of a leg. It asks as little as it can: nearly all flows
// of a large table stay.
func (c *Change) judge(l *ChangedLeg) {
	p := &l.Packet
	if p.Protocol.IsOther(p.Family()) {
		c.judgeOther(l)
		return
	}
	l.New = c.new.judge.Standing(p)
	l.Old, l.Fate, l.Reason = policies.Standing{}, Stays, NoReason
	l.wasOpen, l.keptOut, l.keepsOut = false, false, false
	if l.New.Class == policies.Unmanaged {
		l.Fate = Elsewhere
		return
	}
	link, family := c.link(p.Interface), 0
	if p.Source.Is6() {
		family = 1
	}
	// Nothing judges what is exempt, but its ports may be open all the same.
	isOpen := l.New.Class == policies.Untracked || l.New.Class == policies.Exempt && c.new.judge.Open(p)
	l.keepsOut = isOpen && !p.Forwarded && link.newKeeps[family]
	revoked := l.New.Class == policies.None
	if c.old == nil {
		if revoked {
			l.Fate, l.Reason = Lingers, Adopted
		}
		return
	}
	switch link.wasOpen[family] {
	case openAsNow:
		l.wasOpen = isOpen
	case askOpen:
		l.wasOpen = c.old.judge.Open(p)
	}
	l.keptOut = l.wasOpen && !p.Forwarded && link.oldKeeps[family]
	switch {
	case revoked:
		l.Old = c.old.judge.Standing(p)
		l.Fate, l.Reason = c.fateOfRevoked(l)
	case l.New.Class == policies.Untracked && !l.wasOpen:
		if l.Old = c.old.judge.Standing(p); l.Old.Class != policies.Unmanaged {
			l.Fate = BecomesOpen
		}
	case l.New.Class == policies.Tracked && l.wasOpen:
		l.Old = c.old.judge.Standing(p)
		l.Fate = BecomesTracked
	}
}

// fateOfRevoked is the fate of a leg that no rule allows.
func (c *Change) fateOfRevoked(l *ChangedLeg) (Fate, Reason) {
	switch {
	case l.Old.Class == policies.Unmanaged:
		return Lingers, Adopted
	case c.flush == FlushNone && l.wasOpen:
		return Lingers, NotFlushed
	case c.flush == FlushNone:
		return Lingers, WasTracked
	case l.wasOpen:
		return Cut, WasOpen
	case c.flush == FlushRevoked:
		return Cut, WasRevoked
	case c.past.OnlyDeleted(&l.Packet):
		return Cut, GroupDeleted
	}
	return Lingers, WasTracked
}

// NowDenied reports whether the interface's ACL under the new policy denies packets
// of the leg's flow, in either direction, that it did not deny before.
func (c *Change) NowDenied(l *ChangedLeg) bool {
	if i := c.new.judge.Interface(l.Packet.Interface); i == nil || i.ACL == "" {
		return false
	}
	if c.same {
		return false
	}
	was := func(p *flow.Packet) bool { return c.old != nil && c.old.judge.Standing(p).Denied }
	if l.New.Denied && !was(&l.Packet) {
		return true
	}
	reply := l.Packet.Reply()
	return c.new.judge.Standing(&reply).Denied && !was(&reply)
}

// DeniedBack reports whether the interface's ACL under the new policy denies the
// packets of the leg's flow that answer; New.Denied is that of those that do not.
func (c *Change) DeniedBack(l *ChangedLeg) bool {
	if i := c.new.judge.Interface(l.Packet.Interface); i == nil || i.ACL == "" {
		return false
	}
	reply := l.Packet.Reply()
	return c.new.judge.Standing(&reply).Denied
}
