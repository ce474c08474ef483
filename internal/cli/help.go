package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

const (
	summary = "sgc gives a Linux host the semantics of cloud security groups."
	paths   = `PATH is a directory of *.hcl files or one file: by default the current directory
if it holds policy files, else ` + defaultPolicyDir + `. Flags take one or two dashes and may
stand before or after the arguments.`
	exits = `Exit status: 0 success; 1 error, nothing was changed; 2 where a flag asked for
an answer (plan --detailed-exitcode, fmt --check) and the answer is "differs".`
)

func (s *session) helpCommand() *cli.Command {
	return &cli.Command{
		Name: "help", Usage: "show help for sgc or for one command", ArgsUsage: "[COMMAND]",
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return s.help(nil, s.commands())
			}
			command, err := commandNamed(c.Args().First(), s.commands())
			if err != nil {
				return err
			}
			return s.help(command, s.commands())
		},
	}
}

// help prints the help of one command, or of sgc if command is nil.
func (s *session) help(command *cli.Command, commands []*cli.Command) error {
	p := s.outPaint()
	var b strings.Builder
	if command == nil {
		fmt.Fprintf(&b, "%s\n\n%s sgc COMMAND [flags] [arguments]\n\n", summary, p.bold("Usage:"))
		fmt.Fprintln(&b, p.bold("Commands:"))
		var rows [][2]string
		for _, c := range commands {
			rows = append(rows, [2]string{c.Name + " " + c.ArgsUsage, c.Usage})
		}
		writeRows(&b, rows)
		fmt.Fprintf(&b, "\n%s\n", p.bold("Global flags:"))
		writeRows(&b, flagRows(globalFlags()))
		fmt.Fprintf(&b, "\n%s\n\n%s\n\nsgc help COMMAND shows the flags of one command.\n", paths, exits)
	} else {
		usage := "sgc " + command.Name + " [flags]"
		if command.ArgsUsage != "" {
			usage += " " + command.ArgsUsage
		}
		fmt.Fprintf(&b, "%s %s\n\n", p.bold("Usage:"), usage)
		if command.Description != "" {
			fmt.Fprintf(&b, "%s\n", strings.TrimSpace(command.Description))
		} else {
			fmt.Fprintf(&b, "%s.\n", capitalised(command.Usage))
		}
		globals := flagTable(globalFlags())
		var own []cli.Flag
		for _, f := range command.Flags {
			if globals[f.Names()[0]] == nil {
				own = append(own, f)
			}
		}
		if len(own) > 0 {
			fmt.Fprintf(&b, "\n%s\n", p.bold("Flags:"))
			writeRows(&b, flagRows(own))
		}
		fmt.Fprintf(&b, "\n%s\n", p.bold("Global flags:"))
		writeRows(&b, flagRows(globalFlags()))
	}
	_, err := io.WriteString(s.Out, b.String())
	return err
}

// flagRows returns a flag and its description per row; the word in backquotes
// in a flag's usage names its value.
func flagRows(flags []cli.Flag) [][2]string {
	var rows [][2]string
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		usage, name := d.GetUsage(), "--"+f.Names()[0]
		if before, rest, ok := strings.Cut(usage, "`"); ok {
			value, after, _ := strings.Cut(rest, "`")
			name += " " + value
			usage = before + value + after
		}
		rows = append(rows, [2]string{name, usage})
	}
	return rows
}

// writeRows writes two columns, indented.
func writeRows(b *strings.Builder, rows [][2]string) {
	width := 0
	for _, r := range rows {
		width = max(width, utf8.RuneCountInString(r[0]))
	}
	for _, r := range rows {
		fmt.Fprintf(b, "  %-*s  %s\n", width, r[0], r[1])
	}
}

func capitalised(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
