package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"sgc/internal/netns"
)

// stateDir returns where the record of what is enforced is kept. Each network
// namespace has a record of its own: that of the host stands in the state
// directory itself, those of others in its directory netns, under the name of
// the namespace, or, where it has none, under the identity that the kernel
// gives it (device and inode), so that every way to reach a namespace
// (--netns NAME, --netns PATH, ip netns exec) finds the same record. A record
// by identity does not outlive its namespace: a later namespace may get the
// same inode, and then finds a record without its table, which plan reports.
func (s *session) stateDir() (string, error) {
	key, err := namespaceKey(s.Netns)
	if err != nil {
		return "", err
	}
	if key == "" {
		return s.StateDir, nil
	}
	return filepath.Join(s.StateDir, "netns", key), nil
}

// identity is what tells namespaces apart.
type identity struct{ device, inode uint64 }

func identify(path string) (identity, error) {
	info, err := os.Stat(path)
	if err != nil {
		return identity{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}, fmt.Errorf("stat %s: unexpected type %T", path, info.Sys())
	}
	return identity{uint64(stat.Dev), stat.Ino}, nil
}

// namespaceKey returns the directory name of a namespace's record; "" is the
// host's. The argument is that of --netns: a name, a path, or "" for the
// namespace of the process.
func namespaceKey(name string) (string, error) {
	var this identity
	var err error
	for _, path := range netns.Paths(name) {
		if this, err = identify(path); err == nil {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("find the network namespace %q: %w", name, cause(err))
	}
	// The first process of the host (or container) lives in the namespace
	// that has no name. Where that one is hidden, the own one counts as such
	// if it has no name.
	first, hidden := identify("/proc/1/ns/net")
	if hidden == nil && first == this {
		return "", nil
	}
	for _, dir := range netns.Dirs() {
		names, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("list the network namespaces: %w", err)
		}
		for _, entry := range names {
			// A name whose namespace cannot be looked at is another's, or a
			// stale mount point; it is not this one.
			if named, err := identify(filepath.Join(dir, entry.Name())); err == nil && named == this {
				return entry.Name(), nil
			}
		}
	}
	if hidden != nil {
		if own, err := identify(netns.Own); err == nil && own == this {
			return "", nil
		}
	}
	return fmt.Sprintf("inode-%d-%d", this.device, this.inode), nil
}
