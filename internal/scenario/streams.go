package scenario

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"sgc/internal/flow"
	"sgc/internal/lab"
)

// attemptTime is how long an attempt to open a connection may take. The kernel
// sends a SYN once a second.
const attemptTime = time.Second

var (
	errNoAnswer = errors.New("no answer to the attempt to connect")
	// errNobodyListens is about a packet that passed, and ended where no socket is.
	errNobodyListens = errors.New("something answered that nobody listens there")
)

// openTCP listens on the other side, and connects: again and again until it
// succeeds. Both sides write messages over the connection.
func (p *player) openTCP(from, reaches *lab.Namespace) error {
	local := netip.AddrPortFrom(p.spec.ReachesAddress, p.spec.ReachesPort)
	err := p.run.serve(serviceKey{p.spec.Reaches, flow.TCP, local}, func() (interface{ Close() error }, error) {
		l, err := reaches.ListenTCP(local)
		if err != nil {
			return nil, err
		}
		p.run.background(func() { p.run.accept(l) })
		return l, nil
	})
	if err != nil {
		return err
	}
	p.background(func() {
		conn := p.connect(from)
		if conn == nil {
			return
		}
		p.keepConnection(conn)
		p.background(func() { p.read(conn, Responder) })
		count := p.openerCount()
		if p.spec.Count > 0 && p.spec.Sends[Opener] {
			// The attempts to connect are of that number.
			if count -= p.sentBy(Opener); count <= 0 {
				return
			}
		}
		out := p.writer(conn)
		p.pace(Opener, count, false, out.write)
	})
	return nil
}

// connect tries until there is a connection, or the flow has ended.
func (p *player) connect(from *lab.Namespace) *net.TCPConn {
	local, remote := netip.AddrPortFrom(p.spec.Source, p.sourcePort), netip.AddrPortFrom(p.spec.Dest, p.spec.Port)
	var conn *net.TCPConn
	for conn == nil && p.ctx.Err() == nil && (p.spec.Count == 0 || p.sentBy(Opener) < p.spec.Count) {
		begun := time.Now()
		p.pace(Opener, 1, true, func(m message) error {
			ctx, cancel := context.WithTimeout(p.ctx, p.attempt)
			defer cancel()
			c, err := from.DialTCP(ctx, local, remote)
			switch {
			case errors.Is(err, syscall.ECONNREFUSED):
				// The kernel has this of a segment with RST, or of an ICMP message that
				// the port is unreachable.
				p.unheard(m.seq, p.run.now())
				return errNobodyListens
			case errors.Is(err, lab.ErrNotSent):
				p.unable(Opener, err)
				return err
			case err != nil && ctx.Err() != nil:
				return errNoAnswer
			case err != nil:
				return err
			}
			conn = c
			p.arrived(Opener, m.seq, p.run.now())
			return nil
		})
		if conn == nil {
			sleepUntil(p.ctx, begun.Add(p.interval))
		}
	}
	return conn
}

// accept takes the connections to a port until it is closed. The first message
// on each tells its flow.
func (r *Run) accept(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		r.background(func() {
			// Whoever gives up between connecting and its first message ends
			// with the run.
			stop := context.AfterFunc(r.ctx, func() { _ = conn.Close() })
			defer stop()
			m, err := readHeader(conn)
			p := r.player(m.flow)
			if err != nil || p == nil {
				_ = conn.Close() // nobody's connection
				return
			}
			p.keepConnection(conn)
			from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
			if err == nil {
				p.observe(from)
			}
			p.arrived(m.side, m.seq, p.run.now())
			p.respond(p.writer(conn).write)
			if p.skip(conn) == nil {
				p.read(conn, Opener)
			}
		})
	}
}

// writePatience is how long a message may wait for room in the socket's buffer:
// longer than a busy machine may keep this process from running, since what is
// late is not even tried.
const writePatience = 2 * time.Second

// writeBuffer is room for what a connection sends while nothing of it passes, at
// the pace of most scenarios for minutes. The system's own limit may be lower.
const writeBuffer = 1 << 20

// writer writes the messages of one side to a connection.
type writer struct {
	conn     net.Conn
	size     int
	patience time.Duration
	// rest is what did not fit of a message that was begun: it comes before the next,
	// or whoever reads would find the end of one in the middle of another.
	rest []byte
}

func (p *player) writer(conn *net.TCPConn) *writer {
	// A smaller buffer does as well, for a shorter time.
	_ = conn.SetWriteBuffer(writeBuffer)
	return &writer{conn: conn, size: p.spec.Size, patience: max(p.interval, writePatience)}
}

// write sends a message. What does not fit into the socket's buffer for that long
// is not sent: the other side has stopped to take anything. A message of which a
// part did is under way.
func (w *writer) write(m message) error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(w.patience)); err != nil {
		return err
	}
	n, err := w.conn.Write(w.rest)
	if w.rest = w.rest[n:]; err != nil {
		return err
	}
	b := m.marshal(w.size)
	if n, err = w.conn.Write(b); n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	w.rest = b[n:]
	return nil
}

// read takes the messages of a side until the connection ends.
func (p *player) read(conn *net.TCPConn, side Side) {
	for {
		m, err := readHeader(conn)
		if err != nil || p.skip(conn) != nil {
			return
		}
		if m.flow == p.number && m.side == side {
			p.arrived(side, m.seq, p.run.now())
		}
	}
}

var errForeign = errors.New("not a message of the lab")

func readHeader(r io.Reader) (message, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return message{}, err
	}
	m, ok := parseMessage(b[:])
	if !ok {
		return message{}, errForeign
	}
	return m, nil
}

// skip reads the rest of a message.
func (p *player) skip(r io.Reader) error {
	_, err := io.CopyN(io.Discard, r, int64(p.spec.Size-headerSize))
	return err
}
