package scenario

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sgc/internal/lab"
)

// player keeps one flow going.
type player struct {
	*recorder
	run  *Run
	spec *Flow
	// number is the flow's in its run.
	number         uint32
	sourcePort, id uint16
	// interval is the real one, attempt how long one to open a connection may take.
	interval, attempt time.Duration
	ctx               context.Context
	cancel            context.CancelFunc
	work              sync.WaitGroup
	// limit is the number of packets that the opener may send for now, 0 for no
	// limit.
	limit atomic.Int64
	// turn is held by who records a packet that is about to be sent, unless the flow
	// has ended.
	turn sync.Mutex
	// responding starts the responder's sending once.
	responding sync.Once
	// closers end what blocks.
	closeMu sync.Mutex
	closers []interface{ Close() error }
	closed  bool
}

// go starts f in the background; the flow's end waits for it.
func (p *player) background(f func()) {
	p.work.Add(1)
	go func() {
		defer p.work.Done()
		f()
	}()
}

// keep closes c when the flow ends.
func (p *player) keep(c interface{ Close() error }) {
	p.closeMu.Lock()
	defer p.closeMu.Unlock()
	if p.closed {
		_ = c.Close() // nobody reads or writes it any more
		return
	}
	p.closers = append(p.closers, c)
}

// keepConnection closes a connection of TCP when the flow ends. If another flow of
// the scenario has its tuple, nothing of it stays behind then: the kernel keeps a
// connection that is closed in peace for a minute, in which there is no second one.
func (p *player) keepConnection(conn *net.TCPConn) {
	if p.run.fixed.isReused(p.spec) {
		// One that is not closed so is in the way of the next flow, which says so.
		_ = conn.SetLinger(0)
	}
	p.keep(conn)
}

// drainTime is how long the last packets of a flow may be under way.
const drainTime = 200 * time.Millisecond

// drain ends the flow's sending, and waits for its last packets: not for those
// that have been lost long ago.
func (p *player) drain() {
	// Whoever sends has recorded that, and nobody begins to any more.
	p.turn.Lock()
	p.cancel()
	p.turn.Unlock()
	from := max(p.run.now()-drainTime, 0)
	p.run.until(drainTime, func() bool {
		now := p.run.now()
		c := p.window(from, now, now)
		return c.lost() == 0
	})
}

// stop ends the flow, and returns when nothing of it is sent any more.
func (p *player) stop() {
	p.cancel()
	p.closeMu.Lock()
	p.closed = true
	for _, c := range p.closers {
		// What a flow did not deliver is in its record.
		_ = c.Close()
	}
	p.closeMu.Unlock()
	p.work.Wait()
	p.end(p.run.now())
}

// pace calls send for each packet of a side, at the flow's interval, until the
// flow ends or send says that it cannot go on.
func (p *player) pace(side Side, count int, open bool, send func(message) error) {
	next := time.Now()
	for n := 0; count == 0 || n < count; n++ {
		if !sleepUntil(p.ctx, next) || !p.mayGoOn(side) {
			return
		}
		p.run.gate.RLock()
		seq, ok := p.begun(side, open)
		if !ok {
			p.run.gate.RUnlock()
			return
		}
		err := send(message{p.number, side, seq})
		p.run.gate.RUnlock()
		if err != nil && p.ctx.Err() == nil {
			p.failed(side, seq, err)
		}
		next = next.Add(p.interval)
		if now := time.Now(); next.Before(now) {
			// What was held back is not caught up.
			next = now.Add(p.interval)
		}
	}
}

// begun records a packet that is about to be sent; ok is false when the flow has
// ended.
func (p *player) begun(side Side, open bool) (seq int, ok bool) {
	p.turn.Lock()
	defer p.turn.Unlock()
	if p.ctx.Err() != nil {
		return 0, false
	}
	return p.sending(side, p.run.now(), open), true
}

// mayGoOn waits while the side has sent as much as it may for now; it is false
// when the flow has ended.
func (p *player) mayGoOn(side Side) bool {
	for side == Opener {
		limit := p.limit.Load()
		if limit == 0 || int64(p.sentBy(Opener)) < limit {
			break
		}
		if !sleepUntil(p.ctx, time.Now().Add(lookEvery)) {
			return false
		}
	}
	return true
}

func sleepUntil(ctx context.Context, at time.Time) bool {
	d := time.Until(at)
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// received takes a message that arrived on one of the two sides. On the
// responder's, from is where it came from.
func (p *player) received(m message, from netip.AddrPort) {
	p.arrived(m.side, m.seq, p.run.now())
	if m.side == Opener {
		p.observe(from)
	}
}

// openerCount is how many packets the opener sends: those of its count, or the
// one that opens the flow where only the other side sends.
func (p *player) openerCount() int {
	if !p.spec.Sends[Opener] {
		return 1
	}
	return p.spec.Count
}

// isDone reports whether a side sends no more, since the flow has ended or has
// sent its count.
func (p *player) isDone(side Side) bool {
	if p.ctx.Err() != nil {
		return true
	}
	count := p.spec.Count
	if side == Opener {
		count = p.openerCount()
	}
	return count > 0 && p.sentBy(side) >= count
}

// longOutage is what is waited for at most: as long as Linux waits at most before
// it sends again.
const longOutage = 2 * time.Minute

// outage is for how long a side of a connection of TCP has not got anything
// through. It is about as long again until TCP sends what was lost. Each side
// keeps its own time: what one of them sends may pass long before.
func (p *player) outage(now time.Duration) (longest time.Duration) {
	if p.spec.Protocol != protocolTCP {
		return 0
	}
	for _, since := range p.window(0, now, now).waiting {
		if since != 0 {
			longest = max(longest, now-since)
		}
	}
	return min(longest, longOutage)
}

// respond starts the responder's sending, once.
func (p *player) respond(send func(message) error) {
	if !p.spec.Sends[Responder] {
		return
	}
	p.responding.Do(func() {
		p.background(func() { p.pace(Responder, p.spec.Count, false, send) })
	})
}

// begin starts a flow, with the real times of its interval and of an attempt to
// open a connection.
func (r *Run) begin(spec *Flow, interval, attempt time.Duration) (*player, error) {
	r.mu.Lock()
	number := uint32(len(r.players)) + 1
	r.mu.Unlock()
	p := &player{run: r, spec: spec, number: number, interval: interval, attempt: attempt, sourcePort: spec.SourcePort, id: spec.ID}
	if spec.Protocol.HasPorts() && p.sourcePort == 0 {
		p.sourcePort = choose(firstSourcePort, number, r.fixed.ports)
	}
	if spec.IsPing() && p.id == 0 {
		p.id = choose(firstID, number, r.fixed.ids)
	}
	p.ctx, p.cancel = context.WithCancel(r.ctx)
	p.recorder = newRecorder(Lane{
		Name: spec.Name, Title: laneTitle(spec, p.sourcePort, p.id),
		Protocol: spec.Protocol.String(), From: spec.From, To: spec.To,
		Source: netip.AddrPortFrom(spec.Source, p.sourcePort), Dest: netip.AddrPortFrom(spec.Dest, spec.Port),
		Answered: spec.IsPing(), Begun: r.now(), Packets: []Packet{},
	})
	r.mu.Lock()
	r.players = append(r.players, p)
	r.mu.Unlock()
	from, reaches := r.world.hosts[spec.From], r.world.hosts[spec.Reaches]
	if err := p.open(from, reaches); err != nil {
		p.stop()
		return nil, fmt.Errorf("start the flow %q: %w", spec.Name, err)
	}
	return p, nil
}

// What the run chooses by itself, so that a record reads the same every time:
// ports of the range that Linux takes for clients, and identifiers of pings, both
// but for those that the scenario names. They count from behind these.
const (
	firstSourcePort = 40000
	firstID         = 100
)

func (p *player) open(from, reaches *lab.Namespace) error {
	switch {
	case p.spec.IsPing():
		return p.openPing(from, reaches)
	case p.spec.Message != nil:
		return p.openMessages(from, reaches)
	case p.spec.Protocol.HasPorts() && p.spec.Protocol == protocolTCP:
		return p.openTCP(from, reaches)
	case p.spec.Protocol.HasPorts():
		return p.openUDP(from, reaches)
	}
	return p.openOther(from, reaches)
}
