package cli

import (
	"bytes"
	"context"
	"errors"
	"time"

	"sgc/internal/nflog"
)

// logView turns refused packets into text.
type logView interface {
	// packet shows a packet, before which missed others of its group were lost.
	packet(b *bytes.Buffer, p *nflog.Packet, missed uint32) error
	// lost is told that packets were lost.
	lost()
	// due is when tick has something to do; the zero time is never.
	due() time.Time
	// tick shows what is due now, and all that is left if it is the last.
	tick(b *bytes.Buffer, now time.Time, last bool)
}

// logSteady is a view that shows every packet at once, and nothing else.
type logSteady struct{}

func (logSteady) lost()                               {}
func (logSteady) due() time.Time                      { return time.Time{} }
func (logSteady) tick(*bytes.Buffer, time.Time, bool) {}

// warnEvery is how often at most a flood is told of.
const warnEvery = 10 * time.Second

// logReader reads packets into a view.
type logReader struct {
	*session
	conn *nflog.Conn
	view logView
	// left is how many packets are still to be shown, if counted.
	left int
	// missed were lost since the last warning, overrun says that some were
	// lost of which the number is not known yet.
	missed  int
	overrun bool
	warned  time.Time
	// foreign were logged by others, malformed are no packets that could be
	// shown.
	foreign, malformed int
}

// run reads until the context ends or enough packets were shown. Both is a
// good end.
func (r *logReader) run(ctx context.Context) error {
	counts := r.left > 0
	for ctx.Err() == nil {
		copies, err := r.receive(ctx)
		if err != nil {
			return err
		}
		if err := r.show(copies, counts, false); err != nil {
			return err
		}
		if counts && r.left == 0 {
			return r.end(nil, counts)
		}
	}
	copies, err := r.conn.Finish()
	if errors.Is(err, nflog.ErrLost) {
		r.lost()
	} else if err != nil {
		return err
	}
	return r.end(copies, counts)
}

// receive returns the next packets; none where it is time for something else.
func (r *logReader) receive(ctx context.Context) ([]nflog.Copy, error) {
	if due := r.view.due(); !due.IsZero() {
		limited, cancel := context.WithDeadline(ctx, due)
		defer cancel()
		ctx = limited
	}
	copies, err := r.conn.Receive(ctx)
	switch {
	case errors.Is(err, nflog.ErrLost):
		r.lost()
		return nil, nil
	case err != nil && ctx.Err() != nil:
		return nil, nil
	}
	return copies, err
}

func (r *logReader) lost() {
	r.overrun = true
	r.view.lost()
}

// show writes packets and what else is due, all at once.
func (r *logReader) show(copies []nflog.Copy, counts, last bool) error {
	var b bytes.Buffer
	for _, c := range copies {
		if counts && r.left == 0 {
			break
		}
		if c.Missed > 0 {
			r.missed += int(c.Missed)
			r.overrun = false
			r.view.lost()
		}
		p, err := r.conn.Packet(c)
		switch {
		case errors.Is(err, nflog.ErrForeign):
			r.foreign++
			continue
		case errors.Is(err, nflog.ErrMalformed):
			r.malformed++
			continue
		case err != nil:
			return err
		}
		if err := r.view.packet(&b, &p, c.Missed); err != nil {
			return err
		}
		r.left--
	}
	r.view.tick(&b, time.Now(), last)
	if b.Len() > 0 {
		if _, err := r.Out.Write(b.Bytes()); err != nil {
			return err
		}
	}
	r.warnOfMissed(last)
	return nil
}

// warnOfMissed tells of lost packets, not too often before the end.
func (r *logReader) warnOfMissed(last bool) {
	now := time.Now()
	if !last && now.Sub(r.warned) < warnEvery {
		return
	}
	what := were(r.missed)
	switch {
	case r.missed > 0:
	case r.overrun && last:
		what = "Packets at the end were"
	default:
		return
	}
	r.inform("%s %s not seen: they came faster than they were read. They were refused like all others.", r.errPaint().yellow("Warning:"), what)
	r.missed, r.overrun, r.warned = 0, false, now
}

func were(packets int) string {
	if packets == 1 {
		return "1 packet was"
	}
	return plural(packets, "packet") + " were"
}

// end shows the last packets and what is left to say.
func (r *logReader) end(copies []nflog.Copy, counts bool) error {
	if err := r.show(copies, counts, true); err != nil {
		return err
	}
	if r.foreign > 0 {
		r.inform("%s logged to the same groups by rules that are not sgc's, and left out.", were(r.foreign))
	}
	if r.malformed > 0 {
		r.inform("%s refused without a sound IP header, and left out.", were(r.malformed))
	}
	return nil
}
