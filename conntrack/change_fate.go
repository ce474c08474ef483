package conntrack

import "fmt"

// Fate is what becomes of a live flow when the policy changes (SPEC 2.4). Of the
// fates of a flow's legs, the last in this order is that of the flow.
type Fate uint8

const (
	// Elsewhere: the flow crosses no interface that the new policy governs.
	Elsewhere Fate = iota
	// Stays: it is allowed as it was, or is never filtered.
	Stays
	// BecomesOpen: it was tracked, and counts as open (untracked) from now on.
	BecomesOpen
	// BecomesTracked: it was open, and goes on as a tracked one.
	BecomesTracked
	// Lingers: no rule allows it, and it goes on until it is idle.
	Lingers
	// Cut: no packet of it passes any more.
	Cut
)

func (f Fate) String() string {
	switch f {
	case Elsewhere:
		return "elsewhere"
	case Stays:
		return "stays"
	case BecomesOpen:
		return "becomes open"
	case BecomesTracked:
		return "becomes tracked"
	case Lingers:
		return "lingers"
	case Cut:
		return "cut"
	}
	return fmt.Sprintf("fate %d", uint8(f))
}

// MarshalText is the fate in words, for JSON.
func (f Fate) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// Reason is why a flow is cut or lingers.
type Reason uint8

const (
	// NoReason is the reason of all other fates.
	NoReason Reason = iota
	// WasTracked: it lingers, since tracked flows outlive their rules.
	WasTracked
	// Adopted: it lingers, since the old policy did not govern its interface, or
	// there was none.
	Adopted
	// NotFlushed: it was open and lingers, since nothing is to be cut.
	NotFlushed
	// WasOpen: it is cut, since it was open and no rule allows it any more.
	WasOpen
	// WasRevoked: it was tracked and is cut, since all is to be cut that no rule
	// allows.
	WasRevoked
	// GroupDeleted: it was tracked and is cut, since only groups that are deleted
	// have ever allowed it.
	GroupDeleted
)

func (r Reason) String() string {
	switch r {
	case NoReason:
		return ""
	case WasTracked:
		return "was tracked"
	case Adopted:
		return "adopted"
	case NotFlushed:
		return "not flushed"
	case WasOpen:
		return "was open"
	case WasRevoked:
		return "revoked"
	case GroupDeleted:
		return "group deleted"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// MarshalText is the reason in words, for JSON.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// FlushMode says which flows an apply cuts.
type FlushMode uint8

const (
	// FlushCloud cuts what a security group's change cuts in the cloud.
	FlushCloud FlushMode = iota
	// FlushRevoked also cuts tracked flows that no rule allows any more.
	FlushRevoked
	// FlushNone cuts nothing.
	FlushNone
)

var flushNames = [...]string{FlushCloud: "cloud", FlushRevoked: "revoked", FlushNone: "none"}

func (m FlushMode) String() string {
	if int(m) < len(flushNames) {
		return flushNames[m]
	}
	return fmt.Sprintf("flush mode %d", uint8(m))
}

// MarshalText is the mode's name.
func (m FlushMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads cloud, revoked or none.
func (m *FlushMode) UnmarshalText(text []byte) error {
	for i, name := range flushNames {
		if string(text) == name {
			*m = FlushMode(i)
			return nil
		}
	}
	return fmt.Errorf("%q is neither cloud nor revoked nor none", text)
}
