package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/urfave/cli/v2"
)

// line is a command line in the one order that the flag parser understands.
type line struct {
	// command is nil where the line names none.
	command *cli.Command
	// help is set when a help flag stood anywhere.
	help bool
	// words are the command's name, its flags as "--name=value", "--", and its
	// arguments.
	words []string
}

// arrange sorts a command line: flags take one or two dashes and may stand
// before or after the arguments, global flags also before the command. "--"
// ends the flags, "-" is an argument. What a word means is decided by the
// flags of the command that the line names, so that the value of a flag is
// never taken for an argument.
func arrange(args []string, commands []*cli.Command) (line, error) {
	var l line
	var flags, arguments []string
	known := flagTable(globalFlags())
	for i := 0; i < len(args); i++ {
		word := args[i]
		if word == "--" {
			rest := args[i+1:]
			if l.command == nil && len(rest) > 0 {
				return l, fmt.Errorf("a command is expected before --, such as sgc plan -- %s", rest[0])
			}
			arguments = append(arguments, rest...)
			break
		}
		if len(word) < 2 || word[0] != '-' {
			if l.command != nil {
				arguments = append(arguments, word)
				continue
			}
			command, err := commandNamed(word, commands)
			if err != nil {
				return l, err
			}
			l.command = command
			known = flagTable(command.Flags)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(word[1:], "-"), "=")
		if isHelp(name) && !hasValue {
			l.help = true
			continue
		}
		if name == "version" && !hasValue && l.command == nil {
			var err error
			if l.command, err = commandNamed("version", commands); err != nil {
				return l, err
			}
			known = flagTable(l.command.Flags)
			continue
		}
		flag, ok := known[name]
		if !ok {
			return l, unknownFlag(word, name, l.command, known, commands)
		}
		switch {
		case hasValue:
		case !takesValue(flag):
			value = "true"
		case i+1 == len(args):
			return l, fmt.Errorf("the flag --%s needs a value", name)
		case len(args[i+1]) > 1 && args[i+1][0] == '-':
			return l, fmt.Errorf("the flag --%s needs a value; if %q is the value, write --%s=%s", name, args[i+1], name, args[i+1])
		default:
			i++
			value = args[i]
		}
		if err := checkValue(flag, name, value); err != nil {
			return l, err
		}
		flags = append(flags, "--"+name+"="+value)
	}
	if l.command != nil {
		l.words = append([]string{l.command.Name}, flags...)
		l.words = append(append(l.words, "--"), arguments...)
	}
	return l, nil
}

func isHelp(name string) bool { return name == "help" || name == "h" }

// flagTable indexes flags by each of their names.
func flagTable(flags []cli.Flag) map[string]cli.Flag {
	table := make(map[string]cli.Flag)
	for _, f := range flags {
		for _, name := range f.Names() {
			table[name] = f
		}
	}
	return table
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return !ok || d.TakesValue()
}

// checkValue says what is wrong with a value, and what would be right. The flag
// parser's own words name neither.
func checkValue(f cli.Flag, name, value string) error {
	var err error
	var right string
	switch f.(type) {
	case *cli.BoolFlag:
		_, err = strconv.ParseBool(value)
		right = "is true or false"
	case *cli.IntFlag:
		_, err = strconv.ParseInt(value, 0, 0)
		right = "is a whole number"
	case *cli.DurationFlag:
		_, err = time.ParseDuration(value)
		right = "is a time with its unit, such as 90s or 5m"
	}
	if err != nil {
		return fmt.Errorf("the value of --%s %s, not %q", name, right, value)
	}
	return nil
}

func commandNamed(name string, commands []*cli.Command) (*cli.Command, error) {
	var names []string
	for _, c := range commands {
		if c.HasName(name) {
			return c, nil
		}
		names = append(names, c.Name)
	}
	if s := nearest(name, names); s != "" {
		return nil, fmt.Errorf("unknown command %q. Did you mean %q?", name, s)
	}
	return nil, fmt.Errorf("unknown command %q; sgc help lists the commands", name)
}

// unknownFlag says what is wrong with a flag that the command does not have:
// most often it is misspelt, or stands before the command that it belongs to.
func unknownFlag(word, name string, command *cli.Command, known map[string]cli.Flag, commands []*cli.Command) error {
	word, _, _ = strings.Cut(word, "=")
	if command == nil {
		for _, c := range commands {
			if _, ok := flagTable(c.Flags)[name]; ok {
				return fmt.Errorf("the flag %s belongs after its command, such as sgc %s --%s", word, c.Name, name)
			}
		}
	}
	var names []string
	for n := range known {
		names = append(names, n)
	}
	if s := nearest(name, names); s != "" {
		return fmt.Errorf("unknown flag %s. Did you mean --%s?", word, s)
	}
	if command == nil {
		return fmt.Errorf("unknown flag %s; sgc help lists the flags", word)
	}
	return fmt.Errorf("unknown flag %s; sgc help %s lists the command's flags", word, command.Name)
}

// nearest returns the name that word was probably meant to be, or "". Of
// several equally near it is the first in the alphabet.
func nearest(word string, names []string) string {
	best, distance := "", 1+max(1, len(word)/3)
	for _, n := range names {
		d := levenshtein.Distance(word, n, nil)
		if d < distance || d == distance && best != "" && n < best {
			best, distance = n, d
		}
	}
	return best
}

// atMostOne returns the only argument, or "" where there is none.
func atMostOne(c *cli.Context) (string, error) {
	switch c.NArg() {
	case 0:
		return "", nil
	case 1:
		if c.Args().First() == "" {
			return "", errors.New("the path is empty")
		}
		return c.Args().First(), nil
	}
	return "", fmt.Errorf("%s takes one path, not %d: %s", c.Command.Name, c.NArg(), strings.Join(c.Args().Slice(), " "))
}

// none refuses arguments.
func none(c *cli.Context) error {
	if c.NArg() > 0 {
		return fmt.Errorf("%s takes no arguments, only flags: %s", c.Command.Name, c.Args().First())
	}
	return nil
}
