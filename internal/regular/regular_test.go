package regular

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	content := bytes.Repeat([]byte("x"), 1000)
	if err := os.WriteFile(at("file"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link": "file", "zero": "/dev/zero", "dangling": "nowhere"} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "link"} {
		if got, err := ReadFile(at(name), 1000); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if _, err := ReadFile(at(name), 999); err == nil || !strings.Contains(err.Error(), "larger than 999 bytes") {
			t.Errorf("%s beyond the limit: %v", name, err)
		}
	}
	for _, name := range []string{at("fifo"), at("zero"), "/dev/null", "/dev/zero"} {
		if _, err := ReadFile(name, 1000); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadFile(at("dangling"), 1000); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link to nowhere: %v", err)
	}
	if _, err := ReadFile(dir, 1000); err == nil || !strings.Contains(err.Error(), "a directory") {
		t.Errorf("a directory: %v", err)
	}
}

// The files of /proc say that they are empty; the limit holds all the same.
func TestLimitHoldsWhereTheSizeIsUnknown(t *testing.T) {
	if got, err := ReadFile("/proc/self/status", 1<<20); err != nil || len(got) == 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := ReadFile("/proc/self/status", 10); err == nil || !strings.Contains(err.Error(), "larger than 10 bytes") {
		t.Errorf("beyond the limit: %v", err)
	}
}
