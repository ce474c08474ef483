package conntrack

import "sgc/internal/flow"

// changedLink is what both policies say of all flows on a link, by family.
type changedLink struct {
	name string
	// wasOpen says how to find out whether a flow was open.
	wasOpen [len(flow.Families)]openBefore
	// oldKeeps and newKeeps say that each side keeps those open flows out of
	// conntrack that end on the host.
	oldKeeps, newKeeps [len(flow.Families)]bool
}

// openBefore says how to find out whether a flow was open.
type openBefore uint8

const (
	neverOpen openBefore = iota
	// openAsNow: the new policy leaves the same flows open.
	openAsNow
	askOpen
)

// link returns what is known of a link.
func (c *Change) link(name string) *changedLink {
	if c.last != nil && c.last.name == name {
		return c.last
	}
	l := c.links[name]
	if l == nil {
		l = &changedLink{name: name}
		for i, f := range flow.Families {
			l.newKeeps[i] = c.new.keepsOut(name, f)
			if c.old == nil {
				continue
			}
			l.oldKeeps[i] = !c.lost && c.old.keepsOut(name, f)
			switch {
			case !c.old.judge.Opens(name, f):
				l.wasOpen[i] = neverOpen
			case c.same || c.old.judge.OpensAs(c.new.judge, name, f):
				l.wasOpen[i] = openAsNow
			default:
				l.wasOpen[i] = askOpen
			}
		}
		c.links[name] = l
	}
	c.last = l
	return l
}

// keepsOut reports whether the rules of the side keep open flows that end on the
// host out of conntrack: by their ports, whatever other rule may allow them.
func (s *side) keepsOut(name string, f flow.Family) bool {
	i := s.judge.Interface(name)
	return i != nil && !i.NotrackOff && s.conntrack[f] == ""
}
