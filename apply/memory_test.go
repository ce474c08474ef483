package apply

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"sgc/internal/ruleset"
)

func TestMemoryIsWhatWasRememberedLast(t *testing.T) {
	t.Parallel()
	d := openState(t)
	recall := func(want Memory) {
		t.Helper()
		if m, err := d.Recall(); err != nil || m != want {
			t.Errorf("recalled %+v, %v, want %+v", m, err, want)
		}
	}
	recall(Memory{})
	if err := d.Remember("boot/1/2", webTable()); err != nil {
		t.Fatal(err)
	}
	recall(Memory{"boot/1/2", Fingerprint(webTable())})
	if err := d.Remember("boot/1/3", largeTable(10)); err != nil {
		t.Fatal(err)
	}
	recall(Memory{"boot/1/3", Fingerprint(largeTable(10))})
	if err := d.Remember("", webTable()); err != nil {
		t.Fatal(err)
	}
	recall(Memory{})
	if err := errors.Join(d.Remember("boot/1/4", webTable()), d.Remove()); err != nil {
		t.Fatal(err)
	}
	recall(Memory{})
	for _, damaged := range []string{"", "{", `{"identity":7}`, "\x00\x00\x00"} {
		if err := os.WriteFile(filepath.Join(d.Path(), memoryFile), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		recall(Memory{})
	}
}

func TestFingerprintsOfDifferentTablesDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	add := func(name string, change func(*ruleset.Table)) {
		t.Helper()
		table := webTable()
		change(table)
		f := Fingerprint(table)
		if other, ok := seen[f]; ok {
			t.Errorf("%s and %s have the same fingerprint", name, other)
		}
		seen[f] = name
		if again := webTable(); true {
			change(again)
			if Fingerprint(again) != f {
				t.Errorf("%s has two fingerprints", name)
			}
		}
	}
	add("the table", func(*ruleset.Table) {})
	add("another comment", func(w *ruleset.Table) { w.Comment = "x" })
	add("another hook", func(w *ruleset.Table) { w.Chains[0].Hook.Priority++ })
	add("a chain less", func(w *ruleset.Table) { w.Chains = w.Chains[1:] })
	add("another comment of a chain", func(w *ruleset.Table) { w.Chains[2].Comment = "x" })
	add("rules in another order", func(w *ruleset.Table) {
		r := w.Chains[4].Rules
		r[0], r[1] = r[1], r[0]
	})
	add("another comment of a rule", func(w *ruleset.Table) { w.Chains[4].Rules[0].Comment = "x" })
	add("another verdict of a rule", func(w *ruleset.Table) {
		w.Chains[4].Rules[0].Statements[1] = ruleset.Verdict{Kind: ruleset.Drop}
	})
	add("a set less", func(w *ruleset.Table) { w.Sets = w.Sets[1:] })
	add("an element less", func(w *ruleset.Table) { w.Sets[4].Elements = w.Sets[4].Elements[1:] })
	add("another end of a range", func(w *ruleset.Table) { w.Sets[4].Elements[1].Last = w.Sets[4].Elements[1].First })
	add("another verdict of an element", func(w *ruleset.Table) { w.Sets[6].Elements[1].Verdict = &ruleset.Verdict{Kind: ruleset.Drop} })
	add("another chain of an element", func(w *ruleset.Table) { w.Sets[6].Elements[0].Verdict.Chain = "web.ingress.tcp4" })
	add("another size", func(w *ruleset.Table) { w.Sets[2].Size++ })
	add("another timeout of a set", func(w *ruleset.Table) { w.Sets[2].Timeout++ })
	add("a timed set", func(w *ruleset.Table) { w.Sets[0].Timed = true })
	add("a timeout", func(w *ruleset.Table) { w.Timeouts = []*ruleset.Timeout{tcpTimeout("o", 60)} })
	add("another timeout", func(w *ruleset.Table) { w.Timeouts = []*ruleset.Timeout{tcpTimeout("o", 61)} })
	add("another name of a timeout", func(w *ruleset.Table) { w.Timeouts = []*ruleset.Timeout{tcpTimeout("p", 60)} })
	add("another comment of a set", func(w *ruleset.Table) { w.Sets[0].Comment = "x" })
}

func TestRecordsAreReadAgainWhenTheyChange(t *testing.T) {
	t.Parallel()
	d := openState(t)
	other, err := OpenDir(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, digest := range []string{"one", "two", "six"} {
		// Somebody else writes it.
		if err := errors.Join(other.WriteAhead(record(digest)), other.Promote()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			r, err := d.Applied()
			if err != nil || r == nil || r.Digest != digest {
				t.Fatalf("read %v, %v, want %s", r, err, digest)
			}
			r.Digest = "changed by the caller"
		}
	}
	if err := other.Remove(); err != nil {
		t.Fatal(err)
	}
	if r, err := d.Applied(); err != nil || r != nil {
		t.Errorf("after the end: %v, %v", r, err)
	}
	if _, err := os.Stat(filepath.Join(d.Path(), memoryFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a memory of nothing: %v", err)
	}
}
