package cli

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// What others can write is not believed, wherever on the way to the record.
func TestStateThatOthersCanWrite(t *testing.T) {
	s := newStage(t, true)
	s.write("web.hcl", webPolicy)
	s.mustRun("apply", "--auto-approve", s.dir)
	key, err := namespaceKey(s.ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	refused := func(says string) {
		t.Helper()
		for _, command := range [][]string{{"plan", s.dir}, {"apply", "--auto-approve", s.dir}, {"status"}, {"destroy", "--auto-approve"}} {
			s.mustFail(s.sgc(context.Background(), nil, command...), says)
		}
	}
	leaf := filepath.Join(s.state(), "netns", key)
	record := filepath.Join(leaf, "applied.json")
	for _, path := range []string{s.state(), filepath.Join(s.state(), "netns"), leaf, record} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, mode := range []os.FileMode{0o777, 0o777 | os.ModeSticky, 0o770} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			refused(path + " can be written by others")
		}
		if err := os.Chmod(path, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(record, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		refused("belongs to user 12345")
		if err := os.Chown(record, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(record, record+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("applied.json.away", record); err != nil {
		t.Fatal(err)
	}
	refused("no regular file")
	if err := os.Rename(record+".away", record); err != nil {
		t.Fatal(err)
	}
	// Above the state directory is what the administrator chose.
	if err := os.Chmod(s.dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	s.mustRun("plan", s.dir)
	s.mustRun("destroy", "--auto-approve")
}
