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

// write replaces what is in the file, and closes it.
func (r *resultFile) write(text []byte) error {
	if r == nil {
		return nil
	}
	info, err := r.f.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = r.f.Truncate(0)
	}
	if err == nil {
		_, err = r.f.Write(text)
	}
	if err = errors.Join(err, r.f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", r.what, err)
	}
	return nil
}
