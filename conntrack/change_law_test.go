package conntrack

import (
	"testing"
	"time"

	"sgc/internal/corpus"
	"sgc/internal/flow"
	"sgc/policies"
)

// TestChangeLaws holds the fates of random flows between random policies
// against the judges, asked for everything and without short cuts.
func TestChangeLaws(t *testing.T) {
	s := newStand(t)
	counts := map[Fate]int{}
	for seed := range uint64(250) {
		r := corpus.Seeded(seed)
		options := corpus.Options{Interfaces: []string{"br0", "e*", "eth0"}, AlwaysTrack: true, ACLs: true}
		side := func() *Enforced {
			e := &Enforced{Policy: corpus.Policy(r, options)}
			if r.IntN(3) == 0 {
				e.Conntrack = map[flow.Family]string{flow.Families[r.IntN(2)]: "somebody needs it"}
			}
			return e
		}
		before, old, new := side(), side(), side()
		past := (*policies.Past)(nil).Add(before.Policy, old.Policy, time.Time{}).Forget(old.Policy)
		then, now := policies.NewJudge(old.Policy), policies.NewJudge(new.Policy)
		deleted := policies.NewPastJudge(past, then, new.Policy)
		o := ChangeOptions{Old: old, New: new, Past: past, Routes: s.routes, Openers: s.openers}
		made := func(edit func(*ChangeOptions)) *Change {
			o := o
			edit(&o)
			return NewChange(o)
		}
		cloud, revoked, none := made(func(*ChangeOptions) {}), made(func(o *ChangeOptions) { o.Flush = FlushRevoked }), made(func(o *ChangeOptions) { o.Flush = FlushNone })
		same, first := made(func(o *ChangeOptions) { o.New = o.Old }), made(func(o *ChangeOptions) { o.Old = nil })
		for _, packets := range []*corpus.Packets{corpus.NewPackets(r, old.Policy), corpus.NewPackets(r, new.Policy)} {
			for range 100 {
				e := entryOfPacket(packets.Next())
				var out Changed
				fate := func(c *Change) Fate {
					if err := c.Entry(e, &out); err != nil {
						t.Fatal(err)
					}
					return out.Fate
				}
				for _, c := range []*Change{same, first, none} {
					if fate(c) == Cut {
						t.Fatalf("seed %d: %s is cut though nothing changed, nothing was enforced, or nothing is to be cut", seed, &e.Original)
					}
				}
				if fate(first) > Stays && out.Fate != Lingers {
					t.Fatalf("seed %d: %s %s at the first apply", seed, &e.Original, out.Fate)
				}
				for mode, c := range map[FlushMode]*Change{FlushCloud: cloud, FlushRevoked: revoked, FlushNone: none} {
					got := fate(c)
					if mode == FlushCloud {
						counts[got]++
					}
					want, kept, out2 := Elsewhere, false, false
					for i := range out.Legs {
						p := &out.Legs[i].Packet
						checkOther(t, c, p, &out.Legs[i])
						leg := legFate(then, now, deleted, mode, p)
						want = max(want, leg)
						kept = kept || keptOut(new, now, p)
						out2 = out2 || keptOut(old, then, p)
						if leg != out.Legs[i].Fate {
							t.Fatalf("seed %d, flush %s: %s %s, want %s", seed, mode, p, out.Legs[i].Fate, leg)
						}
					}
					if got != want || out.Delete != (want == Cut || kept) || out.KeptOut != out2 {
						t.Fatalf("seed %d, flush %s: %s %s, deleted %t, was kept out %t; want %s, %t, %t",
							seed, mode, &e.Original, got, out.Delete, out.KeptOut, want, want == Cut || kept, out2)
					}
					if held := got == Cut && e.Original.Protocol == flow.UDP; held != (len(out.Held) > 0) {
						t.Fatalf("seed %d: of %s, which is %s, %v is held", seed, &e.Original, got, out.Held)
					}
					for _, h := range out.Held {
						if rest := h.Remaining(now); len(rest) != 1 {
							t.Fatalf("seed %d: %v is not held under the policy that cuts it", seed, h)
						}
					}
				}
			}
		}
	}
	for f := Stays; f <= Cut; f++ {
		if counts[f] < 50 {
			t.Errorf("%d flows are %s", counts[f], f)
		}
	}
	t.Log(counts)
}

// checkOther compares the entry of a flow that sgc tracks by itself with what is
// remembered of it.
func checkOther(t *testing.T, c *Change, p *flow.Packet, l *ChangedLeg) {
	t.Helper()
	if !p.Protocol.IsOther(p.Family()) {
		return
	}
	var out Changed
	c.Other(policies.OtherFlowOf(p), &out)
	if out.Fate != l.Fate || out.Reason != l.Reason {
		t.Fatalf("%s %s (%s) by what is remembered, and %s (%s) by its entry", p, out.Fate, out.Reason, l.Fate, l.Reason)
	}
}

// legFate is the contract's table, read from the top.
func legFate(old, new *policies.Judge, deleted *policies.PastJudge, mode FlushMode, p *flow.Packet) Fate {
	was, is := old.Standing(p).Class, new.Standing(p).Class
	wasOpen := old.Open(p)
	openers := []*flow.Packet{p}
	if p.Protocol.IsOther(p.Family()) {
		// Nobody remembers who opened it.
		back := p.Reply()
		openers = append(openers, &back)
		if is == policies.None && new.Standing(&back).Class != policies.None {
			return Stays
		}
	}
	switch {
	case is == policies.Unmanaged:
		return Elsewhere
	case is == policies.Exempt:
		return Stays
	case is == policies.None:
		cut := was != policies.Unmanaged && mode != FlushNone && (wasOpen || mode == FlushRevoked || deleted.OnlyDeleted(openers...))
		if cut {
			return Cut
		}
		return Lingers
	case was == policies.Unmanaged:
		return Stays
	case wasOpen && is != policies.Untracked:
		return BecomesTracked
	case !wasOpen && is == policies.Untracked:
		return BecomesOpen
	}
	return Stays
}

func keptOut(e *Enforced, j *policies.Judge, p *flow.Packet) bool {
	return j.Open(p) && !p.Forwarded && e.Conntrack[p.Family()] == "" && !j.Interface(p.Interface).NotrackOff
}

// entryOfPacket is the entry that a packet begins.
func entryOfPacket(p flow.Packet) *Entry {
	o := Tuple{Protocol: p.Protocol, Source: p.Source, Dest: p.Dest, SourcePort: p.SourcePort, DestPort: p.DestPort, ICMPType: p.ICMPType, ICMPCode: p.ICMPCode}
	return &Entry{Original: o, Reply: o.Reversed()}
}
