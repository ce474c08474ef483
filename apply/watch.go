package apply

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"sgc/internal/nlmsg"
)

// A watch knows which tables changed since it began, from what the kernel tells
// about every transaction: a message for each object, with the name of its
// table, and a last one with the number of the generation. All of them are
// queued before the next transaction can begin. So a generation whose last
// message was received holds nothing that the watch does not know.
//
// Source: Linux net/netfilter/nf_tables_api.c: nf_tables_commit sends everything
// while it holds the commit mutex, which nf_tables_valid_genid takes before it
// compares the generation that a transaction names.
type watch struct {
	conn *conn
	// ended is closed when nobody receives any more.
	ended chan struct{}

	mu sync.Mutex
	// What happened after generation from, up to generation now, is known, unless
	// the state is another than complete.
	from, now uint32
	state     watchState
	// seen is set if something was told of the generation after now.
	seen bool
	// own is the last generation that changed table inet sgc, 0 for none.
	own    uint32
	others map[tableKey]*tableEvents
	// err is why nothing can be received any more.
	err error
}

// watchState says how much a watch can tell.
type watchState uint8

const (
	// complete: everything since from was received.
	complete watchState = iota
	// emptying: messages were lost, and others may be queued that are older.
	emptying
	// awaiting: nothing is lost any more, but of the transaction that is told of
	// now some may have been.
	awaiting
	// absent: nothing is told until join.
	absent
)

// tableKey names a table of any family.
type tableKey struct {
	family uint8
	name   string
}

var ownTable = tableKey{unix.NFPROTO_INET, tableName}

// watchBuffer is how many bytes may be queued, where the process may have so
// much: some ten thousand transactions.
const watchBuffer = 16 << 20

// mostTouched is how many tables of others are remembered.
const mostTouched = 4096

// watching returns the watch of the kernel, which begins with the first call.
func (k *Kernel) watching(ctx context.Context, c *conn) (*watch, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.watch != nil {
		return k.watch, nil
	}
	events, err := k.dial()
	if err != nil {
		return nil, err
	}
	w := &watch{conn: events, state: awaiting, others: map[tableKey]*tableEvents{}, ended: make(chan struct{})}
	if err := w.begin(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("watch nf_tables: %w", explain(err)), events.close())
	}
	k.watch = w
	return w, nil
}

func (w *watch) begin(ctx context.Context, c *conn) error {
	if err := w.conn.socket.SetReadBuffer(watchBuffer); err != nil {
		return err
	}
	if err := w.conn.membership(unix.NETLINK_ADD_MEMBERSHIP); err != nil {
		return err
	}
	if _, err := w.sync(ctx, c); err != nil {
		return err
	}
	raw, err := w.conn.socket.SyscallConn()
	if err != nil {
		return err
	}
	go func() {
		defer close(w.ended)
		// It ends when the socket is closed, or broken; the latter is noted.
		_ = raw.Read(func(uintptr) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.drain()
			return w.err != nil
		})
	}()
	return nil
}

// membership joins or leaves those whom the kernel tells of nf_tables.
func (c *conn) membership(option int) error {
	return c.socket.SetsockoptInt(unix.SOL_NETLINK, option, unix.NFNLGRP_NFTABLES)
}

// leave ends what the kernel tells, until join.
func (w *watch) leave() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = absent
	return w.conn.membership(unix.NETLINK_DROP_MEMBERSHIP)
}

// join undoes leave. What happened in between is not known, but that it is
// nothing if the generation still is the given one; 0 is none.
func (w *watch) join(ctx context.Context, c *conn, generation uint32) error {
	w.mu.Lock()
	// What is queued is older.
	w.drain()
	err := w.conn.membership(unix.NETLINK_ADD_MEMBERSHIP)
	if err == nil {
		w.state = emptying
		var now uint32
		if now, err = c.generation(ctx); err == nil && now == generation {
			// The kernel tells of the next one after it has made it the present one.
			w.restart(now)
		}
	}
	w.mu.Unlock()
	if err == nil {
		_, err = w.sync(ctx, c)
	}
	return err
}

func (w *watch) close() error {
	err := w.conn.close()
	<-w.ended
	return err
}

// sync returns the newest generation that nothing is missing of. c is another
// socket.
func (w *watch) sync(ctx context.Context, c *conn) (uint32, error) {
	const most = 10
	w.mu.Lock()
	defer w.mu.Unlock()
	for range most {
		w.drain()
		if w.err != nil {
			return 0, w.err
		}
		if w.state == complete {
			return w.now, nil
		}
		generation, err := c.generation(ctx)
		if err != nil {
			return 0, err
		}
		// What was told of that generation while nobody listened, or was lost,
		// is told to its end then.
		if err := c.awaitCommits(ctx); err != nil {
			return 0, err
		}
		w.drain()
		if w.state == awaiting {
			w.restart(generation)
		}
	}
	return 0, errInterrupted
}

// awaitCommits returns when every transaction has ended that is under way. An
// empty one waits for them, and changes nothing.
func (c *conn) awaitCommits(ctx context.Context) error {
	var b batch
	b.openUnbound()
	b.mark(unix.NFNL_MSG_BATCH_END, 0)
	b.message.Finish()
	_, err := c.socket.Sendmsg(ctx, b.message.Buf, nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0)
	return err
}

// restart forgets everything: what comes after a generation is known from now on.
func (w *watch) restart(generation uint32) {
	w.from, w.now, w.state, w.seen, w.own = generation, generation, complete, false, 0
	clear(w.others)
}

// drain receives what is queued.
func (w *watch) drain() {
	for w.err == nil {
		n, err := w.conn.poll()
		switch {
		case errors.Is(err, unix.EAGAIN):
			if w.state == emptying {
				w.state = awaiting
			}
			return
		case errors.Is(err, unix.ENOBUFS):
			// The kernel says so before it hands out what was queued until then, and
			// drops everything until the queue is empty.
			if w.state != absent {
				w.state = emptying
			}
		case errors.Is(err, unix.EINTR):
		case err != nil:
			w.err = fmt.Errorf("watch nf_tables: %w", err)
		default:
			if err := nlmsg.Split(w.conn.buf[:n], w.event); err != nil {
				w.err = fmt.Errorf("watch nf_tables: %w", err)
			}
		}
	}
}

// changes are what happened since a generation.
type changes struct {
	// known is not set if that is not known.
	known bool
	// now is the newest generation that nothing is missing of.
	now uint32
	// own is set if table inet sgc was changed.
	own bool
	// others are the other tables that were changed.
	others []tableChange
}

type tableChange struct {
	tableKey
	tableEvents
}

// until is since for somebody who has read something up to now: what happened
// until then is told. For what a transaction changes is seen before it is told of.
// c is another socket.
func (w *watch) until(ctx context.Context, c *conn, generation uint32) (changes, error) {
	seen, err := c.generation(ctx)
	if err != nil {
		return changes{}, err
	}
	happened := w.since(generation)
	if !happened.known || !later(seen, happened.now) {
		return happened, nil
	}
	if err := c.awaitCommits(ctx); err != nil {
		return changes{}, err
	}
	return w.since(generation), nil
}

// since returns what was told of what happened since a generation.
func (w *watch) since(generation uint32) changes {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drain()
	if w.err != nil || w.state != complete || later(w.from, generation) || later(generation, w.now) {
		return changes{}
	}
	c := changes{known: true, now: w.now, own: w.own != 0 && later(w.own, generation)}
	for key, t := range w.others {
		if later(t.last, generation) {
			c.others = append(c.others, tableChange{key, *t})
		}
	}
	return c
}

// later reports whether generation a came after b. They wrap.
func later(a, b uint32) bool { return int32(a-b) > 0 }

// ignore keeps what the transactions of a socket change from being told, which
// can be more than is ever queued. That there was one is told all the same.
func (w *watch) ignore(c *conn) error {
	name, err := c.socket.Getsockname()
	if err != nil {
		return err
	}
	local, ok := name.(*unix.SockaddrNetlink)
	if !ok {
		return fmt.Errorf("a netlink socket has the address %T", name)
	}
	// The program loads in network order what the header holds in the host's.
	var typ [2]byte
	var port [4]byte
	binary.NativeEndian.PutUint16(typ[:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN)
	binary.NativeEndian.PutUint32(port[:], local.Pid)
	const typeAt, portAt = 4, 12 // nlmsg_type, nlmsg_pid
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: typeAt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 2, K: uint32(binary.BigEndian.Uint16(typ[:]))},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: portAt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: binary.BigEndian.Uint32(port[:])},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return w.conn.socket.SetsockoptSockFprog(unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// heed ends ignore.
func (w *watch) heed() error { return w.conn.socket.RemoveBPF() }
