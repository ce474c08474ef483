package apply

import (
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
	"sgc/internal/ruleset"
)

func (p *planner) deleteSet(name, comment string) {
	m := p.begin(unix.NFT_MSG_DELSET, 0, operation{action: Remove, kind: SetKind, name: name, comment: comment})
	m.CString(unix.NFTA_SET_TABLE, tableName)
	m.CString(unix.NFTA_SET_NAME, name)
	m.Finish()
}

func (p *planner) addSet(s *ruleset.Set) {
	m := p.begin(unix.NFT_MSG_NEWSET, create, operation{action: Add, kind: SetKind, name: s.Name, comment: s.Comment})
	m.CString(unix.NFTA_SET_TABLE, tableName)
	m.CString(unix.NFTA_SET_NAME, s.Name)
	m.Uint32(unix.NFTA_SET_FLAGS, setFlags(s))
	m.Uint32(unix.NFTA_SET_KEY_TYPE, s.KeyType())
	m.Uint32(unix.NFTA_SET_KEY_LEN, uint32(s.KeySize()))
	// Sets that are used by name need no id of their own, but the kernel wants
	// the attribute.
	m.Uint32(unix.NFTA_SET_ID, uint32(len(p.batch.operations)))
	if s.Map {
		m.Uint32(unix.NFTA_SET_DATA_TYPE, verdictType)
	}
	if s.Timeout != 0 {
		m.Uint64(unix.NFTA_SET_TIMEOUT, uint64(s.Timeout/time.Millisecond))
	}
	if ranges := s.Interval && len(s.Key) > 1; ranges || s.Size != 0 {
		desc := m.Nest(unix.NFTA_SET_DESC)
		if s.Size != 0 {
			m.Uint32(unix.NFTA_SET_DESC_SIZE, s.Size)
		}
		if ranges {
			appendFieldLengths(m, s)
		}
		m.End(desc)
	}
	if data := s.UserData(); len(data) > 0 {
		m.Bytes(unix.NFTA_SET_USERDATA, data)
	}
	m.Finish()
}

// appendFieldLengths appends the lengths of the fields of a set's key.
func appendFieldLengths(m *nlmsg.Message, s *ruleset.Set) {
	list := m.Nest(setDescConcat)
	for _, length := range fieldLengths(s) {
		field := m.Nest(unix.NFTA_LIST_ELEM)
		m.Uint32(setFieldLen, length)
		m.End(field)
	}
	m.End(list)
}
