package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// labDir is the directory of temporary files of one run of the lab, all that a
// run leaves when it is killed: its namespaces have no names, and end with it.
// The run holds a lock in it, which ends with the process, whatever ends that.
type labDir struct {
	path string
	lock *os.File
}

const (
	labDirPattern = "sgc-lab-*"
	labLockName   = "lock"
)

func newLabDir() (*labDir, error) {
	path, err := os.MkdirTemp("", labDirPattern)
	if err != nil {
		return nil, fmt.Errorf("make a directory for the lab's temporary files in %s (the environment variable TMPDIR names another place): %w", os.TempDir(), cause(err))
	}
	d := &labDir{path: path}
	if d.lock, err = os.OpenFile(filepath.Join(path, labLockName), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err == nil {
		err = unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the lab's directory %s: %w", path, err), d.remove())
	}
	return d, nil
}

func (d *labDir) remove() error {
	var err error
	if d.lock != nil {
		err = d.lock.Close()
	}
	return errors.Join(err, os.RemoveAll(d.path))
}

// labCleanView is the JSON form of lab clean.
type labCleanView struct {
	FormatVersion int      `json:"format_version"`
	Removed       []string `json:"removed"`
	// Running are the directories of runs that go on.
	Running []string `json:"running"`
}

// labClean removes the directories of this user's runs that were killed.
func (s *session) labClean(arguments []string) error {
	if len(arguments) > 0 {
		return fmt.Errorf("lab clean takes no arguments: %s", arguments[0])
	}
	paths, err := filepath.Glob(filepath.Join(os.TempDir(), labDirPattern))
	if err != nil {
		return fmt.Errorf("look for directories of the lab: %w", err)
	}
	v := labCleanView{FormatVersion: formatVersion, Removed: []string{}, Running: []string{}}
	var failed error
	for _, path := range paths {
		state, err := labDirState(path)
		if err == nil && state == labDirDead {
			err = os.RemoveAll(path)
		}
		switch {
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("remove %s: %w", path, cause(err)))
		case state == labDirDead:
			v.Removed = append(v.Removed, path)
		case state == labDirRunning:
			v.Running = append(v.Running, path)
		}
	}
	if s.JSON {
		return errors.Join(s.writeJSON(v), failed)
	}
	for _, path := range v.Removed {
		fmt.Fprintf(s.Out, "Removed %s\n", clean(path))
	}
	for _, path := range v.Running {
		fmt.Fprintf(s.Out, "Left %s: its run goes on\n", clean(path))
	}
	if len(v.Removed) == 0 && failed == nil {
		fmt.Fprintln(s.Out, "Nothing to remove.")
	}
	return failed
}

type labDirStatus int

const (
	labDirForeign labDirStatus = iota
	labDirRunning
	labDirDead
)

// labDirYoung is how old a directory without a lock must be to belong to nobody:
// a run makes the one right after the other.
const labDirYoung = time.Minute

// labDirState finds out whether a directory is of a run of this user, and
// whether that is still alive.
func labDirState(path string) (labDirStatus, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return labDirForeign, nil // its run has just ended
	}
	if err != nil {
		return labDirForeign, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() {
		return labDirForeign, nil
	}
	lock, err := os.OpenFile(filepath.Join(path, labLockName), os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if time.Since(info.ModTime()) < labDirYoung {
			return labDirRunning, nil
		}
		return labDirDead, nil
	}
	if err != nil {
		return labDirForeign, err
	}
	defer lock.Close()
	switch err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return labDirRunning, nil
	case err != nil:
		return labDirForeign, err
	}
	return labDirDead, nil
}
