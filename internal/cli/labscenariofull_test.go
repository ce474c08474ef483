package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// On a full disk a report is what it was before, or is not there, and all else
// that a run says is said.
func TestReportsOnAFullDisk(t *testing.T) {
	s := newStage(t, true)
	s.write("ping.lab.hcl", strings.Replace(pingScenario, "EXPECTED", "refused", 1))
	r := s.privately(`
mkdir disk
mount -t tmpfs -o size=16k none disk
echo before > disk/old.html
dd if=/dev/zero of=disk/fill bs=1k 2>/dev/null || true
code=0
$SGC lab run --junit=disk/new.xml --report=disk/old.html ping.lab.hcl || code=$?
cat disk/old.html
test ! -e disk/new.xml || echo "a report of half a run"
$SGC lab run --report=disk/new.html --junit=good.xml ping.lab.hcl || code=$code$?
test ! -e disk/new.html || echo "half a picture"
grep -c '<testsuite name="ping"' good.xml
exit $code
`)
	if r.code != 11 || strings.Count(r.out, "1 scenario: 1 as expected.\n") != 2 || !strings.HasSuffix(r.out, "1 as expected.\n1\n") || !strings.Contains(r.out, "as expected.\nbefore\nping: ") {
		t.Errorf("exit %d\n%s", r.code, r.out)
	}
	for _, want := range []string{
		"write the JUnit report: write disk/new.xml: no space left on device",
		"write the picture: write disk/old.html: no space left on device (it is as it was before)",
		"write the picture: write disk/new.html: no space left on device",
	} {
		if !strings.Contains(r.err, want) {
			t.Errorf("%q is not in\n%s", want, r.err)
		}
	}
}

// Who plays scenarios has no state directory to choose.
func TestFullTemporaryFilesOfTheLab(t *testing.T) {
	s := newStage(t, true)
	s.write("ping.lab.hcl", strings.Replace(pingScenario, "EXPECTED", "refused", 1))
	r := s.privately(`
mkdir disk
mount -t tmpfs -o size=16k none disk
dd if=/dev/zero of=disk/fill bs=1k 2>/dev/null || true
TMPDIR=$PWD/disk $SGC lab run ping.lab.hcl
`)
	if r.code != exitError || !strings.Contains(r.err, "set the environment variable TMPDIR to a directory with room") || strings.Contains(r.err, "--state-dir") {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
}

func TestNoDirectoryForTheLab(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	t.Setenv("TMPDIR", missing)
	if _, err := newLabDir(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing+" (the environment variable TMPDIR ") {
		t.Errorf("got %v", err)
	}
}
