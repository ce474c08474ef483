package conntrack

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// batchMessages is how many messages go to the kernel at once. It handles them
// before the system call ends, so that the answers to all of them must fit in
// the receive buffer; they do many times over.
const batchMessages = 200

// Batch makes, deletes and changes entries, many with one system call. What was asked
// for takes effect in Flush, or before. One goroutine at a time may use it.
type Batch struct {
	conn  *conn
	m     nlmsg.Message
	count int
	// last is where the last message begins in m.
	last int
	// creates says that some of the messages make entries.
	creates bool
	result  Result
}

// Result is what became of the entries of a Batch.
type Result struct {
	// Done were made, deleted or changed.
	Done int
	// Gone had ended since they were read, which is a normal race.
	Gone int
	// Busy cannot be deleted now: hardware or a flowtable forwards their
	// packets.
	Busy int
	// Exists had an entry already and were not made, or their reply's tuple is
	// another's.
	Exists int
	// Full could not be made: the table has no room for them
	// (nf_conntrack_max), or the host no memory, which the kernel does not tell
	// apart.
	Full int
}

// Add adds the other's counts.
func (r *Result) Add(other Result) {
	r.Done += other.Done
	r.Gone += other.Gone
	r.Busy += other.Busy
	r.Exists += other.Exists
	r.Full += other.Full
}

// Batch opens a connection for deletions and changes.
func (t *Table) Batch() (*Batch, error) {
	c, err := t.dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	return &Batch{conn: c}, nil
}

// Close ends the batch; what was not flushed does not take place.
func (b *Batch) Close() error { return b.conn.close() }

// Result returns what became of the entries so far.
func (b *Batch) Result() Result { return b.result }

// Delete makes the kernel forget the entry, and no other that has taken its
// tuple since it was read.
func (b *Batch) Delete(e *Entry) error {
	if err := b.begin(messageDelete, e); err != nil {
		return err
	}
	b.m.Uint32(attrID, e.ID)
	return b.end()
}

// SetTimeout makes the kernel forget the entry after d unless a packet
// refreshes it, which gives it its usual timeout again. The kernel counts whole
// seconds: d is rounded up, to one at least. If another entry has taken the
// tuple, that one gets the timeout: the kernel does not compare the id here.
//
// Source: Linux net/netfilter/nf_conntrack_netlink.c, ctnetlink_new_conntrack.
func (b *Batch) SetTimeout(e *Entry, d time.Duration) error {
	seconds, err := wholeSeconds(max(d, time.Second))
	if err != nil {
		return err
	}
	if err := b.begin(messageNew, e); err != nil {
		return err
	}
	b.m.Uint32(attrTimeout, seconds)
	return b.end()
}

// begin starts a message about the entry.
func (b *Batch) begin(typ int, e *Entry) error {
	// Without a tuple, a deletion would delete everything.
	if len(e.original) == 0 {
		return errors.New("an entry that did not come from the kernel cannot be changed there")
	}
	b.start(typ, 0)
	b.m.Netfilter(e.family, 0)
	b.m.Bytes(attrTupleOriginal|unix.NLA_F_NESTED, e.original)
	if e.Zone != 0 {
		b.m.Uint16(attrZone, e.Zone)
	}
	return nil
}

// start starts a message.
func (b *Batch) start(typ, flags int) {
	b.last = len(b.m.Buf)
	b.conn.sequence++
	b.m.Begin(typ, flags, b.conn.sequence)
}

func (b *Batch) end() error {
	b.m.Finish()
	if b.count++; b.count < batchMessages {
		return nil
	}
	return b.Flush()
}

// Flush sends what was asked for and counts the answers. It fails if the
// kernel refused anything but for the reasons that Result counts; the others
// have taken place all the same.
func (b *Batch) Flush() error {
	if b.count == 0 {
		return nil
	}
	count, first := b.count, b.conn.sequence-uint32(b.count)+1
	// The last message is answered in any case, and after all others.
	nlmsg.AddFlags(b.m.Buf[b.last:], unix.NLM_F_ACK)
	err := b.conn.send(b.m.Buf)
	b.m, b.count = nlmsg.Message{Buf: b.m.Buf[:0]}, 0
	if err != nil {
		return fmt.Errorf("change conntrack entries: %w", explain(err))
	}
	answers, err := b.answers(first, count)
	b.creates = false
	b.result.Add(answers)
	if err != nil {
		return fmt.Errorf("change conntrack entries: %w", explain(err))
	}
	return nil
}

// answers reads the answers to messages that were numbered from first on: an
// error for each that failed, and one for the last in any case.
func (b *Batch) answers(first uint32, count int) (r Result, failed error) {
	r.Done = count
	for done := false; !done; {
		n, err := b.conn.receive(b.conn.buf, true)
		if err == nil {
			err = nlmsg.Split(b.conn.buf[:n], func(m nlmsg.Reply) error {
				at := m.Sequence - first
				if m.Type != unix.NLMSG_ERROR || at >= uint32(count) {
					return nil
				}
				done = done || at == uint32(count)-1
				return r.take(m, b.creates, &failed)
			})
		}
		if err != nil {
			// Nobody knows of the rest.
			r.Done = 0
			return r, err
		}
	}
	return r, failed
}

// take counts one answer, to messages of which some may make entries; failed
// becomes the first error that is not counted.
func (r *Result) take(m nlmsg.Reply, creates bool, failed *error) error {
	e, err := nlmsg.DecodeError(m)
	if err != nil || e == nil {
		return err
	}
	r.Done--
	switch {
	case errors.Is(e, unix.ENOENT):
		r.Gone++
	case errors.Is(e, unix.EBUSY):
		r.Busy++
	case creates && errors.Is(e, unix.EEXIST):
		r.Exists++
	case creates && errors.Is(e, unix.ENOMEM):
		r.Full++
	case *failed == nil:
		*failed = e
	}
	return nil
}
