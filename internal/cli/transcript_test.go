package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/tools/txtar"

	"sgc/internal/lab"
	"sgc/internal/lab/labtest"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// asSGC makes the test binary behave as sgc. With the value announced, it closes
// file 3 as soon as an interrupt does not end it where it stands.
const asSGC, announced = "SGC_TEST_RUN_AS_SGC", "announced"

func runAsSGC() int {
	// As main does it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if os.Getenv(asSGC) == announced {
		if err := os.NewFile(3, "announcement").Close(); err != nil {
			panic(err)
		}
	}
	return Run(ctx, os.Args, Standard())
}

// TestTranscripts plays the archives in testdata. The comment of an archive is
// a session of a terminal: lines that begin with "$ " are commands, the lines
// below each are what it prints. Standard error is marked "! ", an exit code
// other than 0 stands at the end in brackets. The files of the archive are the
// working directory.
//
// sgc runs in the test's process, with --netns if the archive's name begins
// with "kernel-", in a namespace of its own; where the name begins with "lab",
// the examples of the repository are there, too. Everything else is run by sh, in
// the same namespace. "NAME=value" before sgc sets a variable, "< FILE" gives
// it standard input, "<<< TEXT" a terminal on which somebody types TEXT, and
// "| COMMAND" sends standard output through sh.
func TestTranscripts(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, name := range names {
		name, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) { playTranscript(t, name) })
	}
}

func playTranscript(t *testing.T, name string) {
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	kernel := strings.HasPrefix(filepath.Base(name), "kernel-")
	if kernel {
		requireNft(t)
	}
	stage := newStage(t, kernel)
	if strings.HasPrefix(filepath.Base(name), "lab") {
		labtest.Require(t)
		if err := os.CopyFS(filepath.Join(stage.dir, "examples"), os.DirFS("../../examples")); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range archive.Files {
		stage.write(f.Name, string(f.Data))
	}
	t.Chdir(stage.dir)
	var got strings.Builder
	for _, line := range strings.SplitAfter(string(archive.Comment), "\n") {
		command, isCommand := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "$ ")
		switch {
		case isCommand:
			got.WriteString("$ " + command + "\n" + stage.run(command))
		case strings.HasPrefix(line, "#"):
			got.WriteString("\n" + line)
		}
	}
	text := strings.TrimPrefix(got.String(), "\n") + "\n"
	if text == string(archive.Comment) {
		return
	}
	if *update {
		archive.Comment = []byte(text)
		if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("the transcript differs (-update rewrites it):\n%s", unified("want", "got", string(archive.Comment), text))
}

// stage is where commands are run: a directory and perhaps a namespace.
type stage struct {
	t   *testing.T
	dir string
	ns  *lab.Namespace
}

func newStage(t *testing.T, kernel bool) *stage {
	// The directory's path is in messages; symbolic links on the way would
	// show.
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, dir: dir}
	if kernel {
		s.ns = labtest.Namespace(t, "host")
	}
	return s
}

func (s *stage) write(name, content string) {
	s.t.Helper()
	name = filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// run runs one command and returns what it printed in the transcript's form.
func (s *stage) run(command string) string {
	var out, err bytes.Buffer
	code := 0
	words := strings.Fields(command)
	environ := []string{"HOME=/root", "PATH=" + os.Getenv("PATH"), "SGC_STATE_DIR=" + filepath.Join(s.dir, ".state")}
	for len(words) > 0 && strings.Contains(words[0], "=") {
		environ = append(environ, words[0])
		words = words[1:]
	}
	if words[0] == "sgc" {
		streams := Streams{In: strings.NewReader(""), Out: &out, Err: &err, Environ: environ}
		words, filter := cutPipe(words)
		words = s.redirect(words, &streams)
		if s.ns != nil {
			words = append([]string{"sgc", "--netns=" + s.ns.Path()}, words[1:]...)
		}
		code = Run(context.Background(), words, streams)
		if filter != "" {
			text := out.String()
			out.Reset()
			code = s.shell(filter, environ, strings.NewReader(text), &out, &err)
		}
	} else {
		code = s.shell(command, environ, nil, &out, &err)
	}
	text := s.stable(out.String())
	if e := s.stable(err.String()); e != "" {
		for _, line := range strings.SplitAfter(strings.TrimSuffix(e, "\n"), "\n") {
			text += "! " + line
		}
		text += "\n"
	}
	if code != 0 {
		text += fmt.Sprintf("[exit %d]\n", code)
	}
	return text
}

// cutPipe splits a command at its first "|".
func cutPipe(words []string) ([]string, string) {
	if i := slices.Index(words, "|"); i >= 0 {
		return words[:i], strings.Join(words[i+1:], " ")
	}
	return words, ""
}

// redirect takes "< FILE" and "<<< TEXT" from the end of a command.
func (s *stage) redirect(words []string, streams *Streams) []string {
	for i, w := range words {
		switch w {
		case "<":
			content, err := os.ReadFile(words[i+1])
			if err != nil {
				s.t.Fatal(err)
			}
			streams.In = bytes.NewReader(content)
			return words[:i]
		case "<<<":
			streams.In = strings.NewReader(strings.Join(words[i+1:], " ") + "\n")
			streams.InTerminal = true
			return words[:i]
		}
	}
	return words
}

// shell runs a command that is not sgc.
func (s *stage) shell(command string, environ []string, in io.Reader, out, errout *bytes.Buffer) int {
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = s.dir, environ, in, out, errout
	run := cmd.Run
	var err error
	if s.ns != nil {
		err = s.ns.Do(run)
	} else {
		err = run()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		s.t.Fatalf("run %s: %v", command, err)
	}
	return 0
}

// unstable is what differs from run to run, or with every change of another
// package.
var unstable = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+`), "DATE"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "DATE"},
	{regexp.MustCompile(`sha256:[0-9a-f]{64}`), "sha256:DIGEST"},
	{regexp.MustCompile(`[0-9,]+ messages?, [0-9.]+ k?B\b`), "N messages, N kB"},
	{regexp.MustCompile(`[0-9,]+ chains, [0-9,]+ rules, [0-9,]+ sets, [0-9,]+ elements`), "N chains, N rules, N sets, N elements"},
	{regexp.MustCompile(`"(messages|bytes|generation|chains|sets|elements)": [1-9][0-9]*`), `"$1": N`},
	{regexp.MustCompile(`"rules": [1-9][0-9]*,\n    "sets"`), "\"rules\": N,\n    \"sets\""},
	{regexp.MustCompile(`(\n  entries +)[0-9,]+ of [0-9,]+\n`), "${1}N of N\n"},
	{regexp.MustCompile(`"max": [1-9][0-9]*`), `"max": N`},
	{regexp.MustCompile(`\(\d+ operations?\)`), "(N operations)"},
	{regexp.MustCompile(`/proc/\d+/fd/\d+`), "NETNS"},
	{regexp.MustCompile(`inode-\d+-\d+`), "NETNS"},
}

func (s *stage) stable(text string) string {
	text = strings.ReplaceAll(text, s.dir, "$DIR")
	for _, u := range unstable {
		text = u.pattern.ReplaceAllString(text, u.with)
	}
	return text
}
