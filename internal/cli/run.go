package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// The exit codes of every command.
const (
	exitOK = 0
	// exitError is any failure; the kernel is as it was then.
	exitError = 1
	// exitDifferent answers "no" to a question that the caller asked by a
	// flag: plan --detailed-exitcode with changes, fmt --check with files that
	// are not formatted.
	exitDifferent = 2
)

// Streams are what a command sees of the process around it.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// Environ holds "NAME=value" strings, as os.Environ gives them.
	Environ []string
	// InTerminal, OutTerminal and ErrTerminal say which of the three are
	// terminals: a person can be asked, colour can be seen, progress makes
	// sense.
	InTerminal, OutTerminal, ErrTerminal bool
	// Width is the terminal's width in columns, 0 where there is none.
	Width int
}

// Standard returns the streams of the process.
func Standard() Streams {
	s := Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Environ:     os.Environ(),
		InTerminal:  term.IsTerminal(int(os.Stdin.Fd())),
		OutTerminal: term.IsTerminal(int(os.Stdout.Fd())),
		ErrTerminal: term.IsTerminal(int(os.Stderr.Fd())),
	}
	for _, f := range []*os.File{os.Stderr, os.Stdout} {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			s.Width = width
			break
		}
	}
	return s
}

// lookup returns the value of an environment variable; an empty value counts
// as none.
func (s Streams) lookup(name string) string {
	value := ""
	for _, v := range s.Environ {
		if rest, ok := strings.CutPrefix(v, name+"="); ok {
			value = rest
		}
	}
	return value
}

// errReported fails a command that has already told the user why.
var errReported = errors.New("failed")

// errDifferent ends a command with exitDifferent and no message.
var errDifferent = errors.New("different")

// session is one run of one command.
type session struct {
	Streams
	globals
	// out is Out, which remembers whether a write failed, such as into a full
	// disk.
	out *checkedWriter
	// changed says what was committed, "" as long as nothing was.
	changed string
}

// Run executes the command that args name (args[0] is the program) and returns
// the exit code. A cancelled context ends the command in order: nothing is
// half done.
//
// A panic in a command is reported like any other failure.
func Run(ctx context.Context, args []string, streams Streams) (code int) {
	s := &session{Streams: streams}
	s.out = &checkedWriter{w: streams.Out}
	s.Out = s.out
	defer func() {
		if r := recover(); r != nil {
			s.complain(newFault(r).Error())
			code = exitError
		}
	}()
	err := s.run(ctx, args)
	// Output that never arrived is a failure, whatever the command found.
	if lost := s.out.err; lost != nil && (err == nil || errors.Is(err, errDifferent) || errors.Is(err, lost)) {
		err = fmt.Errorf("write the output: %w", cause(lost))
		if s.changed != "" {
			// The exit code says what became of the kernel.
			s.inform("%s: %s, but the output could not be written: %s", s.errPaint().yellow("Warning"), s.changed, cause(lost))
			return exitOK
		}
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errDifferent):
		return exitDifferent
	case errors.Is(err, errReported):
		return exitError
	case ctx.Err() != nil && errors.Is(err, context.Canceled) && s.changed == "":
		s.complain("interrupted; nothing was changed")
		return exitError
	}
	s.complain(err.Error())
	return exitError
}

// complain writes an error message for a person.
func (s *session) complain(message string) {
	fmt.Fprintf(s.Err, "%s %s\n", s.errPaint().error("Error:"), message)
}

// inform writes a line about what is going on to standard error.
func (s *session) inform(format string, args ...any) {
	fmt.Fprintf(s.Err, format+"\n", args...)
}

func (s *session) run(ctx context.Context, args []string) error {
	commands := s.commands()
	line, err := arrange(args[1:], commands)
	if err != nil {
		return err
	}
	if line.help {
		return s.help(line.command, commands)
	}
	if line.command == nil {
		s.Out, s.OutTerminal = s.Err, s.ErrTerminal
		if err := s.help(nil, commands); err != nil {
			return err
		}
		return errReported
	}
	app := &cli.App{
		Name: "sgc", Writer: s.Out, ErrWriter: s.Err, Reader: s.In,
		Commands: commands,
		HideHelp: true, HideVersion: true,
		// A value may hold commas: --var 'ports=[80, 443]'.
		DisableSliceFlagSeparator: true,
		// The exit code is this package's business alone.
		ExitErrHandler: func(*cli.Context, error) {},
	}
	return app.RunContext(ctx, append([]string{"sgc"}, line.words...))
}

// checkedWriter remembers the first error of its writer.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (c *checkedWriter) Write(b []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.w.Write(b)
	if err != nil {
		c.err = err
	}
	return n, err
}
