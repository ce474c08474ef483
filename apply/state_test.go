package apply

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func openState(t *testing.T) *Dir {
	t.Helper()
	d, err := OpenDir(filepath.Join(t.TempDir(), "var", "sgc"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func record(digest string) *Record {
	return &Record{
		FormatVersion: RecordVersion,
		Applied:       time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Digest:        digest,
		Path:          "/etc/sgc",
		Files:         []string{"a.hcl", "b.hcl"},
		Policy:        json.RawMessage(`{"groups":["<web>"],"n":1}`),
	}
}

// wantRecords fails if the directory does not hold these digests; "" stands
// for no record.
func wantRecords(t *testing.T, d *Dir, applied, pending string) {
	t.Helper()
	for _, x := range []struct {
		what string
		read func() (*Record, error)
		want string
	}{{"applied", d.Applied, applied}, {"pending", d.Pending, pending}} {
		r, err := x.read()
		if err != nil {
			t.Errorf("%s: %v", x.what, err)
			continue
		}
		got := ""
		if r != nil {
			got = r.Digest
		}
		if got != x.want {
			t.Errorf("%s record is %q, want %q", x.what, got, x.want)
		}
	}
}

func TestRecordsAreKept(t *testing.T) {
	t.Parallel()
	d := openState(t)
	if info, err := os.Stat(d.Path()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory is %v, %v", info.Mode(), err)
	}
	wantRecords(t, d, "", "")
	if err := d.Promote(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("promoting nothing: %v", err)
	}
	if err := d.WriteAhead(record("one")); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, d, "", "one")
	if err := d.Promote(); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, d, "one", "")
	got, err := d.Applied()
	if diff := cmp.Diff(record("one"), got); err != nil || diff != "" && !sameJSON(record("one"), got) {
		t.Errorf("read back: %v\n%s", err, diff)
	}
	if err := errors.Join(d.WriteAhead(record("two")), d.Discard(), d.Discard()); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, d, "one", "")
	if err := errors.Join(d.WriteAhead(record("three")), d.Remove(), d.Remove()); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, d, "", "")
}

// sameJSON compares policies by meaning: the file may escape characters.
func sameJSON(a, b *Record) bool {
	var x, y any
	if json.Unmarshal(a.Policy, &x) != nil || json.Unmarshal(b.Policy, &y) != nil {
		return false
	}
	return cmp.Equal(x, y)
}

func TestDamagedRecordsAreErrorsThatSayWhatToDo(t *testing.T) {
	t.Parallel()
	good, err := encodeRecord(record("one"))
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Replace(good, []byte(`"format_version":1`), []byte(`"format_version":9`), 1)
	body := newer[bytes.Index(newer, []byte(`"record":`))+len(`"record":`) : len(newer)-2]
	newer = bytes.Replace(newer, []byte(checksum(good[bytes.Index(good, []byte(`"record":`))+len(`"record":`):len(good)-2])), []byte(checksum(body)), 1)
	files := map[string][]byte{
		"empty":                nil,
		"blank":                []byte("\n\n"),
		"no JSON":              []byte("ELF"),
		"another JSON":         []byte(`[1,2]`),
		"no record":            []byte(`{}`),
		"one bit":              bytes.Replace(good, []byte("a.hcl"), []byte("c.hcl"), 1),
		"no checksum":          []byte(`{"record":{"format_version":1}}`),
		"a record of no words": []byte(`{"checksum":"` + checksum([]byte(`"x"`)) + `","record":"x"}`),
		"no version":           []byte(`{"checksum":"` + checksum([]byte(`{}`)) + `","record":{}}`),
	}
	for n := range good[:len(good)-2] {
		files[fmt.Sprintf("cut after %d bytes", n)] = good[:n]
	}
	for name, b := range files {
		d := openState(t)
		if err := os.WriteFile(d.file(appliedFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := d.Applied()
		var damaged *DamagedError
		if !errors.As(err, &damaged) || !contains(err.Error(), "move it away") || !contains(err.Error(), d.file(appliedFile)) {
			t.Errorf("%s: %v", name, err)
		}
		// A new apply mends it.
		if err := errors.Join(d.WriteAhead(record("two")), d.Promote()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantRecords(t, d, "two", "")
	}
	d := openState(t)
	if err := os.WriteFile(d.file(appliedFile), newer, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Applied(); err == nil || !contains(err.Error(), "format version 9") {
		t.Errorf("a newer format: %v", err)
	}
}

func TestFullDiskLeavesTheRecordsAsTheyWere(t *testing.T) {
	t.Parallel()
	needRoot(t)
	path := t.TempDir()
	err := onThread(func() error {
		// Mounts of this thread alone.
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size=64k,mode=700"); err != nil {
			return err
		}
		d, err := OpenDir(path)
		if err != nil {
			return err
		}
		if err := errors.Join(d.WriteAhead(record("one")), d.Promote(), d.WriteAhead(record("two"))); err != nil {
			return err
		}
		large := record("large")
		large.Policy = json.RawMessage(`"` + strings.Repeat("x", 100_000) + `"`)
		err = d.WriteAhead(large)
		if !errors.Is(err, unix.ENOSPC) || !contains(err.Error(), "make room") {
			return fmt.Errorf("writing to a full disk: %w", err)
		}
		wantRecords(t, d, "one", "two")
		// What was written of it is gone, and there is room again, at once unless
		// another test starts a process: that has open what this one had, until it
		// runs its program.
		err = await("there is room again", func() (bool, error) {
			var disk unix.Statfs_t
			err := unix.Statfs(path, &disk)
			return disk.Bfree > disk.Blocks/2, err
		})
		if err != nil {
			return err
		}
		if err := d.WriteAhead(record("three")); err != nil {
			return err
		}
		wantRecords(t, d, "one", "three")
		// The lock can be had on a disk without a free byte.
		if err := os.WriteFile(filepath.Join(path, "fill"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("filling the disk: %w", err)
		}
		lock, err := d.Lock(context.Background())
		if err != nil {
			return err
		}
		return lock.Unlock()
	})
	if err != nil {
		t.Error(err)
	}
}

func TestStateDirectoriesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	needRoot(t)
	base := t.TempDir()
	file := filepath.Join(base, "file")
	open := filepath.Join(base, "open")
	closed := filepath.Join(base, "closed")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(open, 0o700), os.Chmod(open, 0o777), os.Mkdir(closed, 0o500)); err != nil {
		t.Fatal(err)
	}
	err := onThread(func() error {
		// Root that may not overrule permissions.
		if err := dropCapabilities(); err != nil {
			return err
		}
		for _, test := range []struct{ path, want string }{
			{file, "not a directory"},
			{filepath.Join(file, "x"), "not a directory"},
			{open, "can be written by others (mode 0777)"},
			{filepath.Join(closed, "x"), "permission denied: run as root"},
			{"/proc/x", "no such file or directory"},
		} {
			if _, err := OpenDir(test.path); err == nil || !contains(err.Error(), test.want) {
				t.Errorf("OpenDir(%s): %v, want %q", test.path, err, test.want)
			}
		}
		d, err := OpenDir(closed)
		if err != nil {
			return err
		}
		if err := d.WriteAhead(record("one")); !errors.Is(err, fs.ErrPermission) || !contains(err.Error(), "--state-dir") {
			t.Errorf("WriteAhead: %v", err)
		}
		if _, err := d.Lock(context.Background()); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Lock: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLockKeepsOthersOut(t *testing.T) {
	t.Parallel()
	d := openState(t)
	held, err := d.Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = d.Lock(done)
	if !errors.Is(err, ErrLocked) || !contains(err.Error(), fmt.Sprintf("process %d holds", os.Getpid())) || !contains(err.Error(), filepath.Base(os.Args[0])) {
		t.Errorf("a second lock: %v", err)
	}
	start := time.Now()
	short, cancel := context.WithTimeout(context.Background(), 120*time.Millisecond)
	defer cancel()
	if _, err := d.Lock(short); !errors.Is(err, ErrLocked) || time.Since(start) < 100*time.Millisecond {
		t.Errorf("a waiting lock: %v after %s", err, time.Since(start))
	}
	got := make(chan error)
	go func() {
		l, err := d.Lock(context.Background())
		if err == nil {
			err = l.Unlock()
		}
		got <- err
	}()
	time.Sleep(20 * time.Millisecond)
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("the lock after it was given back: %v", err)
	}
}

// TestRecordsAreReadAsTheyWereWritten compares the quick way with json's.
func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"", "null", "{}", `{"a":"},\"policy\":","policy":{"b":[1,2]}}`, `"x"`} {
		for _, path := range []string{"", `/a,"policy":{}`, `}\`} {
			r := record("one")
			r.Path, r.Files, r.Policy = path, []string{path, `","record":`}, json.RawMessage(policy)
			b, err := encodeRecord(r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeRecord(b)
			if err != nil {
				t.Fatal(err)
			}
			var e envelope
			var want Record
			if err := errors.Join(json.Unmarshal(b, &e), json.Unmarshal(e.Record, &want)); err != nil {
				t.Fatal(err)
			}
			if !cmp.Equal(*got, want) {
				t.Errorf("policy %s, path %s: read %+v, want %+v", policy, path, *got, want)
			}
			// With white space it is read the other way.
			spaced, err := decodeRecord(append([]byte(" "), b...))
			if err != nil || !cmp.Equal(*spaced, want) {
				t.Errorf("policy %s, path %s: read %+v, %v, want %+v", policy, path, spaced, err, want)
			}
		}
	}
}
