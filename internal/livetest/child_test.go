package livetest

import (
	"context"
	"errors"
	"iter"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sgc/apply"
)

// look is how long sgc runs in another process before a test looks again what it
// has done, while it stands still.
const look = 200 * time.Microsecond

// child is sgc in a process of its own.
type child struct {
	cmd *exec.Cmd
	// stopped says that it stands still, and that it had not ended before.
	stopped bool
	// ended is closed when it was waited for.
	ended chan struct{}
}

// stopWhen starts sgc and stops it once something is true, if it does not end
// before. It runs in short turns, and is looked at in between, so that it is stopped
// soon: but a turn that the machine makes long, or a call of the kernel that is
// under way, it does first.
func (s *stand) stopWhen(is func() bool, args ...string) *child {
	s.t.Helper()
	c := &child{cmd: s.child(args...), ended: make(chan struct{})}
	// One that stands still would outlive a test that is killed. The kernel looks at
	// the thread that started it.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			_ = c.cmd.Wait() // it is killed, or was faster, or the test looks at what it did
			close(c.ended)
		}
	}()
	if err := <-started; err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.kill)
	for {
		stopped, err := c.stop()
		if err != nil {
			s.t.Fatal(err)
		}
		if c.stopped = stopped; !stopped || is() {
			return c
		}
		c.goOn()
		// time.Sleep may round up to a millisecond, in which sgc does a lot.
		turn := unix.NsecToTimespec(int64(look))
		_ = unix.Nanosleep(&turn, nil) // a signal makes it a shorter turn
	}
}

// stopAfter is stopWhen for the moment in which sgc has changed nf_tables n times.
func (s *stand) stopAfter(n uint32, args ...string) *child {
	s.t.Helper()
	generation := s.generation()
	wanted := generation() + n
	return s.stopWhen(func() bool { return generation() >= wanted }, args...)
}

// generation returns a function that tells how often the host's nf_tables was
// changed.
func (s *stand) generation() func() uint32 {
	s.t.Helper()
	k, err := apply.Open(s.host.Path())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { k.Close() })
	return func() uint32 {
		g, err := k.Generation(context.Background())
		if err != nil {
			s.t.Fatal(err)
		}
		return g
	}
}

// stop makes the process stand still, and returns when all of its threads do, or
// when it has ended: then it is not stopped.
func (c *child) stop() (stopped bool, err error) {
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		<-c.ended
		return false, nil
	}
	// The kernel says so when the last thread stands still, and WNOWAIT leaves the
	// end of the process to whoever waits for it.
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD): // it has ended, and was waited for
			<-c.ended
			return false, nil
		case err != nil:
			return false, err
		case info.Code != cldStopped:
			<-c.ended
			return false, nil
		default:
			return true, nil
		}
	}
}

// cldStopped is the code of a child that was stopped.
//
// Source: Linux include/uapi/asm-generic/siginfo.h, CLD_STOPPED.
const cldStopped = 5

// goOn lets the process run again. One that has ended does not hear it.
func (c *child) goOn() {
	_ = c.cmd.Process.Signal(syscall.SIGCONT)
	c.stopped = false
}

// finish lets the process run to its end, and returns its exit code.
func (c *child) finish() int {
	c.goOn()
	<-c.ended
	return c.cmd.ProcessState.ExitCode()
}

// kill ends the process.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	<-c.ended
	c.stopped = false
}

// longEnough is how long a test tries to stop a process in the moment that it
// wants. The process may run while the test does not.
const longEnough = 4 * time.Minute

// rounds counts tries from 0, until enough is true. That it never is fails the
// test.
func (s *stand) rounds(enough func() bool) iter.Seq[int] {
	s.t.Helper()
	return func(yield func(int) bool) {
		end := time.Now().Add(longEnough)
		for round := 0; !enough(); round++ {
			if time.Now().After(end) {
				s.t.Errorf("no process was stopped in time in %d rounds", round)
				return
			}
			if !yield(round) {
				return
			}
		}
	}
}
