package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// resultFile is where a run writes what it found: a picture, or a JUnit report.
// It is opened before anything is played, so that one that cannot be written is
// known then. Its methods may be called of nil, which is no file.
type resultFile struct {
	// what is the file's kind in a sentence.
	what string
	f    *os.File
	// made says that there was none before.
	made bool
}

// openResult opens the file, and leaves what is in it; nil for no name.
func openResult(what, name string) (*resultFile, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	made := err == nil
	if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(name, os.O_WRONLY, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", what, err)
	}
	return &resultFile{what, f, made}, nil
}

// drop leaves things as they were.
func (r *resultFile) drop() error {
	if r == nil {
		return nil
	}
	err := r.f.Close()
	if r.made {
		err = errors.Join(err, os.Remove(r.f.Name()))
	}
	return err
}

// write replaces what is in the file, and closes it. Where that fails, as on a full
// disk, the file is as it was before.
func (r *resultFile) write(text []byte) error {
	if r == nil {
		return nil
	}
	info, err := r.f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		if err == nil {
			_, err = r.f.Write(text)
		}
		if err = errors.Join(err, r.f.Close()); err != nil {
			return fmt.Errorf("write %s: %w", r.what, err)
		}
		return nil
	}
	var old []byte
	if !r.made {
		if old, err = os.ReadFile(r.f.Name()); err != nil {
			return errors.Join(fmt.Errorf("keep what %s was before: %w", r.what, err), r.f.Close())
		}
	}
	if err = r.replace(text); err == nil {
		if err = r.f.Close(); err == nil {
			return nil
		}
		return fmt.Errorf("write %s: %w", r.what, err)
	}
	err = fmt.Errorf("write %s: %w", r.what, err)
	switch {
	case r.made:
		return errors.Join(err, r.drop())
	default:
		if again := r.replace(old); again != nil {
			return errors.Join(err, fmt.Errorf("what it was before is lost: %w", again), r.f.Close())
		}
		return errors.Join(fmt.Errorf("%w (it is as it was before)", err), r.f.Close())
	}
}

// replace makes a text all that is in the file.
func (r *resultFile) replace(text []byte) error {
	if err := r.f.Truncate(0); err != nil {
		return err
	}
	_, err := r.f.WriteAt(text, 0)
	return err
}
