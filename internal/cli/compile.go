package cli

import (
	"bufio"
	"errors"

	"github.com/urfave/cli/v2"

	"sgc/compile"
)

func (s *session) compileCommand() *cli.Command {
	return &cli.Command{
		Name: "compile", Usage: "print the nft script for a policy", ArgsUsage: "[PATH]",
		Description: `Print the nft script of the table that enforces the policy, the same bytes at
every run. Needs neither root nor a kernel; nft -c -f reads it. The script
assumes that no other table needs conntrack; plan and apply look.

` + paths,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "verbose", Usage: "also say which network ACLs cost more than a few look-ups a packet"},
		},
		Action: func(c *cli.Context) error {
			argument, err := atMostOne(c)
			if err != nil {
				return err
			}
			if s.JSON {
				return errors.New("compile prints an nft script and has no JSON form; leave --json out")
			}
			path, err := policyPath(argument)
			if err != nil {
				return err
			}
			return s.compile(path, c.Bool("verbose"))
		},
	}
}

func (s *session) compile(path string, verbose bool) error {
	loaded, err := s.load(path, s.inputs(), verbose)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(s.Out)
	if err := compile.Compile(loaded.Policy, compile.Environment{}).WriteText(w); err != nil {
		return err
	}
	return w.Flush()
}
