package apply

import (
	"errors"
	"os"
	"testing"
)

func TestSettingsOutliveTheRecords(t *testing.T) {
	d := openState(t)
	if raw, err := d.Settings(); raw != nil || err != nil {
		t.Fatalf("of an empty directory: %s, %v", raw, err)
	}
	for _, text := range []string{`{"found":{"udp_timeout":30}}`, `{"found":{}}`} {
		if err := d.KeepSettings([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if raw, err := d.Settings(); string(raw) != text || err != nil {
			t.Errorf("%s, %v; want %s", raw, err, text)
		}
	}
	if err := d.WriteAhead(record("a")); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if raw, err := d.Settings(); raw == nil || err != nil {
		t.Errorf("gone with the records: %v", err)
	}
	for range 2 {
		if err := d.ForgetSettings(); err != nil {
			t.Fatal(err)
		}
	}
	if raw, err := d.Settings(); raw != nil || err != nil {
		t.Errorf("not forgotten: %s, %v", raw, err)
	}
}

func TestDamagedSettings(t *testing.T) {
	d := openState(t)
	if err := d.KeepSettings([]byte(`{"found":{"udp_timeout":30}}`)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(d.file(settingsFile))
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		damaged := append([]byte(nil), whole...)
		damaged[i] ^= 1
		for _, content := range [][]byte{whole[:i], damaged} {
			if err := os.WriteFile(d.file(settingsFile), content, 0o600); err != nil {
				t.Fatal(err)
			}
			raw, err := d.Settings()
			var told *DamagedError
			// White space at the end and the like means nothing.
			if !errors.As(err, &told) && string(raw) != `{"found":{"udp_timeout":30}}` {
				t.Errorf("byte %d: %s, %v", i, raw, err)
			}
		}
	}
}
