package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrChanged says that somebody changed nf_tables since the snapshot that the
// delta was made from. Nothing was changed; a new snapshot may be taken.
var ErrChanged = errors.New("nf_tables was changed by somebody else in the meantime")

// RefusedError says that the kernel refused a transaction. Nothing was
// changed.
type RefusedError struct {
	// Refusals names what was refused and why, in the order of the
	// transaction. One fault can have several: what refers to something that
	// was refused is refused too.
	Refusals []Refusal
}

// Refusal is the kernel's no to one message.
type Refusal struct {
	// Object says what was to be done with which object, such as
	//
	//	add rule web.ingress.tcp4 #3 (security_group.web.ingress.ssh)
	Object string
	// Err unwraps to the kernel's error number.
	Err error
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
	return "the kernel refused the transaction, nothing was changed: " + strings.Join(lines, "; ")
}

// Unwrap returns the errors of all refusals.
func (e *RefusedError) Unwrap() []error {
	errs := make([]error, len(e.Refusals))
	for i, r := range e.Refusals {
		errs[i] = r.Err
	}
	return errs
}

// Commit sends the delta as one transaction that the kernel takes only if
// nobody changed nf_tables since the delta's snapshot (else ErrChanged), and
// either does as a whole or not at all (else a *RefusedError). An empty delta
// sends nothing. Once the transaction is sent the context counts no more: the
// kernel is done with it before Commit could stop waiting.
func (k *Kernel) Commit(ctx context.Context, d *Delta) error {
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
	batch := d.batch.buf
	if err := c.reserve(len(batch)); err != nil {
		return fmt.Errorf("commit a transaction of %d bytes: %w", len(batch), err)
	}
	_, err = c.socket.Sendmsg(context.WithoutCancel(ctx), batch, nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0)
	if err != nil {
		return fmt.Errorf("commit a transaction of %d bytes, nothing was changed: %w", len(batch), explain(err))
	}
	return c.outcome(d)
}

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
	if size < n+32 {
		return fmt.Errorf("the socket's send buffer is limited to %d bytes: raise net.core.wmem_max, or run with CAP_NET_ADMIN in the initial user namespace", size)
	}
	return nil
}

// outcome reads the kernel's answers to a batch. They are all queued when the
// batch has been sent, so that nothing has to be waited for.
func (c *conn) outcome(d *Delta) error {
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
		err = splitReplies(c.buf[:n], func(r reply) error {
			if r.typ != unix.NLMSG_ERROR {
				return nil
			}
			e, err := decodeError(r)
			switch {
			case err != nil:
				return err
			case e == nil:
				acknowledged = true
			default:
				refused.Refusals = append(refused.Refusals, d.refusal(r.sequence, e))
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
func (d *Delta) refusal(sequence uint32, e *kernelError) Refusal {
	if sequence == 0 || int(sequence) > len(d.operations) {
		return Refusal{Object: "the transaction as a whole", Err: explain(e)}
	}
	o := d.operations[sequence-1]
	object := o.String()
	if o.kind == ElementKind && e.offset != 0 && o.start+int(e.offset) < len(d.batch.buf) {
		if key := elementKey(d.batch.buf[o.start+int(e.offset):]); len(key) == o.set.KeySize() {
			object = fmt.Sprintf("%s element %s of set %s", o.action, keyText(o.set, key), o.name)
		}
	}
	return Refusal{Object: object, Err: explain(e)}
}
