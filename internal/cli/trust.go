package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// trust refuses a state directory that somebody else could have written to:
// the record in it decides what counts as drift, and what an apply goes on
// from. root is the directory that --state-dir names, dir that of the record,
// root itself or below it. What is not there yet is made by sgc. A directory
// above root is the administrator's choice, such as /tmp.
func trust(root, dir string) error {
	root = filepath.Clean(root)
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("look at the state directory: %w", err)
		case !info.IsDir():
			// Whoever opens it says what is wrong.
		case info.Mode().Perm()&0o022 != 0:
			return fmt.Errorf("the state directory %s can be written by others (mode %04o): chmod 0700 it, and check what it holds", at, info.Mode().Perm())
		}
		if at == root || at == filepath.Dir(at) {
			break
		}
	}
	// The files that sgc believes, whether they are there or not.
	for _, name := range []string{"applied.json", "pending.json", "memory.json"} {
		if err := trustFile(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// trustFile refuses a record that is another's.
func trustFile(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another sgc replaced it
	}
	if err != nil {
		return fmt.Errorf("look at the state directory: %w", err)
	}
	const advice = "check what it holds, or move it away"
	if !info.Mode().IsRegular() {
		return fmt.Errorf("the state file %s is no regular file: %s", path, advice)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("the state file %s can be written by others (mode %04o): chmod 0600 it, and %s", path, mode, advice)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("stat %s: unexpected type %T", path, info.Sys())
	}
	if owner := int(stat.Uid); owner != 0 && owner != os.Geteuid() {
		return fmt.Errorf("the state file %s belongs to user %d, neither to root nor to you: %s", path, owner, advice)
	}
	return nil
}
