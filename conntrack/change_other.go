package conntrack

import (
	"sgc/internal/flow"
	"sgc/policies"
)

// Other says what becomes of a flow of a protocol that sgc tracks by itself; the
// result is valid until the next call with the same out. Its one leg has the
// packet that comes in, whoever opened the flow.
//
// Entries of such protocols say nothing of what is alive: no rule looks at them,
// and conntrack tells flows apart by ports and keys, which sgc does not. Entry
// judges them all the same, to delete those of flows that are cut: no packet of
// them passes, so that nothing is lost but a line in a list, and perhaps a
// translation of addresses.
func (c *Change) Other(f policies.OtherFlow, out *Changed) {
	out.reset()
	l := &out.room[0]
	l.Packet = f.Packet(flow.Ingress)
	c.judge(l)
	c.sum(out, 1)
}

// judgeOther is judge for such protocols. Nobody knows who opened the flow: the
// next packet opens it anew if the rules of its direction allow that, so it is
// cut only if those of neither do.
func (c *Change) judgeOther(l *ChangedLeg) {
	p, back := &l.Packet, l.Packet.Reply()
	l.New = c.new.judge.Standing(p)
	l.Old, l.Fate, l.Reason = policies.Standing{}, Stays, NoReason
	l.wasOpen, l.keptOut, l.keepsOut = false, false, false
	switch {
	case l.New.Class == policies.Unmanaged:
		l.Fate = Elsewhere
		return
	case l.New.Class != policies.None || c.new.judge.Standing(&back).Class != policies.None:
		return
	case c.old == nil:
		l.Fate, l.Reason = Lingers, Adopted
		return
	}
	if l.Old = c.old.judge.Standing(p); l.Old.Class == policies.None {
		l.Old = c.old.judge.Standing(&back)
	}
	switch {
	case l.Old.Class == policies.Unmanaged:
		l.Fate, l.Reason = Lingers, Adopted
	case c.flush == FlushRevoked:
		l.Fate, l.Reason = Cut, WasRevoked
	case c.flush == FlushCloud && c.past.OnlyDeleted(p, &back):
		l.Fate, l.Reason = Cut, GroupDeleted
	default:
		l.Fate, l.Reason = Lingers, WasTracked
	}
}
