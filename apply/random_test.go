package apply

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"sgc/internal/ruleset"
)

// randomTable makes a valid table out of few names, so that two of them have
// much in common and differ in every way.
func randomTable(r *rand.Rand) *ruleset.Table {
	g := generator{r, &ruleset.Table{Name: "sgc"}}
	if r.IntN(8) == 0 {
		g.table.Comment = fmt.Sprintf("comment %d", r.IntN(2))
	}
	for i := range 6 {
		if r.IntN(4) > 0 {
			g.chain(fmt.Sprintf("c%d", i), i < 2)
		}
	}
	for i := range 5 {
		if r.IntN(4) > 0 {
			g.set(fmt.Sprintf("s%d", i))
		}
	}
	for i := range 3 {
		if r.IntN(3) > 0 {
			g.timed(fmt.Sprintf("t%d", i))
		}
		if r.IntN(3) > 0 {
			g.timeout(fmt.Sprintf("o%d", i))
		}
	}
	for i, c := range g.table.Chains {
		g.rules(c, g.table.Chains[i+1:])
	}
	return g.table
}

type generator struct {
	*rand.Rand
	table *ruleset.Table
}

func (g *generator) comment() string {
	if g.IntN(6) == 0 {
		return fmt.Sprintf("comment %d", g.IntN(2))
	}
	return ""
}

func (g *generator) chain(name string, base bool) {
	c := &ruleset.Chain{Name: name, Comment: g.comment()}
	// A chain that others may jump to is never a base chain.
	if base && g.IntN(4) > 0 {
		points := []ruleset.HookPoint{ruleset.Prerouting, ruleset.Output, ruleset.Postrouting}
		c.Hook = &ruleset.Hook{Point: points[g.IntN(3)], Priority: int32(g.IntN(2)*10 - 150)}
	}
	g.table.Chains = append(g.table.Chains, c)
}

// verdict returns accept, drop, or a goto to one of the chains.
func (g *generator) verdict(chains []*ruleset.Chain) ruleset.Verdict {
	var targets []string
	for _, c := range chains {
		if c.Hook == nil {
			targets = append(targets, c.Name)
		}
	}
	n := g.IntN(3)
	if n == 2 && len(targets) > 0 {
		kind := ruleset.Goto
		if g.IntN(2) == 0 {
			kind = ruleset.Jump
		}
		return ruleset.Verdict{Kind: kind, Chain: targets[g.IntN(len(targets))]}
	}
	return ruleset.Verdict{Kind: []ruleset.VerdictKind{ruleset.Accept, ruleset.Drop, ruleset.Return}[g.IntN(3)]}
}

func (g *generator) set(name string) {
	s := &ruleset.Set{Name: name, Comment: g.comment()}
	types := []ruleset.Type{ruleset.IPv4Addr, ruleset.IPv4Addr, ruleset.IPv4Addr, ruleset.InetService}
	s.Key = []ruleset.Type{types[g.IntN(len(types))]}
	switch g.IntN(6) {
	case 0:
		s.Dynamic, s.Size, s.Timeout = true, 100, time.Duration(600-g.IntN(2))*time.Second
		g.table.Sets = append(g.table.Sets, s)
		return
	case 1, 2, 3:
		s.Interval = true
	}
	// Only the last chains may be targets of maps: those that use maps are
	// the first ones.
	s.Map = g.IntN(2) == 0
	size := s.KeySize()
	var points []uint32
	for range g.IntN(20) {
		n := g.Uint32N(40)
		if g.IntN(8) == 0 {
			n = 1<<(8*size) - 1 - g.Uint32N(4)
		}
		points = append(points, n)
	}
	slices.Sort(points)
	points = slices.Compact(points)
	key := func(n uint32) string {
		return string(binary.BigEndian.AppendUint32(nil, n)[4-size:])
	}
	for i := 0; i < len(points); i++ {
		e := ruleset.Element{First: key(points[i])}
		if s.Interval {
			e.Last = e.First
			if i+1 < len(points) && g.IntN(2) == 0 {
				e.Last = key(points[i+1])
				i++
			}
		}
		if s.Map {
			v := g.verdict(g.last())
			e.Verdict = &v
		}
		s.Elements = append(s.Elements, e)
	}
	g.table.Sets = append(g.table.Sets, s)
}

// timed adds a timed set, of addresses or of ranges of addresses and ports.
func (g *generator) timed(name string) {
	s := &ruleset.Set{Name: name, Comment: g.comment(), Timed: true, Key: []ruleset.Type{ruleset.IPv4Addr}}
	switch g.IntN(3) {
	case 0:
		s.Key = []ruleset.Type{ruleset.IPv4Addr, ruleset.InetService}
	case 1:
		s.Key, s.Interval = []ruleset.Type{ruleset.IPv4Addr, ruleset.InetService}, true
	}
	g.table.Sets = append(g.table.Sets, s)
}

func (g *generator) timeout(name string) {
	t := tcpTimeout(name, 60+g.IntN(2))
	if g.IntN(2) == 0 {
		t = udpTimeout(name, 30, 120+g.IntN(2))
	}
	g.table.Timeouts = append(g.table.Timeouts, t)
}

// timedChanges puts elements into the timed sets of a table and takes others
// out, of few keys each. Ranges have an address each.
func (g *generator) timedChanges() []TimedChange {
	var out []TimedChange
	for _, s := range g.table.Sets {
		if !s.Timed {
			continue
		}
		for n := range uint32(6) {
			e := ruleset.TimedElement{Timeout: time.Duration(1+g.IntN(3)) * time.Hour}
			key := string(binary.BigEndian.AppendUint32(nil, n))
			e.First, e.Last = key, key
			if len(s.Key) == 2 {
				e.First = ruleset.Concat(key, ruleset.PortKey(5))
				e.Last = e.First
				if s.Interval {
					e.Last = ruleset.Concat(key, ruleset.PortKey(9))
				}
			}
			if g.IntN(4) == 0 {
				e.Comment = "c"
			}
			if g.IntN(3) == 0 {
				out = append(out, TimedChange{Set: s.Name, Remove: true, Element: e})
			}
			if g.IntN(3) == 0 {
				out = append(out, TimedChange{Set: s.Name, Element: e})
			}
		}
	}
	return out
}

// last are the chains that only maps and earlier chains refer to.
func (g *generator) last() []*ruleset.Chain {
	for i, c := range g.table.Chains {
		if c.Name >= "c4" {
			return g.table.Chains[i:]
		}
	}
	return nil
}

func (g *generator) rules(c *ruleset.Chain, later []*ruleset.Chain) {
	for range g.IntN(8) {
		r := ruleset.Rule{Comment: g.comment()}
		switch g.IntN(4) {
		case 0:
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(g.IntN(3)), 0, 0}), 16+g.IntN(2)*4)
			r.Statements = append(r.Statements, ruleset.MatchPrefix{Field: ruleset.IPSource, Prefix: p})
		case 1:
			r.Statements = append(r.Statements, ruleset.MatchState{State: ruleset.CtEstablished})
			if n := len(g.table.Timeouts); n > 0 && g.IntN(2) == 0 {
				o := g.table.Timeouts[g.IntN(n)]
				r.Statements = []ruleset.Statement{
					ruleset.Match{Field: ruleset.NFProtocol, Value: ruleset.NFProtoKey(o.Family)},
					ruleset.Match{Field: ruleset.L4Protocol, Value: ruleset.ProtoKey(o.Protocol)},
					ruleset.SetTimeout{Object: o.Name},
				}
			}
		case 2:
			if s := g.use(c); s != nil {
				r.Statements = append(r.Statements, s)
				if _, ends := s.(ruleset.VerdictMap); ends {
					c.Rules = append(c.Rules, r)
					continue
				}
			}
		}
		r.Statements = append(r.Statements, g.verdict(later))
		c.Rules = append(c.Rules, r)
	}
}

// use returns a statement that refers to one of the sets.
func (g *generator) use(c *ruleset.Chain) ruleset.Statement {
	if len(g.table.Sets) == 0 {
		return nil
	}
	s := g.table.Sets[g.IntN(len(g.table.Sets))]
	field := ruleset.IPSource
	if s.Key[0] == ruleset.InetService {
		field = ruleset.DestPort
	}
	fields := []ruleset.Field{field}
	if len(s.Key) == 2 {
		fields = append(fields, ruleset.DestPort)
	}
	switch {
	case s.Dynamic:
		return ruleset.Update{Fields: fields, Set: s.Name, Timeout: s.Timeout}
	case s.Map && c.Name < "c4":
		return ruleset.VerdictMap{Fields: fields, Map: s.Name}
	case s.Map:
		return nil
	}
	return ruleset.Lookup{Fields: fields, Set: s.Name, Negate: g.IntN(4) == 0}
}
