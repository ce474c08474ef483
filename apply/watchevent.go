package apply

import (
	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// tableEvents say what became of a table of somebody else, by the generations in
// which it happened last; 0 where it did not.
type tableEvents struct {
	// last is that of any change.
	last uint32
	// ruled is that of a rule that came; gained that of one that needs conntrack,
	// need says for what, and chain is where it stands.
	ruled, gained uint32
	need, chain   string
	// nat is that of a chain for NAT that came, with or without rules.
	nat uint32
	// lost is that of rules, chains or the table itself that went.
	lost uint32
}

// Messages that golang.org/x/sys/unix does not name: objects went that somebody
// deleted whether they were there or not.
//
// Source: Linux include/uapi/linux/netfilter/nf_tables.h.
const (
	messageDestroyTable = 26
	messageDestroyChain = 27
	messageDestroyRule  = 28
)

// tableAttribute holds the name of the table in what is told of any object.
const tableAttribute = 1

// event reads one message that the kernel tells of a transaction.
func (w *watch) event(r nlmsg.Reply) error {
	const subsystem, message = 8, 0xff
	if r.Type>>subsystem != unix.NFNL_SUBSYS_NFTABLES {
		return nil
	}
	if len(r.Payload) < nlmsg.NetfilterSize {
		return nlmsg.ErrMalformed
	}
	typ, family, b := int(r.Type&message), r.Payload[0], r.Payload[nlmsg.NetfilterSize:]
	if typ == unix.NFT_MSG_NEWGEN {
		return w.generation(b)
	}
	if w.state != complete {
		return nil
	}
	w.seen = true
	key := tableKey{family: family}
	a := nlmsg.Walk(b)
	for a.Next() {
		if a.Type == tableAttribute {
			key.name = a.CString()
			break
		}
	}
	if a.Err != nil {
		return a.Err
	}
	if key == ownTable {
		w.own = after(w.now)
		return nil
	}
	t := w.others[key]
	if t == nil {
		if len(w.others) == mostTouched {
			clear(w.others)
			w.state = awaiting
			return nil
		}
		t = &tableEvents{}
		w.others[key] = t
	}
	return t.event(typ, b, after(w.now))
}

// generation reads the message at the end of a transaction.
func (w *watch) generation(b []byte) error {
	a := nlmsg.Walk(b)
	for a.Next() {
		if a.Type != unix.NFTA_GEN_ID {
			continue
		}
		id := a.Uint32()
		switch {
		case a.Err != nil || w.state == emptying || w.state == absent:
		case w.state == awaiting || id != after(w.now):
			w.restart(id)
		default:
			if !w.seen {
				// Of a socket that is ignored. It is this process that has changed
				// something, whatever it was.
				w.own = id
			}
			w.now, w.seen = id, false
		}
		return a.Err
	}
	return nlmsg.ErrMalformed
}

// event notes what happened to an object of the table.
func (t *tableEvents) event(typ int, b []byte, generation uint32) error {
	t.last = generation
	switch typ {
	case unix.NFT_MSG_NEWRULE:
		t.ruled = generation
		chain, need, err := foreignNeeds(b)
		if err != nil {
			return err
		}
		if need != needsNothing {
			t.gained, t.need, t.chain = generation, need, chain
		}
	case unix.NFT_MSG_NEWCHAIN:
		_, c, err := decodeChain(b)
		if err != nil {
			return err
		}
		if c.Base != nil && c.Base.Type == "nat" {
			t.nat = generation
		}
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE,
		messageDestroyTable, messageDestroyChain, messageDestroyRule:
		t.lost = generation
	}
	return nil
}
