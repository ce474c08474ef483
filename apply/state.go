package apply

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// RecordVersion is the format of the records that this sgc writes, and the
// newest that it reads.
const RecordVersion = 1

// Record is what the state directory holds of one applied policy.
type Record struct {
	FormatVersion int `json:"format_version"`
	// Applied is when the policy was, or is being, applied.
	Applied time.Time `json:"applied"`
	// Digest is that of the policy's meaning.
	Digest string `json:"digest,omitempty"`
	// Path and Files say where the policy came from.
	Path  string   `json:"path,omitempty"`
	Files []string `json:"files,omitempty"`
	// Policy is the policy in resolved form; null if the table is removed.
	// This package does not look into it. It stays the last field, see
	// splitRecord.
	Policy json.RawMessage `json:"policy,omitempty"`
}

// Files of the state directory.
const (
	appliedFile = "applied.json"
	pendingFile = "pending.json"
	lockFile    = "lock"
)

// Dir is a state directory. It holds the record of the policy that is
// enforced (applied) and, while an apply is under way, of the one that is to
// be (pending): a pending record that is found at the start of a command is
// that of an apply that did not live to its end.
//
// All changes are made under the lock, which the caller takes. A change is on
// the disk when its method returns, and is there as a whole or not at all,
// whenever sgc or the machine goes down.
type Dir struct {
	path string
	// records are those that were read last, by the names of their files. A
	// record may hold a million prefixes, and a command reads it twice.
	records map[string]knownRecord
}

// knownRecord is a record that was read, and the file that it was in.
type knownRecord struct {
	file   os.FileInfo
	record *Record
}

// OpenDir opens a state directory and makes it, with its parents, if it is not
// there. The directory that holds it all is readable for its owner alone, and
// nobody else may be able to write it: a record decides what a rollback does.
func OpenDir(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", explainFile(err))
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open the state directory: %w", explainFile(err))
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open the state directory: %s is no directory", path)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, fmt.Errorf("the state directory %s can be written by others (mode %04o): chmod 0700 it, and check what it holds", path, mode)
	}
	return &Dir{path: path, records: map[string]knownRecord{}}, nil
}

// Path returns the directory's path.
func (d *Dir) Path() string { return d.path }

// DamagedError says that a file of the state directory cannot be believed.
type DamagedError struct {
	Path string
	Err  error
}

func (e *DamagedError) Error() string {
	if filepath.Base(e.Path) == settingsFile {
		return fmt.Sprintf("the state file %s is damaged (%s): move it away; what conntrack's settings were before sgc set them is forgotten then", e.Path, e.Err)
	}
	return fmt.Sprintf("the state file %s is damaged (%s): move it away; sgc then takes the table in the kernel for what was applied last", e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// Applied returns the record of the policy that is enforced; nil if there is
// none. A damaged file is a *DamagedError.
func (d *Dir) Applied() (*Record, error) { return d.read(appliedFile) }

// Pending returns the record of an apply that was begun and not finished; nil
// if there is none. A damaged file is a *DamagedError.
func (d *Dir) Pending() (*Record, error) { return d.read(pendingFile) }

// WriteAhead records what is about to be applied.
func (d *Dir) WriteAhead(r *Record) error {
	if err := d.write(pendingFile, r); err != nil {
		return fmt.Errorf("write ahead to the state directory: %w", explainFile(err))
	}
	return nil
}

// Promote makes the pending record the applied one. It fails with
// fs.ErrNotExist if none is pending.
func (d *Dir) Promote() error {
	if err := os.Rename(d.file(pendingFile), d.file(appliedFile)); err != nil {
		return fmt.Errorf("record the applied policy: %w", explainFile(err))
	}
	if err := syncDir(d.path); err != nil {
		return fmt.Errorf("record the applied policy: %w", explainFile(err))
	}
	return nil
}

// Discard forgets the pending record, if there is one.
func (d *Dir) Discard() error {
	if err := d.remove(pendingFile); err != nil {
		return fmt.Errorf("discard the pending policy: %w", explainFile(err))
	}
	return nil
}

// Remove forgets what nf_tables held. The lock stays, since whoever waits for it
// has it open; so do the settings, until they are brought back (ForgetSettings),
// and a file that is not of this package.
func (d *Dir) Remove() error {
	for _, name := range []string{pendingFile, appliedFile, memoryFile} {
		if err := d.remove(name); err != nil {
			return fmt.Errorf("clear the state directory: %w", explainFile(err))
		}
	}
	return nil
}

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }

func (d *Dir) remove(name string) error {
	err := os.Remove(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(d.path)
}

// envelope is what a file holds: the record, and a checksum of its bytes as
// they stand in the file.
type envelope struct {
	Checksum string          `json:"checksum"`
	Record   json.RawMessage `json:"record"`
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// read reads a record, nil if there is no file.
func (d *Dir) read(name string) (*Record, error) {
	f, err := os.Open(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the state directory: %w", explainFile(err))
	}
	defer f.Close() // it is only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the state directory: %w", explainFile(err))
	}
	// A record is replaced as a whole, by another file.
	if known, ok := d.records[name]; ok && os.SameFile(known.file, info) && known.file.ModTime().Equal(info.ModTime()) && known.file.Size() == info.Size() {
		r := *known.record
		return &r, nil
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read the state directory: %w", explainFile(err))
	}
	r, err := decodeRecord(b)
	if err != nil {
		return nil, &DamagedError{Path: d.file(name), Err: err}
	}
	if r.FormatVersion > RecordVersion {
		return nil, fmt.Errorf("the state file %s has format version %d, and this sgc knows versions up to %d: use the newer sgc that wrote it", d.file(name), r.FormatVersion, RecordVersion)
	}
	copied := *r
	d.records[name] = knownRecord{info, &copied}
	return r, nil
}

func decodeRecord(b []byte) (*Record, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, errors.New("it is empty")
	}
	e, ok := splitEnvelope(b)
	if !ok {
		if err := json.Unmarshal(b, &e); err != nil {
			return nil, err
		}
	}
	if len(e.Record) == 0 {
		return nil, errors.New("it holds no record")
	}
	if e.Checksum != checksum(e.Record) {
		return nil, errors.New("its checksum is wrong")
	}
	var r Record
	if rest, policy, ok := splitRecord(e.Record); ok {
		if err := json.Unmarshal(rest, &r); err != nil {
			return nil, err
		}
		r.Policy = policy
	} else if err := json.Unmarshal(e.Record, &r); err != nil {
		return nil, err
	}
	if r.FormatVersion < 1 {
		return nil, errors.New("it has no format version")
	}
	return &r, nil
}

// What stands around the checksum and the record in a file.
const envelopeBegin, envelopeMiddle, envelopeEnd = `{"checksum":"`, `","record":`, "}\n"

// splitEnvelope is json.Unmarshal of a file as encodeRecord writes it, without
// looking at every byte of a record of many megabytes.
func splitEnvelope(b []byte) (e envelope, ok bool) {
	rest, begin := bytes.CutPrefix(b, []byte(envelopeBegin))
	sum, rest, middle := bytes.Cut(rest, []byte(envelopeMiddle))
	record, end := bytes.CutSuffix(rest, []byte(envelopeEnd))
	return envelope{Checksum: string(sum), Record: record}, begin && middle && end
}

// splitRecord cuts the policy out of a record that encodeRecord wrote, as the
// checksum says that it did: the policy may have many megabytes, and most often
// nobody looks into it. What separates the fields stands in no string, where the
// quotes would be escaped.
func splitRecord(b []byte) (rest, policy []byte, ok bool) {
	head, policy, found := bytes.Cut(b, []byte(`,"policy":`))
	policy, ends := bytes.CutSuffix(policy, []byte("}"))
	if !found || !ends {
		return nil, nil, false
	}
	return append(bytes.Clone(head), '}'), policy, true
}

func encodeRecord(r *Record) ([]byte, error) {
	record := *r
	record.FormatVersion = RecordVersion
	b, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("encode the record: %w", err)
	}
	return seal(b), nil
}

// seal puts a checksum around JSON. It does so without json.Marshal, which would
// go through all of it again.
func seal(b []byte) []byte {
	out := make([]byte, 0, len(b)+128)
	out = append(out, envelopeBegin...)
	out = append(out, checksum(b)...)
	out = append(out, envelopeMiddle...)
	out = append(out, b...)
	return append(out, envelopeEnd...)
}

// write replaces the file of a record.
func (d *Dir) write(name string, r *Record) error {
	b, err := encodeRecord(r)
	if err != nil {
		return err
	}
	return d.replace(name, b, true)
}

// replace writes a file beside the one it is to replace, and renames it. If it
// is to be durable, file and name are on the disk when replace returns.
func (d *Dir) replace(name string, content []byte, durable bool) (err error) {
	// The name is fixed: under the lock nobody else writes, and what a killed
	// apply left behind is overwritten.
	beside := d.file(name + ".new")
	f, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(beside))
		}
	}()
	_, err = f.Write(content)
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(beside, d.file(name)); err != nil || !durable {
		return err
	}
	return syncDir(d.path)
}

// syncDir puts the names of a directory on the disk.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// explainFile adds to an error what a person can do about it.
func explainFile(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: make room on that file system, or choose another state directory (--state-dir)", err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: choose a state directory that can be written (--state-dir)", err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: run as root, or choose a state directory of your own (--state-dir)", err)
	}
	return err
}
