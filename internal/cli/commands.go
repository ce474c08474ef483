package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// globals are the flags that every command takes.
type globals struct {
	StateDir string
	Netns    string
	NoColor  bool
	JSON     bool
	Vars     []string
	VarFiles []string
}

// The default places. Both are the system's, not the user's.
const (
	defaultStateDir  = "/var/lib/sgc"
	defaultPolicyDir = "/etc/sgc"
)

// globalFlags are new at every call: a flag keeps what it was set to.
func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "state-dir", Usage: "keep the record of what is enforced in `DIR` (default " + defaultStateDir + ", also SGC_STATE_DIR)"},
		&cli.StringFlag{Name: "netns", Usage: "act on the network namespace `NAME|PATH` instead of the own one"},
		&cli.StringSliceFlag{Name: "var", Usage: "set a variable of the policy, `NAME=VALUE`; may be repeated"},
		&cli.StringSliceFlag{Name: "var-file", Usage: "set variables from `FILE`; may be repeated"},
		&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		&cli.BoolFlag{Name: "no-color", Usage: "print without colour (also NO_COLOR)"},
	}
}

// readGlobals takes the values of the global flags. One that is set to nothing,
// most often by a variable of a shell that has no value, is an error: it would
// silently mean the own namespace, or the record of another host.
func (s *session) readGlobals(c *cli.Context) error {
	for _, name := range []string{"netns", "state-dir"} {
		if c.IsSet(name) && c.String(name) == "" {
			return fmt.Errorf("the value of --%s is empty; leave the flag out, or give it a value", name)
		}
	}
	s.globals = globals{
		StateDir: c.String("state-dir"),
		Netns:    c.String("netns"),
		NoColor:  c.Bool("no-color"),
		JSON:     c.Bool("json"),
		Vars:     c.StringSlice("var"),
		VarFiles: c.StringSlice("var-file"),
	}
	if s.StateDir == "" {
		s.StateDir = s.lookup("SGC_STATE_DIR")
	}
	if s.StateDir == "" {
		s.StateDir = defaultStateDir
	}
	return nil
}

// commands lists the commands in the order in which help shows them: as a
// user meets them.
func (s *session) commands() []*cli.Command {
	list := []*cli.Command{
		s.validateCommand(),
		s.fmtCommand(),
		s.compileCommand(),
		s.planCommand(),
		s.applyCommand(),
		s.statusCommand(),
		s.logCommand(),
		s.conntrackCommand(),
		s.destroyCommand(),
		s.labCommand(),
		s.versionCommand(),
		s.helpCommand(),
	}
	for _, c := range list {
		c.HideHelp = true
		c.Flags = append(c.Flags, globalFlags()...)
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return err }
		action := c.Action
		c.Action = func(c *cli.Context) error {
			if err := s.readGlobals(c); err != nil {
				return err
			}
			return action(c)
		}
	}
	return list
}
