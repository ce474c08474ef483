package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another sgc holds the lock.
var ErrLocked = errors.New("another sgc is at work")

// lockPause is how often a waiting Lock looks again.
const lockPause = 50 * time.Millisecond

// A Lock keeps other sgc processes from changing anything. It ends with the
// process that holds it, however that ends.
type Lock struct {
	f *os.File
}

// Lock takes the lock of the state directory. If somebody else holds it, Lock
// waits until ctx is done, and then fails with ErrLocked and what is known of
// the holder; with a ctx that is already done it tries once.
func (d *Dir) Lock(ctx context.Context) (*Lock, error) {
	f, err := os.OpenFile(d.file(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", explainFile(err))
	}
	for {
		err := flock(f)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%w: %s", ErrLocked, holder(f)), f.Close())
		case <-time.After(lockPause):
		}
	}
	l := &Lock{f: f}
	if err := l.sign(); err != nil {
		return nil, errors.Join(fmt.Errorf("sign the lock: %w", explainFile(err)), f.Close())
	}
	return l, nil
}

// Unlock gives the lock back.
func (l *Lock) Unlock() error {
	// Closing the only descriptor ends the lock; the signature goes first, so
	// that nobody reads of a holder that is gone.
	return errors.Join(l.f.Truncate(0), l.f.Close())
}

// flock tries to take the lock.
func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// sign writes who holds the lock, for the message of those who wait. The disk
// may be full: that is no reason not to go on with the lock that is held.
func (l *Lock) sign() error {
	err := l.f.Truncate(0)
	if err == nil {
		_, err = l.f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return nil
	}
	return err
}

// holder describes the process that signed the lock.
func holder(f *os.File) string {
	b := make([]byte, 32)
	n, err := f.ReadAt(b, 0)
	pid, numberErr := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil && !errors.Is(err, io.EOF) || numberErr != nil {
		return "it holds " + f.Name()
	}
	text := fmt.Sprintf("process %d holds %s", pid, f.Name())
	if command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(command) > 0 {
		words := strings.Split(strings.TrimRight(string(command), "\x00"), "\x00")
		text += fmt.Sprintf(" (%s)", strings.Join(words, " "))
	}
	return text
}
