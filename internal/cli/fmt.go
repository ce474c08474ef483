package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"
	"github.com/urfave/cli/v2"

	"sgc/internal/regular"
	"sgc/policies"
)

// fmtOptions are the flags of fmt.
type fmtOptions struct {
	Check bool
	Diff  bool
}

func (s *session) fmtCommand() *cli.Command {
	return &cli.Command{
		Name: "fmt", Usage: "lay policy files out in the canonical form", ArgsUsage: "[PATH…]",
		Description: `Rewrite policy files in the canonical layout and list those that changed. A
PATH is a file, a directory, or - for standard input, whose formatted text goes
to standard output. If one file cannot be read, none is written.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "check", Usage: "write nothing; exit with 2 if a file is not formatted"},
			&cli.BoolFlag{Name: "diff", Usage: "show what changes"},
		},
		Action: func(c *cli.Context) error {
			if s.JSON {
				return errors.New("fmt has no JSON form; leave --json out")
			}
			arguments := c.Args().Slice()
			if len(arguments) == 0 {
				path, err := policyPath("")
				if err != nil {
					return err
				}
				arguments = []string{path}
			}
			return s.fmt(arguments, fmtOptions{Check: c.Bool("check"), Diff: c.Bool("diff")})
		},
	}
}

// standardInput is the argument that stands for it.
const standardInput = "-"

// layout is a file and its canonical text.
type layout struct {
	name          string
	before, after []byte
}

func (s *session) fmt(arguments []string, o fmtOptions) error {
	var layouts []layout
	failed := false
	for _, name := range arguments {
		names := []string{name}
		if name != standardInput {
			var err error
			if names, err = formattable(name); err != nil {
				return fmt.Errorf("read %s: %w", name, cause(err))
			}
		}
		for _, name := range names {
			l, diagnostics, err := s.layOut(name)
			if err != nil {
				return err
			}
			loaded := &policies.Loaded{
				Diagnostics: diagnostics,
				Files:       map[string]*hcl.File{name: {Bytes: l.before}},
			}
			if err := s.report(loaded); errors.Is(err, errReported) {
				failed = true
			} else if err != nil {
				return err
			}
			layouts = append(layouts, l)
		}
	}
	if failed {
		return errReported
	}
	differ := false
	for _, l := range layouts {
		changed := string(l.before) != string(l.after)
		differ = differ || changed
		if err := s.emit(l, changed, o); err != nil {
			return err
		}
	}
	if o.Check && differ {
		return errDifferent
	}
	return nil
}

// emit writes one file, or what the options ask for instead.
func (s *session) emit(l layout, changed bool, o fmtOptions) error {
	show := func(text string) error {
		_, err := io.WriteString(s.Out, text)
		return err
	}
	if l.name == standardInput {
		switch {
		case o.Diff:
			return show(s.paintDiff(unified("<standard input>", "<standard input>", string(l.before), string(l.after))))
		case o.Check:
			return nil
		}
		return show(string(l.after))
	}
	if !changed {
		return nil
	}
	if !o.Check {
		if err := replaceFile(l.name, l.after); err != nil {
			return err
		}
	}
	if err := show(l.name + "\n"); err != nil || !o.Diff {
		return err
	}
	return show(s.paintDiff(unified("old/"+l.name, "new/"+l.name, string(l.before), string(l.after))))
}

// maxLaidOut is the size up to which a file is laid out: it is one of those
// that people write.
const maxLaidOut = 64 << 20

// layOut reads a file and formats it.
func (s *session) layOut(name string) (layout, hcl.Diagnostics, error) {
	var text []byte
	var err error
	shown := name
	if name == standardInput {
		shown = "<standard input>"
		text, err = io.ReadAll(s.In)
	} else {
		text, err = regular.ReadFile(name, maxLaidOut)
	}
	if err != nil {
		return layout{}, nil, fmt.Errorf("read %s: %w", shown, cause(err))
	}
	after, diagnostics := policies.Format(text, name)
	return layout{name, text, after}, diagnostics, nil
}

// formattable returns the files below path that fmt lays out: those in HCL's
// own syntax. JSON has layouts of its own.
func formattable(path string) ([]string, error) {
	// A file that is named is laid out whatever its name is: files of variables
	// have any.
	if info, err := os.Stat(path); err == nil && !info.IsDir() && !strings.HasSuffix(path, ".json") {
		return []string{path}, nil
	}
	files, err := policies.Files(path)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		if !strings.HasSuffix(f, ".json") {
			out = append(out, f)
		}
	}
	return out, nil
}

// replaceFile gives the file a new content in one step, so that a reader sees
// the old text or the new one, and a full disk loses nothing. Mode, owner and
// a symbolic link to the file stay.
func replaceFile(name string, content []byte) error {
	if err := replace(name, content); err != nil {
		return fmt.Errorf("write %s: %w", name, cause(err))
	}
	return nil
}

func replace(name string, content []byte) error {
	target, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(target)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(target), ".sgc-fmt-*")
	if err != nil {
		return err
	}
	err = errors.Join(fill(f, content, info), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), target)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// fill writes content to disk and gives the file another one's owner and mode.
func fill(f *os.File, content []byte, like os.FileInfo) error {
	if _, err := f.Write(content); err != nil {
		return err
	}
	if owner, ok := like.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	if err := f.Chmod(like.Mode().Perm()); err != nil {
		return err
	}
	return f.Sync()
}

// cause strips the path that an error of package os names, where the message
// around it names it already.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// paintDiff colours a unified diff.
func (s *session) paintDiff(diff string) string {
	p := s.outPaint()
	if !p.on {
		return diff
	}
	var b strings.Builder
	for i, line := range lines(diff) {
		text, newline := strings.CutSuffix(line, "\n")
		switch {
		case i < 2:
			text = p.bold(text)
		case strings.HasPrefix(text, "+"):
			text = p.green(text)
		case strings.HasPrefix(text, "-"):
			text = p.red(text)
		case strings.HasPrefix(text, "@"):
			text = p.dim(text)
		}
		b.WriteString(text)
		if newline {
			b.WriteByte('\n')
		}
	}
	return b.String()
}
