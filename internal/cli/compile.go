package cli

import (
	"bufio"
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"sgc/compile"
	"sgc/internal/ruleset"
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
			return s.compile(c.Context, path, c.Bool("verbose"))
		},
	}
}

func (s *session) compile(ctx context.Context, path string, verbose bool) error {
	loaded, err := s.load(ctx, path, s.inputs(), verbose)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(s.Out)
	table, err := compute(ctx, func() (*ruleset.Table, error) {
		return compile.Compile(loaded.Policy, compile.Environment{}), nil
	})
	if err != nil {
		return err
	}
	if err := table.WriteText(w); err != nil {
		return err
	}
	return w.Flush()
}
