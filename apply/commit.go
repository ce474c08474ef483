package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// ErrChanged says that somebody changed table inet sgc since the snapshot that
// the delta was made from, or something in another table that the wanted one
// depends on, or that what was changed is not known. Nothing was changed; a new
// snapshot may be taken.
var ErrChanged = errors.New("nf_tables was changed by somebody else in the meantime")

// RefusedError says that the kernel refused a transaction. Nothing was
// changed.
type RefusedError struct {
	// Refusals names what was refused and why, in the order of the
	// transaction. One fault can have several: what refers to something that
	// was refused is refused too.
	Refusals []Refusal
	// Leftovers is nil, or says that the kernel still holds what an earlier
	// transaction of the delta added.
	Leftovers *LeftoversError
}

// Refusal is the kernel's no to one message.
type Refusal struct {
	// Object says what was to be done with which object, such as
	//
	//	add rule web.ingress.tcp4 #3 (security_group.web.ingress.ssh)
	Object string
	// Err unwraps to the kernel's error number.
	Err error
	// destroys is that of the operation.
	destroys bool
}

func (e *RefusedError) Error() string {
	const most = 5
	var lines []string
	for i, r := range e.Refusals {
		if i == most {
			lines = append(lines, fmt.Sprintf("and %d more", len(e.Refusals)-most))
			break
		}
		lines = append(lines, fmt.Sprintf("%s: %s", r.Object, r.Err))
	}
	text := strings.Join(lines, "; ")
	if e.Leftovers != nil {
		return fmt.Sprintf("the kernel refused the transaction, what is enforced was not changed: %s. %s", text, e.Leftovers)
	}
	return "the kernel refused the transaction, nothing was changed: " + text
}

// Unwrap returns the errors of all refusals.
func (e *RefusedError) Unwrap() []error {
	errs := make([]error, len(e.Refusals))
	for i, r := range e.Refusals {
		errs[i] = r.Err
	}
	return errs
}

// LeftoversError says that the first of several transactions was committed, a
// later one was not, and what the first one added could not be taken out
// again. What is enforced is as it was: nothing uses the leftovers.
type LeftoversError struct {
	// Err says why they could not be taken out.
	Err error
}

func (e *LeftoversError) Error() string {
	return fmt.Sprintf("Chains and sets that nothing uses are left in table inet %s; they do no harm, and the next apply removes them (%s)", tableName, e.Err)
}

func (e *LeftoversError) Unwrap() error { return e.Err }

// CleanUpError says that the kernel enforces what was wanted, and that the last
// of several transactions, which removes what nothing uses any more, was not
// committed.
type CleanUpError struct {
	Err error
}

func (e *CleanUpError) Error() string {
	return fmt.Sprintf("the new policy is enforced, but chains and sets of the old one, which nothing uses any more, are left in table inet %s; they do no harm, and the next apply removes them (%s)", tableName, e.Err)
}

func (e *CleanUpError) Unwrap() error { return e.Err }

// Commit sends the delta's transactions. The kernel takes the first one only if
// nobody changed nf_tables since the delta's snapshot, and every further one
// only if nobody did since the one before it. Changes of other tables do not
// count, unless they make conntrack necessary for a family for which it was not
// when the snapshot was taken, or the other way round; all others end in
// ErrChanged. The kernel does each transaction as
// a whole or not at all (else a *RefusedError). An empty delta sends nothing.
//
// What changed is known of snapshots that this Kernel has taken. For others every
// change counts.
//
// Once a transaction is sent the context counts no more: the kernel is done with
// it before Commit could stop waiting.
//
// If Commit fails, the kernel is as it was, with two exceptions: a
// *CleanUpError, and errors that wrap a *LeftoversError or hold one.
func (k *Kernel) Commit(ctx context.Context, d *Delta) (err error) {
	if d.Empty() {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	c, err := k.dial()
	if err != nil {
		return err
	}
	defer c.close() // the kernel has answered, or the error says that it has not
	largest := 0
	for _, b := range d.batches {
		largest = max(largest, len(b.message.Buf))
	}
	if err := c.reserve(largest); err != nil {
		return fmt.Errorf("commit a transaction of %d bytes: %w", largest, err)
	}
	ctx = context.WithoutCancel(ctx)
	to := binding{conn: c, delta: d, generation: d.generation, kept: d.generation}
	k.mu.Lock()
	to.watch = k.watch
	k.mu.Unlock()
	if to.watch != nil {
		if err := to.watch.ignore(c); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		defer func() { err = errors.Join(err, to.watch.heed()) }()
	}
	for i, b := range d.batches {
		if i > 0 {
			AwaitPackets()
			if k.between != nil {
				k.between(b.part)
			}
		}
		err := to.send(ctx, b)
		switch {
		case err == nil:
		case i == 0:
			return err
		case b.part == cleaning:
			return &CleanUpError{err}
		default:
			return withLeftovers(err, c.takeBack(ctx, d.batches[0]))
		}
	}
	d.committed = to.generation
	return nil
}

// sendOnce sends one transaction and reads what became of it.
func (c *conn) sendOnce(ctx context.Context, b *batch) error {
	_, err := c.socket.Sendmsg(ctx, b.message.Buf, nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0)
	if err != nil {
		return fmt.Errorf("commit a transaction of %d bytes, nothing was changed: %w", len(b.message.Buf), explain(err))
	}
	return c.outcome(b)
}

// withLeftovers adds to an error that what had been prepared is still there.
func withLeftovers(err, left error) error {
	if left == nil {
		return err
	}
	leftovers := &LeftoversError{left}
	var refused *RefusedError
	if errors.As(err, &refused) {
		refused.Leftovers = leftovers
		return err
	}
	return fmt.Errorf("%w. %w", err, leftovers)
}

// AwaitPackets returns when no packet is under way any more that began before
// the call. A Commit does not wait for the packets that the rules from before it
// judge: on a virtual machine whose processor is taken away they may leave their
// traces, such as entries of conntrack, long after it. And the kernel keeps two
// generations apart, so that a packet from before a transaction would take the
// next but one for its own.
//
// Source: Linux kernel/sched/membarrier.c: MEMBARRIER_CMD_GLOBAL is
// synchronize_rcu.
func AwaitPackets() {
	const global = 1
	// Where the kernel cannot do it (nohz_full, seccomp), a thousand times what
	// a packet takes has to do.
	const longest = 20 * time.Millisecond
	if _, _, err := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); err != 0 {
		time.Sleep(longest)
	}
}

// sendOverhead is what the kernel keeps of a send buffer for itself.
//
// Source: Linux net/netlink/af_netlink.c, netlink_sendmsg.
const sendOverhead = 32

// reserve makes the socket's buffers large enough for a batch of n bytes and
// for many errors.
func (c *conn) reserve(n int) error {
	const overhead = 4096
	const replies = 4 << 20
	if err := c.socket.SetWriteBuffer(n + overhead); err != nil {
		return err
	}
	if err := c.socket.SetReadBuffer(replies); err != nil {
		return err
	}
	size, err := c.socket.WriteBuffer()
	if err != nil {
		return err
	}
	if size < n+sendOverhead {
		return fmt.Errorf("the socket's send buffer is limited to %d bytes: raise net.core.wmem_max, or run with CAP_NET_ADMIN in the initial user namespace", size)
	}
	return nil
}

// outcome reads the kernel's answers to a batch. They are all queued when the
// batch has been sent, so that nothing has to be waited for.
func (c *conn) outcome(b *batch) error {
	var refused RefusedError
	acknowledged, overrun := false, false
	for {
		n, err := c.poll()
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if errors.Is(err, unix.ENOBUFS) {
			overrun = true
			continue
		}
		if err != nil {
			return fmt.Errorf("read the outcome of the transaction, which may have been committed: %w", err)
		}
		err = nlmsg.Split(c.buf[:n], func(r nlmsg.Reply) error {
			if r.Type != unix.NLMSG_ERROR {
				return nil
			}
			e, err := nlmsg.DecodeError(r)
			switch {
			case err != nil:
				return err
			case e == nil:
				acknowledged = true
			default:
				refused.Refusals = append(refused.Refusals, b.refusal(r.Sequence, e))
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the outcome of the transaction, which may have been committed: %w", err)
		}
	}
	switch {
	case len(refused.Refusals) > 0:
		for _, r := range refused.Refusals {
			if errors.Is(r.Err, unix.ERESTART) {
				return ErrChanged
			}
		}
		return &refused
	case overrun || !acknowledged:
		return errors.New("the kernel did not answer the transaction; it may have been committed")
	}
	return nil
}

// poll receives one datagram if there is one, else it returns EAGAIN.
func (c *conn) poll() (n int, err error) {
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := raw.Control(func(fd uintptr) {
		n, _, err = unix.Recvfrom(int(fd), c.buf, unix.MSG_DONTWAIT)
	}); cerr != nil {
		return 0, cerr
	}
	return n, err
}

// refusal names the operation that a sequence number stands for.
func (b *batch) refusal(sequence uint32, e *nlmsg.Error) Refusal {
	if sequence == 0 || int(sequence) > len(b.operations) {
		return Refusal{Object: "the transaction as a whole", Err: explain(e)}
	}
	o := b.operations[sequence-1]
	object := o.String()
	if at := o.start + int(e.Offset); o.kind == ElementKind && e.Offset != 0 && at < len(b.message.Buf) {
		if key := elementKey(b.message.Buf[at:]); len(key) == o.set.KeySize() {
			object = fmt.Sprintf("%s element %s of set %s", o.action, keyText(o.set, key), o.name)
		}
	}
	return Refusal{Object: object, Err: explain(e), destroys: o.destroys}
}
