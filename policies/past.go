package policies

import (
	"slices"
	"strings"
	"time"

	"sgc/internal/flow"
)

// Past holds the rules that security groups had on interfaces and have no more.
// A group that is deleted cuts tracked flows that only deleted groups have ever
// allowed (2.4), and a flow may be older than the rules of today.
//
// A Past is a value: nothing changes it. It marshals to JSON and back without
// loss. The nil Past is empty.
type Past struct {
	// Rules are sorted. No two differ in their peers alone, and those that differ
	// in Gone and Pos besides have no peer in common.
	Rules []*PastRule
}

// PastRule is a rule that a group had on the interfaces of a block.
type PastRule struct {
	// Interface is the name of the block. Except are the names of those blocks
	// that governed some of its interfaces in its place, sorted.
	Interface string         `json:"interface"`
	Except    []string       `json:"except,omitempty"`
	Group     string         `json:"group"`
	Direction flow.Direction `json:"direction"`
	// ID names the rule as in Rule, and Pos is where it stood last. Records of
	// older versions have neither: ID is "" then.
	ID  string `json:"id,omitempty"`
	Pos Pos    `json:"pos,omitzero"`
	// Gone is when a policy was applied under which it did not allow its peers
	// there any more: the last time, if it came and went. It is zero in records of
	// older versions.
	Gone         time.Time     `json:"gone,omitzero"`
	AllProtocols bool          `json:"all_protocols,omitempty"`
	Protocol     flow.Protocol `json:"protocol,omitempty"`
	// Ports, ICMPType and ICMPCode are as in Rule.
	Ports    []flow.PortRange `json:"ports,omitempty"`
	ICMPType int              `json:"icmp_type,omitempty"`
	ICMPCode int              `json:"icmp_code,omitempty"`
	// Peers are whom the rule allowed, by whatever name: merged ranges of both
	// families, never none. Rules with the same peers share them; they are
	// read-only.
	Peers []flow.Range `json:"-"`
}

// IsEmpty reports whether nothing is past.
func (p *Past) IsEmpty() bool { return p == nil || len(p.Rules) == 0 }

// Address returns the rule's address in plans, or that of its group if nobody
// knows which of its rules it was.
func (r *PastRule) Address() string {
	if r.ID == "" {
		return (&Group{Name: r.Group}).Address()
	}
	return (&Rule{Group: r.Group, Direction: r.Direction, ID: r.ID}).Address()
}

// Add returns the past of what is there once old has given way to new, which is
// applied at a time: p, and what a group could let through on an interface under
// old and cannot under new, whether its rule is gone or narrowed, a list or a
// group in it has shrunk, or the group is no longer attached there. It may hold
// more: what new allows by several rules in the place of one. old may be nil, and
// is the policy that was enforced; the same change twice adds nothing.
func (p *Past) Add(old, new *Policy, at time.Time) *Past {
	b := newPastBuilder(p)
	if old != nil {
		then, now := newHistory(old), newHistory(new)
		minus := differences{}
		for _, i := range old.Interfaces {
			where := then.scope(i)
			for _, name := range i.Groups {
				for _, r := range then.judge.rules[name] {
					if gone := minus.of(then.peers(r), now.still(where, r)); len(gone) > 0 {
						b.add(&PastRule{
							Interface: where.name, Except: where.except, Group: name, ID: r.ID, Pos: r.Pos, Gone: at,
							Direction: r.Direction, AllProtocols: r.AllProtocols, Protocol: r.Protocol,
							Ports: r.Ports, ICMPType: r.ICMPType, ICMPCode: r.ICMPCode,
							Peers: gone,
						})
					}
				}
			}
		}
	}
	return b.past()
}

// Forget returns the past without the groups that the policy does not have:
// their flows have been cut, and a group that gets such a name again is another.
func (p *Past) Forget(new *Policy) *Past {
	out := &Past{}
	if p.IsEmpty() {
		return out
	}
	exists := groupNames(new)
	for _, r := range p.Rules {
		if exists[r.Group] {
			out.Rules = append(out.Rules, r)
		}
	}
	return out
}

func groupNames(p *Policy) map[string]bool {
	names := map[string]bool{}
	for _, g := range p.Groups {
		names[g.Name] = true
	}
	return names
}

// pastBuilder collects rules.
type pastBuilder struct {
	// rules are those that differ in their peers, Gone and Pos alone, by what they
	// have in common.
	rules map[string][]*PastRule
	minus differences
}

func newPastBuilder(p *Past) *pastBuilder {
	b := &pastBuilder{rules: map[string][]*PastRule{}, minus: differences{}}
	if !p.IsEmpty() {
		for _, r := range p.Rules {
			b.rules[r.key()] = append(b.rules[r.key()], r)
		}
	}
	return b
}

// add takes what a rule has just ceased to allow. What of it had ceased before,
// and came back since, is past from now on.
func (b *pastBuilder) add(r *PastRule) {
	if len(r.Peers) == 0 {
		return
	}
	key := r.key()
	var all []*PastRule
	for _, have := range b.rules[key] {
		if have.Gone.Equal(r.Gone) {
			if len(minusRanges(r.Peers, have.Peers)) == 0 {
				r = have
				continue
			}
			both := *r
			both.Peers = flow.MergeRanges(append(slices.Clone(have.Peers), r.Peers...))
			r = &both
			continue
		}
		switch rest := b.minus.of(have.Peers, r.Peers); {
		case len(rest) == 0:
		case sameRanges(rest, have.Peers):
			all = append(all, have)
		default:
			some := *have
			some.Peers = rest
			all = append(all, &some)
		}
	}
	b.rules[key] = append(all, r)
}

// key tells apart what is more than a matter of peers, and of when.
func (r *PastRule) key() string {
	meaning := Rule{Direction: r.Direction, AllProtocols: r.AllProtocols, Protocol: r.Protocol, Ports: r.Ports, ICMPType: r.ICMPType, ICMPCode: r.ICMPCode}
	return strings.Join([]string{r.Interface, strings.Join(r.Except, "/"), r.Group, r.ID, meaningOf(&meaning)}, " ")
}

func (b *pastBuilder) past() *Past {
	out := &Past{}
	keys := make([]string, 0, len(b.rules))
	for k := range b.rules {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	// Peers that are equal are kept once.
	shared := map[flow.Range][][]flow.Range{}
	for _, k := range keys {
		slices.SortFunc(b.rules[k], func(x, y *PastRule) int { return x.Gone.Compare(y.Gone) })
		for _, r := range b.rules[k] {
			same := shared[r.Peers[0]]
			n := slices.IndexFunc(same, func(p []flow.Range) bool { return sameRanges(p, r.Peers) })
			if n < 0 {
				shared[r.Peers[0]] = append(same, r.Peers)
			} else if &same[n][0] != &r.Peers[0] {
				again := *r
				again.Peers = same[n]
				r = &again
			}
			out.Rules = append(out.Rules, r)
		}
	}
	return out
}
