package cli

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sgc/internal/lab/labtest"
	"sgc/internal/scenario"
	"sgc/internal/scenario/report"
)

// examplesDir holds the examples, each with a picture of what it plays.
const examplesDir = "../../examples/lab"

// pictureOf is the name of a scenario's picture: report.svg, or the file's own
// name where it has one.
func pictureOf(file string) string {
	if name := filepath.Base(file); name != "scenario"+scenario.Extension {
		return strings.TrimSuffix(file, scenario.Extension) + ".svg"
	}
	return filepath.Join(filepath.Dir(file), "report.svg")
}

// Every directory of examples has a picture, and those that it has are of the
// present scenarios and show that all was as expected.
func TestExamplesHavePictures(t *testing.T) {
	files, err := scenario.Find(examplesDir)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	pictures, without := map[string]bool{}, map[string]bool{}
	for _, file := range files {
		without[filepath.Dir(file)] = true
	}
	for _, file := range files {
		picture := pictureOf(file)
		text, err := os.ReadFile(picture)
		again := "make it again with: go run . lab run --report " + strings.TrimPrefix(picture, "../../") + " " + strings.TrimPrefix(file, "../../")
		if errors.Is(err, os.ErrNotExist) && filepath.Base(picture) != "report.svg" {
			// Not all of a directory's need one.
			continue
		}
		if err != nil {
			t.Errorf("%v; %s", err, again)
			continue
		}
		pictures[picture] = true
		delete(without, filepath.Dir(file))
		l := scenario.Load(file)
		if l.Scenario == nil {
			t.Errorf("%s: %v", file, l.Report.Diagnostics)
			continue
		}
		switch digest, err := report.DigestIn(bytes.NewReader(text)); {
		case err != nil:
			t.Errorf("%s: %v; %s", picture, err, again)
		case digest != report.Digest(l.Scenario):
			t.Errorf("%s is not of the present scenario; %s", picture, again)
		case !bytes.Contains(text, []byte("everything as expected")) && !bytes.Contains(text, []byte("could not play all of it")):
			t.Errorf("%s shows that something was not as expected; %s", picture, again)
		}
	}
	for dir := range without {
		t.Errorf("%s has no picture", strings.TrimPrefix(dir, "../../"))
	}
	shown := regexp.MustCompile(`!\[[^\]]+\]\(([^)]+\.svg)\)`)
	for picture := range pictures {
		readme, err := os.ReadFile(filepath.Join(filepath.Dir(picture), "README.md"))
		if err != nil {
			t.Errorf("%s: %v", picture, err)
			continue
		}
		found := false
		for _, m := range shown.FindAllSubmatch(readme, -1) {
			found = found || string(m[1]) == filepath.Base(picture)
		}
		if !found {
			t.Errorf("%s does not show %s", filepath.Join(filepath.Dir(picture), "README.md"), filepath.Base(picture))
		}
	}
}

// What --report asks for is checked before anything is played.
func TestReportOptions(t *testing.T) {
	path := writeScenario(t, "a.lab.hcl", strings.Replace(pingScenario, "EXPECTED", "refused", 1))
	other := writeScenario(t, "b.lab.hcl", strings.Replace(pingScenario, "EXPECTED", "refused", 1))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--report", "x.png", path}, "--report makes a page if its file ends in .html, and a picture if it ends in .svg; x.png ends in neither"},
		{[]string{"--report", "x.svg", path, other}, "an SVG picture is of one scenario, and 2 were named, the second being " + other + ". Name one, or write a page: --report x.html"},
		{[]string{"--report", "", path}, "the value of --report is empty; leave the flag out, or name a file"},
		{[]string{"--report", "x.svg", "../../examples/web"}, "--report is for scenarios (files whose names end in .lab.hcl), and none was named"},
	} {
		code, out, errout := runScenarios(t, context.Background(), append([]string{"lab", "run"}, c.args...)...)
		if want := "Error: " + c.want + "\n"; code != exitError || out != "" || errout != want {
			t.Errorf("%v: exit %d\n%s%s\nwant %s", c.args, code, out, errout, want)
		}
	}
	labtest.Require(t)
	missing := filepath.Join(t.TempDir(), "none", "x.svg")
	code, out, errout := runScenarios(t, context.Background(), "lab", "run", "--report", missing, path)
	if code != exitError || out != "" || !strings.HasPrefix(errout, "Error: write the picture: open "+missing) {
		t.Errorf("exit %d\n%s%s", code, out, errout)
	}
}

// A run that fails has a picture, too; it replaces a longer one.
func TestReportOfAFailedScenario(t *testing.T) {
	t.Parallel()
	labtest.Require(t)
	path := writeScenario(t, "ping.lab.hcl", strings.Replace(pingScenario, "EXPECTED", "allowed", 1))
	page := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(page, bytes.Repeat([]byte("<"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errout := runScenarios(t, context.Background(), "lab", "run", "--report", page, path); code != exitDifferent {
		t.Errorf("exit %d\n%s%s", code, out, errout)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"a ping that is refused", "1 of 2 expectations not met", "<svg ", "ping client → server, id 7", "apply closed", "ping.lab.hcl:42",
		"no ingress rule of the groups of interface.eth0 allows it", "Conntrack: no entry of it",
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("%q is not in the page", want)
		}
	}
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A run that is interrupted leaves no picture, and leaves one alone that was
// there.
func TestReportOfAnInterruptedRun(t *testing.T) {
	t.Parallel()
	labtest.Require(t)
	path := writeScenario(t, "long.lab.hcl", strings.Replace(strings.Replace(pingScenario, "EXPECTED", "refused", 1), `wait "200ms"`, `wait "1h"`, 1))
	dir := t.TempDir()
	made, kept := filepath.Join(dir, "made.svg"), filepath.Join(dir, "kept.svg")
	if err := os.WriteFile(kept, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{made, kept} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		code, out, errout := runScenarios(t, ctx, "lab", "run", "--report", name, path)
		cancel()
		if code != exitError {
			t.Errorf("exit %d\n%s%s", code, out, errout)
		}
	}
	if _, err := os.Lstat(made); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the picture is there: %v", err)
	}
	if text, err := os.ReadFile(kept); err != nil || string(text) != "before" {
		t.Errorf("the old picture is %q, %v", text, err)
	}
}
