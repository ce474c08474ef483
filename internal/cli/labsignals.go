package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// sameInterrupt is how long a second interrupt is taken for the first one.
const sameInterrupt = time.Second

// inOrder calls f with a context that also ends when the terminal is gone
// (SIGHUP), or whoever reads the output (SIGPIPE): by themselves these signals
// end the process where it stands, and what the lab has made stays. Of a reader
// that is gone nobody need be told, as of other programs in a pipe.
func (s *session) inOrder(ctx context.Context, f func(context.Context) error) error {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	// As long as somebody asks for the signal, a write returns EPIPE instead. A
	// shell and the kernel may both say that the terminal is gone: the second
	// time must not end what clears up.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGPIPE)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup does
		signal.Notify(signals, syscall.SIGHUP)
	}
	defer signal.Stop(signals)
	// An interrupt ends the given context, and the next one the process. One that
	// comes with it, as from timeout(1), which signals the process and its group,
	// is the same one.
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	go func() {
		select {
		case <-signals:
			cancel()
		case <-within.Done():
		}
		time.AfterFunc(sameInterrupt, func() { signal.Stop(again) })
	}()
	err := f(within)
	switch {
	case errors.Is(err, syscall.EPIPE) || errors.Is(s.out.err, syscall.EPIPE):
		return errReported
	case err != nil && ctx.Err() == nil && within.Err() != nil && errors.Is(err, context.Canceled):
		s.complain("interrupted; nothing was changed")
		return errReported
	}
	return err
}
