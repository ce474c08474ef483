package apply

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// settingsFile holds what sgc found and set beside nf_tables.
const settingsFile = "settings.json"

// Settings returns what KeepSettings kept, nil if there is nothing. A damaged
// file is a *DamagedError.
//
// It is no part of the records, which say what nf_tables holds: it is written
// at other moments, and outlives them where a destroy is killed before it
// brought everything back.
func (d *Dir) Settings() (json.RawMessage, error) {
	b, err := os.ReadFile(d.file(settingsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the state directory: %w", explainFile(err))
	}
	damaged := func(err error) error { return &DamagedError{Path: d.file(settingsFile), Err: err} }
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, damaged(err)
	}
	if e.Checksum != checksum(e.Record) {
		return nil, damaged(errors.New("its checksum is wrong"))
	}
	return e.Record, nil
}

// KeepSettings replaces what is kept; it is on the disk when KeepSettings
// returns. This package does not look into it: raw is any JSON.
func (d *Dir) KeepSettings(raw json.RawMessage) error {
	if err := d.replace(settingsFile, seal(raw), true); err != nil {
		return fmt.Errorf("write the settings to the state directory: %w", explainFile(err))
	}
	return nil
}

// ForgetSettings removes what is kept, if there is anything.
func (d *Dir) ForgetSettings() error {
	if err := d.remove(settingsFile); err != nil {
		return fmt.Errorf("remove the settings from the state directory: %w", explainFile(err))
	}
	return nil
}
