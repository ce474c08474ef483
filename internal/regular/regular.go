// Package regular reads files that somebody names, without being held up or
// filled up by what is no file: a FIFO that nobody writes, a terminal, a device
// that never ends.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotRegular says that a path leads to something else than a file.
var ErrNotRegular = errors.New("it is not a regular file")

// ReadFile returns the content of a regular file, which may be reached by
// symbolic links. A file of more than limit bytes is an error, also if it grows
// while it is read or does not say how large it is, as those in /proc. Errors
// are *fs.PathError.
func ReadFile(name string, limit int64) ([]byte, error) {
	refuse := func(err error) error { return &fs.PathError{Op: "read", Path: name, Err: err} }
	// Only to open a device may do something already.
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if err := check(info, limit); err != nil {
		return nil, refuse(err)
	}
	// What the name leads to may be another thing by now: open waits for nobody.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it is only read
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if err := check(info, limit); err != nil {
		return nil, refuse(err)
	}
	// One byte more shows the end without another growth.
	content := make([]byte, 0, info.Size()+1)
	for {
		n, err := f.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		if int64(len(content)) > limit {
			return nil, refuse(tooLarge(limit))
		}
		if errors.Is(err, io.EOF) {
			return content, nil
		}
		if err != nil {
			return nil, err
		}
		if len(content) == cap(content) {
			content = append(content, 0)[:len(content)]
		}
	}
}

func check(info fs.FileInfo, limit int64) error {
	switch {
	case info.IsDir():
		return errors.New("it is a directory")
	case !info.Mode().IsRegular():
		return ErrNotRegular
	case info.Size() > limit:
		return tooLarge(limit)
	}
	return nil
}

func tooLarge(limit int64) error {
	if mib := limit >> 20; mib > 0 {
		return fmt.Errorf("it is larger than %d MiB", mib)
	}
	return fmt.Errorf("it is larger than %d bytes", limit)
}
